"""Mutable storage of traced arrays: cells hold the immutable values of a graph.

Assignment replaces the value in a cell. A view is a cell over another: it reads from its base again when the
base has changed, and writes to it, as views of NumPy arrays do. Assignments to single elements are collected
and become one node when the whole array is read next, so that a loop that fills an array element by element
adds one node an element, and not a copy of the array.

A cell belongs to the body of the graph in which it was made. Nodes that only arrange its elements are added
there, wherever it is read; the body of a loop or a branch cannot assign to arrays from outside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import Body, DType, GraphValue, Shape
from gradwire.graphs.refusals import refuse


class Cell:
    """An array's current value, and the single-element writes that it does not contain yet.

    `ordered` says whether its axes come in C order in memory, as NumPy lays the array out: reshaping makes
    a view only where they do.
    """

    __slots__ = ("_pending", "_value", "body", "dtype", "graph", "ordered", "shape", "version")

    def __init__(self, value: GraphValue, ordered: bool = True) -> None:
        self.graph: GraphBuilder = value.graph
        self.body: Body = value.graph.body
        self.shape: Shape = value.shape
        self.dtype: DType = value.dtype
        self.version = 0
        self.ordered = ordered
        self._value = value
        self._pending: dict[int, GraphValue] = {}

    @property
    def contiguous(self) -> bool:
        """Whether its elements are in order in memory, so that NumPy reshapes it without a copy."""
        return self.ordered or len(self.shape) < 2

    def read(self) -> GraphValue:
        """Return the current value, with pending writes merged."""
        if self._pending:
            with self.graph.at(self.body):
                self._value = self._flush()
            self._pending = {}
        return self._value

    def write(self, value: GraphValue) -> None:
        """Replace the whole value.

        Raises:
            TraceError: the array was made outside of the body that is being traced.
        """
        self._refuse_from_elsewhere()
        self._pending = {}
        self._value = value
        self.version += 1

    def element(self, position: int) -> GraphValue | None:
        """Return the scalar last written at a flat position, if it is not merged yet."""
        return self._pending.get(position)

    def settled(self) -> GraphValue:
        """Return the value without pending writes, which is right wherever `element` returns None."""
        return self._value

    def write_element(self, position: int, scalar: GraphValue) -> None:
        """Replace the element at a flat position.

        Raises:
            TraceError: the array was made outside of the body that is being traced.
        """
        self._refuse_from_elsewhere()
        self._pending[position] = scalar
        self.version += 1

    def _refuse_from_elsewhere(self) -> None:
        if self.graph.body is not self.body:
            raise refuse(
                "assignment, within a function given to gw.scan, gw.cond or another of their kind, to an "
                "array from outside of it",
                "pass the array in (as the carry of a loop) and return the new one, or assign to a .copy()",
            )

    def _flush(self) -> GraphValue:
        positions = sorted(self._pending)
        updates = ops.concat([ops.reshape(self._pending[item], (1,)) for item in positions], 0)
        if len(positions) == self._value.size:
            return ops.reshape(updates, self.shape)
        return ops.scatter_flat(self._value, self.graph.constant(np.array(positions, np.int64)), updates)


class ViewCell(Cell):
    """Part of another cell, or the same elements in another arrangement.

    Args:
        base: the cell that is viewed.
        shape: shape of the view.
        forward: from the base's value to the view's.
        backward: from the base's value and the view's new value to the base's new value; None where
            assignment is refused.
        key: what made it: the parts of a basic index, or the order of transposed axes.
        contiguous: whether its elements are in order in memory, so that NumPy reshapes it without a copy.
        ordered: whether its axes come in C order in memory; a contiguous view's do.
    """

    __slots__ = ("_backward", "_contiguous", "_forward", "_seen", "base", "key")

    def __init__(
        self,
        base: Cell,
        shape: Shape,
        forward: Callable[[GraphValue], GraphValue],
        backward: Callable[[GraphValue, GraphValue], GraphValue] | None,
        key: object = None,
        contiguous: bool = False,
        ordered: bool = False,
    ) -> None:
        self.graph = base.graph
        self.body = base.body
        self.shape = shape
        self.dtype = base.dtype
        self.base = base
        self.key = key
        self.ordered = ordered or contiguous
        self._contiguous = contiguous
        self._forward = forward
        self._backward = backward
        self._seen = -1

    @property
    def contiguous(self) -> bool:
        """Whether NumPy has the elements in C order, without gaps."""
        return self._contiguous

    @property
    def version(self) -> int:  # type: ignore[override]
        """The base's version: whatever is written to the base may have changed this view."""
        return self.base.version

    def read(self) -> GraphValue:
        """Return the current value; a node of the view is added only if the base has changed since."""
        version = self.base.version
        if self._seen != version:
            with self.graph.at(self.body):
                self._value = self._forward(self.base.read())
            self._seen = version
        return self._value

    def write(self, value: GraphValue) -> None:
        """Replace the view's elements in the base.

        Raises:
            TraceError: the view is a broadcast or diagonal one, or the array was made outside of the body
                that is being traced.
        """
        if self._backward is None:
            raise refuse(
                "assignment through a broadcast or diagonal view",
                "assign to a .copy(), or to the original array",
            )
        self._refuse_from_elsewhere()
        self.base.write(self._backward(self.base.read(), value))
        self._value = value
        self._seen = self.base.version

    @property
    def settled_now(self) -> bool:
        """Whether the base is unchanged since this view was last read or written."""
        return self._seen == self.base.version

    def element(self, position: int) -> GraphValue | None:
        """Return None: a view collects no writes."""
        return None

    def settled(self) -> GraphValue:
        """Return the current value, as `read` does: nothing is pending."""
        return self.read()

    def write_element(self, position: int, scalar: GraphValue) -> None:
        """Replace the element at a flat position of the view, in the base and at once.

        Raises:
            TraceError: as for `write`.
        """
        positions = self.graph.constant(np.array([position], np.int64))
        self.write(ops.scatter_flat(self.read(), positions, ops.reshape(scalar, (1,))))


class FrozenCell(Cell):
    """A reshaped strided view: NumPy may or may not copy its elements, so writing is refused."""

    __slots__ = ()

    def write(self, value: GraphValue) -> None:
        """Refuse: whether NumPy would write to the original depends on memory layout.

        Raises:
            TraceError: always.
        """
        raise refuse(
            "assignment into a reshaped view",
            "whether it reaches the original depends on memory layout: assign to a .copy(), "
            "or to the original array",
        )

    def write_element(self, position: int, scalar: GraphValue) -> None:
        """Refuse, as `write` does.

        Raises:
            TraceError: always.
        """
        self.write(scalar)
