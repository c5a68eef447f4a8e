"""Functions and modules that are evaluated on a server inside a local PyTorch program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire._sync.function import Function
from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.frontends.torch.autograd import RemoteFunction
from gradwire.frontends.torch.cache import cached_export, remote_function
from gradwire.frontends.torch.capture import as_written, is_plain, recording, tensor_spec
from gradwire.frontends.torch.default import client_or_default
from gradwire.graphs.signature import Value


@overload
def remote(
    fn: torch.nn.Module, *, client: Client | None = None, verify: Verify | None = None
) -> RemoteModule: ...
@overload
def remote(
    fn: Callable[..., Any], *, client: Client | None = None, verify: Verify | None = None
) -> Callable[..., Any]: ...
def remote(
    fn: Callable[..., Any] | Function, *, client: Client | None = None, verify: Verify | None = None
) -> Callable[..., Any]:
    """Return `fn` evaluated on a server, differentiable like any other operation.

    A function takes and returns tensors, or tuples, lists and dicts of them; other arguments are constants of
    the graph. It is recorded once for each combination of shapes and dtypes, and again when something else
    that it reads has changed. Gradients reach its arguments and the tensors it closes over.

    A module becomes a module with the same parameters, so that an optimizer step changes what the next call
    computes; buffers that it updates (running statistics) are updated locally.

        f = gradwire.torch.remote(lambda w, x: torch.tanh(w @ x))
        f(w, x).sum().backward()  # accumulates into w.grad and x.grad

    A function that is on a server already, made by `client.function` from an ONNX model or from code, takes a
    tensor for each of its inputs, in order.

    Args:
        fn: the function or module.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Raises:
        InvalidArgumentError: `client` or `verify` is given for a function that is on a server already.
        GradwireError: when called, if there is neither a client nor a default.
        TraceError: when called, if the function does something that has no place in a graph.
        TraceMismatchError: when called, if the graph gives other numbers than the function.
    """
    if isinstance(fn, Function):
        if client is not None or verify is not None:
            raise InvalidArgumentError(
                "this function is on a server already: leave out client= and verify=, which client.function "
                "was given"
            )
        return _of_function(fn)
    fn = as_written(fn)
    if isinstance(fn, torch.nn.Module):
        return RemoteModule(fn, client, verify)
    return _remote_function(fn, client, verify)


def _of_function(function: Function) -> Callable[..., Any]:
    inputs, outputs = function.signature.inputs, function.signature.outputs
    every = frozenset(place for place, value in enumerate(inputs) if value.floating)
    remote = RemoteFunction(function, tuple(every if value.floating else frozenset() for value in outputs))

    def call(*tensors: torch.Tensor) -> Any:
        if recording():
            raise TraceError(
                "a function that is on a server cannot be called inside a function that is recorded: call "
                "the PyTorch function that it was made from"
            )
        if len(tensors) != len(inputs):
            wanted = ", ".join(map(str, inputs))
            raise InvalidArgumentError(
                f"the function takes {len(inputs)} tensors ({wanted}), not {len(tensors)}"
            )
        results = remote([_converted(value, one) for value, one in zip(inputs, tensors, strict=True)])
        return results if len(results) != 1 else results[0]

    return call


def _converted(value: Value, tensor: torch.Tensor) -> torch.Tensor:
    """Convert a tensor to the input's dtype, by PyTorch so that gradients pass through."""
    if value.dtype is None:
        return tensor
    dtype = torch.from_numpy(np.empty(0, value.dtype)).dtype
    if not torch.can_cast(tensor.dtype, dtype):
        raise InvalidArgumentError(f"input {value} cannot be given as {tensor.dtype}: convert it with .to()")
    return tensor.to(dtype)


def _remote_function(
    fn: Callable[..., Any], client: Client | None, verify: Verify | None
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _evaluate(fn, fn, (), args, kwargs, client, verify)

    return functools.update_wrapper(call, fn) if hasattr(fn, "__name__") else call


class RemoteModule(torch.nn.Module):
    """A module whose forward and backward passes run on a server; made by `remote`.

    Attributes:
        module: the wrapped module, which holds the parameters and buffers.
    """

    def __init__(
        self, module: torch.nn.Module, client: Client | None = None, verify: Verify | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self._client, self._verify = client, verify

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the module on the server, and changes what a call of it changes."""
        module = self.module
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        if all(map(is_plain, state.values())):
            return _evaluate(module, module, (), args, kwargs, self._client, self._verify)

        def run(*all_tensors: Any, **options: Any) -> Any:
            *held, positional = all_tensors
            return functional_call(module, dict(zip(state, held, strict=True)), positional, options)

        return _evaluate(module, run, tuple(state.values()), args, kwargs, self._client, self._verify)


def _evaluate(
    source: Any,
    fn: Callable[..., Any],
    held: Sequence[torch.Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    client: Client | None,
    verify: Verify | None,
) -> Any:
    """Evaluate a function or module on the server.

    Args:
        source: what the user wrapped; it decides when to record again.
        fn: `source` itself, called as `fn(*args, **kwargs)`, or what runs a module, called as
            `fn(*held, args, **kwargs)`.
        held: the module's parameters and buffers, where `torch.func` transforms them.
        args: positional arguments; tensors in them are inputs, everything else is constant.
        kwargs: keyword arguments, likewise.
        client: the client to use, or None for the default.
        verify: when the graph is compared with the function, or None for the client's choice.

    Returns:
        What the function returns, in its structure. Tensors that it changes in place are changed locally.
    """
    if recording():
        return source(*args, **kwargs)
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
    real = all(map(is_plain, tensors))
    places_of = {id(tensor): place for place, tensor in reversed(list(enumerate(tensors)))}
    exported = cached_export(
        flat,
        [tensor_spec(tensor, tensor.requires_grad if real else None) for tensor in tensors],
        point=tensors if real else None,
        state=(source, repr(structure), places, fixed, [places_of[id(tensor)] for tensor in tensors]),
        slots=places_of,
    )
    everything = [*tensors, *exported.closed_over]
    # The backward pass must not read what is overwritten below.
    inputs = [
        exported.originals[i]
        if i in exported.originals
        else t.detach().clone()
        if i in exported.changed
        else t
        for i, t in enumerate(everything)
    ]
    results = remote_function(client_or_default(client), exported, verify)(inputs)
    returned = exported.outputs.num_leaves
    if not exported.ran:
        with torch.no_grad():
            for position, value in zip(exported.changed, results[returned:], strict=True):
                everything[position].copy_(value)
    return pytree.tree_unflatten(list(results[:returned]), exported.outputs)


# torch.compile does not look into a call (it would inline it), and compiles nothing that it calls. The public
# torch.compiler.disable imports the compiler, which takes seconds.
_evaluate._torchdynamo_disable = True  # type: ignore[attr-defined]
_frames: Any = torch._C._dynamo.eval_frame
_skip = _frames._FrameExecStrategy(_frames._FrameAction.SKIP, _frames._FrameAction.SKIP)
_frames.set_code_exec_strategy(_evaluate.__code__, _skip)
