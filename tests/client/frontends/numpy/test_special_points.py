"""Elementwise functions at zeros, ties, kinks and poles and in the tails, against mpmath."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from gradwire_engine.lowering import evaluate
from tests.client.frontends.numpy.special_points import ALL, Elementwise, Point, expected

jax.config.update("jax_enable_x64", True)

RTOL = {np.float64: 1e-9, np.float32: 5e-3}
"""Of values and slopes; what cancels has no digit right at all."""


def _points(case: Elementwise, dtype: Any) -> list[Point]:
    """The points that are normal numbers of a dtype, rounded to single precision: one oracle serves both."""
    limits = np.finfo(dtype)
    single = np.finfo(np.float32)

    def rounded(x: float) -> float:
        near = float(np.float32(x))
        keeps = single.tiny <= abs(x) <= single.max and (near % 1 != 0 or x % 1 == 0)
        return near if keeps else x

    chosen = {tuple(map(rounded, point)): None for point in case.points}
    chosen.update(dict.fromkeys(case.known))
    return [
        point
        for point in chosen
        if all(not x or limits.tiny * 8 <= abs(x) <= limits.max / 8 for x in point)
        and (dtype == np.float64 or all(float(np.float32(x)) == x or point in case.known for x in point))
    ]


def _slopes(case: Elementwise, points: list[Point], dtype: Any) -> list[tuple[str, Any]]:
    """The value, and for each argument its derivative by both modes and its second one."""
    columns = [np.array(column, dtype) for column in zip(*points, strict=True)]
    names = [f"x{index}" for index in range(len(columns))]
    model = trace(case.traced, [spec(len(points), dtype=dtype, name=name) for name in names])

    def value(*arguments: Any) -> Any:
        return evaluate(model, dict(zip(names, arguments, strict=True)))[0]

    def pushed(function: Any, index: int) -> Any:
        def along(*arguments: Any) -> Any:
            def moved(x: Any) -> Any:
                return function(*arguments[:index], x, *arguments[index + 1 :])

            return jax.jvp(moved, (arguments[index],), (jnp.ones_like(arguments[index]),))[1]

        return along

    def pulled(index: int) -> Any:
        return jax.grad(lambda *arguments: value(*arguments).sum(), argnums=index)

    @jax.jit
    def everything(*arguments: Any) -> Any:
        slopes = [
            (
                pushed(value, index)(*arguments),
                pulled(index)(*arguments),
                pushed(pulled(index), index)(*arguments),
            )
            for index in case.wrt
        ]
        return value(*arguments), slopes

    found, slopes = everything(*columns)
    results = [("value", found)]
    for index, parts in zip(case.wrt, slopes, strict=True):
        words = ("forward slope", "reverse slope", "second slope")
        results += [(f"{word} in argument {index}", part) for word, part in zip(words, parts, strict=True)]
    return [(word, np.asarray(part, np.float64)) for word, part in results]


def _agrees(got: float, want: float | None, scale: float, dtype: Any) -> bool:
    """Whether a number is right to the dtype's precision; numbers near its ends may over- or underflow."""
    limits = np.finfo(dtype)
    if want is None or math.isnan(want):
        return True
    if abs(want) > limits.max / 1e3:
        return not math.isfinite(got) or ((got > 0) == (want > 0) and abs(got) > limits.max / 1e6)
    slack = max(1e-60, float(limits.tiny) * 1e9) + 64 * float(limits.eps) * scale
    return abs(got - want) <= RTOL[dtype] * abs(want) + slack


LONG = {
    "beta",
    "betaln",
    "binom",
    "poch",
    "stdtr",
    "inv_boxcox1p",
    "boxcox1p",
    "powm1",
    "fdtr",
    "gdtr",
    "kl_div",
}
"""Compiled in double precision only: their second derivatives are long programs."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in ALL for dtype in RTOL if dtype == np.float64 or name not in LONG],
)
def test_values_and_slopes_at_special_points_are_mpmaths(name: str, dtype: Any) -> None:
    case = ALL[name]
    points = _points(case, dtype)
    wrong = []
    for index, (word, part) in enumerate(_slopes(case, points, dtype)):
        order, argument = (0, 0) if not index else ((1, 1, 2)[(index - 1) % 3], (index - 1) // 3)
        for point, got in zip(points, part, strict=True):
            value, first, second = expected(name, point)
            want = value if order == 0 else (first, second)[order - 1][argument]
            # A second slope is as precise as the first one is next to the point.
            x = point[case.wrt[argument]] or 1.0
            slope = first[argument]
            scale = abs(slope / x) if order == 2 and slope is not None and math.isfinite(slope) else 0.0
            scale = scale + case.noise if order else 0.1
            if not _agrees(float(got), want, scale, dtype):
                wrong.append(f"{word} at {point}: {got}, not {want}")
    assert not wrong, "\n".join(wrong[:12])


def test_powers_with_whole_exponents_have_all_derivatives_at_zero() -> None:
    model = trace(lambda x: (x[:, None] ** np.arange(5)).sum(0), [spec(1)])

    def f(x: Any) -> Any:
        return evaluate(model, {"x": x})[0]

    zero = np.zeros(1)
    np.testing.assert_array_equal(jax.jacrev(f)(zero)[:, 0], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(jax.jacfwd(jax.jacrev(f))(zero)[:, 0, 0], [0, 0, 2, 0, 0])
    np.testing.assert_array_equal(jax.jacfwd(jax.jacfwd(jax.jacrev(f)))(zero)[:, 0, 0, 0], [0, 0, 0, 6, 0])


NORMS: dict[str, Any] = {
    "norm": lambda x: np.linalg.norm(x),
    "norm along an axis": lambda x: np.linalg.norm(x.reshape(2, 2), axis=1).sum(),
    "Frobenius": lambda x: np.linalg.norm(x.reshape(2, 2), "fro"),
    "of order 3": lambda x: np.linalg.norm(x, 3),
    "of order 1.5": lambda x: np.linalg.norm(x, 1.5),
    "of complex numbers": lambda x: np.linalg.norm(x * (1 + 2j)),
    "std": lambda x: np.std(x),
    "nanstd": lambda x: np.nanstd(x),
    "std of complex numbers": lambda x: np.std(x * (1 + 2j)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_and_deviations_have_derivative_zero_where_they_are_zero(name: str) -> None:
    model = trace(NORMS[name], [spec(4)])

    def f(x: Any) -> Any:
        return evaluate(model, {"x": x})[0]

    assert f(np.zeros(4)) == 0
    np.testing.assert_array_equal(jax.grad(f)(np.zeros(4)), np.zeros(4))
    np.testing.assert_array_equal(jax.jacfwd(f)(np.zeros(4)), np.zeros(4))
    x = np.array([0.3, -1.2, 0.7, 2.0])
    np.testing.assert_allclose(f(x), NORMS[name](x), rtol=1e-13)
    steps = 1e-6 * np.eye(4)
    difference = [(NORMS[name](x + step) - NORMS[name](x - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(jax.grad(f)(x), difference, rtol=1e-7, atol=1e-8)
