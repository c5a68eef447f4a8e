"""Derivatives of traced ufuncs and array functions are those of differences of NumPy's own values."""

from __future__ import annotations

import numpy as np
import pytest

from tests.client.frontends.numpy import test_tracing_functions
from tests.client.frontends.numpy.cases import arrays, ufuncs
from tests.client.frontends.numpy.cases.case import Case, check_derivative, check_value, is_smooth

NEW = {**arrays.CASES, **{f"ufunc {name}": case for name, case in ufuncs.CASES.items()}}
KINKED = {"interp", "round", "where single", "mixed dtypes joined", "methods"}
"""At knots or in single precision: their slopes are checked in cases of their own."""

FUNCTIONS = {
    name: Case(function, arguments, slope_rtol=1e-6)
    for name, (function, arguments) in test_tracing_functions.CASES.items()
    if name not in KINKED and is_smooth(function, arguments)
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NEW)
def test_values_are_numpys(name: str) -> None:
    check_value(NEW[name])


@pytest.mark.parametrize("name", [name for name, case in NEW.items() if case.slope_rtol is not None])
def test_derivatives_are_those_of_differences(name: str) -> None:
    check_derivative(NEW[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_array_functions_are_those_of_differences(name: str) -> None:
    check_derivative(FUNCTIONS[name])


REDUCTIONS = ["sum", "prod", "mean", "std", "var", "min", "max", "ptp", "median"]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_derivatives_of_reductions_are_those_of_differences(name: str) -> None:
    function = getattr(np, name)
    check_derivative(Case(lambda a: (function(a), function(a, axis=0), function(a, axis=1)), (arrays.A,)))
