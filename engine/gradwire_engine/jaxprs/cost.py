"""Estimates the cost of evaluating a jaxpr from shapes: floating-point operations and peak memory.

The estimate depends on the jaxpr alone, so that everything derived from it (block widths) is the same on
every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from gradwire_engine.jaxprs.slicing import called, last_uses, variables
from gradwire_engine.lowering.rules.networks import depthwise


@dataclass(frozen=True)
class Cost:
    """The cost of one evaluation.

    Attributes:
        flops: floating-point operations.
        memory_bytes: peak memory, inputs included.
        bounded: False where a data-dependent loop runs an unknown number of times; one trip is counted.
    """

    flops: float
    memory_bytes: int
    bounded: bool


def nbytes(variable: Any) -> int:
    """Return the bytes of a variable's array; 0 if it holds none."""
    aval = variable.aval
    # Keys of random draws have a dtype of JAX's own.
    return prod(aval.shape) * int(aval.dtype.itemsize) if hasattr(aval, "shape") else 0


def _equation(equation: Any) -> Cost:
    outputs = sum(
        prod(variable.aval.shape) for variable in equation.outvars if hasattr(variable.aval, "shape")
    )
    name = equation.primitive.name
    if name == "dot_general":
        (axes, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return Cost(2.0 * outputs * prod(shape[axis] for axis in axes), 0, True)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return Cost(2.0 * outputs * prod(kernel) / max(1, channels), 0, True)
    if name == depthwise.NAME:
        return Cost(2.0 * outputs * prod(equation.invars[1].aval.shape[1:]), 0, True)
    if name == depthwise.KERNEL_NAME:
        return Cost(2.0 * prod(equation.invars[1].aval.shape) * prod(equation.params["kernel"]), 0, True)
    inner = [estimate(jaxpr) for jaxpr in called(equation)]
    if not inner:
        reads_all = name.startswith(("reduce", "arg", "cum", "sort"))
        read = prod(equation.invars[0].aval.shape) if reads_all and equation.invars else 0
        return Cost(float(max(outputs, read)), 0, True)
    trips = equation.params.get("length", 1) if name == "scan" else 1
    if name == "cond":
        flops = max(cost.flops for cost in inner)
    else:
        flops = trips * sum(cost.flops for cost in inner)
    bounded = name != "while" and all(cost.bounded for cost in inner)
    return Cost(flops, max(cost.memory_bytes for cost in inner), bounded)


def estimate(jaxpr: Any) -> Cost:
    """Estimate one evaluation of a jaxpr (open or closed)."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    last = last_uses(jaxpr)
    flops, bounded = 0.0, True
    alive = peak = sum(nbytes(variable) for variable in (*jaxpr.invars, *jaxpr.constvars))
    for index, equation in enumerate(jaxpr.eqns):
        cost = _equation(equation)
        flops += cost.flops
        bounded = bounded and cost.bounded
        alive += sum(nbytes(variable) for variable in equation.outvars)
        peak = max(peak, alive + cost.memory_bytes)
        gone = {
            variable
            for variable in variables((*equation.invars, *equation.outvars))
            if last.get(variable, index) == index
        }
        alive -= sum(nbytes(variable) for variable in gone)
    return Cost(flops, peak, bounded)
