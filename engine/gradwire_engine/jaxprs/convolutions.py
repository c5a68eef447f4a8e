"""Convolutions where XLA has no fast kernel for them: written as matrix products.

On CPU, XLA runs a convolution with Eigen only in a program's main computation. Inside a call that is not
inlined, and in the bodies of loops and branches, it becomes a plain loop nest, ten to fifty times slower.
There the convolution is a sum over the positions of its kernel, each a product of a slice of the input with
one matrix of weights, and products are fast anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex

from gradwire_engine.jaxprs.slicing import CALLS, called, equations_of
from gradwire_engine.lowering.rules.networks import depthwise

Array = Any

CONVOLUTION = "conv_general_dilated"
"""The primitive's name."""

_FEW_CHANNELS = 8
"""Up to so many channels of a group, XLA's loop nest is no slower than products of thin matrices."""

_MOST_POSITIONS = 128
"""A kernel of more positions would make a program of as many products."""


def holds_convolution(equation: Any) -> bool:
    """Return whether an equation is a convolution, or calls a jaxpr that holds one."""
    if equation.primitive.name == CONVOLUTION:
        return True
    return any(holds_convolution(inner) for jaxpr in called(equation) for inner in jaxpr.eqns)


def convolves(equation: Any) -> bool:
    """Return whether an equation convolves, by whichever primitive, or calls a jaxpr that does."""
    if equation.primitive.name in (CONVOLUTION, depthwise.NAME, depthwise.KERNEL_NAME):
        return True
    return any(convolves(inner) for jaxpr in called(equation) for inner in jaxpr.eqns)


def contracts(equation: Any) -> bool:
    """Return whether an equation is a convolution or a matrix product, or calls a jaxpr that holds one."""
    if equation.primitive.name in (CONVOLUTION, "dot_general"):
        return True
    return any(contracts(inner) for jaxpr in called(equation) for inner in jaxpr.eqns)


def better_as_products(equation: Any) -> bool:
    """Return whether a convolution outside of the main computation is faster as matrix products."""
    kernel: tuple[int, ...] = equation.invars[1].aval.shape
    spec = equation.params["dimension_numbers"].rhs_spec
    positions = prod(kernel[axis] for axis in spec[2:])
    return bool(kernel[spec[1]] > _FEW_CHANNELS and positions <= _MOST_POSITIONS)


def without_slow_convolutions(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """Rewrite convolutions as matrix products where that is faster outside of the main computation.

    Calls that hold one are inlined; loops and branches are left as they are.
    """
    if not any(map(_rewritten, closed.jaxpr.eqns)):
        return closed
    avals = [jax.ShapeDtypeStruct(item.aval.shape, item.aval.dtype) for item in closed.jaxpr.invars]  # type: ignore[no-untyped-call]
    return jax.make_jaxpr(lambda *arguments: _evaluate(closed.jaxpr, closed.consts, arguments))(*avals)


def _rewritten(equation: Any) -> bool:
    if equation.primitive.name == CONVOLUTION:
        return better_as_products(equation)
    return equation.primitive.name in CALLS and any(map(_rewritten, equation.params["jaxpr"].jaxpr.eqns))


def _evaluate(jaxpr: Any, consts: Sequence[Array], arguments: Sequence[Array]) -> list[Array]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(atom: Any) -> Array:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for index, equation in enumerate(jaxpr.eqns):
        if not _rewritten(equation):
            part = equations_of(jaxpr, index, index + 1)
            results = part.run(*(values[item] for item in part.inputs))
        elif equation.primitive.name == CONVOLUTION:
            # As one equation: what decides by a program's length counts the convolutions of its model.
            results = [jax.jit(partial(as_products, equation.params))(*map(read, equation.invars))]
        else:
            inner = equation.params["jaxpr"]
            results = _evaluate(inner.jaxpr, inner.consts, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def as_products(params: Mapping[str, Any], inputs: Array, kernel: Array) -> Array:
    """Write a convolution as a sum of matrix products, one for each position of the kernel.

    Args:
        params: those of the primitive.
        inputs: the left operand; any float dtype.
        kernel: the right operand.

    Returns:
        What the primitive gives, to rounding: the order of additions differs.
    """
    numbers, strides = params["dimension_numbers"], params["window_strides"]
    dilation = params["rhs_dilation"]
    # (group, batch, channel, *space) and (group, output, channel, *space)
    inputs = _padded(jnp.transpose(inputs, numbers.lhs_spec), params)
    kernel = jnp.transpose(kernel, numbers.rhs_spec)
    inputs, kernel = _grouped(inputs, kernel, params["feature_group_count"], params["batch_group_count"])
    extents = inputs.shape[3:]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel.shape[3:], dilation, strict=True)]
    places = [
        max(0, (extent - span) // stride + 1)
        for extent, span, stride in zip(extents, reach, strides, strict=True)
    ]
    groups, batch = inputs.shape[:2]
    dtype = params["preferred_element_type"] or inputs.dtype
    total = jnp.zeros((groups, batch, *places, kernel.shape[1]), dtype)
    for position in product(*map(range, kernel.shape[3:])) if total.size else ():
        starts = [at * step for at, step in zip(position, dilation, strict=True)]
        total += lax.dot_general(
            _window(inputs, starts, places, strides),
            kernel[(slice(None), slice(None), slice(None), *position)],
            (((2,), (2,)), ((0,), (0,))),
            precision=params["precision"],
            preferred_element_type=dtype,
        )
    # (group, batch, *space, output), to (batch, group and output, *space), to the order asked for.
    result = jnp.moveaxis(jnp.moveaxis(total, -1, 1), 2, 0)
    result = result.reshape(batch, groups * kernel.shape[1], *places)
    return jnp.transpose(result, _inverse(numbers.out_spec))


def _grouped(inputs: Array, kernel: Array, features: int, batches: int) -> tuple[Array, Array]:
    """Return both operands with an axis of groups in front; at most one of the two numbers is above 1."""
    groups = max(features, batches)
    count, channels, *space = inputs.shape
    if features > 1:
        split = inputs.reshape(count, groups, channels // groups, *space)
        inputs = jnp.moveaxis(split, 1, 0)
    else:
        inputs = inputs.reshape(groups, count // groups, channels, *space)
    return inputs, kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])


def _padded(inputs: Array, params: Mapping[str, Any]) -> Array:
    space = [
        (low, high, step - 1)
        for (low, high), step in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    return lax.pad(inputs, jnp.zeros((), inputs.dtype), [(0, 0, 0), (0, 0, 0), *space])


def _window(inputs: Array, starts: list[int], places: list[int], strides: tuple[int, ...]) -> Array:
    """Return what one position of the kernel meets, at each place of the output."""
    stops = [
        start + (count - 1) * stride + 1 for start, count, stride in zip(starts, places, strides, strict=True)
    ]
    whole = inputs.shape[:3]
    return lax.slice(inputs, (0, 0, 0, *starts), (*whole, *stops), (1, 1, 1, *strides))


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(permutation.index(axis) for axis in range(len(permutation)))
