"""Functions and modules that run on a server inside an ordinary PyTorch program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gradwire._sync.client import Client
from gradwire._sync.function import Function
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.torch.calls import Program
from gradwire.frontends.torch.capture import TensorSpec
from gradwire.frontends.torch.programs import client_or_default, exported, program_of, spec_of
from gradwire.graphs.signature import Value


@overload
def remote(fn: torch.nn.Module, *, client: Client | None = None) -> RemoteModule: ...
@overload
def remote(fn: Callable[..., Any], *, client: Client | None = None) -> Callable[..., Any]: ...
def remote(fn: Callable[..., Any] | Function, *, client: Client | None = None) -> Callable[..., Any]:
    """`fn`, computed by a server, and differentiable like any other operation.

    A function takes and returns tensors, or tuples, lists and dicts of them; other arguments are fixed in the
    graph. It is recorded once for each combination of shapes and dtypes, and again when something else that
    it reads has changed. Gradients reach its arguments and the tensors it closes over.

    A module becomes a module with the same parameters, so that an optimizer step changes what the next call
    computes; buffers that it updates (running statistics) are updated here.

        f = gradwire.torch.remote(lambda w, x: torch.tanh(w @ x))
        f(w, x).sum().backward()  # accumulates into w.grad and x.grad

    A function that is on a server already, made by `client.function` from an ONNX model or from code, takes a
    tensor for each of its inputs, in order.

    Args:
        fn: the function or module.
        client: where to compute; the one given to `use` by default.
    """
    if isinstance(fn, Function):
        return _of_function(fn)
    return RemoteModule(fn, client) if isinstance(fn, torch.nn.Module) else _remote_function(fn, client)


def _of_function(function: Function) -> Callable[..., Any]:
    inputs, outputs = function.signature.inputs, function.signature.outputs
    every = frozenset(place for place, value in enumerate(inputs) if value.floating)
    program = Program(function, tuple(every if value.floating else frozenset() for value in outputs))

    def call(*tensors: torch.Tensor) -> Any:
        if len(tensors) != len(inputs):
            wanted = ", ".join(map(str, inputs))
            raise InvalidArgumentError(
                f"the function takes {len(inputs)} tensors ({wanted}), not {len(tensors)}"
            )
        results = program([_fitting(value, one) for value, one in zip(inputs, tensors, strict=True)])
        return results if len(results) != 1 else results[0]

    return call


def _fitting(value: Value, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the input's dtype, converted by PyTorch so that gradients go through."""
    if value.dtype is None:
        return tensor
    dtype = torch.from_numpy(np.empty(0, value.dtype)).dtype
    if not torch.can_cast(tensor.dtype, dtype):
        raise InvalidArgumentError(f"input {value} cannot be given as {tensor.dtype}: convert it with .to()")
    return tensor.to(dtype)


def _remote_function(fn: Callable[..., Any], client: Client | None) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _evaluate(fn, fn, (), (), args, kwargs, client)

    return functools.update_wrapper(call, fn) if hasattr(fn, "__name__") else call


class RemoteModule(torch.nn.Module):
    """A module whose forward and backward passes run on a server; made by `remote`.

    Attributes:
        module: the module itself, which holds the parameters and buffers.
    """

    def __init__(self, module: torch.nn.Module, client: Client | None = None) -> None:
        super().__init__()
        self.module = module
        self._client = client

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result."""
        module = self.module
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}

        def run(*all_tensors: Any, **options: Any) -> Any:
            *held, positional = all_tensors
            return functional_call(module, dict(zip(state, held, strict=True)), positional, options)

        return _evaluate(module, run, tuple(state), tuple(state.values()), args, kwargs, self._client)


def _evaluate(
    source: Any,
    fn: Callable[..., Any],
    names: Sequence[str],
    held: Sequence[torch.Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    client: Client | None,
) -> Any:
    """Call `fn(*args, **kwargs)`, or `fn(*held, args, **kwargs)` where a module holds tensors."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    tensors = [*held, *(leaves[place] for place in places)]
    count = len(held)

    def flat(*given: torch.Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, given[count:], strict=True):
            filled[place] = tensor
        positional, named = pytree.tree_unflatten(filled, structure)
        return (
            fn(*given[:count], positional, **named) if held or fn is not source else fn(*positional, **named)
        )

    flat.__name__ = getattr(source, "__name__", type(source).__name__)
    fixed = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    one = exported(
        flat,
        [_held_spec(tensor) for tensor in held] + [spec_of(tensor) for tensor in tensors[count:]],
        names,
        state=(source, repr(structure), places, fixed),
        slots={id(tensor): place for place, tensor in enumerate(held)},
    )
    everything = [*tensors, *one.closed_over]
    # What is overwritten below must not be what the backward pass reads.
    inputs = [t.detach().clone() if i in one.changed else t for i, t in enumerate(everything)]
    results = program_of(client_or_default(client), one)(inputs)
    returned = one.outputs.num_leaves
    with torch.no_grad():
        for position, value in zip(one.changed, results[returned:], strict=True):
            everything[position].copy_(value)
    return pytree.tree_unflatten(list(results[:returned]), one.outputs)


def _held_spec(tensor: torch.Tensor) -> TensorSpec:
    return spec_of(tensor, isinstance(tensor, torch.nn.Parameter) or tensor.requires_grad)
