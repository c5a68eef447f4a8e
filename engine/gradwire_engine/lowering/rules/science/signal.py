"""Signal processing: Fourier transforms, short-time spectra, windows and the mel scale."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import helper

from gradwire_engine.lowering.arrays import namespace_for
from gradwire_engine.lowering.registry import Node, Value, rule


def _to_complex(node: Node, x: Value, dtype: Any = np.float64) -> Value:
    """Convert a trailing axis of one (real) or two (real, imaginary) elements to complex numbers.

    Forward transforms run in double precision whatever the input: in single precision, bins that are
    zero fill with the rounding errors of the largest bin. Inverse transforms divide those errors by
    their length and stay in single precision.
    """
    wide = jnp.asarray(x, jnp.promote_types(x.dtype, dtype))
    if x.shape[-1] == 1:
        return wide[..., 0]
    if x.shape[-1] == 2:
        return lax.complex(wide[..., 0], wide[..., 1])
    raise node.fail(f"the last axis has size {x.shape[-1]}; it must be 1 (real) or 2 (real, imaginary)")


def _to_pairs(z: Value, dtype: Any) -> Value:
    """Convert complex numbers to a trailing axis of real and imaginary parts."""
    return jnp.stack([z.real, z.imag], axis=-1).astype(dtype)


def _transform(node: Node, x: Value, length: Value | None, axis: int) -> Value:
    """Compute a (one-sided or inverse) discrete Fourier transform along one axis."""
    axis %= x.ndim
    if axis == x.ndim - 1:
        raise node.fail("the last axis holds real and imaginary parts and cannot be transformed")
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    size = x.shape[axis] if not (inverse and onesided) else 2 * (x.shape[axis] - 1)
    if length is not None:
        (size,) = node.ints(length, "dft_length")
    if size < 1:
        raise node.fail(f"dft_length must be positive, not {size}")
    signal = _to_complex(node, x, np.float32 if inverse else np.float64)
    if inverse and onesided:
        return jnp.fft.irfft(signal, size, axis).astype(x.dtype)[..., None]
    if inverse:
        return _to_pairs(jnp.fft.ifft(signal, size, axis), x.dtype)
    if onesided and not jnp.iscomplexobj(signal):
        return _to_pairs(jnp.fft.rfft(signal, size, axis), x.dtype)
    spectrum = jnp.fft.fft(signal, size, axis)
    if onesided:
        spectrum = lax.slice_in_dim(spectrum, 0, size // 2 + 1, axis=axis)
    return _to_pairs(spectrum, x.dtype)


@rule("DFT", since=17)
def dft(node: Node, x: Value, length: Value | None = None) -> Value:
    """DFT up to opset 19: the axis is an attribute, by default the second axis."""
    return _transform(node, x, length, int(node.attr("axis", 1)))


@rule("DFT", since=20)
def dft_20(node: Node, x: Value, length: Value | None = None, axis: Value | None = None) -> Value:
    """DFT from opset 20: the axis is an input, by default the last signal axis."""
    place = -2 if axis is None else node.ints(axis, "axis")[0]
    return _transform(node, x, length, place)


@rule("STFT", since=17)
def stft(
    node: Node, x: Value, frame_step: Value, window: Value | None = None, frame_length: Value | None = None
) -> Value:
    """STFT: spectra of overlapping windowed frames.

    Args:
        node: the node.
        x: (batch, length, 1 or 2) signal, real or with real and imaginary parts.
        frame_step: static distance between frames.
        window: (frame_length,), or None.
        frame_length: static; by default that of the window, else of the signal.

    Returns:
        (batch, frames, bins, 2) array in the dtype of `x`.
    """
    (step,) = node.ints(frame_step, "frame_step")
    if frame_length is not None:
        (length,) = node.ints(frame_length, "frame_length")
    else:
        length = x.shape[1] if window is None else window.shape[0]
    if step < 1 or not 1 <= length <= x.shape[1]:
        raise node.fail(f"frames of {length} every {step} do not fit a signal of {x.shape[1]}")
    if window is not None and window.shape != (length,):
        raise node.fail(f"window has shape {window.shape}; frame_length is {length}")
    starts = np.arange(0, x.shape[1] - length + 1, step)
    frames = jnp.take(_to_complex(node, x), starts[:, None] + np.arange(length), axis=1)
    if window is not None:
        frames = frames * window
    if not node.attr("onesided", 1):
        return _to_pairs(jnp.fft.fft(frames), x.dtype)
    if jnp.iscomplexobj(frames):
        return _to_pairs(jnp.fft.fft(frames)[..., : length // 2 + 1], x.dtype)
    return _to_pairs(jnp.fft.rfft(frames), x.dtype)


def _output_dtype(node: Node) -> Any:
    return helper.tensor_dtype_to_np_dtype(node.attr("output_datatype", 1))


_COSINES = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""Coefficients a - b cos(t) + c cos(2 t), by operator."""


@rule("HannWindow", "HammingWindow", "BlackmanWindow", since=17)
def cosine_window(node: Node, size: Value) -> Value:
    """HannWindow, HammingWindow, BlackmanWindow: computed in double, rounded to the output's dtype."""
    (count,) = node.ints(size, "size")
    period = count if node.attr("periodic", 1) else count - 1
    if period < 1:
        return np.ones(max(count, 0), _output_dtype(node))
    xp = namespace_for((count,))
    angle = 2 * np.pi * xp.arange(count) / period
    a, b, c = _COSINES[node.op]
    return (a - b * xp.cos(angle) + c * xp.cos(2 * angle)).astype(_output_dtype(node))


@rule("MelWeightMatrix", since=17)
def mel_weight_matrix(
    node: Node, num_mel_bins: Value, dft_length: Value, sample_rate: Value, lower: Value, upper: Value
) -> Value:
    """MelWeightMatrix: triangular filters on the mel scale, with peak 1. All inputs are static.

    Args:
        node: the node.
        num_mel_bins: number of filters.
        dft_length: length of the transform.
        sample_rate: in Hz.
        lower: lower edge in Hz.
        upper: upper edge in Hz.

    Returns:
        (dft_length // 2 + 1, num_mel_bins) array of `output_datatype`.
    """
    (bands,) = node.ints(num_mel_bins, "num_mel_bins")
    (length,) = node.ints(dft_length, "dft_length")
    (rate,) = node.ints(sample_rate, "sample_rate")
    low, high = (
        2595 * math.log10(1 + node.static(edge, what).item() / 700)
        for edge, what in ((lower, "lower_edge_hertz"), (upper, "upper_edge_hertz"))
    )
    xp = namespace_for((length // 2 + 1, bands + 2))
    mels = low + xp.arange(bands + 2) * ((high - low) / (bands + 2))
    hertz = 700 * (10 ** (mels / 2595) - 1)
    edges = xp.floor((length + 1) * hertz / rate)
    start, peak, end = edges[:-2], edges[1:-1], edges[2:]
    place = xp.arange(length // 2 + 1)[:, None]
    rising = xp.where(peak > start, (place - start) / xp.maximum(peak - start, 1), 1)
    falling = (end - place) / xp.maximum(end - peak, 1)
    weights = xp.where(place < peak, rising * (place >= start), falling * (place < end))
    weights = xp.where(place == peak, 1, weights)
    return weights.astype(_output_dtype(node))
