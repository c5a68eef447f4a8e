"""A table of JAX functions with points to evaluate them at: (name, function, arguments)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)

Row = tuple[str, Callable[..., Any], tuple[Any, ...]]

_random = np.random.default_rng(7)


def normal(*shape: int) -> Any:
    return _random.standard_normal(shape)


def uniform(*shape: int, low: float = 0.1, high: float = 0.9) -> Any:
    return _random.uniform(low, high, shape)


X = normal(3, 4)
Y = normal(3, 4)
P = uniform(3, 4)  # between 0.1 and 0.9
Q = uniform(3, 4)
V = normal(6)
A = normal(4, 4) + 4 * np.eye(4)
B = normal(4)
S = A @ A.T + np.eye(4)  # symmetric, positive
T = normal(2, 3, 4)
PLACES = np.array([2, 0, 3, 0])
K = np.array([[5, -7, 9], [0, 2, -4]])

UNARY: list[Row] = [
    (f"jnp.{name}", getattr(jnp, name), (point,))
    for names, point in (
        ("abs ceil cos cosh exp exp2 expm1 fabs floor negative positive rint sign sin sinc sinh square", X),
        ("tan tanh arctan arcsinh cbrt deg2rad rad2deg radians isnan isinf isfinite trunc round", X),
        ("arccos arcsin arctanh log log10 log1p log2 sqrt reciprocal", P),
        ("arccosh", P + 2),
    )
    for name in names.split()
]

BINARY: list[Row] = [
    (f"jnp.{name}", getattr(jnp, name), (left, right))
    for names, left, right in (
        ("add subtract multiply divide maximum minimum fmod mod remainder floor_divide arctan2 hypot", X, Y),
        ("logaddexp logaddexp2 power float_power heaviside copysign", P, Y),
        ("equal not_equal less less_equal greater greater_equal fmax fmin", X, np.round(Y)),
        ("add subtract multiply floor_divide remainder fmod maximum minimum", K, K[::-1] + 1),
        ("bitwise_and bitwise_or bitwise_xor left_shift right_shift", K, np.abs(K[::-1]) % 3),
        ("logical_and logical_or logical_xor equal", X > 0, Y > 0),
    )
    for name in names.split()
]

ELEMENTWISE: list[Row] = [
    ("clip", lambda x: jnp.clip(x, -0.5, 0.5), (X,)),
    ("clamp by arrays", lambda x, a: lax.clamp(-abs(a), x, abs(a)), (X, Y)),
    ("integer power", lambda x: x**3 + x**-2 + x**0, (P,)),
    ("integer power of integers", lambda k: k**3, (K,)),
    ("square of small integers", lambda k: k**2 + k**3, (K.astype(np.int8),)),
    ("rsqrt", lax.rsqrt, (P,)),
    ("round half away", lambda x: lax.round(x), (np.array([0.5, -0.5, 1.5, 2.5, 0.49999999999999994]),)),
    ("round half even", lambda x: jnp.round(x), (np.array([0.5, -0.5, 1.5, 2.5, 0.49999999999999994]),)),
    ("where", lambda x, y: jnp.where(x > 0, x, y), (X, Y)),
    (
        "select among three",
        lambda k, x: lax.select_n(k, x, 2 * x, 3 * x),
        (np.array([0, 2, 1], np.int32), V[:3]),
    ),
    ("cast to float32 and back", lambda x: x.astype(jnp.float32).astype(jnp.float64), (X,)),
    ("cast to integers", lambda x: (10 * x).astype(jnp.int32), (X,)),
    ("cast to bool", lambda x: jnp.round(x).astype(bool), (X,)),
    ("cast to bfloat16", lambda x: x.astype(jnp.bfloat16), (X,)),
    ("reduce precision", lambda x: lax.reduce_precision(x, 8, 23), (X,)),
    ("not of integers", lambda k: ~k, (K,)),
    ("negative unsigned", lambda k: -k, (np.array([1, 2], np.uint8),)),
    ("arithmetic shift", lambda k: lax.shift_right_arithmetic(k, jnp.ones_like(k)), (K,)),
    ("logical shift", lambda k: lax.shift_right_logical(k, jnp.ones_like(k)), (K,)),
    ("broadcast by rows", lambda x, y: x[:, None] * y, (V, B)),
    ("python scalars", lambda x: 0.1 * x + 1 - 2 / (x * x + 3), (X,)),
    ("float32 stays", lambda x: jnp.sin(x) * 2.5 + 1, (X.astype(np.float32),)),
    ("nan_to_num", jnp.nan_to_num, (np.array([np.nan, np.inf, 1.0]),)),
]

_OF_NN = (
    "relu relu6 sigmoid log_sigmoid softplus silu swish elu celu selu gelu leaky_relu hard_tanh "
    "hard_sigmoid hard_silu soft_sign softmax log_softmax logsumexp standardize glu mish squareplus"
)

ACTIVATIONS: list[Row] = [(f"jax.nn.{name}", getattr(jax.nn, name), (X,)) for name in _OF_NN.split()] + [
    ("exact gelu", lambda x: jax.nn.gelu(x, approximate=False), (X,)),
    ("one_hot", lambda k: jax.nn.one_hot(k, 5), (PLACES,)),
    (
        "attention",
        lambda q, k, v: jax.nn.dot_product_attention(q, k, v),
        tuple(normal(2, 3, 2, 4) for _ in range(3)),
    ),
]

SPECIAL: list[Row] = [
    (f"special.{name}", getattr(jsp.special, name), (point,))
    for names, point in (
        ("erf erfc expit gammaln i0 i0e i1 i1e log_ndtr ndtr log_softmax softmax digamma", P),
        ("erfinv logit ndtri entr gamma", P),
    )
    for name in names.split()
] + [
    ("special.xlogy", jsp.special.xlogy, (P, Q)),
    ("special.xlog1py", jsp.special.xlog1py, (P, Q)),
    ("special.betaln", jsp.special.betaln, (P, Q)),
    ("special.betainc", lambda x: jsp.special.betainc(1.5, 2.5, x), (P,)),
    ("special.gammainc", jsp.special.gammainc, (P, Q)),
    ("special.gammaincc", jsp.special.gammaincc, (P, Q)),
    ("special.polygamma", lambda x: jsp.special.polygamma(2, x), (P,)),
    ("special.logsumexp", lambda x: jsp.special.logsumexp(x, axis=1, b=jnp.abs(x)), (X,)),
    ("special.rel_entr", jsp.special.rel_entr, (P, Q)),
    ("special.kl_div", jsp.special.kl_div, (P, Q)),
    ("stats.norm.logpdf", jsp.stats.norm.logpdf, (X,)),
    ("stats.t.logpdf", lambda x: jsp.stats.t.logpdf(x, 3.0), (X,)),
    ("stats.gamma.logpdf", lambda x: jsp.stats.gamma.logpdf(x, 2.0), (P,)),
    ("stats.poisson.logpmf", lambda m: jsp.stats.poisson.logpmf(np.array([1, 2, 3, 4]), m), (P,)),
    (
        "stats.multivariate_normal",
        lambda x, c: jsp.stats.multivariate_normal.logpdf(x, jnp.zeros(4), c),
        (B, S),
    ),
]

REDUCTIONS: list[Row] = (
    [
        (f"{name} over axis {axis}", lambda x, name=name, axis=axis: getattr(jnp, name)(x, axis=axis), (P,))
        for name in ["sum", "prod", "max", "min", "mean", "var", "std", "argmax", "argmin", "median", "ptp"]
        for axis in (None, 1)
    ]
    + [
        (f"{name} along axis {axis}", lambda x, name=name, axis=axis: getattr(jnp, name)(x, axis=axis), (X,))
        for name in ["cumsum", "cumprod", "sort", "argsort", "diff", "flip"]
        for axis in (0, 1)
    ]
    + [
        ("all and any", lambda x: (jnp.all(x > 0, 0), jnp.any(x > 0, 1)), (X,)),
        ("parity", lambda x: jnp.logical_xor.reduce(x > 0), (V,)),
        ("sum of bytes wraps", lambda k: jnp.sum(k, dtype=jnp.int8), (np.array([100, 100], np.int8),)),
        ("count_nonzero", lambda k: jnp.count_nonzero(k, axis=1), (K,)),
        ("cummax", lambda x: lax.cummax(x, axis=1), (X,)),
        ("cummin backwards", lambda x: lax.cummin(x, axis=1, reverse=True), (X,)),
        ("cumsum backwards", lambda x: lax.cumsum(x, axis=0, reverse=True), (X,)),
        ("cumprod backwards", lambda x: lax.cumprod(x, axis=1, reverse=True), (X,)),
        ("cumlogsumexp", lambda x: lax.cumlogsumexp(x, axis=1), (X,)),
        ("cumlogsumexp backwards", lambda x: lax.cumlogsumexp(x, axis=1, reverse=True), (X,)),
        ("top_k", lambda x: lax.top_k(x, 2), (X,)),
        ("sort by two keys", lambda k, x: lax.sort((k[:4] % 2, x, jnp.arange(4)), num_keys=2), (PLACES, B)),
        ("lexsort", lambda x: jnp.lexsort((x[0], jnp.round(x[1]))), (X,)),
        ("quantile", lambda x: jnp.quantile(x, 0.3, axis=1), (X,)),
        (
            "norm",
            lambda x: (jnp.linalg.norm(x), jnp.linalg.norm(x, 1, axis=0), jnp.linalg.norm(x, np.inf, axis=1)),
            (X,),
        ),
        ("cov", jnp.cov, (X,)),
        ("corrcoef", jnp.corrcoef, (X,)),
        ("trapezoid", jnp.trapezoid, (V,)),
        ("searchsorted", lambda x, v: jnp.searchsorted(jnp.sort(v), x), (X, V)),
        ("interp", lambda x: jnp.interp(x, np.linspace(-3, 3, 7), np.linspace(-3, 3, 7) ** 2), (X,)),
        ("associative_scan", lambda x: lax.associative_scan(lambda a, b: a * b, x), (V,)),
    ]
)

SHAPES: list[Row] = [
    ("reshape", lambda x: x.reshape(2, -1).T.ravel(), (X,)),
    ("transpose", lambda t: jnp.transpose(t, (2, 0, 1)), (T,)),
    ("moveaxis and swapaxes", lambda t: (jnp.moveaxis(t, 0, -1), jnp.swapaxes(t, 1, 2)), (T,)),
    ("concatenate and stack", lambda x, y: (jnp.concatenate([x, y], 1), jnp.stack([x, y], 1)), (X, Y)),
    ("split", lambda x: jnp.split(x, [1, 3], axis=1), (X,)),
    ("tile and repeat", lambda x: (jnp.tile(x, (2, 1)), jnp.repeat(x, 3, axis=0)), (X,)),
    ("roll", lambda x: jnp.roll(x, 2, axis=1), (X,)),
    ("rot90 and flip", lambda x: (jnp.rot90(x), jnp.flip(x)), (X,)),
    ("pad", lambda x: jnp.pad(x, ((1, 2), (0, 1)), constant_values=3.0), (X,)),
    ("pad by reflection", lambda x: jnp.pad(x, 1, mode="reflect"), (X,)),
    ("pad with gaps", lambda x: lax.pad(x, 0.5, ((1, 2, 1), (-1, 3, 2))), (X,)),
    ("pad negatively with gaps", lambda x: lax.pad(x, 0.5, ((-2, 1, 3), (-1, -1, 0))), (X,)),
    ("strided slices", lambda x: (x[::2, 1::2], x[::-1, -2::-1], x[1:, :-1]), (X,)),
    ("diag", lambda x: (jnp.diag(x), jnp.diagonal(jnp.outer(x, x))), (B,)),
    ("tril and triu", lambda a: (jnp.tril(a), jnp.triu(a, 1)), (A,)),
    ("trace", jnp.trace, (A,)),
    ("arange and linspace", lambda x: x + jnp.arange(4.0) + jnp.linspace(0, 1, 4), (X,)),
    ("large iota", lambda x: x[0] * jnp.arange(5000), (V,)),
    ("meshgrid", lambda x, y: jnp.meshgrid(x, y), (V, B)),
    ("zeros, ones and empty", lambda x: x + jnp.zeros(4) + jnp.ones(4) + 0 * jnp.empty(4), (X,)),
    ("kron and outer", lambda x, y: (jnp.kron(x, y), jnp.outer(x, y)), (V, B)),
    ("untouched arguments", lambda x, y: (x, x, y + 0), (X, Y)),
    ("constant output", lambda x: (jnp.ones(3), x[0]), (V,)),
]

INDEXING: list[Row] = [
    ("integer", lambda x: x[1, 2] + x[-1, -2], (X,)),
    ("row", lambda x: x[-1], (X,)),
    ("take rows", lambda x: jnp.take(x, jnp.array([2, 0, 2]), axis=0), (X,)),
    ("take columns", lambda x: x[:, np.array([3, 0, -1])], (X,)),
    ("take flat", lambda x: jnp.take(x, jnp.array([[5, 0], [11, 2]])), (X,)),
    ("pairs of indices", lambda x: x[np.array([0, 1, 2]), np.array([3, 1, 0])], (X,)),
    ("outer indices", lambda t: t[np.array([1, 0])[:, None], :, np.array([3, 1, 0])], (T,)),
    ("traced indices", lambda b, i: b[i], (B, PLACES)),
    ("traced indices outside are clipped", lambda b, i: b[i], (B, np.array([7, -9, 1]))),
    (
        "traced indices outside are filled",
        lambda b, i: b.at[i].get(mode="fill", fill_value=-1),
        (B, np.array([7, -9, 1])),
    ),
    ("traced indices outside are nan", lambda x, i: x.at[:, i].get(mode="fill"), (X, np.array([7, -9, 1]))),
    ("traced pairs", lambda x, i: x[i, i + 1], (X, np.array([2, 0, 1]))),
    ("traced scalar", lambda x, i: x[i[0]], (X, np.array([2]))),
    ("take_along_axis", lambda x, i: jnp.take_along_axis(x, i, axis=1), (X, np.array([[0], [3], [2]]))),
    ("batched traced indices", lambda x, i: jax.vmap(lambda row, k: row[k])(x, i), (X, np.array([0, 3, 2]))),
    ("boolean mask by where", lambda x: jnp.where(np.array([True, False, True, True]), x, 0).sum(1), (X,)),
    ("dynamic_slice", lambda x, i: lax.dynamic_slice(x, (i[0], i[1]), (2, 3)), (X, np.array([2, 0]))),
    ("dynamic_slice at a constant", lambda x: lax.dynamic_slice(x, (1, 5), (2, 3)), (X,)),
    (
        "dynamic_update_slice",
        lambda x, y, i: lax.dynamic_update_slice(x, y[:2, :3], (i[0], i[1])),
        (X, Y, np.array([2, 0])),
    ),
    (
        "dynamic_update_slice of rows",
        lambda x, y, i: lax.dynamic_update_slice(x, y[:1], (i[0], 0)),
        (X, Y, np.array([1])),
    ),
    (
        "batched dynamic_slice",
        lambda x, i: jax.vmap(lambda r, k: lax.dynamic_slice(r, (k,), (2,)))(x, i),
        (X, np.array([0, 3, 1])),
    ),
    ("set a row", lambda x, b: x.at[1].set(b), (X, B)),
    ("set a slice", lambda x: x.at[1:, ::2].set(0.5), (X,)),
    ("set elements", lambda x: x.at[np.array([0, 2]), np.array([1, 3])].set(7.0), (X,)),
    ("add repeatedly", lambda v, b: v.at[np.array([1, 1, 5, 0])].add(b), (V, B)),
    ("add outside is dropped", lambda v, b, i: v.at[i].add(b), (V, B, np.array([1, 9, 1, -20]))),
    ("set outside is dropped", lambda v, b: v.at[np.array([1, 9, 3, 2])].set(b), (V, B)),
    ("add outside is clipped", lambda v, b, i: v.at[i].add(b, mode="clip"), (V, B, np.array([1, 9, 1, 3]))),
    ("multiply", lambda v, b: v.at[np.array([1, 1, 5, 0])].multiply(b), (V, B)),
    ("divide", lambda v, b: v.at[np.array([1, 2, 5, 0])].divide(b), (V, B)),
    ("subtract", lambda v, b: v.at[np.array([1, 1, 5, 0])].subtract(b), (V, B)),
    (
        "max and min",
        lambda v, b: (v.at[np.array([1, 1, 5, 0])].max(b), v.at[np.array([1, 1, 5, 0])].min(b)),
        (V, B),
    ),
    ("add windows of rows", lambda x, y: x.at[np.array([2, 0])].add(y[:2]), (X, Y)),
    ("add columns", lambda x, y: x.at[:, np.array([2, 0])].add(y[:, :2]), (X, Y)),
    ("batched add", lambda x, i: jax.vmap(lambda r, k: r.at[k].add(1.0))(x, i), (X, np.array([0, 3, 2]))),
    ("segment_sum", lambda v, i: jax.ops.segment_sum(v, i, 3), (B, np.array([0, 2, 0, 1]))),
    ("bincount", lambda i, b: jnp.bincount(i, b, length=5), (PLACES, B)),
    ("histogram", lambda v: jnp.histogram(v, bins=4, range=(-2.0, 2.0))[0], (V,)),
    ("choose", lambda i, x: jnp.choose(i, list(jnp.concatenate([x, x[:1]])), mode="clip"), (PLACES, X)),
]

PRODUCTS: list[Row] = [
    ("matrix by vector", lambda a, b: a @ b, (A, B)),
    ("vector by matrix", lambda a, b: b @ a, (A, B)),
    ("matrix by matrix", lambda x, y: x @ y.T, (X, Y)),
    ("transposed left", lambda x, y: jnp.tensordot(x, y, ((0,), (0,))), (X, Y)),
    ("stacked matrices", lambda t, a: t @ a, (T, A)),
    ("batched matrices", lambda t: jnp.einsum("bij,bkj->bik", t, t), (T,)),
    ("einsum over three", lambda x, a, y: jnp.einsum("ij,jk,ik->i", x, a, y), (X, A, Y)),
    ("dot_general with trailing batch", lambda t: lax.dot_general(t, t, (((0,), (0,)), ((2,), (2,)))), (T,)),
    (
        "inner, vdot and vecdot",
        lambda x, y: (jnp.inner(x, y), jnp.vdot(x, y), jnp.linalg.vecdot(x, y)),
        (X, Y),
    ),
    ("cross", jnp.cross, (normal(5, 3), normal(5, 3))),
    ("integers", lambda k: k @ k.T, (K,)),
    ("bytes into int32", lambda k: lax.dot(k, k.T, preferred_element_type=jnp.int32), (K.astype(np.int8),)),
    ("multi_dot", lambda x, a, b: jnp.linalg.multi_dot([x, a, b]), (X, A, B)),
    ("matrix_power", lambda a: jnp.linalg.matrix_power(a, 3), (A,)),
    ("polyval", jnp.polyval, (B, X)),
    ("convolve", lambda v, b: jnp.convolve(v, b, mode="same"), (V, B)),
    ("correlate", lambda v, b: jnp.correlate(v, b, mode="full"), (V, B)),
    ("conv 1-D", lambda x, w: lax.conv(x, w, (2,), "SAME"), (normal(2, 3, 8), normal(4, 3, 3))),
    (
        "conv 2-D",
        lambda x, w: lax.conv_general_dilated(x, w, (1, 2), [(1, 0), (2, 1)], rhs_dilation=(2, 1)),
        (normal(2, 3, 7, 6), normal(4, 3, 2, 3)),
    ),
    (
        "conv NHWC",
        lambda x, w: lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (normal(2, 7, 6, 3), normal(2, 3, 3, 4)),
    ),
    (
        "conv transposed",
        lambda x, w: lax.conv_transpose(x, w, (2,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")),
        (normal(2, 3, 8), normal(4, 3, 3)),
    ),
    (
        "conv with groups",
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME", feature_group_count=2),
        (normal(2, 4, 8), normal(6, 2, 3)),
    ),
    (
        "conv with batch groups",
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME", batch_group_count=2),
        (normal(4, 3, 8), normal(6, 3, 3)),
    ),
    (
        "conv cropped",
        lambda x, w: lax.conv_general_dilated(x, w, (1,), [(-1, -2)]),
        (normal(2, 3, 8), normal(4, 3, 2)),
    ),
]

WINDOWS: list[Row] = [
    (
        "max pool",
        lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
        (normal(2, 6, 6, 3),),
    ),
    (
        "max pool, padded and dilated",
        lambda x: lax.reduce_window(
            x, -np.inf, lax.max, (2, 3), (1, 2), ((1, 0), (2, 1)), window_dilation=(2, 1)
        ),
        (normal(5, 7),),
    ),
    ("min pool", lambda x: lax.reduce_window(x, np.inf, lax.min, (2, 3), (1, 1), "SAME"), (X,)),
    (
        "sums of windows",
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 3), (1, 2), "SAME"),
        (normal(5, 7),),
    ),
    (
        "sums of windows, spread out",
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), ((1, 1),), base_dilation=(2,)),
        (V,),
    ),
    (
        "sums of windows of integers",
        lambda k: lax.reduce_window(k, 0, lax.add, (1, 2), (1, 1), "VALID"),
        (K,),
    ),
    (
        "four windowed axes",
        lambda x: lax.reduce_window(x, -np.inf, lax.max, (2, 2, 2, 2), (1, 1, 1, 1), "VALID"),
        (normal(3, 3, 3, 3),),
    ),
]
