"""Functions that compute with complex numbers inside have JAX's values and Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradwire as gw
from gradwire.frontends.jax import convert
from tests.client.frontends.jax.jax_oracle import agree, jacobians_agree

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 6))
M = RNG.normal(size=(3, 4))

Row = tuple[Callable[..., Any], tuple[Any, ...]]


def parts(z: Any) -> tuple[Any, Any]:
    return z.real, z.imag


def of_pairs(fn: Callable[[Any], Any]) -> Row:
    return (lambda x, y: parts(fn(lax.complex(x, y)))), (X, Y)


def transformed(name: str) -> Callable[[Any], Any]:
    return lambda x: parts(getattr(jnp.fft, name)(x))


# JAX's derivative of arccosh is that of the other branch where the real part is negative.
UNARY = (
    "sqrt log log1p tan tanh arcsin arccos arctan arcsinh arctanh exp expm1 exp2 log2 log10 sin cos sinh "
    "cosh square conj reciprocal negative"
)

ROWS: dict[str, Row] = {name: of_pairs(getattr(jnp, name)) for name in UNARY.split()}
ROWS |= {
    f"fft.{name}": (transformed(name), (point,))
    for names, point in (("fft ifft rfft ihfft", X), ("fft2 ifft2 rfft2 fftn rfftn", M))
    for name in names.split()
}
ROWS |= {
    "arccosh": ((lambda x, y: parts(jnp.arccosh(lax.complex(x, y)))), (np.abs(X), Y)),
    "sigmoid": of_pairs(jax.nn.sigmoid),
    "absolute value and angle": ((lambda x, y: (jnp.abs(x + 1j * y), jnp.angle(x + 1j * y))), (X, Y)),
    "quotients and powers": (
        lambda x, y: parts(
            (x + 1j * y) ** 3 / (y - 2j * x) + (x + 1j * y) ** -2 - (x + 1j * y) ** (0.3 + 1j)
        ),
        (X, Y),
    ),
    "powers that vary": ((lambda x, y: parts((x + 1j * y) ** x)), (X, Y)),
    "inverse of real transforms": (
        lambda x: (jnp.fft.irfft(jnp.fft.rfft(x) * (1 + 2j)), jnp.fft.irfft(jnp.fft.rfft(x) * 2j, n=5)),
        (X,),
    ),
    "transforms of two axes and back": ((lambda m: jnp.fft.irfft2(jnp.fft.rfft2(m) * (1 + 2j))), (M,)),
    "hermitian transform": ((lambda x: jnp.fft.hfft(lax.complex(x, x**2))), (X,)),
    "normalized transform, padded and shifted": (
        lambda x: jnp.abs(jnp.fft.fftshift(jnp.fft.fft(x, n=8, norm="ortho"))),
        (X,),
    ),
    "spectrum under vmap": ((lambda m: jax.vmap(lambda row: jnp.abs(jnp.fft.fft(row)))(m)), (M,)),
    "spectrum in single precision": ((lambda x: jnp.fft.rfft(x).real), (X.astype(np.float32),)),
    "gradient within": ((jax.grad(lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 4))), (X,)),
    "products of matrices": ((lambda m: parts((m + 1j) @ (m.T * 1j + 2))), (M,)),
    "einsum": ((lambda m: parts(jnp.einsum("ij,kj->ik", m + 1j, (m + 2j).conj()))), (M,)),
    "convolution": ((lambda x: parts(jnp.convolve(x + 1j, x * 1j))), (X,)),
    "indexing and assignment": ((lambda x: parts((x + 1j * x).at[2].set(3j)[::-1][jnp.array([1, 2])])), (X,)),
    "sum and product": ((lambda x: (jnp.sum((x + 1j) * x).imag, *parts(jnp.prod(x[:5] + 1j)))), (X,)),
    "variance and norm": ((lambda x: (jnp.var(x + 1j * x), jnp.linalg.norm(x + 1j))), (X,)),
    "choice": ((lambda x: parts(jnp.where(x > 0, x + 1j, 2 * x))), (X,)),
    "scan": ((lambda x: parts(lax.scan(lambda c, r: (c * r * jnp.exp(1j * r), c), 1 + 0j, x)[0])), (X,)),
    "loop": ((lambda x: jnp.abs(lax.fori_loop(0, 5, lambda i, c: c * c * 0.5 + x, x + 1j))), (X,)),
    "loop with a condition": (
        lambda x: parts(lax.while_loop(lambda c: jnp.abs(c) < 50, lambda c: c * c + x[0], x[1] + 2j)),
        (np.abs(X),),
    ),
    "branch": ((lambda x: jnp.abs(lax.cond(x[0] > 0, lambda z: z * 2j, lambda z: z * 3, x + 1j))), (X,)),
    "comparison": ((lambda x: jnp.where(x + 0j == x, 2 * x, x) * jnp.isfinite(x + 1j)), (X,)),
}


@pytest.mark.parametrize("name", ROWS)
def test_values_and_jacobians_are_those_of_jax(name: str) -> None:
    fn, point = ROWS[name]
    single = any(array.dtype == np.float32 for array in point)
    agree(fn, *point, rtol=1e-10)
    jacobians_agree(fn, *point, rtol=1e-5 if single else 1e-9, atol=1e-6 if single else 1e-12)


def test_the_absolute_value_has_the_derivative_0_at_0_as_in_jax() -> None:
    jacobians_agree(lambda x: jnp.abs(x + 1j * x), np.zeros(2))


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x + 1j, "output y of <lambda> is complex.*return z.real and z.imag"),
        (lambda x: jnp.linalg.eig(jnp.outer(x, x))[0].real, "'eig'.*jnp.linalg.eigh"),
        (lambda x: jnp.sign(x + 1j).real, "'sign'"),
    ],
)
def test_what_has_no_place_in_a_graph_is_refused_by_name(fn: Any, message: str) -> None:
    with pytest.raises(gw.TraceError, match=f"(?s){message}"):
        convert(fn, [gw.spec(3)])


def test_a_rule_of_a_complex_function_is_its_derivative() -> None:
    @jax.custom_jvp
    def turned(z: Any) -> Any:
        return z * 1j

    turned.defjvps(lambda tangent, value, z: 3 * tangent * z)
    fn = lambda x: parts(turned(x + 2j * x))  # noqa: E731
    agree(fn, X)
    jacobians_agree(fn, X)
    jacobians_agree(lambda x: jnp.sinc(x + 1j).real, X)
