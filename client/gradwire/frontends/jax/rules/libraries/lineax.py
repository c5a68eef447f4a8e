"""Lineax's linear solve, as the solve of a matrix: its derivatives then have every order and both modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from gradwire.frontends.jax.registry import Call, rule, type_only
from gradwire.frontends.jax.rules.custom_derivatives import by_implementation
from gradwire.frontends.jax.rules.linalg import MATERIALIZED
from gradwire.graphs.nodes import GraphValue


@rule("linear_solve")
def linear_solve(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    """Solve with the operator as a matrix; the method is the solver's for what is not a square system."""
    return _solved(call, lambda *arrays: _solution(call, call.params, arrays), inputs)


@rule("vprim")
def batched(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    """Apply a primitive of Equinox to a batch."""
    if call.params["prim"].name != "linear_solve":
        implemented = by_implementation(call.primitive)
        assert implemented is not None, "it is none of JAX"
        return list(implemented(call, *inputs))
    params = dict(call.params["params"])
    solve = jax.vmap(
        lambda *arrays: _solution(call, params, arrays),
        in_axes=tuple(call.params["__batch_axes"]),
        axis_size=call.params["__axis_size"],
    )
    return _solved(call, solve, inputs)


def _solved(call: Call, solve: Callable[..., list[Any]], inputs: Sequence[GraphValue]) -> list[GraphValue]:
    """Return the outputs of the primitive: the solver's own, with the derivatives of the matrix's solution.

    Where it has to be linear in the known vector, in the rule of a function, it is the matrix's own.
    """
    linear = any(map(call.graph.depends_on_tangents, inputs))

    def outputs(*arrays: Any) -> list[Any]:
        solution = solve(*arrays)
        found = call.primitive.impl(*map(lax.stop_gradient, arrays), **call.params)
        own = [lax.stop_gradient(one) for one in found[: len(solution)]]
        if not linear:
            pairs = zip(own, solution, strict=True)
            solution = [one + (moving - lax.stop_gradient(moving)) for one, moving in pairs]
        return [*solution, *found[len(own) :]]

    traced = jax.make_jaxpr(outputs)(*(type_only(value.shape, value.dtype) for value in inputs))
    return call.inline(traced, inputs)


def _solution(call: Call, params: dict[str, Any], arrays: Sequence[Any]) -> list[Any]:
    """Return the solution's arrays, by operations on the operator's matrix."""
    given = iter(arrays)
    absent = _absent(params["static"], len(arrays))
    leaves = [next(given) if item is absent else item for item in params["static"]]
    operator, _, vector, _, solver, _ = jax.tree.unflatten(params["treedef"], leaves)
    structures = operator.out_structure(), operator.in_structure()
    rows, columns = (sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(one)) for one in structures)
    if max(rows, columns) > MATERIALIZED:
        raise call.fail(
            f"an operator of {rows} by {columns} would become a matrix; the limit is {MATERIALIZED}: "
            "write the iteration out"
        )
    matrix, known = operator.as_matrix(), ravel_pytree(vector)[0]
    if not solver.assume_full_rank():
        solution = jnp.linalg.pinv(matrix, rtol=getattr(solver, "rcond", None)) @ known
    elif rows == columns:
        solution = jnp.linalg.solve(matrix, known)
    elif rows > columns:
        solution = jnp.linalg.solve(matrix.T @ matrix, matrix.T @ known)
    else:
        solution = matrix.T @ jnp.linalg.solve(matrix @ matrix.T, known)
    unknown = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structures[1])
    return list(jax.tree.leaves(ravel_pytree(unknown)[1](solution)))


def _absent(static: Sequence[Any], count: int) -> Any:
    """Return Equinox's sign for an array among arguments that are none: the object that is there so often."""
    return next(item for item in static if sum(other is item for other in static) == count)
