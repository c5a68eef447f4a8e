"""Frozen values that describe graphs, functions and arrays: hashable keys of caches, cheap to pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, overload

import ml_dtypes
import numpy as np


def dtype_of(name: str) -> np.dtype[np.generic]:
    """Return a dtype from its name, "bfloat16" and its like included."""
    dtype: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, name, name))
    return dtype


def is_floating(dtype: str) -> bool:
    """Return whether arrays of this dtype have derivatives (complex ones do not here)."""
    return dtype in ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class ArrayType:
    """The dtype (by name) and shape of an array at hand."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * dtype_of(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TensorType:
    """The type of an input or output in a signature.

    `shape` holds an int for a fixed extent, a name for a symbolic one and None for any extent;
    a shape of None is an unknown rank. `dtype` is "" for a value that is not a tensor.
    """

    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        extents = ("?" if extent is None else str(extent) for extent in self.shape)
        return f"{self.dtype}[{', '.join(extents)}]"


Named = tuple[str, TensorType]
Arguments = tuple[tuple[str, ArrayType], ...]


@dataclass(frozen=True)
class Signature:
    """Names and types of a function's inputs and outputs, in order."""

    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]


@dataclass(frozen=True)
class GraphInfo:
    """What a client learns about a graph it registers, and what it chose of it.

    `own_derivatives` says whether a derivative in it is given by the graph: that need not be a gradient,
    and a Hessian need not be symmetric then.
    """

    graph_id: str
    signature: Signature
    forward_only: bool
    forward_only_reason: str
    warnings: tuple[str, ...]
    node_count: int
    weight_bytes: int
    opset: int
    straight_through: bool = False
    own_derivatives: bool = False


STRAIGHT_THROUGH = "straight_through"
"""Round, Floor, Ceil and pairs of QuantizeLinear and DequantizeLinear have the derivative of the identity."""


@dataclass(frozen=True, eq=False)
class Choices:
    """What a graph is registered with; the same model with other choices is another graph.

    Attributes:
        fixed: inputs that become constants, by name.
        inputs: the inputs of the function: inputs of the model, initializers and inner values; empty for
            the model's own.
        outputs: its outputs: outputs of the model and inner values; empty for the model's own.
        rounding: "" or "straight_through".
    """

    fixed: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    rounding: str = ""

    def __bool__(self) -> bool:
        return bool(self.fixed or self.inputs or self.outputs or self.rounding)

    def update(self, digest: hashlib._Hash) -> None:
        """Feed the choices to a hash."""
        for name, array in sorted(self.fixed.items()):
            digest.update(f"fixed {name!r} {array.dtype.name} {array.shape} ".encode())
            digest.update(array.tobytes())
        digest.update(f"{self.inputs!r} {self.outputs!r} {self.rounding}".encode())


@dataclass(frozen=True)
class Block:
    """The unit of work and of streaming: seeds [start, stop) of one array, or colors of a sparse derivative.

    `array` indexes `wrt` in forward and Hessian modes, `of` in reverse mode, and the kernels of a sparse
    derivative; `index` numbers the blocks of a plan from 0. A block of a sparse derivative holds the values
    [first_value, last_value) of it.
    """

    index: int
    array: int
    start: int
    stop: int
    first_value: int = 0
    last_value: int = 0


_FIELDS = 6
_AT_ONCE = 1024


class Blocks(Sequence[Block]):
    """Blocks in their order, held as numbers: a million of them travel and are kept as one array."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        """Hold blocks."""
        rows = [(b.index, b.array, b.start, b.stop, b.first_value, b.last_value) for b in blocks]
        self._numbers = np.array(rows, np.int64).reshape(-1, _FIELDS)

    @classmethod
    def _of(cls, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Blocks:
        made = cls()
        made._numbers = numbers
        return made

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Block: ...

    @overload
    def __getitem__(self, place: slice) -> Blocks: ...

    def __getitem__(self, place: int | slice) -> Block | Blocks:
        if isinstance(place, slice):
            return self._of(self._numbers[place])
        return Block(*self._numbers[place].tolist())

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self), _AT_ONCE):
            for row in self._numbers[start : start + _AT_ONCE].tolist():
                yield Block(*row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocks) and np.array_equal(self._numbers, other._numbers)

    __hash__ = None  # type: ignore[assignment]

    def chosen(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Blocks:
        """Return the blocks that a mask chooses."""
        return self._of(self._numbers[mask])

    @property
    def arrays(self) -> tuple[int, ...]:
        """The arrays, or kernels, that there are blocks of, in order."""
        return tuple(np.unique(self._numbers[:, 1]).tolist())
