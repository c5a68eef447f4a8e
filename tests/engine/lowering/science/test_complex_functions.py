"""Complex operators of gradwire.sci: NumPy's values and mpmath's derivatives, on axes and cuts too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import mpmath
import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, flatten, one_node, run
from tests.engine.small_graphs import graph_of, matrices

DOMAIN = "gradwire.sci"
evaluate = partial(run, outputs=2, domain=DOMAIN)


def _acosh(z: Any) -> Any:
    """mpmath's own takes the wrong side of the cut just below it."""
    return mpmath.log(z + mpmath.sqrt(z + 1) * mpmath.sqrt(z - 1))


UNARY: dict[str, tuple[Any, Callable[[Any], Any], tuple[complex, ...]]] = {
    "ComplexSqrt": (np.sqrt, mpmath.sqrt, (0,)),
    "ComplexLog": (np.log, mpmath.log, (0,)),
    "ComplexLog1p": (np.log1p, lambda z: mpmath.log(1 + z), (-1,)),
    "ComplexTan": (np.tan, mpmath.tan, ()),
    "ComplexTanh": (np.tanh, mpmath.tanh, ()),
    "ComplexAsin": (np.arcsin, mpmath.asin, (1, -1)),
    "ComplexAcos": (np.arccos, mpmath.acos, (1, -1)),
    "ComplexAtan": (np.arctan, mpmath.atan, (1j, -1j)),
    "ComplexAsinh": (np.arcsinh, mpmath.asinh, (1j, -1j)),
    "ComplexAcosh": (np.arccosh, _acosh, (1, -1)),
    "ComplexAtanh": (np.arctanh, mpmath.atanh, (1, -1)),
}
"""NumPy's function, mpmath's, and the points at which there is no derivative."""

SIDES = (0.0, -0.0)
AXES = [
    *((a, zero) for a in (0.5, 1.0, 2.0, 4.0, -0.5, -1.0, -2.0, -4.0) for zero in SIDES),
    *((zero, b) for b in (0.5, 1.0, 2.0, 4.0, -0.5, -1.0, -2.0, -4.0) for zero in SIDES),
    *((a, b) for a in SIDES for b in SIDES),
]
ELSEWHERE = [
    (0.7, 0.4),
    (-0.7, 0.4),
    (0.7, -0.4),
    (-2.3, -1.1),
    (1.5, 1e-9),
    (-1.5, -1e-9),
    (3.0, 30.0),
    (30.0, 3.0),
]
POINTS = AXES + ELSEWHERE


def number(point: tuple[float, float]) -> complex:
    return complex(*point)


def exactly(point: tuple[float, float]) -> Any:
    """The point, a signed zero replaced by a number so small that it only selects the side of a cut."""
    return mpmath.mpc(*(mpmath.mpf("1e-400") * np.copysign(1, part) if part == 0 else part for part in point))


def slope(function: Callable[[Any], Any], point: tuple[float, float], order: int = 1) -> complex:
    """A complex derivative by mpmath, along an axis on which the point lies, so that no cut is crossed."""
    with mpmath.workdps(60):
        z, direction = exactly(point), 1 if point[0] or not point[1] else 1j
        return complex(
            mpmath.diff(lambda t: function(z + t * direction), 0, order) / mpmath.mpc(direction) ** order
        )


def matrix(derivative: complex) -> np.ndarray[Any, Any]:
    """The Jacobian of (re, im) by (re, im), by the equations of Cauchy and Riemann."""
    return np.array([[derivative.real, -derivative.imag], [derivative.imag, derivative.real]])


def derivatives_at(op: str, points: Sequence[tuple[float, ...]]) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """The value, the Jacobian by both modes and the second derivatives at each point.

    Args:
        op: an operator with two outputs.
        points: its inputs, one tuple a point.

    Returns:
        For each point arrays of shape (2,), (2, n), (2, n) and (2, n, n), for n inputs.
    """
    inputs = [np.array(part) for part in points[0]]
    flat, _ = flatten(one_node(op, *inputs, outputs=2, domain=DOMAIN), inputs)

    def of_point(x: Any) -> Any:
        return flat(x), jax.jacfwd(flat)(x), jax.jacrev(flat)(x), jax.jacfwd(jax.jacrev(flat))(x)

    arrays = jax.jit(jax.vmap(of_point))(np.array(points))
    return [tuple(np.asarray(item)[i] for item in arrays) for i in range(len(points))]


@pytest.mark.parametrize("op", UNARY)
def test_values_are_numpys_on_either_side_of_every_cut(op: str) -> None:
    function, _, poles = UNARY[op]
    points = [point for point in POINTS if number(point) not in poles]
    real, imag = evaluate(op, *np.array(points).T)
    with np.errstate(all="ignore"):
        expected = [function(np.complex128(number(point))) for point in points]
    for got, want, point in zip(zip(real, imag, strict=True), expected, points, strict=True):
        np.testing.assert_allclose(got, [want.real, want.imag], rtol=1e-13, atol=1e-16, err_msg=str(point))
        assert np.array_equal(np.signbit(got), np.signbit([want.real, want.imag])), (point, got, want)


@pytest.mark.parametrize("op", UNARY)
def test_first_and_second_derivatives_are_mpmaths_on_axes_cuts_and_elsewhere(op: str) -> None:
    _, function, poles = UNARY[op]
    points = [point for point in POINTS if number(point) not in poles]
    for point, (_, forward, reverse, second) in zip(points, derivatives_at(op, points), strict=True):
        first, curvature = slope(function, point), slope(function, point, 2)
        near = partial(np.testing.assert_allclose, rtol=1e-12, err_msg=str(point))
        near(forward, matrix(first), atol=1e-30 + 1e-13 * abs(first))
        near(reverse, matrix(first), atol=1e-30 + 1e-13 * abs(first))
        near(second[..., 0], matrix(curvature), atol=1e-30 + 1e-12 * abs(curvature))
        near(second[..., 1], matrix(1j * curvature), atol=1e-30 + 1e-12 * abs(curvature))


PAIRS: list[tuple[float, float, float, float]] = [
    (4.0, 0.0, 2.0, 0.0),
    (-4.0, 0.0, 0.5, 0.0),
    (-4.0, -0.0, 0.5, 0.0),
    (-4.0, -0.0, 1.5, 0.7),
    (0.0, 2.0, 0.0, 1.5),
    (-0.0, -2.0, -1.3, 0.0),
    (0.7, -0.4, 2.5, -1.1),
    (1.0, 0.0, 3.0, 0.0),
]


@pytest.mark.parametrize("op", ["ComplexDiv", "ComplexPow"])
def test_functions_of_two_numbers_have_the_derivatives_of_both(op: str) -> None:
    """Against the derivatives in closed form, evaluated by mpmath."""
    for point, (value, forward, reverse, second) in zip(PAIRS, derivatives_at(op, PAIRS), strict=True):
        with mpmath.workdps(60):
            z, w = exactly(point[:2]), mpmath.mpc(*point[2:])
            log = mpmath.log(z)
            if op == "ComplexDiv":
                found = [z / w, 1 / w, -z / w**2, 0, -1 / w**2, 2 * z / w**3]
            else:
                low = z ** (w - 1)
                found = [
                    z**w,
                    w * low,
                    z**w * log,
                    w * (w - 1) * z ** (w - 2),
                    low + w * low * log,
                    z**w * log**2,
                ]
            f, f_z, f_w, f_zz, f_zw, f_ww = (complex(item) for item in found)
        near = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13, err_msg=str(point))
        near(value, [f.real, f.imag])
        near(forward, np.hstack([matrix(f_z), matrix(f_w)]))
        near(reverse, forward)
        by_base, by_other = np.hstack([matrix(f_zz), matrix(f_zw)]), np.hstack([matrix(f_zw), matrix(f_ww)])
        near(second[:, 0], by_base)
        near(second[:, 2], by_other)


@pytest.mark.parametrize(
    ("exponent", "value", "first", "second"), [(1.0, 0, 1, 0), (2.0, 0, 0, 2), (2.5, 0, 0, 0), (3.0, 0, 0, 0)]
)
def test_powers_of_zero_have_their_derivatives_where_there_are_any(
    exponent: float, value: float, first: float, second: float
) -> None:
    found, forward, reverse, curvature = derivatives_at("ComplexPow", [(0.0, 0.0, exponent, 0.0)])[0]
    np.testing.assert_array_equal(found, [value, 0])
    np.testing.assert_array_equal(forward, np.hstack([matrix(first), np.zeros((2, 2))]))
    np.testing.assert_array_equal(reverse, forward)
    if exponent > 1:  # the mixed second derivative of z^w at (0, 1) is infinite
        np.testing.assert_array_equal(curvature[:, 0], np.hstack([matrix(second), np.zeros((2, 2))]))


def test_zero_to_the_zero_is_one_and_other_powers_of_zero_are_numpys() -> None:
    exponents = np.array([0, 1, 2.5, -1, 1j, 0.5 + 3j])
    real, imag = evaluate("ComplexPow", np.zeros(6), np.zeros(6), exponents.real, exponents.imag)
    with np.errstate(all="ignore"):
        expected = np.power(np.zeros(6, complex), exponents)
    np.testing.assert_array_equal(real, expected.real)
    np.testing.assert_array_equal(imag, expected.imag)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_quotients_of_huge_and_of_tiny_numbers_keep_their_digits(size: float) -> None:
    z, w = complex(3, -2), complex(0.5, 4)
    parts = [np.array(part * size) for part in (z.real, z.imag, w.real, w.imag)]
    real, imag = evaluate("ComplexDiv", *parts)
    np.testing.assert_allclose([real, imag], [(z / w).real, (z / w).imag], rtol=1e-15)


def test_quotients_by_zero_are_not_numbers_and_neither_are_they_errors() -> None:
    real, imag = evaluate("ComplexDiv", *(np.array(part) for part in (1.0, 1.0, 0.0, 0.0)))
    assert not np.isfinite(real)
    assert not np.isfinite(imag)


@pytest.mark.parametrize("op", ["ComplexTan", "ComplexTanh"])
def test_slopes_of_tangents_far_from_the_poles_vanish_without_cancellation(op: str) -> None:
    far = [20.0, 300.0, 1000.0]
    points = [(0.3, part) if op == "ComplexTan" else (part, 0.3) for part in far]
    for point, (_, forward, reverse, second) in zip(points, derivatives_at(op, points), strict=True):
        with mpmath.workdps(1000):
            expected = complex(
                1 / (mpmath.cos if op == "ComplexTan" else mpmath.cosh)(mpmath.mpc(*point)) ** 2
            )
        np.testing.assert_allclose(forward, matrix(expected), rtol=1e-12, atol=1e-270)
        np.testing.assert_allclose(reverse, matrix(expected), rtol=1e-12, atol=1e-270)
        assert np.all(np.isfinite(second))


def test_parts_are_broadcast_and_single_precision_stays_single() -> None:
    real, imag = evaluate("ComplexDiv", np.ones((3, 1)), np.zeros(()), np.full(2, 2.0), np.ones(2))
    np.testing.assert_allclose(real + 1j * imag, np.full((3, 2), 1 / (2 + 1j)))
    for op in UNARY:
        real, imag = evaluate(op, np.float32([0.5, 2.0]), np.float32([0.25, -0.25]))
        assert (real.dtype, imag.dtype) == (np.float32, np.float32)
        expected = UNARY[op][0](np.complex64([0.5 + 0.25j, 2 - 0.25j]))
        np.testing.assert_allclose(real + 1j * imag, expected, rtol=1e-6)


@pytest.mark.parametrize("op", UNARY)
def test_derivatives_are_those_of_differences_of_any_shape(op: str) -> None:
    rng = np.random.default_rng(3)
    check_op(
        op,
        rng.uniform(0.2, 0.8, (2, 3)),
        rng.uniform(0.2, 0.8, (2, 3)),
        outputs=2,
        domain=DOMAIN,
        check={"order": 2},
    )


def test_parts_that_are_not_floating_are_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"ComplexSqrt.*int64.*cast"):
        evaluate("ComplexSqrt", np.array([1]), np.array([1.0]))


ROOTS = """(double[n] a, double[n] b, double[n] w) => (double s) {
    p, q = gradwire.sci.ComplexSqrt(a, b)
    r, t = gradwire.sci.ComplexAtanh(p, q)
    u = Mul(t, w)
    s = ReduceSum<keepdims = 0>(u)
}"""


def test_planned_hessians_pass_through_complex_numbers_in_every_mode() -> None:
    """Costs, seeds and kernels are made for programs with complex values inside."""
    point = {"a": np.array([4.0, -2.0, 0.3]), "b": np.array([0.0, 0.5, 0.0]), "w": np.array([1.0, 0.5, 2.0])}
    graph = graph_of(ROOTS)
    options = {"of": ("s",), "wrt": ("a", "b")}
    expected = []
    for a, b, w in zip(*point.values(), strict=True):
        curvature = slope(lambda z: mpmath.atanh(mpmath.sqrt(z)), (a, b), 2) * w
        expected.append((curvature.imag, curvature.real, -curvature.imag))  # by aa, ab, bb
    for mode in ("forward_over_reverse", "forward_over_forward"):
        aa, ab, ba, bb = matrices(graph, point, "hessian", mode=mode, **options)
        for found, wanted in zip((aa, ab, bb), zip(*expected, strict=True), strict=True):
            np.testing.assert_allclose(found, np.diag(wanted), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(ab, ba, rtol=1e-12, atol=1e-12)
