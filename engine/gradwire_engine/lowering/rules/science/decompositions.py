"""Decompositions and the pseudo-inverse of the `gradwire.sci` domain.

- `LU(A) -> (lu, pivots, permutation)`: with partial pivoting; L (of unit diagonal) and U share one
  matrix, `pivots` are LAPACK's counted from 0, and `A[permutation] = L U`; both int32.
- `PivotsToPermutation(pivots; size) -> permutation`: of that many rows, int32.
- `SVD(A) -> (u, s, vh)`: reduced, singular values descending; equal ones have no derivative of u and vh.
- `Pinv(A, rtol) -> B`: the Moore-Penrose inverse; singular values up to `rtol` (a scalar, an input since
  attributes have single precision) times the largest count as zero. The derivative is that at constant rank
  (Golub and Pereyra, "The differentiation of pseudo-inverses", 1973), also where singular values are equal.

Matrices may be stacked along leading axes. Derivatives exist in both modes, of any order.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.numeric import constant, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)


def _matrix(node: Node, a: Value) -> Value:
    """Return the input as a JAX array; raise `InvalidGraph` unless it holds float64 or float32 matrices."""
    if a.ndim < 2:
        raise node.fail(f"input A has shape {tuple(a.shape)}; it must be matrices, stacked or not")
    if a.dtype not in (np.float64, np.float32):
        raise node.fail(f"input A is {a.dtype}; matrices are factored in float64 or float32, so cast it")
    return jnp.asarray(a)


@sci("LU")
def lu(node: Node, a: Value) -> tuple[Value, Value, Value]:
    """LU: with partial pivoting."""
    factors, pivots, permutation = lax.linalg.lu(_matrix(node, a))
    return factors, pivots, permutation


@sci("PivotsToPermutation")
def permutation(node: Node, pivots: Value) -> Value:
    """PivotsToPermutation: the permutation of rows that LAPACK's pivots describe."""
    size = int(node.attributes["size"])
    return lax.linalg.lu_pivots_to_permutation(jnp.asarray(pivots, jnp.int32), size)


@sci("SVD")
def svd(node: Node, a: Value) -> tuple[Value, Value, Value]:
    """SVD: reduced."""
    u, s, vh = jnp.linalg.svd(_matrix(node, a), full_matrices=False)
    return u, s, vh


@jax.custom_jvp
def _pinv(a: Value, rtol: Value) -> Value:
    u, s, vh = jnp.linalg.svd(a, full_matrices=False)
    kept = s > rtol * jnp.max(s, -1, keepdims=True, initial=0)
    one = constant(1, s)
    reciprocals = select(kept, lax.div(one, select(kept, s, one)), constant(0, s))
    return jnp.matmul(jnp.matrix_transpose(vh) * reciprocals[..., None, :], jnp.matrix_transpose(u))


@_pinv.defjvp
def _pinv_jvp(primals: tuple[Value, Value], tangents: tuple[Value, Value]) -> tuple[Value, Value]:
    """Differentiate the pseudo-inverse at constant rank, in terms of itself, so that higher orders exist."""
    (a, rtol), (da, _) = primals, tangents
    b = _pinv(a, rtol)
    bt, dat = jnp.matrix_transpose(b), jnp.matrix_transpose(da)
    across = jnp.matmul(jnp.matmul(b, bt), dat - jnp.matmul(jnp.matmul(dat, a), b))
    along = jnp.matmul(dat - jnp.matmul(b, jnp.matmul(a, dat)), jnp.matmul(bt, b))
    return b, across + along - jnp.matmul(jnp.matmul(b, da), b)


@sci("Pinv")
def pseudo_inverse(node: Node, a: Value, rtol: Value) -> Value:
    """Pinv: treats singular values up to `rtol` times the largest as zero."""
    return _pinv(_matrix(node, a), jnp.asarray(rtol))
