"""Lineax's linear solve, as the solve of a matrix: its derivatives then have every order and both modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from gradwire.frontends.jax.registry import Call, rule, type_only
from gradwire.frontends.jax.rules.linalg import MATERIALIZED
from gradwire.graphs.builder import GraphValue


@rule("linear_solve")
def linear_solve(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    """Solve with the operator as a matrix; the method is the solver's for what is not a square system."""

    linear = any(map(call.graph.depends_on_tangents, inputs))

    def solve(*arrays: Any) -> list[Any]:
        return _solved(call, call.primitive, call.params, arrays, linear)

    return _inlined(call, solve, inputs)


@rule("vprim")
def batched(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    """Apply a primitive of Equinox to a batch."""
    primitive, params = call.params["prim"], dict(call.params["params"])
    linear = any(map(call.graph.depends_on_tangents, inputs))

    def once(*arrays: Any) -> list[Any]:
        if primitive.name == "linear_solve":
            return _solved(call, primitive, params, arrays, linear)
        return list(primitive.bind(*arrays, **params))

    axes, size = call.params["__batch_axes"], call.params["__axis_size"]
    return _inlined(call, jax.vmap(once, in_axes=tuple(axes), axis_size=size), inputs)


def _inlined(call: Call, function: Any, inputs: Sequence[GraphValue]) -> list[GraphValue]:
    traced = jax.make_jaxpr(function)(*(type_only(value.shape, value.dtype) for value in inputs))
    return call.inline(traced, inputs)


def _solved(
    call: Call, primitive: Any, params: dict[str, Any], arrays: Sequence[Any], linear: bool
) -> list[Any]:
    """Return the outputs of the primitive, the solution differentiable as that of a matrix.

    Args:
        call: the equation, for errors.
        primitive: Lineax's.
        params: of the primitive.
        arrays: its inputs.
        linear: whether the solution has to be linear in the known vector, in the rule of another function.
    """
    given = iter(arrays)
    absent = _absent(params["static"], len(arrays))
    leaves = [next(given) if item is absent else item for item in params["static"]]
    operator, _, vector, _, solver, _ = jax.tree.unflatten(params["treedef"], leaves)
    rows, columns = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(structure))
        for structure in (operator.out_structure(), operator.in_structure())
    )
    if max(rows, columns) > MATERIALIZED:
        raise call.fail(
            f"an operator of {rows} by {columns} would become a matrix; the limit is {MATERIALIZED}: "
            "write the iteration out"
        )
    matrix, known = operator.as_matrix(), ravel_pytree(vector)[0]
    found = primitive.impl(*(lax.stop_gradient(array) for array in arrays), **params)
    count = len(jax.tree.leaves(operator.in_structure()))
    own, unravel = ravel_pytree(found[:count])
    own = lax.stop_gradient(own)
    if not solver.assume_full_rank():
        solution = jnp.linalg.pinv(matrix, rtol=getattr(solver, "rcond", None)) @ known
    elif rows == columns:
        solution = jnp.linalg.solve(matrix, known)
    elif rows > columns:
        solution = jnp.linalg.solve(matrix.T @ matrix, matrix.T @ known)
    else:
        solution = matrix.T @ jnp.linalg.solve(matrix @ matrix.T, known)
    # The solver's own value, with the derivatives of the matrix's.
    if linear:
        return [*unravel(solution), *found[count:]]
    return [*unravel(own + (solution - lax.stop_gradient(solution))), *found[count:]]


def _absent(static: Sequence[Any], count: int) -> Any:
    """Return Equinox's sign for an array among arguments that are none: the object that is there so often."""
    return next(item for item in static if sum(other is item for other in static) == count)
