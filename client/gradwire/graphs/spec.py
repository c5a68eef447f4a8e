"""Shape and dtype of a function's input."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_FLOAT64: np.dtype[Any] = np.dtype(np.float64)


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array.

    Attributes:
        shape: extent of each axis.
        dtype: NumPy dtype: float16/32/64, a signed or unsigned integer, or bool.
        name: name of the input; None for that of the function's parameter.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] = _FLOAT64
    name: str | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object))


def spec(
    shape: int | Sequence[int] = (), dtype: npt.DTypeLike = np.float64, name: str | None = None
) -> ArraySpec:
    """Describe an input: `spec(3)`, `spec((2, 2), np.float32)`, `spec(())` for a scalar.

    Args:
        shape: one extent, or one for each axis.
        dtype: anything that `np.dtype` takes.
        name: name of the input; by default that of the function's parameter.

    Raises:
        TypeError: an extent is no integer, or the dtype is not a real number or bool.
        ValueError: an extent is negative.
    """
    sides = shape if isinstance(shape, Sequence) else (shape,)
    extents = tuple(operator.index(side) for side in sides)
    if any(extent < 0 for extent in extents):
        raise ValueError(f"shape {extents} has a negative extent; give the number of elements on each axis")
    resolved = np.dtype(dtype).newbyteorder("=")
    if resolved.kind not in "fiub" or resolved.itemsize > 8:
        raise TypeError(
            f"dtype {resolved} cannot be an input; use float64, float32, float16, an integer type or bool"
        )
    return ArraySpec(extents, resolved, name)


def spec_of(array: npt.ArrayLike, name: str | None = None) -> ArraySpec:
    """Return the spec of an array, or of anything that `np.asarray` takes (a Python float is float64)."""
    values = np.asarray(array)
    return spec(values.shape, values.dtype, name)
