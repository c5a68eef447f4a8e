"""What one row of the table of functions rests on: a function that calls them, and arguments to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec_of
from gradwire_engine.lowering import evaluate
from tests.client.frontends.numpy.oracle import agree, flat

STEP = 2e-4
"""Of the difference; the arguments of a case keep several of it from every kink."""


@dataclass(frozen=True)
class Case:
    """A traced function, held to NumPy or SciPy in its values and to a difference of them in its derivatives.

    Attributes:
        function: of one array for each argument; what it calls is what the case stands for.
        arguments: where it is evaluated and differentiated.
        rtol: relative tolerance of the values.
        slope_rtol: relative tolerance of the derivatives, None where there are none (whole numbers).
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    rtol: float = 1e-10
    slope_rtol: float | None = 1e-6


Cases = Mapping[str, Case]


def check_value(case: Case) -> None:
    """Hold the values to the function's own."""
    agree(case.function, *case.arguments, rtol=case.rtol, atol=1e-12, reference=False)


def check_derivative(case: Case) -> None:
    """Hold both modes to a central difference of the function's own values, and to each other."""
    assert case.slope_rtol is not None
    arrays = [np.asarray(argument) for argument in case.arguments]
    moved = [place for place, array in enumerate(arrays) if array.dtype.kind == "f"]
    model = trace(case.function, [spec_of(array) for array in arrays])
    names = [item.name for item in model.graph.input]
    rng = np.random.default_rng(5)
    tangents = [rng.normal(size=arrays[place].shape) for place in moved]

    def remote(values: list[Any]) -> list[Any]:
        inputs: dict[str, Any] = dict(zip(names, arrays, strict=True))
        inputs |= {names[place]: value for place, value in zip(moved, values, strict=True)}
        return [item for item in evaluate(model, inputs) if np.issubdtype(item.dtype, np.floating)]

    def along(step: float) -> np.ndarray[Any, Any]:
        moving = [array.copy() for array in arrays]
        for place, tangent in zip(moved, tangents, strict=True):
            moving[place] = moving[place] + step * tangent
        with np.errstate(all="ignore"):
            results = flat(case.function(*moving))
        return np.concatenate([item.ravel() for item in results if item.dtype.kind == "f"])

    difference = (8 * (along(STEP) - along(-STEP)) - (along(2 * STEP) - along(-2 * STEP))) / (12 * STEP)
    assert difference.size, "a case without floating results has no derivative: give slope_rtol=None"
    primals = [arrays[place] for place in moved]
    outputs, pushed = jax.jvp(remote, (primals,), (tangents,))
    forward = np.concatenate([np.ravel(item) for item in pushed])
    size = max(1.0, float(np.nanmax(np.abs(difference))))
    np.testing.assert_allclose(forward, difference, rtol=case.slope_rtol, atol=case.slope_rtol * size)
    cotangents = [rng.normal(size=item.shape) for item in outputs]
    (pulled,) = jax.vjp(remote, primals)[1](cotangents)
    right = sum(np.vdot(gradient, tangent) for gradient, tangent in zip(pulled, tangents, strict=True))
    left = sum(np.vdot(cotangent, item) for cotangent, item in zip(cotangents, pushed, strict=True))
    np.testing.assert_allclose(right, left, rtol=1e-9, atol=1e-9 * size)


def is_smooth(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether floating numbers go in and come out."""
    arrays = [np.asarray(argument) for argument in arguments]
    with np.errstate(all="ignore"):
        results = flat(function(*(array.copy() for array in arrays)))
    return all(any(array.dtype == np.float64 for array in part) for part in (arrays, results))
