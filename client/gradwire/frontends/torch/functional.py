"""`torch.autograd.functional`, computed by a server: the same arguments, results and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import functional as _functional

from gradwire._sync.client import Client
from gradwire.frontends.torch.calls import Program
from gradwire.frontends.torch.programs import client_or_default, exported, program_of, spec_of
from gradwire.frontends.torch.tensors import to_numpy, to_torch

reference: Any = _functional  # its functions have no types
Tensors = tuple[torch.Tensor, ...]
TensorOrTuple = torch.Tensor | Tensors


def jacobian(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
    *,
    client: Client | None = None,
) -> Any:
    """The Jacobian, as `torch.autograd.functional.jacobian` gives it.

    Args:
        func: takes tensors and returns a tensor or a tuple of them.
        inputs: the point, a tensor or a tuple of them.
        create_graph: let the result be differentiated further by the local autograd.
        strict: raise where an output does not depend on an input, in place of zeros.
        vectorize: accepted for compatibility; the server always works on blocks.
        strategy: "reverse-mode" leaves the mode to the server, "forward-mode" asks for that.
        client: where to compute; the one given to `use` by default.

    Returns:
        A tensor of shape output.shape + input.shape; a tuple of them where either the outputs or the inputs
        are a tuple, and a tuple of tuples where both are.
    """
    forward = _forward("jacobian", strategy, create_graph, strict, vectorize)
    problem = _Problem.of("jacobian", func, inputs, create_graph, client)
    if strict:
        # An output depends on an input exactly if its sum does, which is one row in place of many.
        sums = _summed(func)
        problem.check(lambda fakes: reference.jacobian(sums, fakes, create_graph, strict=True))
    rows = problem.differentiable_rows() if create_graph else problem.streamed_rows(forward)
    return _packed([_packed(row, problem.inputs_are_tuple) for row in rows], problem.outputs_are_tuple)


def hessian(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
    *,
    client: Client | None = None,
) -> Any:
    """The Hessian of a function of one element, as `torch.autograd.functional.hessian` gives it.

    The arguments are those of `jacobian`. The result is a tensor of shape input.shape + input.shape, or a
    tuple of tuples of tensors where the inputs are a tuple.
    """
    _forward("hessian", outer_jacobian_strategy, create_graph, strict, vectorize)
    problem = _Problem.of("hessian", func, inputs, create_graph, client)
    problem.need_one_number("hessian")
    if strict:
        problem.check(lambda fakes: reference.vhp(func, fakes, _ones_like(fakes), create_graph, strict=True))
    rows = problem.differentiable_hessian() if create_graph else problem.streamed_hessian()
    return _packed([_packed(row, problem.inputs_are_tuple) for row in rows], problem.inputs_are_tuple)


def vjp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
) -> tuple[Any, Any]:
    """The function's value, and `v` times its Jacobian: `(func_output, vjp)`."""
    problem = _Problem.of("vjp", func, inputs, create_graph, client)
    vectors = problem.vectors("vjp", v, problem.output_likes(), problem.outputs_are_tuple, create_graph)
    if strict:
        problem.check(lambda fakes: reference.vjp(func, fakes, _shaped_like(v), create_graph, strict=True))
    of = problem.connected_outputs()
    values, products = problem.run("vjp", of, [vectors[i] for i in of])
    return problem.finish(values, products)


def jvp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
) -> tuple[Any, Any]:
    """The function's value, and its Jacobian times `v`: `(func_output, jvp)`."""
    problem = _Problem.of("jvp", func, inputs, create_graph, client)
    vectors = problem.vectors("jvp", v, problem.tensors, problem.inputs_are_tuple, create_graph)
    if strict:
        problem.check(lambda fakes: reference.jvp(func, fakes, _shaped_like(v), create_graph, strict=True))
    of = problem.connected_outputs()
    values, products = problem.run("jvp", of, [vectors[i] for i in problem.wrt])
    found = dict(zip(of, products, strict=True))
    full = [found[i] if i in found else torch.zeros_like(value) for i, value in enumerate(values)]
    return _packed(values, problem.outputs_are_tuple), _packed(full, problem.outputs_are_tuple)


def hvp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
) -> tuple[Any, Any]:
    """The value of a function of one element, and its Hessian times `v`: `(func_output, hvp)`."""
    return _hessian_product("hvp", func, inputs, v, create_graph, strict, client)


def vhp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
) -> tuple[Any, Any]:
    """The value of a function of one element, and `v` times its Hessian: `(func_output, vhp)`."""
    return _hessian_product("vhp", func, inputs, v, create_graph, strict, client)


def _hessian_product(
    name: str, func: Any, inputs: Any, v: Any, create_graph: bool, strict: bool, client: Client | None
) -> tuple[Any, Any]:
    problem = _Problem.of(name, func, inputs, create_graph, client)
    problem.need_one_number(name)
    vectors = problem.vectors(name, v, problem.tensors, problem.inputs_are_tuple, create_graph)
    if strict:
        product = getattr(reference, name)
        problem.check(lambda fakes: product(func, fakes, _shaped_like(v), create_graph, strict=True))
    values, products = problem.run("hvp", problem.connected_outputs(), [vectors[i] for i in problem.wrt])
    return problem.finish(values, products)


@dataclass
class _Problem:
    """A function at a point, ready to be differentiated.

    Attributes:
        tensors: the inputs; leaves or followed by autograd if a graph is to be created, detached if not.
        everything: the inputs, then what the function closes over.
        wrt: positions of the inputs that some output depends on.
    """

    program: Program
    tensors: Tensors
    everything: Tensors
    inputs_are_tuple: bool
    outputs_are_tuple: bool
    outputs: int
    create_graph: bool
    wrt: tuple[int, ...] = ()

    @classmethod
    def of(cls, name: str, func: Any, inputs: Any, create_graph: bool, client: Client | None) -> _Problem:
        are_tuple, given = _as_tuple(inputs, "inputs", name)
        for position, one in enumerate(given):
            if not one.is_floating_point():
                raise RuntimeError(
                    f"{name}: input {position} is {one.dtype}; only floating-point tensors have derivatives"
                )
        server = client_or_default(client)
        made = exported(func, [spec_of(tensor) for tensor in given])
        structure = made.outputs
        flat_tuple = structure.type is tuple and all(child.is_leaf() for child in structure.children())
        if not structure.is_leaf() and not flat_tuple:
            raise TypeError(f"the function given to {name} must return a tensor or a tuple of tensors")
        tensors = tuple(_prepared(tensor, create_graph) for tensor in given)
        closed_over = tuple(t if create_graph else t.detach() for t in made.closed_over)
        program = program_of(server, made)
        count = structure.num_leaves
        reached = frozenset[int]().union(*program.connected[:count])
        wrt = tuple(i for i in range(len(tensors)) if i in reached)
        return cls(
            program, tensors, (*tensors, *closed_over), are_tuple, flat_tuple, count, create_graph, wrt
        )

    def check(self, run: Callable[[Any], object]) -> None:
        """Let PyTorch itself look for independence, on tensors without values."""
        with FakeTensorMode(allow_non_fake_inputs=True):
            fakes = tuple(torch.empty(tuple(t.shape), dtype=t.dtype) for t in self.tensors)
            run(fakes if self.inputs_are_tuple else fakes[0])

    def need_one_number(self, name: str) -> None:
        if self.outputs_are_tuple:
            raise RuntimeError(f"the function given to {name} must return a single tensor, not a tuple")
        (like,) = self.output_likes()
        if like.numel() != 1:
            raise RuntimeError(
                f"the tensor returned by the function given to {name} must have a single element, "
                f"but its shape is {tuple(like.shape)}"
            )

    def output_likes(self) -> Tensors:
        """The outputs, without memory."""
        signature = self.program.function.signature.outputs[: self.outputs]
        likes = []
        for value in signature:
            assert value.dtype is not None
            dtype = to_torch(torch.empty(0).numpy().astype(value.dtype), torch.device("cpu")).dtype
            shape = [extent for extent in value.shape or () if isinstance(extent, int)]
            likes.append(torch.empty(shape, dtype=dtype, device="meta"))
        return tuple(likes)

    def connected_outputs(self) -> tuple[int, ...]:
        inputs = set(range(len(self.tensors)))
        return tuple(i for i in range(self.outputs) if self.program.connected[i] & inputs)

    def vectors(
        self, name: str, v: Any, likes: Sequence[torch.Tensor], are_tuple: bool, create_graph: bool
    ) -> list[torch.Tensor]:
        """`v` as one tensor for each of `likes`."""
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
        """The values of the function, and products: one trip for both."""
        with torch.set_grad_enabled(self.create_graph):
            if not of:
                return self.program(self.everything)[: self.outputs], ()
            if kind == "hvp":
                derived = self.program.hvp(self.wrt, of[0], keep_values=True)
            else:
                derived = getattr(self.program, kind)(self.wrt, of, keep_values=True)
            results = derived([*self.everything, *vectors])
            count = len(of) if kind == "jvp" else len(self.wrt)
            return results[count : count + self.outputs], results[:count]

    def finish(self, values: Tensors, products: Tensors) -> tuple[Any, Any]:
        """Values and products in their structure; zeros for what nothing depends on."""
        found = dict(zip(self.wrt, products, strict=True)) if products else {}
        full = [found[i] if i in found else torch.zeros_like(t) for i, t in enumerate(self.tensors)]
        return _packed(values, self.outputs_are_tuple), _packed(full, self.inputs_are_tuple)

    def _arrays(self) -> dict[str, Any]:
        names = (value.name for value in self.program.function.signature.inputs)
        return {name: to_numpy(tensor) for name, tensor in zip(names, self.everything, strict=True)}

    def _zeros(self, *shapes: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        return torch.zeros(
            [extent for shape in shapes for extent in shape], dtype=like.dtype, device=like.device
        )

    def streamed_rows(self, forward: bool) -> list[list[torch.Tensor]]:
        """The Jacobian in blocks, put together here."""
        of = self.connected_outputs()
        found: dict[tuple[int, int], torch.Tensor] = {}
        if of:
            inputs, outputs = self.program.names(self.wrt, of)
            mode = "forward" if forward else ""
            result = self.program.function.jacobian(self._arrays(), wrt=inputs, of=outputs, mode=mode)
            for i, row in zip(of, result, strict=True):
                for j, entry in zip(self.wrt, row, strict=True):
                    found[i, j] = to_torch(entry, self.tensors[j].device).to(self.tensors[j].dtype)
        return self._filled(found)

    def _filled(self, found: dict[tuple[int, int], torch.Tensor]) -> list[list[torch.Tensor]]:
        return [
            [
                found[i, j] if (i, j) in found else self._zeros(like.shape, t.shape, like=t)
                for j, t in enumerate(self.tensors)
            ]
            for i, like in enumerate(self.output_likes())
        ]

    def differentiable_rows(self) -> list[list[torch.Tensor]]:
        """The Jacobian as products with a batch of unit cotangents, which autograd follows."""
        found: dict[tuple[int, int], torch.Tensor] = {}
        likes = self.output_likes()
        with torch.enable_grad():
            for i in self.connected_outputs():
                wrt = tuple(j for j in self.wrt if j in self.program.connected[i])
                seeds = _units(likes[i], self.tensors[0].device)
                flags = [False] * len(self.everything) + [True]
                products = self.program.vjp(wrt, (i,))([*self.everything, seeds], flags)
                for j, product in zip(wrt, products, strict=True):
                    found[i, j] = product.reshape(likes[i].shape + self.tensors[j].shape)
        return self._filled(found)

    def streamed_hessian(self) -> list[list[torch.Tensor]]:
        """The Hessian in blocks, put together here."""
        found: dict[tuple[int, int], torch.Tensor] = {}
        if self.wrt:
            inputs, outputs = self.program.names(self.wrt, (0,))
            result = self.program.function.hessian(self._arrays(), wrt=inputs, of=outputs[0])
            for i, row in zip(self.wrt, result, strict=True):
                for j, entry in zip(self.wrt, row, strict=True):
                    found[i, j] = to_torch(entry, self.tensors[j].device).to(self.tensors[j].dtype)
        return self._square(found)

    def differentiable_hessian(self) -> list[list[torch.Tensor]]:
        """The Hessian as products with a batch of unit tangents, which autograd follows."""
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
                products = self.program.hvp(self.wrt, 0)([*self.everything, *seeds], flags)
                for j, product in zip(self.wrt, products, strict=True):
                    found[i, j] = product.reshape(self.tensors[i].shape + self.tensors[j].shape)
        return self._square(found)

    def _square(self, found: dict[tuple[int, int], torch.Tensor]) -> list[list[torch.Tensor]]:
        return [
            [
                found[i, j] if (i, j) in found else self._zeros(row.shape, t.shape, like=t)
                for j, t in enumerate(self.tensors)
            ]
            for i, row in enumerate(self.tensors)
        ]


def _units(like: torch.Tensor, device: torch.device) -> torch.Tensor:
    size = like.numel()
    return torch.eye(size, dtype=like.dtype, device=device).reshape(size, *like.shape)


def _prepared(tensor: torch.Tensor, create_graph: bool) -> torch.Tensor:
    """As PyTorch has it: with a graph, results are followed even where the input was not."""
    if not create_graph:
        return tensor.detach()
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


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


def _packed(items: Sequence[Any], as_tuple: bool) -> Any:
    return tuple(items) if as_tuple else items[0]


def _forward(name: str, strategy: str, create_graph: bool, strict: bool, vectorize: bool) -> bool:
    """Whether forward mode is wanted; the combinations that PyTorch refuses are refused."""
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(f"{name}: the strategy is 'forward-mode' or 'reverse-mode', not {strategy!r}")
    forward = strategy == "forward-mode"
    if strict and vectorize:
        raise RuntimeError(f"{name}: strict=True and vectorize=True do not go together; leave one out")
    if forward and create_graph:
        raise NotImplementedError(f"{name}: create_graph=True needs the strategy 'reverse-mode'")
    if forward and not vectorize:
        raise NotImplementedError(f"{name}: the strategy 'forward-mode' needs vectorize=True")
    return forward


def _summed(func: Callable[..., Any]) -> Callable[..., Any]:
    def sums(*inputs: torch.Tensor) -> Any:
        outputs = func(*inputs)
        if isinstance(outputs, tuple):
            return tuple(output.sum() for output in outputs)
        return outputs.sum()

    return sums


def _ones_like(fakes: Any) -> Any:
    return tuple(map(torch.ones_like, fakes)) if isinstance(fakes, tuple) else torch.ones_like(fakes)


def _shaped_like(v: Any) -> Any:
    """`v` without its values, under the fake mode that is on."""
    if v is None:
        return None
    if isinstance(v, tuple):
        return tuple(_shaped_like(one) for one in v)
    return torch.empty(tuple(v.shape), dtype=v.dtype)
