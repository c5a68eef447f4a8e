"""Rules for complex numbers and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwire.frontends.torch.lowering import Array, Call, rule


@rule("complex")
def complex_(call: Call, real: Array, imaginary: Array) -> Any:
    return real + 1j * imaginary


@rule("polar")
def polar(call: Call, size: Array, angle: Array) -> Any:
    return size * np.cos(angle) + 1j * (size * np.sin(angle))


@rule("view_as_real", "view_as_real_copy")
def view_as_real(call: Call, x: Array) -> Any:
    return np.stack([np.real(x), np.imag(x)], -1)


@rule("view_as_complex", "view_as_complex_copy")
def view_as_complex(call: Call, x: Array) -> Any:
    return x[..., 0] + 1j * x[..., 1]


@rule("_conj", "_conj_physical", "conj_physical", "_conj_copy")
def conjugate(call: Call, x: Array) -> Any:
    return np.conj(x)


@rule("resolve_conj", "resolve_neg", "_neg_view")
def resolve(call: Call, x: Array) -> Any:
    return -x if call.op == "_neg_view" else x


@rule("real", "imag")
def part(call: Call, x: Array) -> Any:
    return np.real(x) if call.op == "real" else np.imag(x)


@rule("angle")
def angle(call: Call, x: Array) -> Any:
    return np.angle(x) if x.dtype.kind == "c" else np.where(np.less(x, 0), np.pi, 0.0).astype(call.dtype)


def _transformed(
    call: Call, x: Array, axes: Sequence[int], transform: Callable[..., Any], norm: str, **options: Any
) -> Any:
    for axis in axes:
        x = transform(x, axis=axis, norm=norm, **options)
    return x.astype(call.dtype)


def _norm(number: int, forward: bool) -> Any:
    """Return NumPy's name; PyTorch's numbers say what the transform itself is divided by."""
    if number == 1:
        return "ortho"
    return "backward" if (number == 0) == forward else "forward"


@rule("_fft_c2c")
def fft(call: Call, x: Array, dims: Sequence[int], normalization: int, forward: bool) -> Any:
    transform = np.fft.fft if forward else np.fft.ifft
    return _transformed(call, x, dims, transform, _norm(normalization, forward))


@rule("_fft_r2c")
def real_fft(call: Call, x: Array, dims: Sequence[int], normalization: int, onesided: bool) -> Any:
    norm = _norm(normalization, True)
    first = np.fft.rfft if onesided else np.fft.fft
    x = _transformed(call, x, dims[-1:], first, norm)
    return _transformed(call, x, dims[:-1], np.fft.fft, norm)


@rule("_fft_c2r")
def inverse_real_fft(call: Call, x: Array, dims: Sequence[int], normalization: int, size: int) -> Any:
    norm = _norm(normalization, False)
    for axis in dims[:-1]:
        x = np.fft.ifft(x, axis=axis, norm=norm)
    return np.fft.irfft(x, n=size, axis=dims[-1], norm=norm).astype(call.dtype)
