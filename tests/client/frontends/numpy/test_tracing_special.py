"""Special functions: SciPy's numbers, derivatives that differences confirm, and the corners of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special

from gradwire.frontends.numpy import special, trace
from gradwire.frontends.numpy.ufuncs.special import SPECIAL
from gradwire.graphs.spec import spec
from gradwire_engine.lowering import evaluate
from tests.client.frontends.numpy.cases.case import Case, check_derivative, check_value
from tests.client.frontends.numpy.cases.special import CASES, POSITIVE, UNIT
from tests.client.frontends.numpy.oracle import agree, by_engine

A = np.random.default_rng(14).normal(size=(3, 5))
HOLES = np.array(
    [[-np.inf, 0.3, -np.inf], [-np.inf, -np.inf, -np.inf], [700.0, 900.0, 1000.0], [np.inf, 0.0, 1.0]]
)


@pytest.mark.parametrize("name", CASES)
def test_values_are_scipys(name: str) -> None:
    check_value(CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.slope_rtol is not None])
def test_derivatives_are_those_of_differences(name: str) -> None:
    check_derivative(CASES[name])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "rel_entr", "kl_div"])
def test_corners_of_entropies_are_scipys(name: str) -> None:
    x = np.array([0, 0, 0, 1.0, -1, np.inf, 2, np.nan, 1])
    y = np.array([0, 1, -1, 0.0, 1, 1, np.inf, 1, np.nan])
    agree(getattr(scipy.special, name), x, y, reference=False)


def test_the_gamma_function_has_scipys_values_at_its_poles() -> None:
    poles = np.array([-3.0, -1.0, 0.0])
    for name in ("gamma", "gammasgn", "rgamma", "gammaln"):
        agree(getattr(scipy.special, name), poles, reference=False)


def test_an_entropy_below_zero_is_minus_infinity() -> None:
    agree(scipy.special.entr, np.array([-1.0, 0.0, 0.5, np.nan]), reference=False)


def _slope(function: Any, *arguments: float) -> list[float]:
    model = trace(function, [spec(()) for _ in arguments])
    names = [item.name for item in model.graph.input]
    gradient = jax.grad(lambda values: evaluate(model, dict(zip(names, values, strict=True)))[0])
    return [float(item) for item in gradient([np.asarray(value) for value in arguments])]


def test_derivatives_at_zero_are_the_limits_where_they_exist() -> None:
    assert _slope(scipy.special.xlogy, 0.0, 0.0) == [0.0, 0.0]
    assert _slope(scipy.special.xlog1py, 0.0, -1.0) == [0.0, 0.0]
    assert _slope(scipy.special.rel_entr, 0.0, 1.0)[1] == 0.0
    assert _slope(scipy.special.exprel, 0.0) == [0.5]
    assert _slope(scipy.special.i1, 0.0) == [0.5]
    np.testing.assert_allclose(_slope(scipy.special.inv_boxcox, 0.3, 0.0)[0], np.exp(0.3), rtol=1e-15)
    np.testing.assert_allclose(_slope(scipy.special.boxcox, 2.0, 0.0), [0.5, np.log(2) ** 2 / 2], rtol=1e-14)


def test_tails_keep_their_digits() -> None:
    agree(scipy.special.log_ndtr, np.array([-1e3, -40.0, -20.0, 10.0]), rtol=1e-13, reference=False)
    agree(scipy.special.ndtri, np.array([1e-300, 1e-30, 1 - 1e-10]), rtol=1e-12, reference=False)
    agree(scipy.special.erfcinv, np.array([1e-200, 1e-20, 1.9]), rtol=1e-12, reference=False)
    agree(scipy.special.logit, 0.5 + np.array([1e-12, -1e-9, 1e-3]), rtol=1e-14, reference=False)
    agree(scipy.special.i0e, np.array([1e-10, 700.0, -1e5]), rtol=1e-13, reference=False)
    agree(scipy.special.cosm1, np.array([1e-9, 1e-4, 3.0]), rtol=1e-14, reference=False)


def test_the_slope_of_log_ndtr_far_out_is_that_of_the_tail() -> None:
    (slope,) = _slope(scipy.special.log_ndtr, -1e4)
    np.testing.assert_allclose(slope, 1e4 + 1e-4, rtol=1e-12)


def _sums(x: Any) -> Any:
    return special.logsumexp(x), special.logsumexp(x, axis=1), special.logsumexp(x, 0, keepdims=True)


def _weighted(x: Any) -> Any:
    return special.logsumexp(x, axis=1, b=np.array([[1.0, 2.0, 0.0, 0.5, 3.0]]))


OURS = {
    "logsumexp": _sums,
    "logsumexp with weights": _weighted,
    "softmax": lambda x: (special.softmax(x), special.softmax(x, axis=0)),
    "log_softmax": lambda x: (special.log_softmax(x), special.log_softmax(x, axis=1)),
    "polygamma": lambda x: [special.polygamma(n, x * x + 0.1) for n in (0, 1, 3)],
    "multigammaln": lambda x: special.multigammaln(x * x + 2, 3),
}


@pytest.mark.parametrize("name", OURS)
def test_functions_of_our_own_differentiate(name: str) -> None:
    check_value(Case(OURS[name], (A,)))
    check_derivative(Case(OURS[name], (A,)))


def test_functions_of_our_own_are_scipys() -> None:
    weights = np.array([[1.0, 2.0, 0.0, 0.5, 3.0]])
    np.testing.assert_allclose(
        special.logsumexp(A, 1, weights), scipy.special.logsumexp(A, 1, weights), rtol=1e-14
    )
    np.testing.assert_allclose(special.softmax(A, 0), scipy.special.softmax(A, 0), rtol=1e-14)
    np.testing.assert_allclose(special.log_softmax(A, 1), scipy.special.log_softmax(A, 1), rtol=1e-14)
    np.testing.assert_allclose(
        special.polygamma(2, POSITIVE), scipy.special.polygamma(2, POSITIVE), rtol=1e-14
    )
    expected = [scipy.special.multigammaln(item, 3) for item in POSITIVE + 2]
    np.testing.assert_allclose(special.multigammaln(POSITIVE + 2, 3), expected, rtol=1e-14)
    np.testing.assert_array_equal(special.ndtri(UNIT), scipy.special.ndtri(UNIT))


def test_logsumexp_takes_infinities_as_scipy_does() -> None:
    with np.errstate(divide="ignore"):
        expected = scipy.special.logsumexp(HOLES, axis=1)
        np.testing.assert_array_equal(special.logsumexp(HOLES, axis=1), expected)
    model = trace(lambda x: special.logsumexp(x, axis=1), [spec(HOLES.shape)])
    np.testing.assert_allclose(by_engine(model, {"x": HOLES})[0], expected, rtol=1e-15)


def test_the_slope_of_logsumexp_is_softmax_and_zero_where_nothing_is() -> None:
    row = np.array([-np.inf, 0.3, 1.0])
    model = trace(special.logsumexp, [spec(3)], ["x"])
    slope = jax.grad(lambda x: evaluate(model, {"x": x})[0])(row)
    np.testing.assert_allclose(slope, scipy.special.softmax(row), rtol=1e-14)


def test_every_elementwise_function_is_in_the_namespace_too() -> None:
    assert set(SPECIAL) <= set(dir(special))
    with pytest.raises(AttributeError, match="wofz"):
        special.wofz  # noqa: B018


PROGRAM = """
import numpy as np, scipy.special as s
from tests.client.frontends.numpy.oracle import agree
x = np.random.default_rng(0).uniform(0.1, 0.9, size=(3, 5))
for name in ("gammaln", "digamma", "erf", "expit", "xlogy", "betaln", "ndtri", "log_ndtr", "entr", "i0e"):
    function = getattr(s, name)
    arguments = (x, x[::-1].copy())[: 2 if name in ("xlogy", "betaln") else 1]
    agree(function, *arguments, rtol=1e-11, reference=False)
agree(lambda x: (s.logsumexp(x, axis=1), s.softmax(x, 1), s.log_softmax(x, 0)), x, reference=False)
agree(lambda x: (s.polygamma(1, x), s.multigammaln(x + 2, 2)), x, reference=False)
"""


def test_scipys_own_functions_all_trace_with_its_array_api_switched_on() -> None:
    root = str(Path(__file__).parents[4])
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
