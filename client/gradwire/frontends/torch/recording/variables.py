"""Keeps which variable stands for which tensor, and what is known of each tensor's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from gradwire.errors import TraceError
from gradwire.frontends.torch.recording.program import ARGUMENTS, ClosedOver, Content, Node, Program, Var

if TYPE_CHECKING:
    from gradwire.frontends.torch.recording.recorder import Recorder

_C: Any = torch._C
_as_strided: Any = torch.ops.aten.as_strided.default


class Variables:
    """The variables of a recording.

    Args:
        program: what closed-over tensors are added to.
        outer: the recorder of a function that this recording is made in, if any.

    Attributes:
        found: variables by the address of their tensor.
        contents: what is known of memory, by its address.
        kept: weak references: while they are there, addresses are not used again.
    """

    def __init__(self, program: Program, outer: Recorder | None) -> None:
        self.program = program
        self._outer = outer
        self.found: dict[int, Var] = {}
        self.contents: dict[int, Content] = {}
        self.kept: list[Any] = []

    def reads(self, tensor: torch.Tensor) -> int:
        """Return what the values of a tensor depend on; 0 for one that was never seen."""
        var = self.found.get(tensor._cdata)
        return var.content.reads if var is not None else 0

    def restore(self) -> None:
        """Give memory that was there before the function its content back."""
        for content in self.contents.values():
            if content.before is not None and content.memory is not None:
                content.memory.copy_(content.before)

    def _content(self, tensor: torch.Tensor) -> tuple[Content, bool]:
        """Return what is known of a tensor's memory, and whether that is new."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            raise TraceError(
                f"a tensor of layout {tensor.layout} cannot be traced: make it dense with .to_dense()"
            ) from None
        key = storage._cdata
        found = self.contents.get(key)
        if found is not None:
            return found, False
        content = self.contents[key] = Content()
        self.kept.append(StorageWeakRef(storage))  # type: ignore[no-untyped-call]
        return content, True

    def new(self, tensor: torch.Tensor, given: bool = False) -> Var:
        """Return a new variable for a tensor, in the memory that it shares with others."""
        content, fresh = self._content(tensor)
        var = Var(tuple(tensor.shape), tensor.dtype, tensor.stride(), int(tensor.storage_offset()), content)
        if fresh:
            content.given = given
            content.base = var
        return var

    def bind(self, tensor: torch.Tensor, var: Var) -> None:
        """Lets a variable stand for a tensor from now on."""
        self.found[tensor._cdata] = var
        self.kept.append(_C._WeakTensorRef(tensor))

    def of(self, tensor: torch.Tensor, literal: bool = False) -> Var:
        """Return the variable of a tensor; one that was never seen is closed over."""
        found = self.found.get(tensor._cdata)
        if found is not None:
            return found
        if self._outer is not None and self._outer.reads(tensor) & ARGUMENTS:
            raise TraceError(
                "a function that is recorded inside another closes over a tensor of the outer one: pass it "
                "in as an argument"
            )
        content = self.contents.get(tensor.untyped_storage()._cdata)
        if content is not None and not content.given:
            return self._alias(tensor, content)
        var = self.new(tensor, given=not literal)
        if var.content.written:
            raise self.shared_memory()
        if not literal:
            var.content.reads |= 2 << len(self.program.closed_over)
            var.content.active |= tensor.requires_grad
            var.follows = tensor.requires_grad
        kept = tensor.detach().clone() if literal else tensor
        self.program.closed_over.append(ClosedOver(var, kept, literal))
        self.bind(tensor, var)
        return var

    def _alias(self, tensor: torch.Tensor, content: Content) -> Var:
        """Return a variable for a view that PyTorch made without an operator."""
        base = content.base
        if base is None or not base.contiguous or base.offset:
            raise self.shared_memory()
        var = self.new(tensor)
        args = (base, list(tensor.shape), list(tensor.stride()), tensor.storage_offset())
        self.program.nodes.append(Node(_as_strided, args, {}, var))
        self.bind(tensor, var)
        return var

    def shared_memory(self) -> TraceError:
        """Return the error for a write that another view would have to see."""
        return TraceError(
            "the function writes to memory that another tensor shares, and reads that one too: read it "
            "through a view made inside the function, or write to a .clone()"
        )
