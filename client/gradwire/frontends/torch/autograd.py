"""Functions on a server as nodes of the local autograd graph.

One `torch.autograd.Function` evaluates any function on a server, transformed ones included. Its backward pass
and its forward-mode derivative are evaluations of the same kind, of the function's vjp and jvp; derivatives
of every order, and `torch.func`, follow from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradwire._sync.function import Function
from gradwire.frontends.torch.gradient_batches import is_batched, unwrapped, wrapped
from gradwire.frontends.torch.tensors import to_numpy, to_torch
from gradwire.graphs.trees import flatten

Tensors = tuple[torch.Tensor, ...]
Connected = tuple[frozenset[int], ...]


@dataclass(eq=False)
class RemoteFunction:
    """A function on a server, and which of its inputs each of its outputs has a derivative by.

    Attributes:
        function: the function.
        connected: for each output, the positions of those inputs.
    """

    function: Function
    connected: Connected
    _derived: dict[Any, RemoteFunction] = field(default_factory=dict, repr=False)

    def vjp(self, wrt: tuple[int, ...], of: tuple[int, ...], keep_values: bool = False) -> RemoteFunction:
        """Map the inputs and the cotangents of `of` to the cotangents of `wrt` (and the outputs)."""
        key = ("vjp", wrt, of, keep_values)
        if key not in self._derived:
            inputs, outputs = self.names(wrt, of)
            function = self.function.as_vjp(inputs, outputs, keep_values=keep_values)
            count = len(self.function.signature.inputs)
            reach = [
                frozenset().union(
                    *(
                        self.connected[output] | {count + place}
                        for place, output in enumerate(of)
                        if position in self.connected[output]
                    )
                )
                for position in wrt
            ]
            self._derived[key] = RemoteFunction(function, (*reach, *(self.connected if keep_values else ())))
        return self._derived[key]

    def jvp(self, wrt: tuple[int, ...], of: tuple[int, ...], keep_values: bool = False) -> RemoteFunction:
        """Map the inputs and the tangents of `wrt` to the tangents of `of` (and the outputs)."""
        key = ("jvp", wrt, of, keep_values)
        if key not in self._derived:
            inputs, outputs = self.names(wrt, of)
            function = self.function.as_jvp(inputs, outputs, keep_values=keep_values)
            count = len(self.function.signature.inputs)
            reach = [
                self.connected[output]
                | {count + place for place, position in enumerate(wrt) if position in self.connected[output]}
                for output in of
            ]
            self._derived[key] = RemoteFunction(function, (*reach, *(self.connected if keep_values else ())))
        return self._derived[key]

    def hvp(self, wrt: tuple[int, ...], of: int, keep_values: bool = False) -> RemoteFunction:
        """Map the inputs and the tangents of `wrt` to the Hessian's product with them (and the outputs)."""
        key = ("hvp", wrt, of, keep_values)
        if key not in self._derived:
            inputs, outputs = self.names(wrt, (of,))
            function = self.function.as_hvp(inputs, outputs[0], keep_values=keep_values)
            count = len(self.function.signature.inputs)
            every = self.connected[of] | set(range(count, count + len(wrt)))
            reach = [every if position in self.connected[of] else frozenset[int]() for position in wrt]
            self._derived[key] = RemoteFunction(function, (*reach, *(self.connected if keep_values else ())))
        return self._derived[key]

    def names(self, wrt: tuple[int, ...], of: tuple[int, ...]) -> tuple[list[str], list[str]]:
        """Return the names of inputs and outputs at these positions."""
        signature = self.function.signature
        return [signature.inputs[i].name for i in wrt], [signature.outputs[i].name for i in of]

    def __call__(self, tensors: Sequence[torch.Tensor], batched: Sequence[bool] = ()) -> Tensors:
        """Evaluate the function; autograd follows the call.

        Args:
            tensors: one for each input.
            batched: which of them have a leading batch axis; if any has, so have all outputs.

        Returns:
            One tensor for each output, on the device of the first input.
        """
        flags = tuple(batched) if any(batched) else ()
        if any(map(is_batched, tensors)):
            plain, axes = unwrapped(tensors)
            size = next(tensor.shape[0] for tensor, axis in zip(plain, axes, strict=True) if axis == 0)
            return wrapped(_over_batch(size, axes, self, flags, tuple(plain)))
        return tuple(Evaluation.apply(self, flags, *tensors))  # type: ignore[no-untyped-call]


class Evaluation(torch.autograd.Function):
    """The autograd node of one evaluation; `RemoteFunction.__call__` applies it."""

    @staticmethod
    def forward(remote: RemoteFunction, batched: tuple[bool, ...], *tensors: torch.Tensor) -> Tensors:
        """Evaluate the function on the server."""
        function = remote.function
        device = tensors[0].device if tensors else torch.device("cpu")
        arrays = {
            value.name: to_numpy(tensor)
            for value, tensor in zip(function.signature.inputs, tensors, strict=True)
        }
        chosen = [name for name, flag in zip(arrays, batched, strict=False) if flag]
        results = function.value(arrays, batched=chosen or None)
        return tuple(to_torch(result, device) for result in flatten(results)[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        """Save the inputs, and mark the outputs that have no derivative."""
        remote, batched, *tensors = inputs
        ctx.remote, ctx.batched = remote, batched
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.mark_non_differentiable(
            *(one for one, reach in zip(output, remote.connected, strict=True) if not reach)
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        """Evaluate the vjp by the inputs that need a gradient; an input without batch axis gets the sum."""
        remote: RemoteFunction = ctx.remote
        tensors, count = ctx.saved_tensors, len(ctx.saved_tensors)
        of = [i for i, one in enumerate(cotangents) if one is not None and remote.connected[i]]
        reached = frozenset[int]().union(*(remote.connected[i] for i in of))
        wrt = tuple(i for i in range(count) if ctx.needs_input_grad[2 + i] and i in reached)
        gradients: list[Any] = [None] * count
        if wrt:
            of = [i for i in of if not remote.connected[i].isdisjoint(wrt)]
            batched = ctx.batched and (*ctx.batched, *(True for _ in of))
            products = remote.vjp(wrt, tuple(of))([*tensors, *(cotangents[i] for i in of)], batched)
            for i, product in zip(wrt, products, strict=True):
                shared = ctx.batched and not ctx.batched[i]
                gradients[i] = product.sum(0) if shared else product
        return None, None, *gradients

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Evaluate the jvp along the inputs that have a tangent."""
        remote: RemoteFunction = ctx.remote
        tensors, given = ctx.saved_tensors, tangents[2:]
        moved = frozenset(i for i, one in enumerate(given) if one is not None)
        of = tuple(i for i, reach in enumerate(remote.connected) if reach & moved)
        results: list[torch.Tensor | None] = [None] * len(remote.connected)
        if of:
            reached = frozenset[int]().union(*(remote.connected[i] for i in of))
            wrt = tuple(sorted(moved & reached))
            batched = ctx.batched and (*ctx.batched, *(ctx.batched[i] for i in wrt))
            products = remote.jvp(wrt, of)([*tensors, *(given[i] for i in wrt)], batched)
            for i, product in zip(of, products, strict=True):
                results[i] = product
        return tuple(results)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        remote: RemoteFunction,
        batched: tuple[bool, ...],
        *tensors: torch.Tensor,
    ) -> tuple[Tensors, tuple[int, ...]]:
        """Evaluate a batch; `torch.func.vmap` calls this in place of `forward`.

        Args:
            info: has the extent of the batch as `batch_size`.
            in_dims: for each argument of `forward`, its batch axis, or None.
            remote: the function.
            batched: which tensors have a batch axis besides; empty for none.
            *tensors: one for each input.

        Returns:
            The outputs, and for each its batch axis, which is the first.
        """
        outputs = _over_batch(info.batch_size, in_dims[2:], remote, batched, tensors)
        return outputs, (0,) * len(outputs)


def _over_batch(
    size: int, dims: Sequence[int | None], remote: RemoteFunction, batched: tuple[bool, ...], tensors: Tensors
) -> Tensors:
    """Evaluate over one more batch axis, the outermost; a batch axis that is there already is merged with
    it.

    The wire has one batch axis.

    Args:
        size: extent of the new axis.
        dims: for each tensor, where the new axis is, or None where it has none.
        remote: the function.
        batched: which tensors have a batch axis besides; empty for none.
        tensors: one for each input.

    Returns:
        The outputs, whose first axis is the new one.
    """
    outer = [dim is not None for dim in dims]
    fronted = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(tensors, dims, strict=True)]
    if not batched:
        return remote(fronted, outer)
    inner = next(
        x.shape[1] if new else x.shape[0] for x, new, old in zip(fronted, outer, batched, strict=True) if old
    )
    merged = []
    for x, new, old in zip(fronted, outer, batched, strict=True):
        if new or old:
            rest = x.shape[int(new) + int(old) :]
            spread = x if new else x.unsqueeze(0)
            spread = spread if old else spread.unsqueeze(1)
            x = spread.expand(size, inner, *rest).reshape(size * inner, *rest)
        merged.append(x)
    flags = [new or old for new, old in zip(outer, batched, strict=True)]
    return tuple(y.reshape(size, inner, *y.shape[1:]) for y in remote(merged, flags))
