"""Discrete Fourier transforms of real and complex arrays, by ONNX's DFT.

All functions are composed of the forward and the inverse transform along one axis. The derivative of a
transform is a transform, for any length.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex, parts
from gradwire.frontends.numpy.axes import all_axes, along, one_axis
from gradwire.frontends.numpy.complex_dispatch import implements_complex
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy

_F = TypeVar("_F", bound=Callable[..., Any])
_SWAPPED = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _of_any(*names: str) -> Callable[[_F], _F]:
    """Register a function for real and for complex arrays."""

    def register(function: _F) -> _F:
        return implements_complex(*names)(implements(*names)(function))

    return register


def _norm(norm: str | None) -> str:
    """Check the name of a normalization; None stands for "backward".

    Raises:
        ValueError: NumPy has no such normalization.
    """
    name = "backward" if norm is None else norm
    if name not in _SWAPPED:
        raise ValueError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    return name


def _length(n: Any, default: int) -> int:
    count = default if n is None else operator.index(n)
    if count < 1:
        raise ValueError(f"Invalid number of FFT data points ({count}) specified.")
    return count


def _transform(
    real: GraphValue,
    imag: GraphValue | None,
    count: int,
    axis: int,
    inverse: bool = False,
    onesided: bool = False,
) -> TracedComplex:
    """Transform along one axis; the operator crops the signal, or pads it with zeros, to the length.

    Args:
        real: the real part.
        imag: the imaginary part; None for a real signal.
        count: length of the transform.
        axis: the axis to transform, non-negative.
        inverse: whether to compute the inverse transform, divided by the length.
        onesided: whether to keep the non-negative frequencies only.
    """
    graph = real.graph
    kind = ops.FLOAT32 if real.dtype in (np.float16, np.float32) else ops.FLOAT64
    given = [real] if imag is None else [real, imag]
    columns = [ops.reshape(ops.cast(part, kind), (*real.shape, 1)) for part in given]
    bins = count // 2 + 1 if onesided else count
    shape = (*real.shape[:axis], bins, *real.shape[axis + 1 :])
    pairs = wrap(
        graph.one(
            "DFT",
            [ops.concat(columns, real.ndim), graph.scalar(count, ops.INT64), graph.scalar(axis, ops.INT64)],
            (*shape, 2),
            kind,
            inverse=int(inverse),
            onesided=int(onesided),
        )
    )
    return TracedComplex(pairs[..., 0].copy(), pairs[..., 1].copy())


def _forward(a: Any, n: Any, axis: Any, norm: str | None, onesided: bool) -> Any:
    real, imag = parts(a)
    place = one_axis(axis, real.ndim)
    count = _length(n, real.shape[place])
    result = _transform(real.value, None if imag is None else imag.value, count, place, onesided=onesided)
    return _scaled(result, count, _norm(norm))


def _scaled(result: Any, count: int, norm: str) -> Any:
    if norm == "backward":
        return result
    return result * (1 / count if norm == "forward" else 1 / math.sqrt(count))


@_of_any("fft.fft")
def fft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    return _forward(a, n, axis, norm, onesided=False)


@_of_any("fft.ifft")
def ifft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    real, imag = parts(a)
    place = one_axis(axis, real.ndim)
    count = _length(n, real.shape[place])
    value = np.zeros_like(real).value if imag is None else imag.value
    return _unscaled(_transform(real.value, value, count, place, inverse=True), count, _norm(norm))


def _unscaled(result: Any, count: int, norm: str) -> Any:
    """Rescale an inverse transform, which is divided by its length, to another normalization."""
    if norm == "backward":
        return result
    return result * (count if norm == "forward" else math.sqrt(count))


@implements("fft.rfft")
def rfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    return _forward(a, n, axis, norm, onesided=True)


@_of_any("fft.irfft")
def irfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    """Take the real part of the inverse transform of the bins, with mirrored bins counted twice."""
    real, _ = parts(a)
    place = one_axis(axis, real.ndim)
    count = _length(n, 2 * (real.shape[place] - 1))
    bins = min(real.shape[place], count // 2 + 1)
    weights = np.full(bins, 2.0)
    weights[0] = 1.0
    if count % 2 == 0 and bins == count // 2 + 1:
        weights[-1] = 1.0
    weights = weights.reshape((-1,) + (1,) * (real.ndim - place - 1)).astype(real.dtype)
    return ifft(along(a, place, slice(0, bins)) * weights, count, place, norm).real


@_of_any("fft.hfft")
def hfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    return irfft(np.conjugate(a), n, axis, _SWAPPED[_norm(norm)])


@implements("fft.ihfft")
def ihfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None) -> Any:
    return np.conjugate(rfft(a, n, axis, _SWAPPED[_norm(norm)]))


def _extents(a: Any, s: Sequence[Any] | None, axes: Sequence[int] | None) -> list[tuple[int | None, int]]:
    """Return the length (None to keep it) and the axis of each transform."""
    rank = np.ndim(a)
    if axes is None:
        axes = range(rank) if s is None else range(rank - len(s), rank)
    places = all_axes(tuple(axes), rank)
    lengths = [None] * len(places) if s is None else [None if n == -1 else n for n in s]
    if len(lengths) != len(places):
        raise ValueError("Shape and axes have different lengths.")
    return list(zip(lengths, places, strict=True))


def _each(transform: Any, a: Any, extents: Sequence[tuple[int | None, int]], norm: str | None) -> Any:
    for n, axis in reversed(extents):
        a = transform(a, n, axis, norm)
    return a


@_of_any("fft.fftn")
def fftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None) -> Any:
    return _each(fft, a, _extents(a, s, axes), norm)


@_of_any("fft.ifftn")
def ifftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None) -> Any:
    return _each(ifft, a, _extents(a, s, axes), norm)


@implements("fft.rfftn")
def rfftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None) -> Any:
    *others, (n, axis) = _extents(a, s, axes)
    return _each(fft, rfft(a, n, axis, norm), others, norm)


@_of_any("fft.irfftn")
def irfftn(a: Any, s: Any = None, axes: Any = None, norm: str | None = None) -> Any:
    *others, (n, axis) = _extents(a, s, axes)
    for length, place in others:
        a = ifft(a, length, place, norm)
    return irfft(a, n, axis, norm)


@_of_any("fft.fft2")
def fft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Any:
    return fftn(a, s, axes, norm)


@_of_any("fft.ifft2")
def ifft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Any:
    return ifftn(a, s, axes, norm)


@implements("fft.rfft2")
def rfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Any:
    return rfftn(a, s, axes, norm)


@_of_any("fft.irfft2")
def irfft2(a: Any, s: Any = None, axes: Any = (-2, -1), norm: str | None = None) -> Any:
    return irfftn(a, s, axes, norm)


def _shifted(x: TracedArray, axes: Any, back: bool) -> Any:
    places = all_axes(axes, x.ndim)
    amounts = [-(x.shape[place] // 2) if back else x.shape[place] // 2 for place in places]
    return np.roll(x, amounts, places)


@implements("fft.fftshift")
def fftshift(x: Any, axes: Any = None) -> Any:
    return _shifted(x, axes, back=False)


@implements("fft.ifftshift")
def ifftshift(x: Any, axes: Any = None) -> Any:
    return _shifted(x, axes, back=True)
