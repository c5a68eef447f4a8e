"""Derivatives of a PyTorch function at a point, computed on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from gradwire._face.options import FoundSparsity
from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire.frontends.torch.autograd import RemoteFunction
from gradwire.frontends.torch.cache import cached_export, remote_function
from gradwire.frontends.torch.capture import as_written, capture, is_plain, tensor_spec
from gradwire.frontends.torch.default import client_or_default
from gradwire.frontends.torch.tensors import empty_sparse, to_numpy, to_sparse, to_torch

Tensors = tuple[torch.Tensor, ...]


@dataclass
class DerivativeCall:
    """A function at a point, and how its results are returned.

    Attributes:
        remote: the function on the server.
        tensors: the inputs; autograd follows them if `create_graph` is set, otherwise they are detached.
        everything: the inputs, then the tensors that the function closes over.
        inputs_are_tuple: whether the inputs were given as a tuple.
        outputs_are_tuple: whether the function returns a tuple.
        outputs: how many tensors the function returns.
        create_graph: whether autograd follows the results.
        wrt: positions of the inputs that some output depends on.
    """

    remote: RemoteFunction
    tensors: Tensors
    everything: Tensors
    inputs_are_tuple: bool
    outputs_are_tuple: bool
    outputs: int
    create_graph: bool
    wrt: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        func: Any,
        inputs: Any,
        create_graph: bool,
        client: Client | None,
        verify: Verify | None,
    ) -> DerivativeCall:
        """Check a call of a public function, and record the function it was given.

        Args:
            name: of the public function, for messages.
            func: takes one tensor for each of `inputs`.
            inputs: a floating-point tensor, or a tuple of them.
            create_graph: let autograd follow the results.
            client: the client to use, or None for the default.
            verify: when the graph is compared with the function, or None for the client's choice.

        Raises:
            GradwireError: there is neither a client nor a default.
            RuntimeError: an input is not floating-point.
            TraceError: `func` does something that has no place in a graph.
            TypeError: the inputs or the function's results are not tensors or tuples of them.
        """
        are_tuple, given = _as_tuple(inputs, "inputs", name)
        for position, one in enumerate(given):
            if not one.is_floating_point():
                raise RuntimeError(
                    f"{name}: input {position} is {one.dtype}; only floating-point tensors have derivatives"
                )
        server = client_or_default(client)
        func = as_written(func)
        tensors = tuple(_prepared(tensor, create_graph) for tensor in given)
        real = all(map(is_plain, given))
        exported = cached_export(
            func,
            [tensor_spec(tensor) for tensor in given],
            point=[_followed(tensor) for tensor in tensors] if real else None,
            slots={id(tensor): place for place, tensor in enumerate(given)},
            changes=False,
        )
        structure = exported.outputs
        flat_tuple = structure.type is tuple and all(child.is_leaf() for child in structure.children())
        if not structure.is_leaf() and not flat_tuple:
            raise TypeError(f"the function given to {name} must return a tensor or a tuple of tensors")
        closed_over = tuple(t if create_graph else t.detach() for t in exported.closed_over)
        everything = [exported.originals.get(i, t) for i, t in enumerate((*tensors, *closed_over))]
        remote = remote_function(server, exported, verify)
        count = structure.num_leaves
        reached = frozenset[int]().union(*remote.connected[:count])
        wrt = tuple(i for i in range(len(tensors)) if i in reached)
        return cls(remote, tensors, tuple(everything), are_tuple, flat_tuple, count, create_graph, wrt)

    def check(self, run: Callable[[Any], object]) -> None:
        """Run PyTorch's own function without a point, to raise its errors about independent inputs."""

        def fn(*placeholders: torch.Tensor) -> tuple[()]:
            run(placeholders if self.inputs_are_tuple else placeholders[0])
            return ()

        capture(fn, [tensor_spec(tensor) for tensor in self.tensors])

    def check_one_element(self, name: str) -> None:
        """Raise `RuntimeError` unless the function returns a single tensor of one element."""
        if self.outputs_are_tuple:
            raise RuntimeError(f"the function given to {name} must return a single tensor, not a tuple")
        (like,) = self.output_likes()
        if like.numel() != 1:
            raise RuntimeError(
                f"the tensor returned by the function given to {name} must have a single element, "
                f"but its shape is {tuple(like.shape)}"
            )

    def output_likes(self) -> Tensors:
        """Return tensors without memory that have the shapes and dtypes of the outputs."""
        signature = self.remote.function.signature.outputs[: self.outputs]
        likes = []
        for value in signature:
            assert value.dtype is not None
            dtype = to_torch(torch.empty(0).numpy().astype(value.dtype), torch.device("cpu")).dtype
            shape = [extent for extent in value.shape or () if isinstance(extent, int)]
            likes.append(torch.empty(shape, dtype=dtype, device="meta"))
        return tuple(likes)

    def connected_outputs(self) -> tuple[int, ...]:
        """Return the positions of the outputs that depend on some input."""
        inputs = set(range(len(self.tensors)))
        return tuple(i for i in range(self.outputs) if self.remote.connected[i] & inputs)

    def vectors(
        self, name: str, v: Any, likes: Sequence[torch.Tensor], are_tuple: bool, create_graph: bool
    ) -> list[torch.Tensor]:
        """Check `v` against `likes`, and return one tensor for each of them.

        Args:
            name: of the public function, for messages.
            v: what the user gave: a tensor, a tuple, or None for a single one.
            likes: tensors of the shapes and dtypes that `v` must have.
            are_tuple: whether a tuple is expected, for messages.
            create_graph: keep the tensors attached to the local autograd graph.

        Raises:
            RuntimeError: `v` is None where it may not be, or has another number of tensors or other shapes.
            TypeError: `v` is no tensor and no tuple of tensors.
        """
        if v is None:
            if len(likes) != 1 or likes[0].numel() != 1:
                whose = "the function's result" if name == "vjp" else "the input"
                raise RuntimeError(f"{name}: v can only be None where {whose} is a single element; pass v")
            return [torch.ones(tuple(likes[0].shape), dtype=likes[0].dtype, device=self.tensors[0].device)]
        _, given = _as_tuple(v, "v", name)
        if len(given) != len(likes):
            raise RuntimeError(
                f"{name}: v has {len(given)} tensors where {len(likes)} are needed"
                + ("" if are_tuple else ": pass a single tensor")
            )
        for position, (one, like) in enumerate(zip(given, likes, strict=True)):
            if one.shape != like.shape:
                raise RuntimeError(
                    f"{name}: entry {position} of v has shape {tuple(one.shape)}, not {tuple(like.shape)}"
                )
        return [
            (one if create_graph else one.detach()).to(like.dtype)
            for one, like in zip(given, likes, strict=True)
        ]

    def run(self, kind: str, of: tuple[int, ...], vectors: Sequence[torch.Tensor]) -> tuple[Tensors, Tensors]:
        """Evaluate the function's values and products in one request.

        Args:
            kind: "jvp", "vjp" or "hvp".
            of: positions of the outputs to differentiate.
            vectors: tangents of the inputs in `wrt`, or cotangents of the outputs in `of`.

        Returns:
            The values of all outputs, and the products: for the outputs in `of` ("jvp") or the inputs in
            `wrt`.
        """
        with torch.set_grad_enabled(self.create_graph):
            if not of:
                return self.remote(self.everything)[: self.outputs], ()
            if kind == "hvp":
                derived = self.remote.hvp(self.wrt, of[0], keep_values=True)
            else:
                derived = getattr(self.remote, kind)(self.wrt, of, keep_values=True)
            results = derived([*self.everything, *vectors])
            count = len(of) if kind == "jvp" else len(self.wrt)
            return results[count : count + self.outputs], results[:count]

    def finish(self, values: Tensors, products: Tensors) -> tuple[Any, Any]:
        """Return values and products in their structure, with zeros for inputs that nothing depends on."""
        found = dict(zip(self.wrt, products, strict=True)) if products else {}
        full = [found[i] if i in found else torch.zeros_like(t) for i, t in enumerate(self.tensors)]
        return packed(values, self.outputs_are_tuple), packed(full, self.inputs_are_tuple)

    def _arrays(self) -> dict[str, Any]:
        names = (value.name for value in self.remote.function.signature.inputs)
        return {name: to_numpy(tensor) for name, tensor in zip(names, self.everything, strict=True)}

    def streamed_rows(self, forward: bool, sparse: FoundSparsity = False) -> list[list[torch.Tensor]]:
        """Compute the Jacobian from streamed blocks, as rows of [output][input]; matrices if sparse."""
        of = self.connected_outputs()
        found: dict[tuple[int, int], torch.Tensor] = {}
        if of:
            inputs, outputs = self.remote.names(self.wrt, of)
            mode: Literal["forward"] | None = "forward" if forward else None
            result = self.remote.function.jacobian(
                self._arrays(), wrt=inputs, of=outputs, mode=mode, sparse=sparse
            )
            for i, row in zip(of, result, strict=True):
                for j, entry in zip(self.wrt, row, strict=True):
                    found[i, j] = _entry(entry, self.tensors[j])
        return self._filled(found, sparse is True or _holds_sparse(found))

    def _filled(
        self, found: dict[tuple[int, int], torch.Tensor], sparse: bool = False
    ) -> list[list[torch.Tensor]]:
        zeros = _no_entries if sparse else _zeros
        return [
            [found[i, j] if (i, j) in found else zeros(like, t) for j, t in enumerate(self.tensors)]
            for i, like in enumerate(self.output_likes())
        ]

    def differentiable_rows(self) -> list[list[torch.Tensor]]:
        """Compute the Jacobian as a vjp with a batch of unit cotangents, which autograd follows."""
        found: dict[tuple[int, int], torch.Tensor] = {}
        likes = self.output_likes()
        with torch.enable_grad():
            for i in self.connected_outputs():
                wrt = tuple(j for j in self.wrt if j in self.remote.connected[i])
                seeds = _units(likes[i], self.tensors[0].device)
                flags = [False] * len(self.everything) + [True]
                products = self.remote.vjp(wrt, (i,))([*self.everything, seeds], flags)
                for j, product in zip(wrt, products, strict=True):
                    found[i, j] = product.reshape(likes[i].shape + self.tensors[j].shape)
        return self._filled(found)

    def streamed_hessian(self, sparse: FoundSparsity = False) -> list[list[torch.Tensor]]:
        """Compute the Hessian from streamed blocks, as rows of [input][input]; matrices if sparse."""
        found: dict[tuple[int, int], torch.Tensor] = {}
        if self.wrt:
            inputs, outputs = self.remote.names(self.wrt, (0,))
            result = self.remote.function.hessian(self._arrays(), wrt=inputs, of=outputs[0], sparse=sparse)
            for i, row in zip(self.wrt, result, strict=True):
                for j, entry in zip(self.wrt, row, strict=True):
                    found[i, j] = _entry(entry, self.tensors[j])
        return self._square(found, sparse is True or _holds_sparse(found))

    def differentiable_hessian(self) -> list[list[torch.Tensor]]:
        """Compute the Hessian as an hvp with a batch of unit tangents, which autograd follows."""
        found: dict[tuple[int, int], torch.Tensor] = {}
        with torch.enable_grad():
            for i in self.wrt:
                seeds = [
                    _units(self.tensors[j], self.tensors[j].device)
                    if j == i
                    else torch.zeros_like(self.tensors[j])
                    for j in self.wrt
                ]
                flags = [False] * len(self.everything) + [j == i for j in self.wrt]
                products = self.remote.hvp(self.wrt, 0)([*self.everything, *seeds], flags)
                for j, product in zip(self.wrt, products, strict=True):
                    found[i, j] = product.reshape(self.tensors[i].shape + self.tensors[j].shape)
        return self._square(found)

    def _square(
        self, found: dict[tuple[int, int], torch.Tensor], sparse: bool = False
    ) -> list[list[torch.Tensor]]:
        zeros = _no_entries if sparse else _zeros
        return [
            [found[i, j] if (i, j) in found else zeros(row, t) for j, t in enumerate(self.tensors)]
            for i, row in enumerate(self.tensors)
        ]


def _zeros(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return torch.zeros((*row.shape, *column.shape), dtype=column.dtype, device=column.device)


def _no_entries(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return empty_sparse(row.numel(), column.numel(), column)


def _entry(found: Any, like: torch.Tensor) -> torch.Tensor:
    """Return a derivative as a tensor of an input's dtype and on its device, sparse if it is a matrix."""
    return (
        to_torch(found, like.device).to(like.dtype)
        if isinstance(found, np.ndarray)
        else to_sparse(found, like)
    )


def _holds_sparse(found: dict[tuple[int, int], torch.Tensor]) -> bool:
    return any(one.layout is torch.sparse_csr for one in found.values())


def _units(like: torch.Tensor, device: torch.device) -> torch.Tensor:
    size = like.numel()
    return torch.eye(size, dtype=like.dtype, device=device).reshape(size, *like.shape)


def _prepared(tensor: torch.Tensor, create_graph: bool) -> torch.Tensor:
    """Return an input as PyTorch prepares it: with `create_graph` it always requires a gradient."""
    if not create_graph:
        return tensor.detach()
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _followed(tensor: torch.Tensor) -> torch.Tensor:
    """Return an argument for the function to run on, as PyTorch prepares it: autograd follows it."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _as_tuple(given: Any, argument: str, name: str) -> tuple[bool, Tensors]:
    are_tuple = isinstance(given, tuple)
    items = given if isinstance(given, tuple) else (given,)
    for position, item in enumerate(items):
        if not isinstance(item, torch.Tensor):
            raise TypeError(
                f"{name}: {argument} must be a tensor or a tuple of tensors, but "
                + (f"entry {position} is" if are_tuple else "it is")
                + f" {type(item).__name__}"
            )
    return are_tuple, items


def packed(items: Sequence[Any], as_tuple: bool) -> Any:
    """Return the items as a tuple, or the only one."""
    return tuple(items) if as_tuple else items[0]
