"""Fourier transforms and complex arithmetic; what is complex is returned as its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.client.frontends.numpy.cases.case import Case

RNG = np.random.default_rng(11)
V, W = RNG.normal(size=7), RNG.normal(size=7)
EVEN = RNG.normal(size=8)
A = RNG.normal(size=(4, 6))
B = RNG.normal(size=(4, 6))
C = RNG.normal(size=(7, 7)) + 1j * RNG.normal(size=(7, 7)) + 5 * np.eye(7)
c = C[0]


def parts(result: Any) -> tuple[Any, ...]:
    """Real and imaginary parts of a result, or of several in a list or tuple."""
    if isinstance(result, list | tuple):
        return tuple(part for item in result for part in parts(item))
    return np.real(result), np.imag(result)


def of_real(function: Callable[..., Any], *arguments: Any) -> Case:
    """A case whose function takes real arrays and gives complex ones."""
    return Case(lambda *given: parts(function(*given)), arguments)


def of_complex(function: Callable[..., Any]) -> Case:
    """A case whose function takes one complex vector of seven elements."""
    return Case(lambda real, imag: parts(function(real + 1j * imag)), (V, W))


def without_slope(case: Case) -> Case:
    """The same case of a function whose results are not floating."""
    return replace(case, slope_rtol=None)


LENGTHS = (None, 5, 8, 9)
NORMS = (None, "ortho", "forward")


def _assigned(real: Any, imag: Any) -> Any:
    z = np.fft.fft(real)
    z[3:] = 0
    z[0] *= 2j
    z *= 1j
    z[1] += imag[0]
    copy = z.copy()
    copy.real[2] = 5.0
    made = np.zeros_like(real, dtype=complex)
    made[1] = z[0]
    made.imag = imag
    return parts([z, copy, made])


def _real_transform(name: str) -> Case:
    function = getattr(np.fft, name)
    return of_real(
        lambda v, a: [*(function(v, n, norm=norm) for n in LENGTHS for norm in NORMS), function(a, axis=0)],
        V,
        A,
    )


def _complex_transform(name: str) -> Case:
    function = getattr(np.fft, name)
    return of_complex(lambda z: [function(z, n, norm=norm) for n in LENGTHS for norm in NORMS])


def _over_axes(name: str) -> Case:
    function = getattr(np.fft, name)
    return of_real(lambda a: [function(a), function(a, norm="ortho"), function(a, s=(3, 8), axes=(1, 0))], A)


def _complex_over_axes(name: str) -> Case:
    function = getattr(np.fft, name)
    return of_real(lambda a, b: function(a + 1j * b), A, B)


HOLOMORPHIC = """
    exp exp2 expm1 log log1p log2 log10 sqrt sin cos tan sinh cosh tanh arcsin arccos arctan arcsinh
    arccosh arctanh square reciprocal negative positive
""".split()  # noqa: SIM905
"""Functions that have a complex derivative."""

_ELEMENTARY = """
    conjugate absolute angle sum mean cumsum std var flip diff ravel zeros_like ones_like nan_to_num gradient
    ediff1d trapezoid flipud copy diag diagflat
""".split()  # noqa: SIM905
_TESTS = ("isreal", "iscomplex", "isnan", "isinf", "isfinite")

CASES: dict[str, Case] = {
    **{f"{n} of real arrays": _real_transform(n) for n in ("fft", "ifft", "rfft", "ihfft", "irfft", "hfft")},
    **{f"{n} of complex arrays": _complex_transform(n) for n in ("fft", "ifft", "irfft", "hfft")},
    "rfft of an even length": of_real(np.fft.rfft, EVEN),
    "irfft undoes rfft": Case(
        lambda v, e: (np.fft.irfft(np.fft.rfft(v), 7), np.fft.irfft(np.fft.rfft(e))), (V, EVEN)
    ),
    **{n: _over_axes(n) for n in ("fft2", "ifft2", "fftn", "ifftn", "rfft2", "rfftn", "irfft2", "irfftn")},
    **{
        f"{n} of complex arrays": _complex_over_axes(n)
        for n in ("fft2", "ifft2", "fftn", "ifftn", "irfft2", "irfftn")
    },
    "fftshift": of_real(
        lambda a: (np.fft.fftshift(a), np.fft.ifftshift(a, axes=1), np.fft.fftshift(np.fft.fft(a))), A
    ),
    "ifftshift": of_complex(lambda z: (np.fft.ifftshift(z), np.fft.fftshift(z, axes=0))),
    "frequencies are constants": of_real(lambda v: np.fft.fft(v) * 1j * np.fft.fftfreq(7), V),
    **{f"{name} of complex numbers": of_complex(getattr(np, name)) for name in (*HOLOMORPHIC, *_ELEMENTARY)},
    **{f"{name} of complex numbers": without_slope(of_complex(getattr(np, name))) for name in _TESTS},
    "real and imaginary parts": Case(lambda v, w: (np.real(v + 1j * w), (v * 2j + w).imag), (V, W)),
    "sums of complex numbers": of_complex(lambda z: (z + 2, 2j + z, z + c, c - z, z - 1.5, V - z, z - V)),
    "products of complex numbers": of_complex(lambda z: (z * 2, 2j * z, z * c, c * z, z * z, V * z)),
    "quotients of complex numbers": of_complex(lambda z: (z / 2, z / 2j, c / z, 1 / z, z / c, V / z, z / V)),
    "powers of complex numbers": of_complex(
        lambda z: (
            z**2,
            z**3,
            z**-2,
            z**0,
            z**0.5,
            z**1.3,
            z ** (1 + 2j),
            z**c,
            2**z,
            z**z,
            np.float_power(z, 2),
        )
    ),
    "equality of complex numbers": without_slope(of_complex(lambda z: (z == z.copy(), z != c, z == 0))),
    "matrix products of complex numbers": of_complex(
        lambda z: (C @ z, z @ C, z @ z, np.dot(C, z), np.vdot(z, c), np.vdot(c, z), np.inner(z, z))
    ),
    "other products of complex numbers": of_complex(
        lambda z: (
            np.outer(z, c),
            np.kron(z, c[:2]),
            np.einsum("i,ij", z, C),
            np.einsum("i->", z),
            np.tensordot(z, C, 1),
            np.cross(z[:3], c[:3]),
            np.linalg.vecdot(z, c),
            np.linalg.outer(z, c),
        )
    ),
    "parts of complex arrays": of_complex(
        lambda z: (z[2:], z[::-1], z[[0, 2]], z[1], np.take(z, [1, 1]), np.delete(z, 2), np.split(z, [2]))
    ),
    "joined complex arrays": of_complex(
        lambda z: (
            np.concatenate([z, V, c]),
            np.stack([z, c]),
            np.hstack([z, V]),
            np.vstack([z, c]),
            np.append(z, 1j),
            np.column_stack([z, c]),
            np.dstack([z, c]),
            np.block([z, c]),
        )
    ),
    "chosen complex numbers": of_complex(lambda z: (np.where(V > 0, z, 0), np.where(z.real > 0, c, z))),
    "padded complex arrays": of_complex(
        lambda z: (np.pad(z, 1), np.pad(z, 2, constant_values=1j), np.pad(z, 2, mode="edge"))
    ),
    "convolutions of complex arrays": of_complex(
        lambda z: (np.convolve(z, c[:3]), np.correlate(z, c[:3]), np.convolve(z, V[:2], "same"))
    ),
    "rearranged complex arrays": of_complex(
        lambda z: (
            z.reshape(7, 1),
            z[None].T,
            z[:, None].squeeze(),
            np.tile(z, 2),
            np.roll(z, 1),
            np.repeat(z, 2),
            np.expand_dims(z, 0),
            np.broadcast_to(z, (2, 7)),
            np.moveaxis(z[None], 0, 1),
        )
    ),
    "matrices of complex numbers": of_complex(
        lambda z: (
            np.tril(np.outer(z, c)),
            np.triu(np.outer(z, c)),
            np.trace(np.outer(z, c)),
            np.diagonal(np.outer(z, c)),
            np.rot90(np.outer(z, c)),
            np.swapaxes(np.outer(z, c), 0, 1),
            np.transpose(np.outer(z, c)),
            np.fliplr(np.outer(z, c)),
        )
    ),
    "pieces of complex arrays": of_complex(
        lambda z: (
            np.array_split(z, 3),
            np.hsplit(z, [2]),
            np.vsplit(z[:6].reshape(2, 3), 2),
            np.dsplit(z[None, None], [3]),
            np.unstack(z[:2]),
            np.take_along_axis(z, np.array([3, 0]), 0),
            np.rollaxis(z[None], 1),
            np.matrix_transpose(z[None]),
        )
    ),
    "linear algebra of complex matrices": of_complex(
        lambda z: (
            np.linalg.matmul(C, z[:, None]),
            np.linalg.tensordot(z, C, axes=1),
            np.linalg.cross(z[:3], c[:3]),
            np.linalg.diagonal(np.outer(z, c)),
            np.linalg.trace(np.outer(z, c)),
            np.linalg.matrix_transpose(z[None]),
            np.vecdot(z, c),
        )
    ),
    "arrays like complex ones": of_complex(
        lambda z: (np.full_like(z, 2j) + z, 0 * np.empty_like(z), z * np.iscomplexobj(z), z * np.isrealobj(z))
    ),
    "rounded complex numbers": of_complex(lambda z: (np.round(z, 1), np.around(z))),
    "solutions of complex systems": of_complex(
        lambda z: (
            np.linalg.solve(C, z),
            np.linalg.inv(np.outer(z, z) + C),
            np.linalg.solve(np.diag(z) + C, C),
        )
    ),
    "norms of complex arrays": Case(
        lambda v, w: (
            np.linalg.norm(v + 1j * w),
            np.linalg.norm(v + 1j * w, 1),
            np.linalg.norm((v + 1j * w)[None], axis=0),
        ),
        (V, W),
    ),
    "methods of complex arrays": of_complex(
        lambda z: (
            z.sum(),
            z.mean(),
            z.conj(),
            z.copy(),
            z.astype(complex),
            z.cumsum(),
            z.dot(z),
            z.flatten(),
        )
    ),
    "shapes of complex arrays": Case(
        lambda v, w: (v * np.ndim(v + 1j * w) * np.size(v + 1j * w) * np.shape(v + 1j * w)[0],), (V, W)
    ),
    "assignment into complex arrays": Case(_assigned, (V, W)),
    "complex constants and real arrays": of_real(
        lambda v: (
            v * 1j,
            1j * v,
            v / 2j,
            v + c,
            c @ v,
            np.dot(C, v),
            2j**v,
            np.exp(1j * v),
            v.astype(complex),
        ),
        V,
    ),
}
