"""Shape and dtype of a function's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.sizes import Size, any_symbolic, as_extent, is_symbolic, symbol

_FLOAT64: np.dtype[Any] = np.dtype(np.float64)


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one array.

    Attributes:
        shape: extent of each axis: an integer, or a `Size` that takes its place.
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
        return prod(self.shape)

    @property
    def symbolic(self) -> bool:
        """Whether an extent is not known."""
        return any_symbolic(self.shape)

    def check_numbers(self) -> None:
        """Check that every extent is known.

        Raises:
            InvalidArgumentError: one has a name in place of a number.
        """
        if self.symbolic:
            raise InvalidArgumentError(
                f"the shape {self.shape} has sizes by name, which are for NumPy functions: give the specs of "
                "another framework's function their numbers, as in gw.spec(100)"
            )


def spec(
    shape: int | str | Sequence[int | str | None] | None = (),
    dtype: npt.DTypeLike = np.float64,
    name: str | None = None,
) -> ArraySpec:
    """Describe an input: `spec(3)`, `spec((2, 2), np.float32)`, `spec(())` for a scalar.

    Args:
        shape: one extent, or one for each axis. A name stands for an extent that is not known yet, the same
            one wherever the name is used; None for one of its own: `spec("n")`, `spec((None, 3))`. A NumPy
            function is then traced once, for all sizes from 1 on.
        dtype: anything that `np.dtype` takes.
        name: name of the input; by default that of the function's parameter.

    Raises:
        TypeError: an extent is no integer, or the dtype is not a real number or bool.
        ValueError: an extent is negative, or a name of one is not a Python identifier.
    """
    sides = shape if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
    extents = tuple(_extent(side, axis) for axis, side in enumerate(sides))
    if any(not is_symbolic(extent) and extent < 0 for extent in extents):
        raise ValueError(f"shape {extents} has a negative extent; give the number of elements on each axis")
    resolved = np.dtype(dtype).newbyteorder("=")
    if resolved.kind not in "fiub" or resolved.itemsize > 8:
        raise TypeError(
            f"dtype {resolved} cannot be an input; use float64, float32, float16, an integer type or bool"
        )
    return ArraySpec(extents, resolved, name)


def _extent(side: int | str | None, axis: int) -> int:
    if side is None:
        return symbol(f".{axis}")
    if isinstance(side, str):
        if not side.isidentifier():
            raise ValueError(f"an extent is named by an identifier, as in gw.spec('n'), not {side!r}")
        return symbol(side)
    return as_extent(side)


def named_extents(own: ArraySpec, name: str) -> ArraySpec:
    """Name the extents that were given as None after the input and the axis: "x.0"."""
    if not own.symbolic:
        return own
    shape = tuple(
        extent.renamed({one: f"{name}{one}" for one in extent.names if one.startswith(".")})
        if isinstance(extent, Size)
        else extent
        for extent in own.shape
    )
    return replace(own, shape=shape)


def spec_of(array: npt.ArrayLike, name: str | None = None) -> ArraySpec:
    """Return the spec of an array, or of anything that `np.asarray` takes (a Python float is float64)."""
    values = np.asarray(array)
    return spec(values.shape, values.dtype, name)
