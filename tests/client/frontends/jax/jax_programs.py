"""A table of JAX programs, after that of functions: linear algebra, control flow, and derivatives inside."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import jax.scipy.interpolate
import jax.scipy.ndimage
import jax.scipy.signal
import jax.scipy.spatial.transform
import numpy as np
from jax import lax
from jax.experimental.ode import odeint

from tests.client.frontends.jax import jax_table as table
from tests.client.frontends.jax.jax_table import PLACES, A, B, P, Q, Row, S, T, V, X, Y, normal

LINALG: list[Row] = [
    ("solve", jnp.linalg.solve, (A, B)),
    ("solve for a matrix", lambda a, x: jnp.linalg.solve(a, x.T), (A, X)),
    ("solve in batches", jax.vmap(jnp.linalg.solve), (np.stack([A, A.T]), np.stack([B, -B]))),
    ("solve stacked", jnp.linalg.solve, (np.stack([A, A.T]), np.stack([X.T, Y.T]))),
    ("solve, positive", lambda a, b: jsp.linalg.solve(a, b, assume_a="pos"), (S, B)),
    ("inverse", jnp.linalg.inv, (A,)),
    ("determinant", jnp.linalg.det, (A,)),
    ("small determinants", lambda a: (jnp.linalg.det(a[:2, :2]), jnp.linalg.det(a[:3, :3])), (A,)),
    ("slogdet", jnp.linalg.slogdet, (A,)),
    ("cholesky", jnp.linalg.cholesky, (S,)),
    ("cho_solve", lambda s, b: jsp.linalg.cho_solve(jsp.linalg.cho_factor((s + s.T) / 2), b), (S, B)),
    ("solve_triangular", lambda a, b: jsp.linalg.solve_triangular(a, b, lower=True), (A, B)),
    (
        "triangular solve from the right",
        lambda a, x: lax.linalg.triangular_solve(a, x, left_side=False, lower=True, transpose_a=True),
        (A, X),
    ),
    ("eigh", lambda s: jnp.linalg.eigh(s)[0], (S,)),
    ("eigenprojector", lambda s: (lambda v: v[:, :1] @ v[:, :1].T)(jnp.linalg.eigh(s)[1]), (S,)),
    ("eigvalsh", jnp.linalg.eigvalsh, (S,)),
    ("qr", lambda x: jnp.linalg.qr(x.T), (X,)),
    ("singular values", lambda x: jnp.linalg.svd(x, compute_uv=False), (X,)),
    (
        "svd, put together again",
        lambda x: (lambda u, s, v: u @ (jnp.sin(s)[:, None] * v))(*jnp.linalg.svd(x, full_matrices=False)),
        (X,),
    ),
    ("pinv", jnp.linalg.pinv, (X,)),
    ("nuclear norm", lambda x: jnp.linalg.norm(x, "nuc"), (X,)),
    ("lstsq", lambda x, v: jnp.linalg.lstsq(x.T, v)[0], (X, B)),
    ("lu_solve", lambda a, b: jsp.linalg.lu_solve(jsp.linalg.lu_factor(a), b), (A, B)),
    ("lu", jsp.linalg.lu, (A,)),
    ("expm", lambda a: jsp.linalg.expm(0.1 * a), (A,)),
    (
        "conjugate gradients",
        lambda s, b: jsp.sparse.linalg.cg(lambda v: s @ v + jnp.sum(v), b, tol=1e-14)[0],
        (S, B),
    ),
]


def _mlp(params: dict[str, Any], x: Any) -> Any:
    for layer in params["layers"]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return {"out": x @ params["head"], "norm": jnp.sum(x**2)}


PARAMS = {
    "layers": [{"w": normal(4, 5), "b": normal(5)}, {"w": normal(5, 5), "b": normal(5)}],
    "head": normal(5),
}


def _lorenz(u: Any) -> Any:
    return jnp.array([10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])


def _runge_kutta(u: Any) -> Any:
    def step(u: Any, _: None) -> tuple[Any, Any]:
        a = _lorenz(u)
        b = _lorenz(u + 0.005 * a)
        c = _lorenz(u + 0.005 * b)
        d = _lorenz(u + 0.01 * c)
        following = u + 0.01 / 6 * (a + 2 * b + 2 * c + d)
        return following, following

    return lax.scan(step, u, None, length=20)


CONTROL_FLOW: list[Row] = [
    (
        "scan with carry and stacked outputs",
        lambda x: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), jnp.zeros(4), x),
        (X,),
    ),
    (
        "scan backwards",
        lambda x: lax.scan(lambda c, r: (c * 0.5 + r, c), jnp.zeros(4), x, reverse=True),
        (X,),
    ),
    (
        "scan capturing an array",
        lambda x, a: lax.scan(lambda c, r: (a @ c + r, jnp.sum(c)), jnp.ones(4), x),
        (X, A),
    ),
    ("scan over nothing", _runge_kutta, (V[:3],)),
    (
        "scan over nothing backwards",
        lambda x: lax.scan(lambda c, _: (c * 0.5, c), x, None, length=3, reverse=True),
        (V,),
    ),
    ("scan of length zero", lambda x: lax.scan(lambda c, r: (c + r, c), x, jnp.zeros((0, 6))), (V,)),
    (
        "scan in a scan",
        lambda x: lax.scan(lambda c, r: lax.scan(lambda d, s: (d + s * c, d), c, r), 0.5, x),
        (X,),
    ),
    ("lax.map", lambda x: lax.map(lambda r: jnp.sum(r**2), x), (X,)),
    ("fori_loop", lambda x: lax.fori_loop(0, 5, lambda i, c: c + jnp.sin(c) / (i + 1), x), (V,)),
    (
        "fori_loop writing by index",
        lambda x: lax.fori_loop(1, 6, lambda i, c: c.at[i].set(c[i - 1] * 0.5 + c[i]), x),
        (V,),
    ),
    (
        "while_loop with a known end",
        lambda x: lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, jnp.cos(s[1])), (0, x)),
        (V,),
    ),
    (
        "while_loop until converged",
        lambda x: lax.while_loop(
            lambda s: jnp.max(jnp.abs(s[0] - s[1])) > 1e-9, lambda s: (s[1], 0.5 * jnp.cos(s[1])), (x + 1, x)
        )[1],
        (V,),
    ),
    ("cond on the data", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), (V,)),
    (
        "cond with captured arrays",
        lambda x, y: lax.cond(jnp.sum(x) > 0, lambda: x @ y.T, lambda: y @ x.T),
        (X, Y),
    ),
    (
        "cond with several outputs",
        lambda x: lax.cond(x[0] > 9, lambda v: (v, v[0]), lambda v: (2 * v, v[1]), x),
        (V,),
    ),
    ("switch among three", lambda k, x: lax.switch(k[0], [jnp.sin, jnp.cos, jnp.exp], x), (PLACES, V)),
    ("switch past the end", lambda k, x: lax.switch(k[2] + 7, [jnp.sin, jnp.cos, jnp.exp], x), (PLACES, V)),
    ("switch on a constant", lambda x: lax.switch(1, [jnp.sin, jnp.cos], x), (V,)),
    (
        "cond in a scan",
        lambda x: lax.scan(
            lambda c, r: (lax.cond(r[0] > 0, lambda d: d + r, lambda d: d * r, c), c), jnp.ones(4), x
        ),
        (X,),
    ),
    ("vmap of a scan", jax.vmap(lambda r: lax.scan(lambda c, v: (c * v + 1, c), 1.0, r)), (X,)),
    ("vmap of a cond", jax.vmap(lambda r: lax.cond(r[0] > 0, jnp.sin, jnp.cos, r)), (X,)),
    ("jit in jit", jax.jit(lambda x: jax.jit(jnp.sin)(x) + jax.jit(lambda y: y * 2)(x)), (X,)),
    ("checkpoint", jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), (X,)),
    ("gradient inside", jax.grad(lambda x: jnp.sum(jnp.sin(x) * x**2)), (V,)),
    (
        "gradient of a scan inside",
        jax.grad(lambda x: jnp.sum(lax.scan(lambda c, r: (jnp.tanh(c + r), c), jnp.zeros(4), x)[0])),
        (X,),
    ),
    ("hessian inside", jax.hessian(lambda x: jnp.sum(jnp.exp(x) * x[0])), (B,)),
    ("stop_gradient", lambda x: x * lax.stop_gradient(jnp.sin(x)), (V,)),
    ("tree of parameters", _mlp, (PARAMS, normal(3, 4))),
]

PROGRAMS: list[Row] = [
    ("odeint", lambda y: odeint(lambda y, t: -y * t, y, jnp.linspace(0.0, 1.0, 4)), (V,)),
    (
        "custom_root",
        lambda a: lax.custom_root(
            lambda x: x**3 - a,
            1.0,
            lambda f, x0: lax.fori_loop(0, 30, lambda i, x: x - f(x) / (3 * x * x), x0),
            lambda g, y: y / g(1.0),
        ),
        (np.asarray(2.0),),
    ),
    (
        "vmap while",
        jax.vmap(lambda x: lax.while_loop(lambda c: c < 3.0, lambda c: c * 1.5 + 0.1, x)),
        (P[0],),
    ),
    ("map_coordinates", lambda x, y: jsp.ndimage.map_coordinates(x, [y[0] % 2, y[1] % 2], 1), (X, P)),
    ("resize", lambda x: jax.image.resize(x, (6, 8), "bilinear"), (X,)),
    ("resize cubic", lambda x: jax.image.resize(x, (6, 8), "cubic"), (X,)),
    ("unique", lambda k: jnp.unique(k, size=5), (PLACES,)),
    ("nonzero size", lambda v: jnp.nonzero(v > 0, size=3), (V,)),
    ("convolve2d", lambda x, y: jsp.signal.convolve2d(x, y, mode="same"), (X, Y)),
    (
        "RegularGrid",
        lambda x: jsp.interpolate.RegularGridInterpolator((jnp.arange(3.0), jnp.arange(4.0)), x)(
            jnp.array([[0.5, 0.5], [1.2, 2.1]])
        ),
        (X,),
    ),
    ("tensorsolve", lambda a, b: jnp.linalg.tensorsolve(a.reshape(2, 2, 4), b.reshape(2, 2)), (A, B)),
    ("vectorize", jnp.vectorize(lambda a, b: a @ b, signature="(n,m),(m)->(n)"), (X, B)),
    ("piecewise", lambda x: jnp.piecewise(x, [x < 0, x >= 0], [lambda x: -x, lambda x: x**2]), (X,)),
    ("jselect", lambda x: jnp.select([x < -0.5, x < 0.5], [x, x**2], 1.0), (X,)),
    ("nanmean", lambda x: jnp.nanmean(x, 0), (X,)),
    ("digitize", lambda x: jnp.digitize(x, np.array([-1.0, 0, 1.0])), (X,)),
    ("rotation", lambda v: jsp.spatial.transform.Rotation.from_rotvec(v[:3]).as_matrix(), (V,)),
    ("block_diag", lambda a, x: jsp.linalg.block_diag(a, x), (A, X)),
    ("toeplitz", lambda b: jsp.linalg.toeplitz(b), (B,)),
    ("cond num", lambda a: jnp.linalg.cond(a), (A,)),
    ("matrix_rank", lambda a: jnp.linalg.matrix_rank(a), (A,)),
    ("gmres", lambda a, b: jsp.sparse.linalg.gmres(a, b, tol=1e-13)[0], (A, B)),
    ("bicgstab", lambda a, b: jsp.sparse.linalg.bicgstab(lambda v: a @ v, b, tol=1e-13)[0], (A, B)),
    ("segment_max", lambda v, i: jax.ops.segment_max(v, i, 3), (B, PLACES)),
    ("argsort desc", lambda v: jnp.argsort(v, descending=True), (V,)),
    ("partition", lambda v: jnp.partition(v, 2), (V,)),
    ("apply_along", lambda x: jnp.apply_along_axis(lambda r: jnp.cumsum(r) * r[0], 1, x), (X,)),
    ("logaddexp.reduce", lambda x: jnp.logaddexp.reduce(x, axis=1), (X,)),
    ("betainc ab", lambda a, x: jsp.special.betainc(a, 2.0, x), (P, Q)),
    ("bernoulli.logpmf", lambda p: jsp.stats.bernoulli.logpmf(1, p), (P,)),
    ("beta.logpdf", lambda x: jsp.stats.beta.logpdf(x, 2.0, 3.0), (P,)),
    ("fori traced bound", lambda k, x: lax.fori_loop(0, k[0], lambda i, c: jnp.sin(c) + i, x), (PLACES, V)),
    (
        "while int carry",
        lambda x: lax.while_loop(
            lambda s: s[1] < x[0] * 0 + 50, lambda s: (s[0] + 1, s[1] * 2 + 1), (0, 1.0)
        ),
        (V,),
    ),
    ("spence", lambda x: jsp.special.spence(x), (P[0],)),
    ("unravel", lambda i: jnp.unravel_index(i, (2, 3)), (PLACES,)),
    ("einsum diag", lambda a: jnp.einsum("ii->i", a), (A,)),
    ("einsum big", lambda t, a: jnp.einsum("abc,cd,abd->b", t, a, t), (T, A)),
    ("poly", lambda b: jnp.polymul(b, b), (B,)),
    ("vander", lambda b: jnp.vander(b), (B,)),
    ("unwrap", lambda v: jnp.unwrap(v * 5), (V,)),
    ("gradient", lambda v: jnp.gradient(v), (V,)),
    ("ix_", lambda x: x[jnp.ix_(jnp.array([0, 2]), jnp.array([1, 3]))], (X,)),
    ("batch_norm", lambda x: jax.nn.standardize(x, axis=0) * 2, (X,)),
]

DERIVATIVES: list[Row] = [
    (
        "avgpool grad",
        jax.grad(lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID").sum()),
        (X,),
    ),
    (
        "conv grad",
        jax.grad(lambda x: lax.conv(x, np.ones((4, 3, 3)), (2,), "SAME").sum()),
        (normal(2, 3, 8),),
    ),
    (
        "conv kernel grad",
        jax.grad(lambda w: (lax.conv(np.ones((2, 3, 8)), w, (2,), "SAME") ** 2).sum()),
        (normal(4, 3, 3),),
    ),
    ("grad of sort", jax.grad(lambda v: (jnp.sort(v) * jnp.arange(6.0)).sum()), (V,)),
    ("grad of cumprod", jax.grad(lambda v: jnp.cumprod(v).sum()), (V,)),
    ("grad of cummax", jax.grad(lambda v: lax.cummax(v).sum()), (V,)),
    ("grad of solve", jax.grad(lambda a: jnp.linalg.solve(a, jnp.ones(4)).sum()), (A,)),
    ("grad of slogdet", jax.grad(lambda a: jnp.linalg.slogdet(a)[1]), (A,)),
    ("grad of det", jax.grad(jnp.linalg.det), (A,)),
    ("grad of eigh", jax.grad(lambda a: jnp.linalg.eigh(a)[0][0]), (S,)),
    ("grad of chol", jax.grad(lambda a: jnp.linalg.cholesky(a).sum()), (S,)),
    ("grad of qr", jax.grad(lambda a: jnp.linalg.qr(a)[1].sum()), (A,)),
    ("grad of gather", jax.grad(lambda v: (v[jnp.array([1, 1, 2])] ** 2).sum()), (V,)),
    ("grad of traced gather", jax.grad(lambda b, i: (b[i] ** 2).sum()), (B, PLACES)),
    ("grad of scan", jax.grad(lambda v: lax.scan(lambda c, r: (jnp.sin(c * r), c), 1.0, v)[1].sum()), (V,)),
    (
        "grad of cond",
        jax.grad(lambda v: lax.cond(v[0] > 0, lambda: (v**2).sum(), lambda: (v**3).sum())),
        (V,),
    ),
    ("grad of dynamic_slice", jax.grad(lambda v, i: lax.dynamic_slice(v, (i[0],), (2,)).sum()), (V, PLACES)),
    ("grad of prod", jax.grad(lambda v: jnp.prod(v)), (V,)),
    ("grad of pow", jax.grad(lambda p, q: (p**q).sum(), (0, 1)), (P, Q)),
    (
        "grad of special",
        jax.grad(lambda p: (jsp.special.gammaln(p) + jsp.special.erfinv(p) + jsp.special.digamma(p)).sum()),
        (P,),
    ),
    ("laplacian", lambda x: jnp.trace(jax.hessian(lambda x: jnp.sum(jnp.tanh(A @ x)))(x)), (B,)),
]

FAMILIES: dict[str, list[Row]] = {
    "unary": table.UNARY,
    "binary": table.BINARY,
    "elementwise": table.ELEMENTWISE,
    "activations": table.ACTIVATIONS,
    "special": table.SPECIAL,
    "reductions": table.REDUCTIONS,
    "shapes": table.SHAPES,
    "indexing": table.INDEXING,
    "products": table.PRODUCTS,
    "windows": table.WINDOWS,
    "linalg": LINALG,
    "control flow": CONTROL_FLOW,
    "programs": PROGRAMS,
    "derivatives inside": DERIVATIVES,
}

ROWS: list[Row] = [
    (f"{family}: {name}", fn, point) for family, rows in FAMILIES.items() for name, fn, point in rows
]
