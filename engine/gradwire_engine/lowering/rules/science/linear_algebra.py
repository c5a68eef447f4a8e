"""Linear algebra of the `gradwire.sci` domain.

- `Solve(A, b) -> x`: A x = b; `b` is a vector where 1-D, else stacked matrices (as NumPy 2 has it).
- `Inverse(A) -> B`.
- `Cholesky(A; upper=0, symmetrize=0) -> L`: A = L L' (or U' U).
- `TriangularSolve(A, b; lower=1, trans=0, unit_diagonal=0) -> x`: A x = b, or A' x = b with `trans`.
- `LogDet(A) -> log|det A|`; `SlogDet(A) -> (sign, log|det A|)`.
- `Eigh(A; lower=1, symmetrize=0) -> (w, v)`; `EigvalsH(A; lower=1, symmetrize=0) -> w`, ascending.
- `QR(A) -> (q, r)`, reduced; `SvdValues(A) -> s`, descending.

Cholesky, Eigh and EigvalsH read one triangle of A, the other being its mirror image, and their
derivatives are those of that function: an element of the triangle not read has derivative zero.
With `symmetrize=1` they read (A + A') / 2 and the derivative is shared by the two triangles,
which is how PyTorch and JAX have it. The two agree along every symmetric direction.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.numeric import constant, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)


def _matrix(node: Node, a: Value, square: bool = True) -> Value:
    """Return the input as a JAX array; raise `InvalidGraph` unless it holds floating (square) matrices."""
    if a.ndim < 2 or (square and a.shape[-1] != a.shape[-2]):
        wanted = "square matrices" if square else "matrices"
        raise node.fail(f"input A has shape {tuple(a.shape)}; it must be {wanted}, stacked or not")
    if a.dtype not in (np.float64, np.float32):
        raise node.fail(f"input A is {a.dtype}; matrices are factored in float64 or float32, so cast it")
    return jnp.asarray(a)


def _symmetric(node: Node, a: Value, lower: bool) -> Value:
    """Return a symmetric matrix from one triangle of `a`, or from both with the attribute `symmetrize`."""
    a = _matrix(node, a)
    mirrored = jnp.matrix_transpose(a)
    if node.attr("symmetrize", 0):
        return lax.mul(lax.add(a, mirrored), constant(0.5, a))
    size = a.shape[-1]
    mask = np.tri(size, dtype=bool) if lower else np.tri(size, dtype=bool).T
    return select(jnp.broadcast_to(mask, a.shape), a, mirrored)


@sci("Solve")
def solve(node: Node, a: Value, b: Value) -> Value:
    """Solve: A x = b, with NumPy 2's reading of vectors and stacks."""
    return jnp.linalg.solve(_matrix(node, a), jnp.asarray(b))


@sci("Inverse")
def inverse(node: Node, a: Value) -> Value:
    """Inverse: of stacked matrices."""
    return jnp.linalg.inv(_matrix(node, a))


@sci("Cholesky")
def cholesky(node: Node, a: Value) -> Value:
    """Cholesky: the lower factor, or the upper one with `upper`."""
    upper = bool(node.attr("upper", 0))
    factor = lax.linalg.cholesky(_symmetric(node, a, not upper), symmetrize_input=False)
    return jnp.matrix_transpose(factor) if upper else factor


@sci("TriangularSolve")
def triangular_solve(node: Node, a: Value, b: Value) -> Value:
    """TriangularSolve: leading axes are broadcast; `b` may be a vector."""
    a, b = _matrix(node, a), jnp.asarray(b)
    vector = b.ndim == 1
    if vector:
        b = b[:, None]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    solution = lax.linalg.triangular_solve(
        jnp.broadcast_to(a, (*batch, *a.shape[-2:])),
        jnp.broadcast_to(b, (*batch, *b.shape[-2:])),
        left_side=True,
        lower=bool(node.attr("lower", 1)),
        transpose_a=bool(node.attr("trans", 0)),
        unit_diagonal=bool(node.attr("unit_diagonal", 0)),
    )
    return solution[..., 0] if vector else solution


@sci("LogDet")
def log_determinant(node: Node, a: Value) -> Value:
    """LogDet: log|det A|."""
    return jnp.linalg.slogdet(_matrix(node, a))[1]


@sci("SlogDet")
def sign_and_log_determinant(node: Node, a: Value) -> tuple[Value, Value]:
    """SlogDet: the sign of det A, and log|det A|."""
    sign, logarithm = jnp.linalg.slogdet(_matrix(node, a))
    return sign, logarithm


@sci("Eigh")
def eigh(node: Node, a: Value) -> tuple[Value, Value]:
    """Eigh: ascending eigenvalues, and eigenvectors; those of repeated eigenvalues have no derivative."""
    symmetric = _symmetric(node, a, bool(node.attr("lower", 1)))
    vectors, values = lax.linalg.eigh(symmetric, symmetrize_input=False)
    return values, vectors


@sci("EigvalsH")
def eigenvalues(node: Node, a: Value) -> Value:
    """EigvalsH: the eigenvalues of Eigh."""
    return eigh(node, a)[0]


@sci("QR")
def qr(node: Node, a: Value) -> tuple[Value, Value]:
    """QR: reduced.

    Of a wide matrix the left square is factored, and the rest multiplied by the transpose of q.
    """
    a = _matrix(node, a, square=False)
    rows, columns = a.shape[-2:]
    if rows >= columns:
        q, r = jnp.linalg.qr(a)
        return q, r
    q, left = jnp.linalg.qr(a[..., :rows])
    right = jnp.matmul(jnp.matrix_transpose(q), a[..., rows:])
    return q, jnp.concatenate([left, right], -1)


@sci("SvdValues")
def singular_values(node: Node, a: Value) -> Value:
    """SvdValues: in descending order."""
    return jnp.linalg.svd(_matrix(node, a, square=False), compute_uv=False)
