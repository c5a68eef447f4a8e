"""Errors that Equinox raises while a function runs: in a graph, NaN in their place."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.refused import PYTHON
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import DType, GraphValue, Shape


@rule("pure_callback")
def called_back(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    """Return NaN where Equinox would raise an error, and refuse every other call of Python.

    Raises:
        TraceError: Python is called for something else.
    """
    if not _is_error(call.params):
        raise call.fail(PYTHON)
    return [_unusable(call, *kind) for kind in call.results]


def _is_error(params: dict[str, Any]) -> bool:
    function = getattr(params.get("callback"), "callback_func", params.get("callback"))
    return str(getattr(function, "__module__", "")) == "equinox._errors"


def _unusable(call: Call, shape: Shape, dtype: DType) -> GraphValue:
    """Return an array that shows an error: NaN, or the largest integer."""
    if dtype == ops.BOOL:
        number: Any = True
    else:
        number = np.nan if is_float(dtype) else np.iinfo(dtype).max
    return ops.expand(call.graph.scalar(number, dtype), shape)


def raises(closed: Any) -> bool:
    """Return whether a function returns its arguments, or raises an error of Equinox."""
    return any(
        equation.primitive.name == "cond" and passing(equation.params["branches"]) is not None
        for equation in closed.jaxpr.eqns
    )


def passing(branches: Any) -> Any:
    """Return the branch in which no error is raised; None where there is none in which one is."""
    flags = [
        any(
            equation.primitive.name == "pure_callback" and _is_error(equation.params) for equation in one.eqns
        )
        for one in (getattr(branch, "jaxpr", branch) for branch in branches)
    ]
    return branches[flags.index(False)] if any(flags) and not all(flags) else None
