"""Factorizations, and solving linear systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from gradwire.frontends.jax.registry import Call, rule, type_only
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import GraphValue

MATERIALIZED = 4096
"""Largest number of elements of which an operator becomes a matrix."""


def _turned(x: GraphValue) -> GraphValue:
    """Matrices with rows and columns exchanged."""
    return ops.transpose(x, [*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


@rule("cholesky")
def cholesky(call: Call, a: GraphValue) -> GraphValue:
    return ops.unary("Cholesky", a, SCI)


@rule("triangular_solve")
def triangular_solve(call: Call, a: GraphValue, b: GraphValue) -> GraphValue:
    """X A = B is solved as A' X' = B'."""
    params = call.params
    left, turned = bool(params["left_side"]), bool(params["transpose_a"])
    known = b if left else _turned(b)
    solution = call.graph.one(
        "TriangularSolve",
        [a, known],
        known.shape,
        b.dtype,
        SCI,
        lower=int(params["lower"]),
        trans=int(turned if left else not turned),
        unit_diagonal=int(params["unit_diagonal"]),
    )
    return solution if left else _turned(solution)


@rule("lu")
def lu(call: Call, a: GraphValue) -> list[GraphValue]:
    return call.graph.emit("LU", [a], call.results, SCI)


@rule("lu_pivots_to_permutation")
def permutation(call: Call, pivots: GraphValue) -> GraphValue:
    return call.graph.one("PivotsToPermutation", [pivots], call.shape, call.dtype, SCI, size=call.shape[-1])


@rule("symmetric_product")
def symmetric_product(call: Call, a: GraphValue, c: GraphValue) -> GraphValue:
    """alpha A A' + beta C."""
    square = ops.matmul(a, _turned(a))
    left, right = (
        ops.binary("Mul", ops.constant_like(a, call.params[factor]), part)
        for factor, part in (("alpha", square), ("beta", c))
    )
    return ops.binary("Add", left, right)


@rule("eigh")
def eigh(call: Call, a: GraphValue) -> tuple[GraphValue, GraphValue]:
    if call.params.get("subset_by_index") not in (None, (0, a.shape[-1])):
        raise call.fail("a subset of the eigenvalues has no operator; take all and slice")
    vectors, values = call.results
    lower = int(call.params.get("lower", True))
    w, v = call.graph.emit("Eigh", [a], [values, vectors], SCI, lower=lower)
    return v, w


@rule("qr")
def qr(call: Call, a: GraphValue) -> list[GraphValue]:
    if call.params.get("pivoting"):
        raise call.fail("pivoting has no operator; leave it out")
    if call.params["full_matrices"] and a.shape[-2] > a.shape[-1]:
        raise call.fail("the complete factor has no derivative; use mode='reduced'")
    return call.graph.emit("QR", [a], call.results, SCI)


@rule("svd")
def svd(call: Call, a: GraphValue) -> tuple[GraphValue, ...] | GraphValue:
    if call.params.get("subset_by_index") is not None:
        raise call.fail("a subset of the singular values has no operator; take all and slice")
    if not call.params["compute_uv"]:
        return call.graph.one("SvdValues", [a], call.shape, call.dtype, SCI)
    if call.params["full_matrices"] and a.shape[-2] != a.shape[-1]:
        raise call.fail("the complete factors have no derivative; use full_matrices=False")
    s, u, vh = call.results
    factors = call.graph.emit("SVD", [a], [u, s, vh], SCI)
    return factors[1], factors[0], factors[2]


@rule("custom_linear_solve")
def linear_solve(call: Call, *operands: GraphValue) -> tuple[GraphValue, ...]:
    """Solve A x = b with the operator A as a matrix, so that derivatives of every order are right.

    How JAX solves (by a factorization without derivatives, or by iteration) does not enter.
    """
    lengths, jaxprs = call.params["const_lengths"], call.params["jaxprs"]
    constants = operands[: lengths.matvec]
    known = operands[sum(lengths) :]
    matvec = jaxprs.matvec
    if len(known) != 1:
        raise call.fail("a system of several arrays has no operator; ravel them into one vector")
    plain = _as_contraction(matvec, len(constants))
    if plain is not None:
        return (_solved_by_contraction(constants, known[0], *plain),)
    return (_solved_by_matrix(call, matvec, constants, known[0]),)


def _as_contraction(matvec: Any, constants: int) -> tuple[Any, list[int] | None] | None:
    """Return the one dot_general that an operator is, and the transposition after it, if any; or None."""
    jaxpr = matvec.jaxpr
    equations = list(jaxpr.eqns)
    order = None
    if len(equations) == 2 and equations[1].primitive.name == "transpose":
        order = [int(axis) for axis in equations[1].params["permutation"]]
    elif len(equations) != 1:
        return None
    product = equations[0]
    if product.primitive.name != "dot_general" or jaxpr.outvars[0] is not equations[-1].outvars[0]:
        return None
    variable = jaxpr.invars[constants]
    if product.invars[1] is not variable or product.invars[0] not in jaxpr.invars[:constants]:
        return None
    (left, _), (batch, _) = product.params["dimension_numbers"]
    if len(left) != 1 or product.invars[0].aval.ndim != len(batch) + 2:
        return None
    place = jaxpr.invars.index(product.invars[0])
    return (product.params["dimension_numbers"], place), order


def _solved_by_contraction(
    constants: Sequence[GraphValue], b: GraphValue, product: Any, order: list[int] | None
) -> GraphValue:
    """Return the solution where the operator is one contraction.

    Args:
        constants: the operator's.
        b: the known side.
        product: the contraction's dimension numbers, and the place of its matrix among the constants.
        order: the transposition after the contraction, if any.
    """
    ((left,), (right,)), (left_batch, right_batch) = product[0]
    a = constants[product[1]]
    free = next(axis for axis in range(a.ndim) if axis != left and axis not in left_batch)
    a = ops.transpose(a, [*left_batch, free, left])
    if order is not None:
        b = ops.transpose(b, np.argsort(order).tolist())
    # Now b has the batch, then the rows, then everything else, in the order of the unknown's axes.
    count = len(left_batch)
    batch, rows, rest = b.shape[:count], b.shape[count], b.shape[count + 1 :]
    matrix = ops.reshape(b, (*batch, rows, math.prod(rest)))
    x = a.graph.one("Solve", [a, matrix], matrix.shape, b.dtype, SCI)
    x = ops.reshape(x, b.shape)
    others = [axis for axis in range(b.ndim) if axis != right and axis not in right_batch]
    return ops.transpose(x, np.argsort([*right_batch, right, *others]).tolist())


def _solved_by_matrix(call: Call, matvec: Any, constants: Sequence[GraphValue], b: GraphValue) -> GraphValue:
    """Return the operator's matrix: the operator applied to every unit vector."""
    if b.size > MATERIALIZED:
        raise call.fail(
            f"an operator on {b.size} elements would become a matrix of {b.size} by {b.size}; "
            f"the limit is {MATERIALIZED}: pass a matrix to jnp.linalg.solve, or write the iteration out"
        )
    apply = jaxpr_as_fun(matvec)

    def columns(*given: Any) -> Any:
        *fixed, units = given
        return jax.vmap(lambda unit: apply(*fixed, unit.reshape(b.shape))[0].reshape(-1))(units)

    kinds = [type_only(value.shape, value.dtype) for value in constants]
    units = call.graph.constant(np.eye(b.size, dtype=b.dtype))
    traced = jax.make_jaxpr(columns)(*kinds, type_only(units.shape, units.dtype))
    (rows,) = call.inline(traced, [*constants, units])
    a = _turned(rows)
    vector = ops.reshape(b, (b.size,))
    x = call.graph.one("Solve", [a, vector], vector.shape, b.dtype, SCI)
    return ops.reshape(x, b.shape)
