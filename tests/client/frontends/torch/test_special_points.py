"""At zeros, ties, kinks and far out, derivatives of first and second order are those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradwire_engine.lowering import evaluate
from tests.client.frontends.torch.torch_oracle import agree, exported

f64, f32 = torch.float64, torch.float32
inf, nan = float("inf"), float("nan")

Fn = Callable[..., Any]


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


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_an_elementwise_function_at_its_kinks(case: str) -> None:
    second, rtol = case not in WITHOUT_SECOND, RTOL.get(case, 1e-11)
    agree(ACTIVATIONS[case], KINKS, rtol=rtol, second=second, finite=True)


@pytest.mark.parametrize("case", FAR_ACTIVATIONS)
def test_an_elementwise_function_in_float32_where_its_exponential_overflows(case: str) -> None:
    agree(FAR_ACTIVATIONS[case], FAR, rtol=1e-5, second=False)


def test_the_loss_of_a_saturated_sigmoid_has_finite_slopes() -> None:
    """A sigmoid that rounds to 1 has the slope 0 in PyTorch, the true one here, times 1e12 by the clamp."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(x.sigmoid(), (x < 0).to(x.dtype), reduction="none")

    one = exported(loss, FAR)
    (info,) = one.model.graph.input

    def remote(x: Any) -> Any:
        return evaluate(one.model, {info.name: x})[0]

    np.testing.assert_allclose(remote(FAR.numpy()), loss(FAR), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: remote(x).sum())(FAR.numpy())).all()


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_at_equal_arguments_and_kinks(case: str) -> None:
    agree(LOSSES[case], KINKS, OTHER, rtol=1e-11, finite=True)


@pytest.mark.parametrize("case", PAIRS)
def test_a_function_of_pairs_at_ties(case: str) -> None:
    agree(PAIRS[case], KINKS, OTHER, rtol=1e-11, finite=True)


@pytest.mark.parametrize("case", REDUCTIONS)
def test_a_reduction_over_ties_and_zeros(case: str) -> None:
    second = case not in WITHOUT_SECOND
    agree(REDUCTIONS[case], TIES, rtol=1e-11, second=second, finite=True)


UNKNOWN = torch.tensor([[3.0, nan, inf, 1.0, -inf], [1.0, inf, 2.0, nan, 0.0]], dtype=f64)


def test_nan_is_the_largest_in_every_order() -> None:
    agree(lambda x: x.sort(dim=1, stable=True), UNKNOWN, second=False, finite=True)
    agree(lambda x: x.sort(dim=1, stable=True, descending=True), UNKNOWN, second=False, finite=True)
    agree(lambda x: x.topk(2, 1), UNKNOWN, second=False, finite=True)
    agree(lambda x: (x.median(1).values, x.nanmedian(1).values), UNKNOWN, second=False, finite=True)
    agree(lambda x: (x.detach().median(), x.nanmedian()), UNKNOWN, second=False, finite=True)
    agree(lambda x: (x.cummax(1), x.cummin(1)), UNKNOWN, second=False, finite=True)
    agree(lambda x: (x.amax(1), x.argmax(1), x.max(1)), UNKNOWN, second=False, finite=True)


def test_logcumsumexp_passes_over_minus_infinity() -> None:
    x = torch.tensor([-inf, -inf, 1.0, -inf, 2.0, 0.5], dtype=f64)
    agree(lambda x: x.logcumsumexp(0)[2:], x, finite=True)


def test_a_row_of_attention_that_is_masked_entirely_is_zero() -> None:
    mask = torch.tensor([[True, False], [False, False], [True, True]])
    q, k = torch.randn(1, 3, 4, dtype=f64), torch.randn(1, 2, 4, dtype=f64)
    agree(lambda q, k: F.scaled_dot_product_attention(q, k, k, attn_mask=mask), q, k)


INDEX = torch.tensor([[1, 3, 1], [0, 2, 1]])


@pytest.mark.parametrize("options", [
    {"padding_idx": 1}, {"scale_grad_by_freq": True}, {"padding_idx": 3, "scale_grad_by_freq": True},
])  # fmt: skip
def test_an_embedding_keeps_padding_and_frequencies(options: dict[str, object]) -> None:
    weight = torch.randn(4, 2, dtype=f64)
    second = "scale_grad_by_freq" not in options  # PyTorch forgets it in the second derivative
    agree(lambda w: F.embedding(INDEX, w, **options).sin(), weight, second=second)  # type: ignore[arg-type]
    agree(lambda i, w: F.embedding(i, w, **options).sin(), INDEX, weight, second=second)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, inf])
def test_distances_of_every_order_with_ties_and_zeros(p: float) -> None:
    a = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0]], dtype=f64)
    b = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=f64)
    agree(lambda a, b: torch.cdist(a, b, p=p).sin(), a, b, second=False)


@pytest.mark.parametrize("upper", [False, True])
def test_a_decomposition_reads_one_triangle(upper: bool) -> None:
    a = torch.randn(3, 3, dtype=f64) + 6 * torch.diag(torch.arange(1.0, 4.0, dtype=f64))
    part = "U" if upper else "L"
    agree(lambda a: torch.linalg.cholesky(a, upper=upper), a, rtol=1e-10)
    agree(lambda a: torch.linalg.eigvalsh(a, UPLO=part).sin(), a, rtol=1e-10)
    agree(lambda a: torch.linalg.eigh(a, UPLO=part).eigenvectors.square(), a, rtol=1e-9)


def test_the_known_second_derivatives() -> None:
    """Written down, in case PyTorch changes."""
    a = torch.randn(5, 3, dtype=f64)
    target = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0], dtype=f64)
    loss = torch.autograd.functional.hessian(
        lambda w: F.binary_cross_entropy_with_logits(a @ w, target), torch.zeros(3, dtype=f64)
    )
    torch.testing.assert_close(loss, a.T @ a / (4 * 5), rtol=1e-12, atol=1e-12)
    agree(lambda w: F.binary_cross_entropy_with_logits(a @ w, target), torch.zeros(3, dtype=f64))
    agree(F.logsigmoid, torch.zeros(1, dtype=f64))
    agree(lambda x: F.huber_loss(x, torch.zeros(4, dtype=f64)), torch.zeros(4, dtype=f64))
