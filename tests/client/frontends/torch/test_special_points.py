"""At zeros, ties, kinks and far out, derivatives of first and second order are those of PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.client.frontends.torch import special_points as table
from tests.client.frontends.torch.torch_oracle import agree

f64, f32 = torch.float64, torch.float32
inf, nan = float("inf"), float("nan")


@pytest.mark.parametrize("case", table.ACTIVATIONS)
def test_an_elementwise_function_at_its_kinks(case: str) -> None:
    second, rtol = case not in table.WITHOUT_SECOND, table.RTOL.get(case, 1e-11)
    agree(table.ACTIVATIONS[case], table.KINKS, rtol=rtol, second=second, finite=True)


@pytest.mark.parametrize("case", table.FAR_ACTIVATIONS)
def test_an_elementwise_function_in_float32_where_its_exponential_overflows(case: str) -> None:
    agree(table.FAR_ACTIVATIONS[case], table.FAR, rtol=1e-5, second=False)


@pytest.mark.parametrize("case", table.LOSSES)
def test_a_loss_at_equal_arguments_and_kinks(case: str) -> None:
    agree(table.LOSSES[case], table.KINKS, table.OTHER, rtol=1e-11, finite=True)


@pytest.mark.parametrize("case", table.PAIRS)
def test_a_function_of_pairs_at_ties(case: str) -> None:
    agree(table.PAIRS[case], table.KINKS, table.OTHER, rtol=1e-11, finite=True)


@pytest.mark.parametrize("case", table.REDUCTIONS)
def test_a_reduction_over_ties_and_zeros(case: str) -> None:
    second = case not in table.WITHOUT_SECOND
    agree(table.REDUCTIONS[case], table.TIES, rtol=1e-11, second=second, finite=True)


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
