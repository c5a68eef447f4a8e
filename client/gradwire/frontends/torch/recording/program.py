"""A recorded function: operators on variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Write = Literal["kept", "stopped"]

ARGUMENTS = 1
"""The bit of `Content.reads` that stands for the function's arguments."""


@dataclass(eq=False, slots=True)
class Content:
    """What is known of a tensor's memory, which views share.

    Attributes:
        reads: what its values depend on: `ARGUMENTS`, and one bit for each closed-over tensor.
        active: whether it has a derivative.
        given: whether it was there before the function ran.
        written: whether the function wrote to it.
        memory: memory that was given and written to.
        before: a copy of it from before the first write.
        base: the first variable in this memory.
        copied: whether a view of it is a copy in the graph, so that it may not be written to any more.
    """

    reads: int = 0
    active: bool = False
    given: bool = False
    written: bool = False
    memory: torch.UntypedStorage | None = None
    before: torch.UntypedStorage | None = None
    base: Var | None = None
    copied: bool = False


@dataclass(eq=False, slots=True)
class Var:
    """A tensor in a recorded function: its layout, and its memory.

    Attributes:
        shape: extent of each axis.
        dtype: its dtype.
        stride: distance in memory between elements along each axis.
        offset: place of the first element.
        content: its memory.
        follows: whether autograd follows it, or would if its operator were not a step of another operator.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...]
    offset: int
    content: Content
    follows: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether its elements are in order, with the last axis fastest."""
        expected = 1
        for extent, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if extent != 1 and step != expected:
                return False
            expected *= extent
        return True

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    def before(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return a tensor as it was before the function wrote to it; None if it did not."""
        kept = self.content.before
        if kept is None:
            return None
        fresh = torch.empty(0, dtype=self.dtype, device=tensor.device)
        return fresh.set_(kept, self.offset, self.shape, self.stride)


@dataclass(eq=False, slots=True)
class Node:
    """One operator call.

    Attributes:
        op: the operator, or the name of one that PyTorch does not dispatch: "stop_gradient", "lstm".
        args: its arguments, with variables in place of tensors.
        kwargs: likewise.
        result: a variable, a list with variables, or None.
        write: for an operator that writes where autograd does not follow the write: whether the derivative
            of what was there stays ("kept") or there is none from now on ("stopped").
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    write: Write | None = None


@dataclass(eq=False, slots=True)
class Composite:
    """Operators that fewer can stand for.

    Attributes:
        begin: the first of them, among a program's.
        end: the one after the last.
        results: the variables that they make for others.
        nodes: what can stand for them.
    """

    begin: int
    end: int
    results: list[Var]
    nodes: list[Node]


@dataclass(eq=False, slots=True)
class ClosedOver:
    """A tensor that was not made by the function, or that it made from Python numbers.

    Attributes:
        var: its variable.
        tensor: the tensor itself; of a literal, a copy.
        literal: whether its values are a part of the function.
    """

    var: Var
    tensor: torch.Tensor
    literal: bool


@dataclass(eq=False, slots=True)
class Program:
    """A recorded function.

    Attributes:
        arguments: variables of its arguments.
        closed_over: tensors that it reads besides.
        nodes: operators in order.
        outputs: variables of its results.
        composites: operators that fewer can stand for, in order.
    """

    arguments: list[Var] = field(default_factory=list)
    closed_over: list[ClosedOver] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Var] = field(default_factory=list)
    composites: list[Composite] = field(default_factory=list)
