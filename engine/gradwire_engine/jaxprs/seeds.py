"""Applies linear functions to blocks of unit vectors without forming them.

A block of seeds is `width` consecutive unit vectors. Pushing dense unit vectors through a linear function
(the pushforward or pullback at a point) costs a matrix product wherever the function begins with one. But
the image of unit vector k under a matrix is its column k, and under an elementwise product a scaled unit
vector. The leading part of the function is therefore applied to unit vectors in symbolic form, and only the
rest is vectorized over dense tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex

from gradwire_engine.abstract import abstract
from gradwire_engine.computations import NAME, apart
from gradwire_engine.jaxprs.slicing import CALLS, equations_of
from gradwire_engine.jaxprs.storing import STORED

Array = Any


@dataclass(frozen=True)
class Unit:
    """A block of scaled unit vectors, one a seed: seed k is `scale` at flat index start + k, else 0.

    `scale` has the logical shape of the value, or is None for all ones.
    """

    scale: Array | None


@dataclass(frozen=True)
class Dense:
    """Dense tangents, one a seed: shape (width, *logical shape)."""

    array: Array


@dataclass(frozen=True)
class Unmapped:
    """A value that does not depend on the seeds: the same for all of them."""

    array: Array


Tangent = Unit | Dense | Unmapped


@dataclass(frozen=True)
class Seeds:
    """Consecutive unit vectors: `width` of them from flat index `start` (may be traced)."""

    start: Array
    width: int

    def dense(self, unit: Unit, shape: tuple[int, ...], dtype: Any) -> Array:
        """Write scaled unit vectors as a dense array of shape (width, *shape)."""
        size = prod(shape)
        index = lax.broadcasted_iota(jnp.int64, (self.width, size), 1)
        seed = lax.broadcasted_iota(jnp.int64, (self.width, size), 0) + self.start
        one = jnp.ones((), dtype) if unit.scale is None else jnp.reshape(unit.scale, (1, size))
        return jnp.where(index == seed, one, jnp.zeros((), dtype)).reshape(self.width, *shape)

    def take(self, array: Array, axis: int = 0) -> Array:
        """Take entries `start ... start + width` along an axis."""
        return lax.dynamic_slice_in_dim(array, self.start, self.width, axis)


Fold = Callable[[Any, "list[Tangent]", Seeds], Tangent | None]


def _scale(unit: Unit, factor: Array) -> Unit:
    return Unit(factor if unit.scale is None else unit.scale * factor)


def _fold_product(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    left, right = operands
    if isinstance(left, Unmapped) and isinstance(right, Unit):
        left, right = right, left
    if isinstance(left, Unit) and isinstance(right, Unmapped):
        return _scale(left, jnp.broadcast_to(right.array, equation.outvars[0].aval.shape))
    return None


def _fold_quotient(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    left, right = operands
    if isinstance(left, Unit) and isinstance(right, Unmapped):
        divisor = jnp.broadcast_to(right.array, equation.outvars[0].aval.shape)
        return Unit(1 / divisor if left.scale is None else left.scale / divisor)
    return None


def _fold_negation(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    (operand,) = operands
    aval = equation.outvars[0].aval
    return _scale(operand, jnp.full(aval.shape, -1, aval.dtype)) if isinstance(operand, Unit) else None


def _fold_sum(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    left, right = operands
    if not (isinstance(left, Unit) and isinstance(right, Unit)):
        return None
    aval = equation.outvars[0].aval
    ones = jnp.ones(aval.shape, aval.dtype)
    sign = -1 if equation.primitive.name == "sub" else 1
    first = ones if left.scale is None else left.scale
    second = ones if right.scale is None else right.scale
    return Unit(first + sign * second)


def _fold_reshape(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    operand = operands[0]
    shape = equation.outvars[0].aval.shape
    # Only where no element is repeated or moved: the flat index must stay what it is.
    if not isinstance(operand, Unit) or prod(shape) != prod(equation.invars[0].aval.shape):
        return None
    permuted = equation.primitive.name == "reshape" and equation.params.get("dimensions") is not None
    if len(operands) > 1 or permuted:
        return None
    return Unit(None if operand.scale is None else jnp.reshape(operand.scale, shape))


def _fold_conversion(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    (operand,) = operands
    if not isinstance(operand, Unit):
        return None
    dtype = equation.outvars[0].aval.dtype
    return Unit(None if operand.scale is None else operand.scale.astype(dtype))


def _fold_storage(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    (operand,) = operands
    return operand if isinstance(operand, Unit) else None


def _fold_contraction(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    """Take columns of a matrix (or tensor): its products with unit vectors."""
    (left_axes, right_axes), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = operands
    if left_batch or right_batch:
        return None
    if isinstance(left, Unmapped) and isinstance(right, Unit):
        matrix, unit, matrix_axes, unit_axes = left.array, right, left_axes, right_axes
        rank = len(equation.invars[1].aval.shape)
    elif isinstance(left, Unit) and isinstance(right, Unmapped):
        matrix, unit, matrix_axes, unit_axes = right.array, left, right_axes, left_axes
        rank = len(equation.invars[0].aval.shape)
    else:
        return None
    if len(unit_axes) != rank:
        return None  # some axes of the unit vectors survive: the image is not a column
    partner = dict(zip(unit_axes, matrix_axes, strict=True))
    contracted = [partner[axis] for axis in range(rank)]
    free = [axis for axis in range(matrix.ndim) if axis not in contracted]
    size = prod(matrix.shape[axis] for axis in contracted)
    if len(contracted) == 1:
        taken = jnp.moveaxis(seeds.take(matrix, contracted[0]), contracted[0], 0)
    else:
        columns = jnp.transpose(matrix, contracted + free)
        taken = seeds.take(columns.reshape(size, *(matrix.shape[axis] for axis in free)))
    if unit.scale is not None:
        taken = taken * seeds.take(unit.scale.reshape(size)).reshape(seeds.width, *[1] * len(free))
    return Dense(taken.astype(equation.outvars[0].aval.dtype))


_FOLDS: dict[str, Fold] = {
    "mul": _fold_product,
    "div": _fold_quotient,
    "neg": _fold_negation,
    "add_any": _fold_sum,
    "add": _fold_sum,
    "sub": _fold_sum,
    "reshape": _fold_reshape,
    "squeeze": _fold_reshape,
    "expand_dims": _fold_reshape,
    "broadcast_in_dim": _fold_reshape,
    "convert_element_type": _fold_conversion,
    "dot_general": _fold_contraction,
    STORED: _fold_storage,
}

_ELEMENTWISE = ("mul", "div", "add_any", "add", "sub")


def push_units(
    function: Callable[[Array], Any], shape: tuple[int, ...], dtype: Any, seeds: Seeds
) -> list[Array]:
    """Apply a linear function to a block of unit vectors.

    Args:
        function: linear, from an array of `shape` to a pytree of arrays; may close over tracers.
        shape, dtype: of its argument.
        seeds: which unit vectors, by flat index into the argument.

    Returns:
        One array a leaf of the result, of shape (width, *leaf shape).
    """
    closed = jax.make_jaxpr(function)(abstract(shape, dtype))
    outputs = _evaluate(closed.jaxpr, closed.consts, [Unit(None)], seeds)
    results = []
    for variable, value in zip(closed.jaxpr.outvars, outputs, strict=True):
        aval: Any = variable.aval
        if isinstance(value, Unit):
            results.append(seeds.dense(value, aval.shape, aval.dtype))
        elif isinstance(value, Dense):
            results.append(value.array)
        else:
            results.append(jnp.broadcast_to(value.array, (seeds.width, *aval.shape)))
    return results


def _fold(equation: Any, operands: list[Tangent], seeds: Seeds) -> Tangent | None:
    """Return the equation's result in symbolic form, None where there is no such form."""
    name = equation.primitive.name
    if name in _ELEMENTWISE:
        # Axes of extent 1 may stretch to the other operand's: a unit vector is then none any more.
        for variable, operand in zip(equation.invars, operands, strict=True):
            if isinstance(operand, Unit) and variable.aval.shape != equation.outvars[0].aval.shape:
                return None
    fold = _FOLDS.get(name)
    return fold(equation, operands, seeds) if fold else None


def _evaluate(
    jaxpr: Any, consts: Sequence[Array], arguments: Sequence[Tangent], seeds: Seeds
) -> list[Tangent]:
    values: dict[Any, Tangent] = {}

    def read(variable: Any) -> Tangent:
        if isinstance(variable, jex.Literal):
            return Unmapped(jnp.asarray(variable.val, getattr(variable.aval, "dtype", None)))
        return values[variable]

    values.update(zip(jaxpr.constvars, map(Unmapped, consts), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    last_use = {
        variable: index
        for index, equation in enumerate(jaxpr.eqns)
        for variable in equation.invars
        if not isinstance(variable, jex.Literal)
    }
    # Symbolic unit vectors that are still to be used; once there are none, the rest is vectorized at once.
    live = {
        variable for variable, value in values.items() if isinstance(value, Unit) and variable in last_use
    }
    for index, equation in enumerate(jaxpr.eqns):
        live = {variable for variable in live if last_use[variable] >= index}
        if not live:
            _vectorise(jaxpr, index, len(jaxpr.eqns), jaxpr.outvars, values, seeds)
            break
        operands = [read(variable) for variable in equation.invars]
        if equation.primitive.name in CALLS and any(isinstance(operand, Unit) for operand in operands):
            results = _call(equation, operands, seeds)
            values.update(zip(equation.outvars, results, strict=True))
            live |= {var for var in equation.outvars if isinstance(values[var], Unit) and var in last_use}
            continue
        folded = _fold(equation, operands, seeds)
        if folded is not None:
            values[equation.outvars[0]] = folded
            if isinstance(folded, Unit) and equation.outvars[0] in last_use:
                live.add(equation.outvars[0])
        else:
            _vectorise(jaxpr, index, index + 1, equation.outvars, values, seeds)
            live = {variable for variable in live if isinstance(values[variable], Unit)}
    return [read(variable) for variable in jaxpr.outvars]


def _call(equation: Any, operands: list[Tangent], seeds: Seeds) -> list[Tangent]:
    """Evaluate a called jaxpr over tangents: inlined, unless it is a segment."""
    inner = equation.params["jaxpr"]
    if equation.params.get("name") != NAME:
        return _evaluate(inner.jaxpr, inner.consts, operands, seeds)
    kinds: list[type[Tangent]] = []

    def run(tangents: list[Array], start: Array) -> list[Array]:
        given = [type(operand)(array) for operand, array in zip(operands, tangents, strict=True)]
        results = _evaluate(inner.jaxpr, inner.consts, given, Seeds(start, seeds.width))
        kinds[:] = [type(result) for result in results]
        return [_payload(result) for result in results]

    results = apart(run)([_payload(operand) for operand in operands], seeds.start)
    return [kind(result) for kind, result in zip(kinds, results, strict=True)]


def _payload(tangent: Tangent) -> Array:
    return tangent.scale if isinstance(tangent, Unit) else tangent.array


def _vectorise(
    jaxpr: Any, begin: int, end: int, wanted: Sequence[Any], values: dict[Any, Tangent], seeds: Seeds
) -> None:
    """Evaluate equations `begin ... end` for all seeds at once, with `jax.vmap` over dense tangents."""
    part = equations_of(jaxpr, begin, end, wanted)
    arrays, axes = [], []
    for variable in part.inputs:
        value = values[variable]
        if isinstance(value, Unit):
            value = Dense(seeds.dense(value, variable.aval.shape, variable.aval.dtype))
            values[variable] = value
        arrays.append(value.array)
        axes.append(0 if isinstance(value, Dense) else None)
    if all(axis is None for axis in axes):
        values.update(zip(part.outputs, map(Unmapped, part.run(*arrays)), strict=True))
        return
    results = jax.vmap(part.run, in_axes=axes, axis_size=seeds.width)(*arrays)
    values.update(zip(part.outputs, map(Dense, results), strict=True))
