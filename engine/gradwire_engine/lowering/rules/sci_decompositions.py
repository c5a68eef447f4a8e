"""More of the ``gradwire.sci`` domain, version 1: decompositions that JAX programs are made of.

- ``LU(A) -> (lu, pivots, permutation)``: with partial pivoting; L (of unit diagonal) and U share one
  matrix, ``pivots`` are LAPACK's counted from 0, and ``A[permutation] = L U``; both int32.
- ``PivotsToPermutation(pivots; size) -> permutation``: of that many rows, int32.
- ``SVD(A) -> (u, s, vh)``: reduced, singular values descending; equal ones have no derivative of u and vh.

Matrices may be stacked along leading axes. Derivatives exist in both modes, of any order.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)


def _matrix(node: Node, a: Value) -> Value:
    if a.ndim < 2:
        raise node.fail(f"input A has shape {tuple(a.shape)}; it must be matrices, stacked or not")
    if a.dtype not in (np.float64, np.float32):
        raise node.fail(f"input A is {a.dtype}; matrices are factored in float64 or float32, so cast it")
    return jnp.asarray(a)


@sci("LU")
def lu(node: Node, a: Value) -> tuple[Value, Value, Value]:
    factors, pivots, permutation = lax.linalg.lu(_matrix(node, a))
    return factors, pivots, permutation


@sci("PivotsToPermutation")
def permutation(node: Node, pivots: Value) -> Value:
    size = int(node.attributes["size"])
    return lax.linalg.lu_pivots_to_permutation(jnp.asarray(pivots, jnp.int32), size)


@sci("SVD")
def svd(node: Node, a: Value) -> tuple[Value, Value, Value]:
    u, s, vh = jnp.linalg.svd(_matrix(node, a), full_matrices=False)
    return u, s, vh
