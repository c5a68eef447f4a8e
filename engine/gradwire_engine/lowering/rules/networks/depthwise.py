"""Convolutions in which each channel has kernels of its own, as sums of shifted products.

XLA's CPU backend has a fast path for convolutions of one group and for few groups. With one group for each
channel it falls back to a plain loop nest, 40 to 100 times slower than the loop over fused products here.

The sum is a primitive of its own, so that it is one equation however many elements the kernel has. Its
derivatives are of the same kind: by the image, the sum with the kernel reversed; by the kernel, one number
for each of its elements, which is a primitive as well. Written out they would keep one image for each
element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradwire_engine.computations import apart
from gradwire_engine.lowering.registry import Value

NAME = "depthwise_convolution"
"""The name of the primitive in a jaxpr."""

KERNEL_NAME = "depthwise_kernel_gradient"
"""The name of the primitive for its cotangent by the kernel."""

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
        each = w.shape[0] // groups
        x = jnp.repeat(x, each, 1) if each > 1 else jnp.asarray(x)
        w = jnp.asarray(w).reshape(w.shape[0], *w.shape[2:])
        dtype = jnp.result_type(x, w)
        ends = tuple((int(lo), int(hi)) for lo, hi in padding)
        windows = Windows(tuple(map(int, strides)), ends, spread, reach)
        return _shifted(x.astype(dtype), w.astype(dtype), windows)
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


@dataclass(frozen=True)
class Windows:
    """What each output sees of the image, one entry for each spatial axis.

    Attributes:
        strides: elements between outputs.
        padding: elements before and after; negative ones cut.
        spread: elements of the padded image between two of the image.
        reach: elements between those that two elements of the kernel meet.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    reach: tuple[int, ...]

    def sides(self, image: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial extents of the output."""
        return tuple(
            max((lo + hi + (size - 1) * gap - (extent - 1) * far) // step + 1, 0) if size else 0
            for size, extent, step, (lo, hi), gap, far in zip(
                image, kernel, self.strides, self.padding, self.spread, self.reach, strict=True
            )
        )

    def reversed(self, image: Sequence[int], kernel: Sequence[int]) -> Windows:
        """Return those with which the output and the reversed kernel make the image."""
        ends = []
        for size, side, extent, step, (lo, _), gap, far in zip(
            image,
            self.sides(image, kernel),
            kernel,
            self.strides,
            self.padding,
            self.spread,
            self.reach,
            strict=True,
        ):
            before = (extent - 1) * far - lo
            after = (size - 1) * gap + (extent - 1) * far - (side - 1) * step - before
            ends.append((before, after))
        return Windows(self.spread, tuple(ends), self.strides, self.reach)

    def seen(self, x: Value, sides: Sequence[int], kernel: Sequence[int]) -> Iterator[Value]:
        """Yield what each element of the kernel meets, at each place of the output."""
        config = [(0, 0, 0), (0, 0, 0)]
        config += [(lo, hi, d - 1) for (lo, hi), d in zip(self.padding, self.spread, strict=True)]
        padded = lax.pad(x, jnp.zeros((), x.dtype), config)
        # Each use of the padded image would compute what comes before it anew, if it were fused with that.
        padded = lax.optimization_barrier(padded)  # type: ignore[no-untyped-call]
        for place in product(*map(range, kernel)):
            begin = [index * far for index, far in zip(place, self.reach, strict=True)]
            end = [
                start + (side - 1) * step + 1
                for start, side, step in zip(begin, sides, self.strides, strict=True)
            ]
            yield lax.slice(padded, (0, 0, *begin), (*x.shape[:2], *end), (1, 1, *self.strides))


def _wide(x: Value) -> Value:
    # As XLA's own convolution, which adds 16-bit numbers up in single precision.
    return x.astype(jnp.float32) if x.dtype.itemsize == 2 else x


def sum_of_products(x: Value, w: Value, *, windows: Windows) -> Value:
    """Compute (batch, channels, ...) of an image of that shape and kernels (channels, ...)."""
    kernel = w.shape[1:]
    sides = windows.sides(x.shape[2:], kernel)
    x, w, dtype = _wide(x), _wide(w), x.dtype
    total = jnp.zeros((*x.shape[:2], *sides), x.dtype)
    if total.size == 0:
        return total.astype(dtype)
    for seen, place in zip(windows.seen(x, sides, kernel), product(*map(range, kernel)), strict=True):
        total = total + seen * w[(slice(None), *place)].reshape(1, -1, *(1,) * len(sides))
    return total.astype(dtype)


def kernel_products(x: Value, weights: Value, *, windows: Windows, kernel: tuple[int, ...]) -> Value:
    """Compute (channels, *kernel): for each element, the sum over the output of weights and what it meets."""
    x, weights, dtype = _wide(x), _wide(weights), x.dtype
    if weights.size == 0:
        return jnp.zeros((x.shape[1], *kernel), dtype)
    axes = (0, *range(2, x.ndim))
    found = [jnp.sum(seen * weights, axes) for seen in windows.seen(x, weights.shape[2:], kernel)]
    return jnp.stack(found, 1).reshape(-1, *kernel).astype(dtype)


def _primitive(name: str, function: Any) -> Any:
    primitive: Any = Primitive(name)
    primitive.def_impl(lambda *operands, **params: _compiled(primitive, **params)(*operands))

    def shape(*operands: Any, **params: Any) -> Any:
        result = jax.eval_shape(lambda *items: function(*items, **params), *operands)
        return jax.core.ShapedArray(result.shape, result.dtype)

    primitive.def_abstract_eval(shape)

    def lowered(*operands: Value, **params: Any) -> Any:
        return apart(partial(function, **params))(*operands)

    mlir.register_lowering(primitive, mlir.lower_fun(lowered, multiple_results=False))
    return primitive


def _compiled(primitive: Any, **params: Any) -> Any:
    return jax.jit(lambda *operands: primitive.bind(*operands, **params))


_shifted_p = _primitive(NAME, sum_of_products)
_kernel_p = _primitive(KERNEL_NAME, kernel_products)


def _shifted(x: Value, w: Value, windows: Windows) -> Value:
    return _shifted_p.bind(x, w, windows=windows)


def _by_image(ct: Value, image: Sequence[int], w: Value, windows: Windows) -> Value:
    """Return the cotangent of an image from that of the output."""
    kernel = w.shape[1:]
    if ct.size == 0 or 0 in image:
        return jnp.zeros((*ct.shape[:2], *image), ct.dtype)
    return _shifted(ct, lax.rev(w, tuple(range(1, w.ndim))), windows.reversed(image, kernel))


def _shifted_by_image(ct: Value, x: Any, w: Value, *, windows: Windows) -> Value:
    return _by_image(ct, x.aval.shape[2:], w, windows)


def _shifted_by_kernel(ct: Value, x: Value, w: Any, *, windows: Windows) -> Value:
    return _kernel_p.bind(x, ct, windows=windows, kernel=tuple(w.aval.shape[1:]))


def _kernel_by_image(ct: Value, x: Any, weights: Value, *, windows: Windows, kernel: Any) -> Value:
    return _by_image(weights, x.aval.shape[2:], ct, windows)


def _kernel_by_weights(ct: Value, x: Value, weights: Any, *, windows: Windows, kernel: Any) -> Value:
    return _shifted(x, ct, windows)


def _channels_together(items: Sequence[Value], axes: Sequence[Any], at: Sequence[int]) -> list[Value]:
    """Merge the axis of a batch of problems into the channels."""
    size = next(item.shape[axis] for item, axis in zip(items, axes, strict=True) if axis is not None)
    merged = []
    for item, axis, channels in zip(items, axes, at, strict=True):
        if axis is None:
            moved = jnp.broadcast_to(
                jnp.expand_dims(item, channels), (*item.shape[:channels], size, *item.shape[channels:])
            )
        else:
            moved = jnp.moveaxis(item, axis, channels)
        shape = moved.shape
        merged.append(moved.reshape(*shape[:channels], -1, *shape[channels + 2 :]))
    return merged


def _shifted_batched(operands: Any, axes: Any, *, windows: Windows) -> tuple[Value, int]:
    x, w = operands
    if axes[1] is None:
        images = jnp.moveaxis(x, axes[0], 0)
        result = _shifted(images.reshape(-1, *images.shape[2:]), w, windows)
        return result.reshape(*images.shape[:2], *result.shape[1:]), 0
    size = w.shape[axes[1]]
    images, kernels = _channels_together(operands, axes, (1, 0))
    result = _shifted(images, kernels, windows)
    return result.reshape(result.shape[0], size, -1, *result.shape[2:]), 1


def _kernel_batched(operands: Any, axes: Any, *, windows: Windows, kernel: Any) -> tuple[Value, int]:
    size = next(item.shape[axis] for item, axis in zip(operands, axes, strict=True) if axis is not None)
    result = _kernel_p.bind(*_channels_together(operands, axes, (1, 1)), windows=windows, kernel=kernel)
    return result.reshape(size, -1, *kernel), 0


_bilinear: Any = ad.defbilinear
_bilinear(_shifted_p, _shifted_by_image, _shifted_by_kernel)
_bilinear(_kernel_p, _kernel_by_image, _kernel_by_weights)
_batchers: Any = batching.primitive_batchers
_batchers[_shifted_p] = _shifted_batched
_batchers[_kernel_p] = _kernel_batched
