"""The ``gradwire.sci`` domain, version 1: what science needs and ONNX lacks.

Inputs are float64 or float32 and outputs have the same dtype unless said otherwise; matrices may be
stacked along leading axes. Everything has derivatives of any order in both modes.

Linear algebra:

- ``Solve(A, b) -> x``: A x = b; ``b`` is a vector where 1-D, else stacked matrices (as NumPy 2 has it).
- ``Inverse(A) -> B``.
- ``Cholesky(A; upper=0, symmetrize=0) -> L``: A = L L' (or U' U).
- ``TriangularSolve(A, b; lower=1, trans=0, unit_diagonal=0) -> x``: A x = b, or A' x = b with ``trans``.
- ``LogDet(A) -> log|det A|``; ``SlogDet(A) -> (sign, log|det A|)``.
- ``Eigh(A; lower=1, symmetrize=0) -> (w, v)``; ``EigvalsH(A; lower=1, symmetrize=0) -> w``, ascending.
- ``QR(A) -> (q, r)``, reduced; ``SvdValues(A) -> s``, descending.

Cholesky, Eigh and EigvalsH read one triangle of A, the other being its mirror image, and their
derivatives are those of that function: an element of the triangle not read has derivative zero.
With ``symmetrize=1`` they read (A + A') / 2 and the derivative is shared by the two triangles,
which is how PyTorch and JAX have it. The two agree along every symmetric direction.

Functions of one array:

- ``Cbrt``, ``Digamma``, ``Erfc``, ``Erfinv``, ``Exp2``, ``Expit``, ``Expm1``, ``Lgamma``,
  ``Log10``, ``Log1p``, ``Log2``;
- ``Sinc(x)``: sin(pi x) / (pi x), 1 at 0;
- ``Polygamma(x; n=1)``: the n-th derivative of Digamma, for positive ``x``.

Functions of two arrays, broadcast:

- ``Atan2(y, x)``: derivative 0 at the origin;
- ``Hypot(x, y)``: derivative 0 at the origin;
- ``LogAddExp(a, b)``;
- ``Xlogy(x, y)``: x log(y), 0 where x is 0 (and derivatives 0 there unless 0 < y < inf).

Sorting:

- ``Sort(x; axis=-1, descending=0) -> (values, indices)``: stable, NaN last, indices int64.

Differentiation:

- ``StopGradient(x)``: x itself, with derivative zero (PyTorch's ``detach``).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.numeric import broadcast, cast, constant, guarded, is_floating, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)

_UNARY: dict[str, Any] = {
    "Cbrt": lax.cbrt,
    "Digamma": lax.digamma,
    "Erfc": lax.erfc,
    "Erfinv": lax.erf_inv,
    "Exp2": lax.exp2,
    "Expit": lax.logistic,
    "Expm1": lax.expm1,
    "Lgamma": lax.lgamma,
    "Log10": jnp.log10,
    "Log1p": lax.log1p,
    "Log2": jnp.log2,
    "Sinc": jnp.sinc,
}


@sci(*_UNARY)
def of_one_array(node: Node, x: Value) -> Value:
    return _UNARY[node.op](jnp.asarray(x))


@sci("Polygamma")
def polygamma(node: Node, x: Value) -> Value:
    order = int(node.attr("n", 1))
    if order < 0:
        raise node.fail(f"attribute n is {order}; it must be 0 or more")
    x = jnp.asarray(x)
    return lax.polygamma(jnp.full(x.shape, order, x.dtype), x) if order else lax.digamma(x)


@sci("Atan2")
def atan2(node: Node, y: Value, x: Value) -> Value:
    y, x = broadcast(jnp.asarray(y), jnp.asarray(x))
    zero = constant(0, x)
    origin = lax.bitwise_and(lax.eq(x, zero), lax.eq(y, zero))
    # The angle of a signed zero is that of +1 or -1 in its place, which has a derivative: none is sent.
    direction = lax.stop_gradient(jnp.copysign(constant(1, x), x))
    return lax.atan2(select(origin, lax.stop_gradient(y), y), select(origin, direction, x))


@sci("Hypot")
def hypot(node: Node, x: Value, y: Value) -> Value:
    """Length of (x, y), scaled by the larger of the two so that squares neither overflow nor vanish."""
    x, y = broadcast(jnp.asarray(x), jnp.asarray(y))
    largest = lax.stop_gradient(lax.max(lax.abs(x), lax.abs(y)))
    usable = lax.bitwise_and(largest > 0, jnp.isfinite(largest))
    scale = select(usable, largest, constant(1, x))
    total = lax.add(lax.square(lax.div(x, scale)), lax.square(lax.div(y, scale)))
    length = guarded(lax.ne(total, constant(0, x)), lax.sqrt, total, 1.0, constant(0, x))
    return lax.mul(scale, length)


@sci("LogAddExp")
def logaddexp(node: Node, a: Value, b: Value) -> Value:
    return jnp.logaddexp(a, b)


@sci("Xlogy")
def xlogy(node: Node, x: Value, y: Value) -> Value:
    x, y = broadcast(jnp.asarray(x), jnp.asarray(y))
    improper = lax.bitwise_or(y <= 0, y == np.inf)
    vanishes = lax.bitwise_and(lax.eq(x, constant(0, x)), improper)
    return lax.mul(x, lax.log(select(vanishes, constant(1, y), y)))


def _matrix(node: Node, a: Value, square: bool = True) -> Value:
    if a.ndim < 2 or (square and a.shape[-1] != a.shape[-2]):
        wanted = "square matrices" if square else "matrices"
        raise node.fail(f"input A has shape {tuple(a.shape)}; it must be {wanted}, stacked or not")
    if a.dtype not in (np.float64, np.float32):
        raise node.fail(f"input A is {a.dtype}; matrices are factored in float64 or float32, so cast it")
    return jnp.asarray(a)


def _symmetric(node: Node, a: Value, lower: bool) -> Value:
    """A symmetric matrix from one triangle of ``a``, or from both with the attribute ``symmetrize``."""
    a = _matrix(node, a)
    mirrored = jnp.matrix_transpose(a)
    if node.attr("symmetrize", 0):
        return lax.mul(lax.add(a, mirrored), constant(0.5, a))
    size = a.shape[-1]
    mask = np.tri(size, dtype=bool) if lower else np.tri(size, dtype=bool).T
    return select(jnp.broadcast_to(mask, a.shape), a, mirrored)


@sci("Solve")
def solve(node: Node, a: Value, b: Value) -> Value:
    return jnp.linalg.solve(_matrix(node, a), jnp.asarray(b))


@sci("Inverse")
def inverse(node: Node, a: Value) -> Value:
    return jnp.linalg.inv(_matrix(node, a))


@sci("Cholesky")
def cholesky(node: Node, a: Value) -> Value:
    upper = bool(node.attr("upper", 0))
    factor = lax.linalg.cholesky(_symmetric(node, a, not upper), symmetrize_input=False)
    return jnp.matrix_transpose(factor) if upper else factor


@sci("TriangularSolve")
def triangular_solve(node: Node, a: Value, b: Value) -> Value:
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
    return jnp.linalg.slogdet(_matrix(node, a))[1]


@sci("SlogDet")
def sign_and_log_determinant(node: Node, a: Value) -> tuple[Value, Value]:
    sign, logarithm = jnp.linalg.slogdet(_matrix(node, a))
    return sign, logarithm


@sci("Eigh")
def eigh(node: Node, a: Value) -> tuple[Value, Value]:
    """Eigenvalues in ascending order, and eigenvectors; repeated eigenvalues have no derivative of theirs."""
    symmetric = _symmetric(node, a, bool(node.attr("lower", 1)))
    vectors, values = lax.linalg.eigh(symmetric, symmetrize_input=False)
    return values, vectors


@sci("EigvalsH")
def eigenvalues(node: Node, a: Value) -> Value:
    return eigh(node, a)[0]


@sci("QR")
def qr(node: Node, a: Value) -> tuple[Value, Value]:
    """Reduced QR. Of a wide matrix the left square is factored, and the rest turned by the same q."""
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
    return jnp.linalg.svd(_matrix(node, a, square=False), compute_uv=False)


@sci("Sort")
def sort(node: Node, x: Value) -> tuple[Value, Value]:
    """Sorted values and where they were; each value's derivative goes to where it was."""
    axis = axis_of(node, node.attr("axis", -1), x.ndim)
    x = jnp.asarray(x)
    positions = lax.broadcasted_iota(np.int64, x.shape, axis)
    if not node.attr("descending", 0):
        values, indices = lax.sort((x, positions), dimension=axis, is_stable=True, num_keys=1)
        return values, indices
    # The order is reversed by the keys, not afterwards, so that equal elements keep theirs.
    reverse = lax.neg if is_floating(x) else lax.bitwise_not
    keys, indices = lax.sort((reverse(x), positions), dimension=axis, is_stable=True, num_keys=1)
    return cast(reverse(keys), x.dtype), indices


@sci("StopGradient")
def stop_gradient(node: Node, x: Value) -> Value:
    return lax.stop_gradient(x)
