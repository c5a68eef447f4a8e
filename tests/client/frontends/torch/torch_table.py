"""Functions of every family of operators, with the points at which they are held to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Fn = Callable[..., Any]
f64 = torch.float64


def points(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Tensor:
    """Distinct values, away from integers and from zero by chance."""
    generator = torch.Generator().manual_seed(seed + 1)
    return low + (high - low) * torch.rand(shape, dtype=f64, generator=generator)


def positive(*shape: int, seed: int = 0) -> Tensor:
    return points(*shape, low=0.3, high=3.0, seed=seed)


def definite(n: int) -> Tensor:
    a = points(n, n)
    return a @ a.T + n * torch.eye(n, dtype=f64)


def spread(n: int, seed: int = 0) -> Tensor:
    """Well conditioned, with distinct singular values."""
    return points(n, n, seed=seed) + 3 * torch.diag(torch.arange(1.0, n + 1, dtype=f64))


INDEX = torch.tensor([2, 0, 2])
GRID = torch.tensor([[1, 0, 2], [0, 2, 1]])
MASK = torch.tensor([[True, False, True], [False, True, True]])

ONE: dict[str, tuple[Fn, Tensor]] = {
    name: (getattr(torch, name), points(2, 3))
    for name in (
        "sin", "cos", "tan", "sinh", "cosh", "tanh", "asinh", "atan", "exp", "exp2", "expm1", "erf", "erfc",
        "sigmoid", "abs", "neg", "square", "sign", "floor", "ceil", "trunc", "round", "frac", "relu", "sinc",
        "isnan", "isfinite", "logical_not", "signbit", "positive", "deg2rad", "rad2deg", "sgn",
    )
} | {
    name: (getattr(torch, name), positive(2, 3))
    for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma", "acosh")
    if name != "acosh"
} | {
    name: (getattr(torch, name), points(2, 3, low=-0.9, high=0.9))
    for name in ("asin", "acos", "atanh", "erfinv", "arctan", "arcsin")
} | {
    "acosh": (torch.acosh, points(2, 3, low=1.2, high=3)),
    "polygamma": (lambda x: torch.polygamma(1, x), positive(4)),
    "logit": (torch.logit, points(4, low=0.1, high=0.9)),
    "special.entr": (torch.special.entr, positive(4)),
    "special.expit": (torch.special.expit, points(4)),
    "special.gammaln": (torch.special.gammaln, positive(4)),
    "special.ndtr": (torch.special.ndtr, points(4)),
    "special.xlog1py": (lambda x: torch.special.xlog1py(x, x + 1), positive(4)),
}  # fmt: skip

TWO: dict[str, tuple[Fn, Tensor, Tensor]] = {
    "add": (torch.add, points(2, 3), points(3, seed=1)),
    "add alpha": (lambda x, y: torch.add(x, y, alpha=0.1), points(2, 3), points(3, seed=1)),
    "sub alpha": (lambda x, y: torch.sub(x, y, alpha=3), points(2, 3), points(2, 1, seed=1)),
    "rsub": (lambda x, y: 0.7 - x * y, points(2, 3), points(2, 1, seed=1)),
    "mul": (torch.mul, points(2, 3), points(3, seed=1)),
    "div": (torch.div, points(2, 3), positive(3, seed=1)),
    "div floor": (lambda x, y: torch.div(x, y, rounding_mode="floor") * x, points(2, 3), positive(3, seed=1)),
    "div trunc": (lambda x, y: torch.div(x, y, rounding_mode="trunc") * x, points(2, 3), positive(3, seed=1)),
    "remainder": (torch.remainder, points(2, 3), positive(3, seed=1)),
    "fmod": (torch.fmod, points(2, 3), positive(3, seed=1)),
    "pow": (torch.pow, positive(2, 3), points(3, seed=1)),
    "atan2": (torch.atan2, points(2, 3), points(3, seed=1)),
    "hypot": (torch.hypot, points(2, 3), points(3, seed=1)),
    "logaddexp": (torch.logaddexp, points(2, 3), points(3, seed=1)),
    "logaddexp2": (torch.logaddexp2, points(2, 3), points(3, seed=1)),
    "maximum": (torch.maximum, points(2, 3), points(3, seed=1)),
    "fmin": (torch.fmin, points(2, 3), points(3, seed=1)),
    "copysign": (torch.copysign, points(2, 3), points(3, seed=1)),
    "xlogy": (torch.xlogy, points(2, 3), positive(3, seed=1)),
    "where": (lambda x, y: torch.where(x > y, x * x, y), points(2, 3), points(3, seed=1)),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), points(2, 3), points(2, 3, seed=1)),
    "addcmul": (lambda x, y: torch.addcmul(x, x, y, value=0.3), points(2, 3), points(2, 3, seed=1)),
    "addcdiv": (lambda x, y: torch.addcdiv(x, x, y, value=0.3), points(2, 3), positive(2, 3, seed=1)),
    "clamp tensors": (lambda x, y: torch.clamp(x, -y, y), points(2, 3), positive(3, seed=1)),
    "comparisons": (lambda x, y: (x < y, x >= y, x == y, x != y), points(2, 3), points(3, seed=1)),
    "matmul": (torch.matmul, points(2, 3), points(3, 4, seed=1)),
    "matmul batch": (torch.matmul, points(2, 2, 3), points(3, 4, seed=1)),
    "mv": (torch.mv, points(2, 3), points(3, seed=1)),
    "dot": (torch.dot, points(3), points(3, seed=1)),
    "outer": (torch.outer, points(2), points(3, seed=1)),
    "bmm": (torch.bmm, points(2, 2, 3), points(2, 3, 4, seed=1)),
    "addmm": (lambda a, b: torch.addmm(a[0, 0], a, b, beta=0.5, alpha=2), points(2, 3), points(3, 4, seed=1)),
    "einsum": (lambda a, b: torch.einsum("bij,jk->bk", a, b), points(2, 2, 3), points(3, 4, seed=1)),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), points(2, 2, 3), points(3, 4, seed=1)),
    "kron": (torch.kron, points(2, 2), points(2, 3, seed=1)),
    "cross": (torch.linalg.cross, points(2, 3), points(2, 3, seed=1)),
    "cdist": (torch.cdist, points(4, 3), points(5, 3, seed=1)),
    "linear": (F.linear, points(2, 3), points(4, 3, seed=1)),
    "solve": (torch.linalg.solve, spread(3), points(3, seed=1)),
    "solve matrix": (torch.linalg.solve, spread(3), points(3, 2, seed=1)),
    "solve stacked vectors": (
        lambda a, b: torch.linalg.solve(torch.stack([a, a.T]), b), spread(3), points(2, 3, seed=1)
    ),
    "solve_triangular": (
        lambda a, b: torch.linalg.solve_triangular(a.triu(), b, upper=True), spread(3), points(3, 2, seed=1)
    ),
    "solve_triangular right": (
        lambda a, b: torch.linalg.solve_triangular(a.tril(), b, upper=False, left=False),
        spread(3),
        points(2, 3, seed=1),
    ),
    "cholesky_solve": (lambda a, b: torch.cholesky_solve(b, a.tril()), spread(3), points(3, 2, seed=1)),
    "embedding": (lambda w, x: F.embedding(INDEX, w) * x, points(4, 2), points(3, 2, seed=1)),
    "scatter": (lambda x, y: x.scatter(1, GRID, y), points(2, 3), points(2, 3, seed=1)),
    "scatter_add": (lambda x, y: x.scatter_add(0, GRID[:, :2] % 2, y), points(2, 3), points(2, 2, seed=1)),
    "scatter_reduce": (
        lambda x, y: x.scatter_reduce(1, GRID, y, "amax"), points(2, 3), points(2, 3, seed=1)
    ),
    "index_add": (lambda x, y: x.index_add(1, INDEX, y, alpha=2), points(2, 3), points(2, 3, seed=1)),
    "index_copy": (lambda x, y: x.index_copy(1, GRID[0], y), points(2, 3), points(2, 3, seed=1)),
    "index_put": (lambda x, y: x.index_put((GRID[0],), y), points(4, 3), points(3, seed=1)),
    "index_put accumulate": (
        lambda x, y: x.index_put((INDEX,), y, accumulate=True), points(4, 3), points(3, 3, seed=1)
    ),
    "masked_fill": (lambda x, y: x.masked_fill(MASK, 2.5) * y, points(2, 3), points(3, seed=1)),
    "masked assignment": (lambda x, y: _assign(x * y, MASK, 0.5), points(2, 3), points(3, seed=1)),
    "cat": (lambda x, y: torch.cat([x, y, x], 1), points(2, 3), points(2, 1, seed=1)),
    "stack": (lambda x, y: torch.stack([x, y], 1), points(2, 3), points(2, 3, seed=1)),
    "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"), points(2), points(3, seed=1)),
    "slice assignment": (lambda x, y: _assign(x.clone(), (slice(None), 1), y), points(2, 3), points(2)),
    "mse_loss": (F.mse_loss, points(2, 3), points(2, 3, seed=1)),
    "smooth_l1_loss": (F.smooth_l1_loss, points(2, 3), points(2, 3, seed=1)),
    "huber_loss": (F.huber_loss, points(2, 3), points(2, 3, seed=1)),
    "kl_div": (lambda x, y: F.kl_div(x.log_softmax(1), y, reduction="sum"), points(2, 3), positive(2, 3)),
    "bce logits": (
        lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()), points(2, 3), points(2, 3, seed=1)
    ),
    "cosine_similarity": (F.cosine_similarity, points(2, 3), points(2, 3, seed=1)),
    "conv1d": (F.conv1d, points(1, 2, 6), points(3, 2, 3, seed=1)),
    "conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), points(1, 2, 5, 5), points(3, 2, 3, 3)),
    "conv2d groups": (lambda x, w: F.conv2d(x, w, groups=2), points(1, 2, 4, 4), points(4, 1, 2, 2, seed=1)),
    "conv2d unbatched": (F.conv2d, points(2, 4, 4), points(3, 2, 2, 2, seed=1)),
    "conv_transpose2d": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1, padding=1),
        points(1, 2, 3, 3),
        points(2, 3, 3, 3, seed=1),
    ),
    "bilinear": (lambda x, w: F.bilinear(x, x, w), points(2, 3), points(4, 3, 3, seed=1)),
    "attention": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k), points(1, 2, 3, 4), points(1, 2, 5, 4, seed=1)
    ),
}  # fmt: skip


RTOL = {"hardsigmoid": 1e-7} | dict.fromkeys(("lgamma", "digamma", "polygamma", "special.gammaln"), 1e-9)
"""Where PyTorch is less precise itself: 1/6 in float32, and a trigamma function right to ten digits."""

WITHOUT_SECOND = {"cdist", "networks: hardsigmoid"}
"""What PyTorch has no second derivative of."""


def _assign(x: Tensor, key: Any, value: Any) -> Tensor:
    x[key] = value
    return x


SHAPES: dict[str, tuple[Fn, Tensor]] = {
    "reshape": (lambda x: x.reshape(3, 2) * 1.5, points(2, 3)),
    "transpose view": (lambda x: x.T.reshape(6), points(2, 3)),
    "permute": (lambda x: x.permute(2, 0, 1), points(2, 3, 4)),
    "movedim": (lambda x: x.movedim(0, 2), points(2, 3, 4)),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(), points(2, 3)),
    "expand": (lambda x: x[:, None].expand(2, 4, 3) * 2, points(2, 3)),
    "broadcast_to": (lambda x: x.broadcast_to(4, 2, 3), points(2, 3)),
    "repeat": (lambda x: x.repeat(2, 1, 2), points(2, 3)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), points(2, 3)),
    "tile": (lambda x: x.tile(2, 2), points(2, 3)),
    "flip": (lambda x: x.flip(0, 1), points(2, 3)),
    "roll": (lambda x: x.roll((1, -1), (0, 1)), points(2, 3)),
    "roll flat": (lambda x: x.roll(2), points(2, 3)),
    "rot90": (torch.rot90, points(2, 3)),
    "index": (lambda x: x[:, INDEX], points(2, 3)),
    "index apart": (lambda x: x[INDEX[:2] % 2, :, GRID[0, :2]], points(2, 3, 4)),
    "index none ellipsis": (lambda x: x[..., None, ::2], points(2, 5)),
    "negative index": (lambda x: x[-1, 1:], points(2, 3)),
    "gather": (lambda x: x.gather(1, GRID[:, :2]), points(2, 3)),
    "take_along_dim": (lambda x: torch.take_along_dim(x, GRID, 1), points(2, 3)),
    "take": (lambda x: x.take(INDEX), points(2, 3)),
    "index_select": (lambda x: x.index_select(1, INDEX), points(2, 3)),
    "index_fill": (lambda x: x.index_fill(1, INDEX[:1], 0.5), points(2, 3)),
    "split": (lambda x: x.split([1, 2], 1), points(2, 3)),
    "chunk": (lambda x: x.chunk(2, 1), points(2, 5)),
    "unbind": (lambda x: x.unbind(0), points(2, 3)),
    "select narrow": (lambda x: x.narrow(1, 1, 2).select(0, 1), points(2, 3)),
    "diagonal": (lambda x: x.diagonal(1), points(3, 4)),
    "diagonal batch": (lambda x: x.diagonal(-1, 0, 2), points(3, 2, 4)),
    "diag_embed": (lambda x: torch.diag_embed(x, 1), points(2, 3)),
    "diag": (torch.diag, points(3)),
    "tril triu": (lambda x: (x.tril(-1), x.triu(1)), points(3, 3)),
    "trace": (torch.trace, points(3, 3)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.3), points(2, 3)),
    "pad negative": (lambda x: F.pad(x, (-1, 2)), points(2, 3)),
    "pad reflect": (lambda x: F.pad(x, (1, 1), "reflect"), points(1, 2, 4)),
    "pad replicate": (lambda x: F.pad(x, (1, 1), "replicate"), points(1, 2, 4)),
    "pad circular": (lambda x: F.pad(x, (1, 1), "circular"), points(1, 2, 4)),
    "unfold": (lambda x: x.unfold(1, 2, 1), points(2, 4)),
    "im2col": (lambda x: F.unfold(x, 2), points(1, 1, 3, 3)),
    "as_strided": (lambda x: x.contiguous().as_strided((2, 2), (1, 3)), points(2, 3)),
    "zeros and ones": (
        lambda x: x + torch.zeros_like(x) + x.new_ones(3) + torch.full((3,), 0.5)[0],
        points(2, 3),
    ),
    "eye arange": (lambda x: x @ torch.eye(3, dtype=f64) * torch.arange(3), points(2, 3)),
    "linspace": (lambda x: x * torch.linspace(0, 1, 3, dtype=f64), points(2, 3)),
    "one_hot": (lambda x: x @ F.one_hot(INDEX, 4).to(x.dtype), points(2, 3)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), points(1, 4, 2, 2)),
}

REDUCTIONS: dict[str, tuple[Fn, Tensor]] = {
    "sum": (torch.sum, points(2, 3)),
    "sum keepdim": (lambda x: x.sum((0, 2), keepdim=True), points(2, 3, 4)),
    "mean": (lambda x: x.mean(1), points(2, 3)),
    "prod": (lambda x: x.prod(1), points(2, 3)),
    "prod all": (torch.prod, points(2, 3)),
    "amax": (lambda x: x.amax((0, 1)), points(2, 3)),
    "amin ties": (lambda x: torch.amin(x.round(), 1) + x.amin(), points(2, 3)),
    "max": (lambda x: x.max(1), points(2, 3)),
    "min keepdim": (lambda x: x.min(0, keepdim=True), points(2, 3)),
    "max all": (torch.max, points(2, 3)),
    "argmax": (lambda x: (x.argmax(), x.argmin(1), x.argmax(0, keepdim=True)), points(2, 3)),
    "var": (lambda x: (x.var(), x.var(1), x.std(0, correction=0)), points(2, 3)),
    "var_mean": (lambda x: torch.var_mean(x, 1), points(2, 3)),
    "logsumexp": (lambda x: x.logsumexp(1), points(2, 3)),
    "softmax": (lambda x: x.softmax(0), points(2, 3)),
    "log_softmax": (lambda x: x.log_softmax(1), points(2, 3)),
    "norm": (lambda x: (x.norm(), x.norm(dim=1), x.norm(1, dim=0)), points(2, 3)),
    "norm p": (lambda x: torch.linalg.vector_norm(x, 3, dim=1), points(2, 3)),
    "norm inf": (lambda x: torch.linalg.vector_norm(x, float("inf")), points(2, 3)),
    "matrix_norm": (lambda x: (torch.linalg.matrix_norm(x), torch.linalg.matrix_norm(x, 1)), points(2, 3)),
    "nuclear norm": (lambda x: torch.linalg.svdvals(x).sum(), points(2, 3)),
    "cumsum": (lambda x: x.cumsum(1), points(2, 3)),
    "cumprod": (lambda x: x.cumprod(1), points(2, 5)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), points(2, 5)),
    "cummax": (lambda x: x.cummax(1).values, points(2, 5)),
    "diff": (lambda x: x.diff(dim=1), points(2, 5)),
    "sort": (lambda x: x.sort(1, descending=True), points(2, 5)),
    "argsort": (lambda x: x.argsort(1), points(2, 5)),
    "topk": (lambda x: x.topk(2, 1), points(2, 5)),
    "median": (lambda x: (x.median(), x.median(1)), points(2, 5)),
    "kthvalue": (lambda x: x.kthvalue(2, 1), points(2, 5)),
    "quantile": (lambda x: x.quantile(0.3), points(7)),
    "any all": (lambda x: ((x > 0).any(1), (x > 0).all(), torch.count_nonzero(x > 0)), points(2, 5)),
    "nansum": (torch.nansum, points(2, 3)),
    "aminmax": (lambda x: torch.aminmax(x), points(2, 3)),
    "trapezoid": (torch.trapezoid, points(2, 5)),
}

MATRICES: dict[str, tuple[Fn, Tensor]] = {
    "inv": (torch.linalg.inv, spread(3)),
    "det": (torch.linalg.det, spread(3)),
    "slogdet": (torch.linalg.slogdet, spread(3)),
    "logdet": (torch.logdet, definite(3)),
    "cholesky": (torch.linalg.cholesky, definite(3)),
    "cholesky upper": (lambda a: torch.linalg.cholesky(a, upper=True), definite(3)),
    "cholesky_inverse": (lambda a: torch.cholesky_inverse(a.tril()), spread(3)),
    "eigvalsh": (torch.linalg.eigvalsh, definite(3)),
    "eigh": (lambda a: (lambda w, v: v @ torch.diag(w.sqrt()) @ v.T)(*torch.linalg.eigh(a)), definite(3)),
    "qr": (lambda a: torch.linalg.qr(a)[1].abs(), spread(3)),
    "svdvals": (torch.linalg.svdvals, spread(3)[:, :2]),
    "matrix_power": (lambda a: torch.linalg.matrix_power(a, 3), spread(3)),
    "multi_dot": (lambda a: torch.linalg.multi_dot([a, a, a[:, 0]]), spread(3)),
    "batched": (lambda a: torch.linalg.inv(torch.stack([a, 2 * a])), spread(3)),
}

ACTIVATIONS: dict[str, tuple[Fn, Tensor]] = {
    name: (getattr(F, name), points(2, 3))
    for name in (
        "gelu", "silu", "elu", "celu", "selu", "softplus", "leaky_relu", "relu6", "hardtanh", "hardsigmoid",
        "hardswish", "mish", "logsigmoid", "softsign", "tanhshrink", "softshrink", "hardshrink", "glu",
    )
    if name != "glu"
} | {
    "glu": (F.glu, points(2, 4)),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), points(2, 3)),
    "threshold": (lambda x: F.threshold(x, 0.1, -1), points(2, 3)),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.2], dtype=f64)), points(2, 3)),
    "clamp": (lambda x: x.clamp(-1, 1), points(2, 3)),
    "clamp at the bounds": (lambda x: x.clamp(-1, 1), torch.tensor([-1.0, 0.0, 1.0], dtype=f64)),
    "normalize": (F.normalize, points(2, 3)),
    "layer_norm": (lambda x: F.layer_norm(x, (3,)), points(2, 3)),
    "group_norm": (lambda x: F.group_norm(x, 2), points(2, 4, 3)),
    "instance_norm": (F.instance_norm, points(2, 2, 4)),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), points(4, 3)),
    "rms_norm": (lambda x: F.rms_norm(x, (3,)), points(2, 3)),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), points(1, 4, 3)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), points(1, 2, 6)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), points(1, 2, 5, 5)),
    "max_pool2d ceil": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), points(1, 2, 5, 5)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), points(1, 2, 6)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False), points(1, 2, 4, 4)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), points(1, 2, 5, 4)),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 2), points(1, 2, 5)),
    "interpolate nearest": (lambda x: F.interpolate(x, scale_factor=2), points(1, 2, 3, 3)),
    "interpolate bilinear": (lambda x: F.interpolate(x, size=(5, 4), mode="bilinear"), points(1, 1, 3, 3)),
    "interpolate bicubic": (lambda x: F.interpolate(x, size=(5, 4), mode="bicubic"), points(1, 1, 3, 3)),
    "grid_sample": (
        lambda x: F.grid_sample(x, torch.full((1, 2, 2, 2), 0.3, dtype=f64), align_corners=False),
        points(1, 1, 3, 3),
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, GRID[:, 0]), points(2, 3)),
    "nll_loss": (lambda x: F.nll_loss(x.log_softmax(1), GRID[:, 1], reduction="sum"), points(2, 3)),
    "dropout in evaluation": (lambda x: F.dropout(x, 0.5, training=False), points(2, 3)),
    "alpha": (lambda x: F.relu(x, inplace=False) ** 2, points(2, 3)),
}  # fmt: skip
