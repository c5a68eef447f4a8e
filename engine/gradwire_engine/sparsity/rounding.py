"""Arithmetic of values that are known, as far as rounding cannot change it.

A compiled program may round otherwise than NumPy does: it fuses products with sums, and leaves conversions
out. Whether 3 * 0.1 - 0.3 is zero, and what it rounds to as an index, is then not known before the program
runs. So a floating result is kept where it is exact, and is NaN elsewhere: NaN is not zero, and no choice is
made by it.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

_SPLIT = {np.dtype(np.float32): np.float32(2**12 + 1), np.dtype(np.float64): np.float64(2**27 + 1)}
"""Multipliers that split a number into a high and a low half (Dekker, Numer. Math. 18, 1971)."""


def is_exact_kind(dtype: Any) -> bool:
    """Return whether arithmetic of a dtype never rounds: booleans and integers."""
    return np.dtype(dtype).kind in "biu"


def is_certain(array: Array) -> bool:
    """Return whether choices may be made by values: none of them is NaN, which stands for not known."""
    return is_exact_kind(array.dtype) or not bool(np.any(array != array))


def added(first: Array, second: Array, result: Array) -> Array:
    """Keep the sums that are exact."""
    if result.dtype not in _SPLIT:
        return _whole(result, first, second)
    part = result - first
    return _kept(result, (first - (result - part)) + (second - part) == 0)


def multiplied(first: Array, second: Array, result: Array) -> Array:
    """Keep the products that are exact; a product with zero is."""
    if result.dtype not in _SPLIT:
        return _whole(result, first, second)
    high, low = _halves(first)
    other_high, other_low = _halves(second)
    error = ((high * other_high - result) + high * other_low + low * other_high) + low * other_low
    # Below, the error itself would underflow.
    tiny = np.finfo(result.dtype).tiny ** 0.5
    zero = ((first == 0) & np.isfinite(second)) | ((second == 0) & np.isfinite(first))
    return _kept(result, zero | ((error == 0) & (np.abs(result) > tiny)))


def divided(first: Array, second: Array, result: Array) -> Array:
    """Keep the quotients that are exact."""
    if result.dtype not in _SPLIT:
        return _whole(result, first, second)
    zero = (first == 0) & (second != 0)
    return _kept(result, zero | (multiplied(result, second, result * second) == first))


def converted(array: Array, result: Array) -> Array:
    """Keep the values that a narrower floating type holds."""
    return _kept(result, result.astype(array.dtype) == array)


def summed(result: Array, magnitude: Array, *operands: Array) -> Array:
    """Keep sums and products of whole, small numbers, which no order of them rounds; of others the zeros.

    Args:
        result: of the operands.
        magnitude: what their absolute values give.
        operands: all of them.
    """
    total = sum(float(np.sum(np.abs(array))) for array in operands)
    whole = total < _largest_whole(result.dtype) and all(map(_is_whole, operands))
    return (
        result
        if whole and np.all(magnitude < _largest_whole(result.dtype))
        else _kept(result, magnitude == 0)
    )


def _whole(result: Array, *operands: Array) -> Array:
    """Keep results of whole, small operands: of complex numbers and short floats."""
    limit = _largest_whole(result.dtype) ** 0.5 / 2
    kept: Any = np.True_
    for operand in operands:
        parts = (operand.real, operand.imag) if operand.dtype.kind == "c" else (operand,)
        for part in parts:
            kept = kept & (np.rint(part) == part) & (np.abs(part) < limit)
    parts = (result.real, result.imag) if result.dtype.kind == "c" else (result,)
    for part in parts:
        kept = kept & (np.rint(part) == part)
    return _kept(result, kept)


def _halves(array: Array) -> tuple[Array, Array]:
    scaled = array * _SPLIT[array.dtype]
    high = scaled - (scaled - array)
    return high, array - high


def _kept(result: Array, exact: Any) -> Array:
    return result if np.all(exact) else np.where(exact, result, np.asarray(np.nan, result.dtype))


def _is_whole(array: Array) -> bool:
    return is_exact_kind(array.dtype) or bool(np.all(np.rint(array) == array))


def _largest_whole(dtype: Any) -> float:
    """Return up to where a type holds every whole number."""
    return float(2 ** ml_dtypes.finfo(np.zeros(0, dtype).real.dtype).nmant)  # type: ignore[no-untyped-call]
