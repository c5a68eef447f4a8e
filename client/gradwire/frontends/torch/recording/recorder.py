"""Records the operators of a function while it runs.

With a point, the function runs on the caller's own tensors: it does to them, and to everything that it reads,
what one call of it does. Without a point nothing is computed from its arguments: their values, and all that
depends on them, are memory that is never read, and writes are recorded but not carried out.

What autograd follows is decided where a tensor is used: an operand that does not require a gradient passes
through `StopGradient` if its memory has a derivative, and a write that autograd does not see replaces values
and leaves the derivative as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from gradwire.errors import TraceError
from gradwire.frontends.torch.lowering import unknown
from gradwire.frontends.torch.recording.execution import (
    agree,
    empty_like,
    filled,
    mapped,
    results_of,
    shapes_of,
)
from gradwire.frontends.torch.recording.operators import Operator, decomposition, functional, operator
from gradwire.frontends.torch.recording.program import (
    ARGUMENTS,
    Content,
    Node,
    Program,
    Var,
    Write,
)
from gradwire.frontends.torch.recording.validation import validation
from gradwire.frontends.torch.recording.variables import Variables

_C: Any = torch._C
_aten: Any = torch.ops.aten


class Recorder(TorchDispatchMode):
    """Records operators on tensors that arguments and closed-over tensors reach.

    Args:
        real: whether the arguments have values.
        outer: the recorder of a function that this recording is made in, if any.

    Attributes:
        program: what was recorded.
        values: bits of closed-over tensors whose values are a part of the recording.
        grad_enabled: whether the function's own code has autograd enabled.
        refusal: the first error raised; PyTorch or the function may have caught it.
        draws: whether random numbers are drawn, and become constants; otherwise they are refused.
    """

    def __init__(self, *, real: bool, outer: Recorder | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.program = Program()
        self.values = 0
        self.grad_enabled = True
        self.refusal: TraceError | None = None
        self.draws = False
        self._real = real
        self._known = Variables(self.program, outer)
        self._depth = 0
        self._paused = False
        self._stops: dict[tuple[Var, int], Var] = {}
        self._writes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise PyTorch imports its compiler, which takes seconds

    # What the observer and the capture ask for

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run operators without recording them."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def argument(self, tensor: torch.Tensor, active: bool) -> None:
        """Add an argument."""
        var = self._known.new(tensor, given=True)
        var.content.reads |= ARGUMENTS
        var.content.active |= active
        var.follows = active
        self.program.arguments.append(var)
        self._known.found.setdefault(tensor._cdata, var)

    def operands(self, item: Any) -> Any:
        """Return an argument with the variables of operands in place of tensors."""
        with torch._C.DisableTorchFunction():
            return mapped(item, self._operand)

    def found(self, tensor: torch.Tensor) -> Var | None:
        """Return the variable of a tensor; None for one that was never seen."""
        return self._known.found.get(tensor._cdata)

    def output(self, tensor: torch.Tensor) -> None:
        """Add a result."""
        with torch._C.DisableTorchFunction():
            self.program.outputs.append(self._operand(tensor))

    def reads(self, tensor: torch.Tensor) -> int:
        """Return what the values of a tensor depend on; 0 for one that was never seen."""
        return self._known.reads(tensor)

    def read(self, tensor: Any, what: str) -> None:
        """Note that the function uses the values of a tensor.

        Raises:
            TraceError: they depend on its arguments.
        """
        if _C._functorch.is_functorch_wrapped_tensor(tensor):
            return  # PyTorch refuses it
        with torch._C.DisableTorchFunction():
            bits = self._known.of(tensor).content.reads
        if bits & ARGUMENTS:
            raise TraceError(
                f"{what} needs the values of a tensor that depends on the arguments, which are not known "
                "while a graph is recorded; compute with PyTorch's functions (torch.where for an if), or "
                "pass the number as an argument"
            )
        self.values |= bits

    def set_data(self, tensor: torch.Tensor, data: torch.Tensor) -> None:
        """Carries out `tensor.data = data`; from then on the tensor is another one."""
        with torch._C.DisableTorchFunction():
            source = self._known.of(data)
            if self._real:
                with self.paused():
                    tensor.data = data
                self._known.found.pop(tensor._cdata, None)
                self._known.kept.append(tensor)
                if source.content.reads & ARGUMENTS == 0 or not source.content.given:
                    self._known.contents.pop(tensor.untyped_storage()._cdata, None)
                return
            if tuple(tensor.shape) != source.shape or tensor.dtype != source.dtype:
                raise TraceError(
                    "an assignment to .data with another shape cannot be recorded without a point"
                )
            self._known.found[tensor._cdata] = source
            self._known.kept.append(tensor)

    def detached(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note that a tensor was detached in place, for which PyTorch has no operator."""
        with torch._C.DisableTorchFunction():
            var = self._known.of(tensor)
        var.follows = var.content.active = False
        self.program.nodes.append(Node(_aten.detach_.default, (var,), {}, var, "stopped"))
        return tensor

    def restore(self) -> None:
        """Give memory that was there before the function its content back."""
        self._known.restore()

    # Variables

    def _operand(self, tensor: torch.Tensor) -> Var:
        """Return the variable of an operand, stopped if autograd does not follow the operand."""
        var = self._known.of(tensor)
        if (
            self._depth
            or not var.content.active
            or self._follows(tensor)
            or not (tensor.is_floating_point() or tensor.is_complex())
            or self._in_own_rule()
        ):
            return var
        key = (var, self._writes)
        if key not in self._stops:
            content = Content(reads=var.content.reads)
            stopped = Var(var.shape, var.dtype, var.stride, var.offset, content)
            content.base = stopped
            self.program.nodes.append(Node("stop_gradient", (var,), {}, stopped))
            self._stops[key] = stopped
        return self._stops[key]

    def _follows(self, item: Any) -> bool:
        """Whether autograd follows a tensor, or one among several.

        PyTorch's kernels for some tensors (zeros of forward mode, conjugates) use other operators, below
        autograd: their results do not require a gradient although their operands do.
        """
        if isinstance(item, torch.Tensor):
            var = self._known.found.get(item._cdata)
            if var is not None and var.follows:
                return True
            # A leaf that the function made (a view made without gradients, detach().requires_grad_()) is
            # connected to nothing.
            return item.requires_grad and (var is None or not item.is_leaf)
        return isinstance(item, list | tuple) and any(map(self._follows, item))

    def _in_own_rule(self) -> bool:
        """Whether the forward part of a custom autograd function runs, in which PyTorch disables autograd."""
        return self.grad_enabled and not torch.is_grad_enabled() and int(_C._current_graph_task_id()) == -1

    # Operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused or any(isinstance(one, torch.Tensor) and one.is_meta for one in args):
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if torch.is_grad_enabled():
                self.grad_enabled = True
            try:
                return self._call(func, operator(func), args, kwargs)
            except TraceError as error:
                self.refusal = self.refusal or error
                raise

    def _call(self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if of.check:
            return None
        if of.reads_values:
            return self._number(func, of, args, kwargs)
        if of.layout:
            return func(*args, **kwargs)
        if of.name == "lift_fresh" and args[0]._cdata not in self._known.found:
            self._known.of(args[0], literal=True)
            return args[0]
        if of.literal:
            return self._literal_result(func, of, args, kwargs)
        if self.draws and of.draws:
            return self._drawn(func, of, args, kwargs)
        if of.name == "masked_select":
            return self._selected(args[0], args[1])
        if of.masked:
            args = self._with_known_masks(of, args)
        if of.out:
            return self._stored(func, args, kwargs)
        if not of.rule and not (of.in_place and operator(functional(func) or func).rule):
            return self._decomposed(func, of, args, kwargs)
        return self._record(func, of, args, kwargs)

    def _record(
        self,
        func: Any,
        of: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        write: Write | None = None,
    ) -> Any:
        found: list[Var] = []

        def take(tensor: torch.Tensor) -> Var:
            keep = of.view or of.relaid or (bool(of.written) and any(tensor is args[i] for i in of.written))
            var = self._known.of(tensor) if keep else self._operand(tensor)
            found.append(var)
            return var

        if of.written:
            write = write or self._kind_of_write(of, args)
        given = mapped(args, take)
        named = {key: mapped(item, take) for key, item in kwargs.items()} if kwargs else kwargs
        reads = active = 0
        for var in found:
            reads |= var.content.reads
            active |= var.content.active
        if of.shapes_alone:
            reads = active = 0
        for place in of.written:
            if place < len(args) and isinstance(args[place], torch.Tensor):
                self._before_write(args[place], given[place])
        follows = of.name != "detach" and torch.is_grad_enabled() and self._follows(args)
        result = self._execute(func, of, args, kwargs, reads)
        for place in of.written:
            if place < len(args) and isinstance(args[place], torch.Tensor):
                content = given[place].content
                content.written = True
                content.reads |= reads
                if write is None and of.in_place:
                    content.active |= bool(active)
                self._writes += 1

        def made(tensor: torch.Tensor) -> Var:
            if of.in_place and tensor is args[0]:
                given[0].follows |= follows
                return given[0]  # type: ignore[no-any-return]
            var = self._known.new(tensor)
            var.content.reads |= reads
            if not of.written or of.view:
                var.content.active |= bool(active)
            var.follows = follows
            self._known.bind(tensor, var)
            return var

        results = results_of(result, made)
        if of.copied:
            results.content.copied = True
        if of.length_from is not None:
            results[1].content.reads = given[of.length_from].content.reads
        self.program.nodes.append(Node(func, given, named, results, write))
        return result

    def _kind_of_write(self, of: Operator, args: tuple[Any, ...]) -> Write | None:
        target = args[of.written[0]] if of.written[0] < len(args) else None
        if self._depth or not isinstance(target, torch.Tensor) or not target.is_floating_point():
            return None
        content = self._known.of(target).content
        follows = self._follows(args)
        if self._in_own_rule():
            return None
        if torch.is_grad_enabled() and follows:
            if content.active and not self._follows(target) and of.in_place:
                raise TraceError(
                    "a write to a detached tensor, of values that have a gradient, cannot be traced: the "
                    "tensor that it was detached from shares its memory; write to a .clone()"
                )
            return None
        return "kept" if content.active else "stopped"

    def _before_write(self, tensor: torch.Tensor, var: Var) -> None:
        content = var.content
        if content.copied:
            raise TraceError(
                "a write to a tensor that is viewed as complex, or as real, cannot be traced: write to a "
                ".clone()"
            )
        if content.given and content.before is None:
            content.memory = tensor.untyped_storage()
            content.before = content.memory.clone()  # type: ignore[no-untyped-call]

    def _execute(
        self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], reads: int
    ) -> Any:
        if self._real or not reads & ARGUMENTS or of.view or of.relaid:
            return func(*args, **kwargs)
        if of.in_place:
            return args[0]
        if of.shapes_need_values:
            return func(*mapped(args, filled), **kwargs)
        return results_of(shapes_of(func, args, kwargs), empty_like, as_list=False)

    def _number(self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if any(self._known.of(one).content.reads & ARGUMENTS for one in tensors):
            valid = validation()
            if valid is not None:
                return func(*args, **kwargs) if self._real else valid
        for one in tensors:
            self.read(one, "an if, a loop, float() or .item()")
        return func(*args, **kwargs)

    def _literal_result(self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        for one in tensors:
            if self._known.of(one).content.reads & ARGUMENTS:
                raise TraceError(
                    f"aten.{of.name} makes a shape out of values that depend on the arguments; use "
                    "torch.where, or do it outside"
                )
            self.values |= self._known.of(one).content.reads
        result = func(*args, **kwargs)
        return results_of(result, self._as_literal, as_list=False)

    def _drawn(self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Draw random numbers now: a literal, or what is written to the argument of an operator in place."""
        given = args[1:] if of.in_place or of.name.endswith("_like") else args
        for one in given:
            if isinstance(one, torch.Tensor):
                self.read(one, f"aten.{of.name}, which draws random numbers,")
        if not of.in_place:
            return results_of(func(*args, **kwargs), self._as_literal, as_list=False)
        target = args[0]
        drawn = torch.empty_strided(target.shape, target.stride(), dtype=target.dtype)
        self._write(
            target, self._as_literal(func(drawn, *given, **kwargs)), self._kind_of_write(of, (target,))
        )
        return target

    def _as_literal(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor._cdata not in self._known.found:
            self._known.of(tensor, literal=True)
        return tensor

    def _with_known_masks(self, of: Operator, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Replace masks whose values are known by their values: they decide about a shape."""

        def known(mask: Any) -> list[Any]:
            if not isinstance(mask, torch.Tensor) or mask.dtype not in (torch.bool, torch.uint8):
                return [mask]
            reads = self._known.of(mask).content.reads
            if reads & ARGUMENTS:
                if "put" not in of.name:
                    raise TraceError(
                        "a boolean mask that depends on the arguments makes a shape out of values; write "
                        "torch.where(mask, a, b) in place of it"
                    )
                return [mask]
            self.values |= reads
            return [self._as_literal(places.clone()) for places in mask.nonzero(as_tuple=True)]

        return args[0], [place for one in args[1] for place in known(one)], *args[2:]

    def _selected(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        """Record a selection by a mask as one by index."""
        shape = np.broadcast_shapes(x.shape, mask.shape)
        expand, index = _aten.expand.default, _aten.index.Tensor
        x, mask = (self._record(expand, operator(expand), (one, list(shape)), {}) for one in (x, mask))
        return self._call(index, operator(index), (x, [mask]), {})

    def _stored(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record an operator with out=, as one without and a write."""
        plain = functional(func)
        if plain is None:
            raise unknown(f"{operator(func).name} with out=")
        schema = [one for one in func._schema.arguments if one.alias_info is not None and one.kwarg_only]
        targets = [kwargs[one.name] for one in schema]
        rest = {key: item for key, item in kwargs.items() if key not in {one.name for one in schema}}
        result = self._call(plain, operator(plain), args, rest)
        results = result if isinstance(result, tuple | list) else (result,)
        for target, one in zip(targets, results, strict=True):
            if target.shape != one.shape:
                if self._known.of(target).content.given:
                    raise TraceError("out= of another shape than the result cannot be traced: drop out=")
                target.resize_(one.shape)
                self._known.bind(target, self._known.new(target))
            self._write(target, one, "kept" if self._known.of(target).content.active else "stopped")
        return targets[0] if len(targets) == 1 else tuple(targets)

    def _write(self, target: torch.Tensor, source: torch.Tensor, write: Write | None) -> None:
        copy = _aten.copy_.default
        self._depth += 1
        try:
            self._record(copy, operator(copy), (target, source), {}, write)
        finally:
            self._depth -= 1

    def _decomposed(self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = functional(func) if of.in_place else None
        if plain is not None:
            write = self._kind_of_write(of, args)
            self._write(args[0], self._decomposed(plain, operator(plain), args, kwargs), write)
            return args[0]
        steps = decomposition(func)
        if steps is None:
            raise unknown(of.name)
        outermost = not self._depth
        inner = mapped(args, self._stopped) if outermost else args
        named = {key: mapped(item, self._stopped) for key, item in kwargs.items()} if outermost else kwargs
        self._depth += 1
        try:
            with self:
                made = steps(*inner, **named)
        finally:
            self._depth -= 1
        if made is NotImplemented:
            raise unknown(of.name)
        if of.written or of.view or not outermost or not self._real:
            return made
        return self._kernel_result(func, of, args, kwargs, made)

    def _stopped(self, tensor: torch.Tensor) -> torch.Tensor:
        var = self._known.of(tensor)
        operand = self._operand(tensor)
        if operand is var:
            return tensor
        alias = tensor.detach()
        self._known.bind(alias, operand)
        self._known.kept.append(alias)
        return alias

    def _kernel_result(
        self, func: Any, of: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
    ) -> Any:
        """Return what PyTorch's own kernel computes, after a comparison with its decomposition."""
        result = func(*args, **kwargs)
        wanted = result if isinstance(result, tuple | list) else (result,)
        found = made if isinstance(made, tuple | list) else (made,)
        for place, (one, other) in enumerate(zip(wanted, found, strict=False)):
            if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
                continue
            if not place and not agree(one, other):
                raise TraceError(
                    f"PyTorch's own decomposition of aten.{of.name} disagrees with its kernel here, so that "
                    "it cannot be traced; compose it from other operators"
                )
            if one._cdata not in self._known.found:
                self._known.contents.setdefault(one.untyped_storage()._cdata, self._known.of(other).content)
                self._known.kept.append(StorageWeakRef(one.untyped_storage()))  # type: ignore[no-untyped-call]
                self._known.bind(one, self._known.of(other))
        return result
