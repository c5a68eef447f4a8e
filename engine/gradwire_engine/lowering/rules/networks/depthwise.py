"""Convolutions in which each channel has kernels of its own, as sums of shifted products.

XLA's CPU backend has a fast path for convolutions of one group and for few groups. With one group for each
channel it falls back to a plain loop nest, 40 to 100 times slower than the loop over fused products here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from gradwire_engine.lowering.registry import Value

TAPS = 64
"""Elements of a kernel up to which the sum is written out."""

_EXACT = lax.Precision.HIGHEST


def convolve(
    x: Value,
    w: Value,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    groups: int,
    input_dilation: Sequence[int] | None = None,
    kernel_dilation: Sequence[int] | None = None,
) -> Value:
    """Convolve in groups of channels.

    Args:
        x: (batch, channels, ...).
        w: (outputs, channels / groups, ...).
        strides: one for each spatial axis.
        padding: elements before and after, for each spatial axis; negative ones cut.
        groups: of channels; an output takes the channels of its own group alone.
        input_dilation: one for each spatial axis; 1 by default.
        kernel_dilation: likewise.

    Returns:
        (batch, outputs, ...).
    """
    rank = x.ndim - 2
    spread, reach = tuple(input_dilation or (1,) * rank), tuple(kernel_dilation or (1,) * rank)
    taps = math.prod(w.shape[2:])
    if groups == x.shape[1] > 1 and 0 < taps <= TAPS and jax.default_backend() == "cpu":
        return _shifted_products(x, w, tuple(strides), tuple(padding), spread, reach)
    return lax.conv_general_dilated(
        x,
        w,
        tuple(strides),
        padding,
        lhs_dilation=spread,
        rhs_dilation=reach,
        feature_group_count=groups,
        precision=_EXACT,
    )


def _shifted_products(
    x: Value,
    w: Value,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    spread: tuple[int, ...],
    reach: tuple[int, ...],
) -> Value:
    batch, channels, *_ = x.shape
    kernel = w.shape[2:]
    dtype = jnp.result_type(x, w)
    if dtype.itemsize == 2:  # as XLA's own convolution, which adds up in single precision
        x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    config = [(0, 0, 0), (0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in zip(padding, spread, strict=True))]
    # Each use of the padded input would compute what comes before it anew, if it were fused with that.
    padded = lax.pad(jnp.asarray(x), jnp.zeros((), x.dtype), config)
    padded = lax.optimization_barrier(padded)  # type: ignore[no-untyped-call]
    sides = [
        max((size - (extent - 1) * far - 1) // step + 1, 0)
        for size, extent, far, step in zip(padded.shape[2:], kernel, reach, strides, strict=True)
    ]
    weights = jnp.asarray(w).reshape(channels, -1, *kernel)
    total = jnp.zeros((batch, channels, weights.shape[1], *sides), jnp.result_type(x, w))
    if 0 in sides:
        return total.reshape(batch, -1, *sides).astype(dtype)
    for place in product(*map(range, kernel)):
        begin = [index * far for index, far in zip(place, reach, strict=True)]
        end = [b + (side - 1) * step + 1 for b, side, step in zip(begin, sides, strides, strict=True)]
        seen = lax.slice(padded, (0, 0, *begin), (batch, channels, *end), (1, 1, *strides))
        factor = weights[(slice(None), slice(None), *place)]
        total = total + seen[:, :, None] * factor.reshape(1, channels, -1, *(1,) * len(sides))
    return total.reshape(batch, -1, *sides).astype(dtype)
