"""Householder's reflections: the packed QR factorization, and products with its orthogonal factor."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire.frontends.jax.registry import Call, rule, type_only
from gradwire.graphs.nodes import GraphValue


def _factored(a: Any) -> tuple[Any, Any]:
    """Return R with the reflections' vectors below its diagonal, leading 1 left out, and their factors."""
    rows = jnp.arange(a.shape[0])
    columns = jnp.arange(a.shape[1])

    def step(k: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        packed, factors = state
        column = packed[:, k]
        head, tail = column[k], jnp.where(rows > k, column, 0)
        rest = jnp.sum(tail * tail)
        flat = rest == 0
        length = jnp.sqrt(jnp.where(flat, 1, head * head + rest))
        diagonal = jnp.where(flat, head, jnp.where(head >= 0, -length, length))
        factor = jnp.where(flat, 0, (diagonal - head) / jnp.where(flat, 1, diagonal))
        vector = tail / jnp.where(flat, 1, head - diagonal) + (rows == k)
        reflected = packed - factor * vector[:, None] * (vector @ packed)[None, :]
        later = jnp.where((columns > k)[None, :], reflected, packed)
        own = jnp.where(rows > k, vector, jnp.where(rows == k, diagonal, column))
        return jnp.where((columns == k)[None, :], own[:, None], later), factors.at[k].set(factor)

    count = min(a.shape)
    packed, factors = lax.fori_loop(0, count, step, (a, jnp.zeros(count, a.dtype)))
    return packed, factors


def _applied(a: Any, factors: Any, c: Any, left: bool, transpose: bool) -> Any:
    """Multiply by the orthogonal factor or its transpose, from the left or the right."""
    if not left:
        return _applied(a, factors, c.T, True, not transpose).T
    rows, count = jnp.arange(a.shape[0]), factors.shape[0]

    def step(i: Any, c: Any) -> Any:
        k = i if transpose else count - 1 - i
        vector = jnp.where(rows > k, a[:, k], 0) + (rows == k)
        return c - factors[k] * vector[:, None] * (vector @ c)[None, :]

    return lax.fori_loop(0, count, step, c)


def _product(a: Any, factors: Any) -> Any:
    return _applied(a, factors, jnp.eye(a.shape[0], a.shape[1], dtype=a.dtype), left=True, transpose=False)


def _inlined(call: Call, function: Any, *inputs: GraphValue) -> list[GraphValue]:
    """Convert a function of matrices, for each of a stack of them."""
    for _ in range(inputs[0].ndim - 2):
        function = jax.vmap(function)
    traced = jax.make_jaxpr(function)(*(type_only(value.shape, value.dtype) for value in inputs))
    return call.inline(traced, inputs)


@rule("geqrf")
def packed_factorization(call: Call, a: GraphValue) -> list[GraphValue]:
    return _inlined(call, _factored, a)


@rule("ormqr")
def multiplied(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    left, transpose = (bool(np.asarray(call.params[key])) for key in ("left", "transpose"))
    return _inlined(call, partial(_applied, left=left, transpose=transpose), *inputs)


@rule("householder_product")
def orthogonal_factor(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    return _inlined(call, _product, *inputs)
