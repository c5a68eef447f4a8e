"""Functions at zeros, ties, kinks and far out, where conventions decide about derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Fn = Callable[..., Any]
f64, f32 = torch.float64, torch.float32


def at(*numbers: float, dtype: torch.dtype = f64) -> Tensor:
    return torch.tensor(numbers, dtype=dtype)


KINKS = at(-6.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0)
TIES = torch.tensor([[1.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 1.0]], dtype=f64)

ACTIVATIONS: dict[str, Fn] = {
    name: getattr(F, name)
    for name in (
        "relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "leaky_relu", "elu", "selu", "celu", "gelu",
        "silu", "mish", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "logsigmoid",
        "sigmoid", "tanh",
    )
} | {
    "threshold": lambda x: F.threshold(x, 0.5, -2.0),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "prelu": lambda x: F.prelu(x, at(0.3)),
    "abs": torch.abs,
    "sign": torch.sign,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0.0),
    "sinc": torch.sinc,
    "sqrt": torch.sqrt,
    "pow 2": lambda x: x**2,
    "pow 3": lambda x: x**3.0,
    "pow 1": lambda x: x**1,
    "pow 0": lambda x: x**0,
    "pow 1.5": lambda x: x**1.5,
    "pow of exponents": lambda x: x[:, None] ** at(0, 1, 2, 3),
    "number to the power": lambda x: 2.0**x,
    "xlogy": lambda x: torch.special.xlogy(x, x.abs() + 1),
    "entr": lambda x: torch.special.entr(x.abs()),
    "expm1": torch.expm1,
    "nan_to_num": lambda x: torch.nan_to_num(x) * x,
    "frac": torch.frac,
    "where": lambda x: torch.where(x > 0, x.sqrt(), x),
    "glu": lambda x: F.glu(x.reshape(2, 5).repeat(1, 2)),
}  # fmt: skip

LOSSES: dict[str, Fn] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "smooth_l1 beta 0.5": lambda x, y: F.smooth_l1_loss(x, y, beta=0.5),
    "smooth_l1 beta 0": lambda x, y: F.smooth_l1_loss(x, y, beta=0.0),
    "huber": F.huber_loss,
    "huber 0.5": lambda x, y: F.huber_loss(x, y, delta=0.5, reduction="sum"),
    "bce with logits": lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid().detach()),
    "bce with logits, weighted": lambda x, y: F.binary_cross_entropy_with_logits(
        x, y.sigmoid().detach(), weight=y.detach().abs() + 1, pos_weight=at(2.0)
    ),
    "soft_margin": lambda x, y: F.soft_margin_loss(x, torch.sign(y.detach()) + 0.5),
    "hinge_embedding": lambda x, y: F.hinge_embedding_loss(x, torch.sign(y.detach())),
    "margin_ranking": lambda x, y: F.margin_ranking_loss(x, y, torch.sign(y.detach()), margin=0.5),
    "poisson_nll": lambda x, y: F.poisson_nll_loss(x, y.abs()),
    "kl_div": lambda x, y: F.kl_div(x, y.abs(), reduction="sum"),
    "gaussian_nll": lambda x, y: F.gaussian_nll_loss(x, y, x.detach().abs() + 0.1),
    "cosine_embedding": lambda x, y: F.cosine_embedding_loss(x[None] + 1, y[None] + 2, at(1.0), margin=0.1),
    "triplet": lambda x, y: F.triplet_margin_loss(x[None] + 1, y[None], x[None] * 0),
}
OTHER = at(-6.0, -2.0, -2.0, -0.5, 1.0, 0.0, 0.0, 1.0, 3.5, -6.0)

REDUCTIONS: dict[str, Fn] = {
    "max": lambda x: x.max(),
    "max dim": lambda x: x.max(1).values,
    "min dim": lambda x: x.min(0).values,
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((0, 1)),
    "median": lambda x: x.median(),
    "median dim": lambda x: x.median(1).values,
    "nanmedian": lambda x: x.nanmedian(1).values,
    "quantile": lambda x: x.quantile(0.4, dim=1),
    "sort": lambda x: x.sort(dim=1, stable=True).values,
    "sort descending": lambda x: x.sort(dim=1, descending=True, stable=True).values,
    "cummax": lambda x: x.cummax(1).values,
    "cummin": lambda x: x.cummin(1).values,
    "logsumexp": lambda x: x.logsumexp(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "std": lambda x: x.std(1),
    "std of a constant": lambda x: (x * 0).std(),
    "var": lambda x: x.var(1),
    "norm": lambda x: x.norm(dim=1),
    "norm 1": lambda x: x.norm(1, dim=1),
    "norm 3": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "norm 1.5": lambda x: torch.linalg.vector_norm(x, 1.5, dim=1),
    "norm inf": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "norm -inf": lambda x: torch.linalg.vector_norm(x, -float("inf"), dim=1),
    "norm 0": lambda x: torch.linalg.vector_norm(x, 0, dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x + 1, dim=1),
    "prod": lambda x: x.prod(1),
    "prod of all": lambda x: x.prod(),
    "cumprod": lambda x: x.cumprod(1),
    "max_pool1d": lambda x: F.max_pool1d(x[None], 2, 1),
    "max_pool2d": lambda x: F.max_pool2d(x[None], 2, 1),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x[None], 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x[None], 2),
    "lp_pool1d": lambda x: F.lp_pool1d(x[None] + 1, 2, 2),
    "local_response_norm": lambda x: F.local_response_norm(x[None], 2),
    "multilabel_margin": lambda x: F.multilabel_margin_loss(x, torch.tensor([[1, 0, -1, 2]] * 3)),
    "multi_margin": lambda x: F.multi_margin_loss(x, torch.tensor([1, 0, 3])),
    "multilabel_soft_margin": lambda x: F.multilabel_soft_margin_loss(x, (x > 1).to(x.dtype)),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([1, 0, 3])),
    "cross_entropy with smoothing": lambda x: F.cross_entropy(
        x, torch.tensor([1, -100, 3]), label_smoothing=0.1
    ),
    "nll of probabilities": lambda x: F.cross_entropy(x, (x + 1).softmax(1)),
    "cdist": lambda x: torch.cdist(x, x.flip(0) + 1, p=2.0).sin(),
    "scatter_reduce amax": lambda x: x.scatter_reduce(1, torch.tensor([[0, 0, 1, 1]] * 3), x * 1, "amax"),
    "renorm": lambda x: torch.renorm(x + 1, 2, 0, 1.5),
}

PAIRS: dict[str, Fn] = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "max": torch.max,
    "atan2": lambda x, y: torch.atan2(x + 0.25, y),
    "hypot": lambda x, y: torch.hypot(x, y + 7),
    "logaddexp": torch.logaddexp,
    "logaddexp2": torch.logaddexp2,
    "copysign": torch.copysign,
    "clamp": lambda x, y: torch.clamp(x, y, y + 1),
    "clamp max": lambda x, y: torch.clamp(x, max=y),
    "remainder": lambda x, y: torch.remainder(x, y.abs() + 1),
    "fmod": lambda x, y: torch.fmod(x, y.abs() + 1),
    "dist": lambda x, y: torch.dist(x, y),
    "pow": lambda x, y: torch.pow(x.abs(), y.abs()),
    "lerp": lambda x, y: torch.lerp(x, y, y),
    "xlog1py": lambda x, y: torch.special.xlog1py(x, y.abs()),
    "huber of equals": lambda x, y: F.huber_loss(x, x.detach()) * y,
}

FAR = at(-1e4, -200.0, -90.0, -20.0, 20.0, 90.0, 200.0, 1e4, dtype=f32)
FAR_ACTIVATIONS = {
    name: ACTIVATIONS[name]
    for name in (
        "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "logsigmoid", "sigmoid", "tanh",
        "softsign", "hardswish", "gelu tanh", "tanhshrink",
    )
} | {
    "bce of a sigmoid": lambda x: F.binary_cross_entropy(x.sigmoid(), (x > 0).to(x.dtype), reduction="none"),
    "bce of a sigmoid, wrong": lambda x: F.binary_cross_entropy(
        x.sigmoid(), (x < 0).to(x.dtype), reduction="none"
    ),
    "bce with logits": lambda x: F.binary_cross_entropy_with_logits(
        x, (x < 0).to(x.dtype), reduction="none"
    ),
    "softmax": lambda x: x.softmax(0),
    "log_softmax": lambda x: x.log_softmax(0),
    "logsumexp": lambda x: x.logsumexp(0),
}  # fmt: skip

WITHOUT_SECOND = {"hardsigmoid", "multilabel_margin", "multi_margin", "cdist"}
"""What PyTorch has no second derivative of."""

RTOL = {"hardsigmoid": 1e-7}
"""Where PyTorch is less precise itself: 1/6 in float32."""
