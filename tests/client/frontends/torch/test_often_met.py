"""Values, distributions, factorizations, complex numbers, recurrent layers and what else is met often."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

import gradwire as gw
import gradwire.torch as remote
from gradwire.frontends.torch.capture import tensor_spec
from gradwire.frontends.torch.export import export
from tests.client.frontends.torch.torch_oracle import agree
from tests.client.frontends.torch.torch_table import definite, points, positive, spread

f64 = torch.float64
D: Any = torch.distributions
torch.manual_seed(0)
lengths = torch.tensor([3, 2, 1])
W = points(4, 3)
DEF = definite(3)
idx = torch.tensor([3, 1, 2])
lstm = nn.LSTM(3, 2, batch_first=True, dtype=f64)
layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, dtype=f64)
enc = nn.TransformerEncoder(layer, 2).eval()
pad = torch.tensor([[False, False, True], [False, True, True]])
mask = W[:, 0] > 0
with warnings.catch_warnings(action="ignore"):
    scripted: Any = torch.jit.script(nn.Sequential(nn.Linear(3, 4, dtype=f64), nn.Tanh()))


def packed(x: torch.Tensor) -> torch.Tensor:
    p = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    y, _ = lstm(p)
    return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]


def recomposed(x: torch.Tensor) -> torch.Tensor:
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return u @ torch.diag(s * s) @ v


CASES: dict[str, tuple[Callable[..., Any], torch.Tensor]] = {
    "mask closed": (lambda x: x[mask].sum(0) * W[W > 0].sum(), points(4, 3)),
    "item closed": (lambda x: x * W.sum().item() + x[int(idx[0]) - 1], points(4, 3)),
    "tolist": (lambda x: x * sum(idx.tolist()) + sum(W[0].tolist()), points(4, 3)),
    "nonzero": (lambda x: x[torch.nonzero(mask)[:, 0]] * 2, points(4, 3)),
    "where cond": (lambda x: x[torch.where(W > 0)] * 2, points(4, 3)),
    "float if": (lambda x: x * 2 if W.sum() > 0 else x * 3, points(4, 3)),
    "loop": (lambda x: sum(x[i] for i in idx if i > 1), points(4, 3)),
    "unique": (lambda x: x[torch.unique(idx) % 3] * 2, points(4, 3)),
    "bincount": (lambda x: x * torch.bincount(idx, minlength=4)[:, None], points(4, 3)),
    "repeat_interleave": (lambda x: x.repeat_interleave(torch.tensor([1, 2, 0, 1]), 0) * 2, points(4, 3)),
    "masked_select": (lambda x: x.masked_select(W > 0) * 2, points(4, 3)),
    "masked_scatter": (lambda x: x.masked_scatter(W > 0, x.sin()), points(4, 3)),
    "masked_scatter arg": (lambda x: x.masked_scatter(x > 0, x.sin()), points(4, 3)),
    "bool assign": (
        lambda x: (x * 1).index_put((W > 0,), x.sin().reshape(-1)[: int((W > 0).sum())]),
        points(4, 3),
    ),
    "normal": (lambda x: D.Normal(x[0], x[1].exp()).log_prob(x[2]), points(4, 3)),
    "mvn": (lambda x: D.MultivariateNormal(x[0], DEF).log_prob(x[1]), points(4, 3)),
    "gamma": (lambda x: D.Gamma(x[0], x[1]).log_prob(x[2]), positive(4, 3)),
    "beta": (lambda x: D.Beta(x[0], x[1]).log_prob(x[2] / 4), positive(4, 3)),
    "categorical": (lambda x: D.Categorical(logits=x).log_prob(torch.tensor([0, 1, 2, 0])), points(4, 3)),
    "dirichlet": (lambda x: D.Dirichlet(x[0]).log_prob(x[1] / x[1].sum()), positive(4, 3)),
    "studentT": (lambda x: D.StudentT(x[0], x[1], x[2]).log_prob(x[3]), positive(4, 3)),
    "poisson": (lambda x: D.Poisson(x[0]).log_prob(torch.tensor([1.0, 2, 3], dtype=f64)), positive(4, 3)),
    "bernoulli": (lambda x: D.Bernoulli(logits=x[0]).entropy(), points(4, 3)),
    "kl": (lambda x: D.kl_divergence(D.Normal(x[0], x[1]), D.Normal(x[2], x[3])), positive(4, 3)),
    "rsample": (lambda x: D.Normal(x[0], x[1]).icdf(torch.full((3,), 0.3, dtype=f64)), positive(4, 3)),
    "svd s u": (lambda x: [part.abs() for part in torch.linalg.svd(x, full_matrices=False)], points(4, 3)),
    "svd recompose": (lambda x: recomposed(x), points(4, 3)),
    "pinv": (torch.linalg.pinv, points(4, 3)),
    "lstsq": (lambda x: torch.linalg.lstsq(x, W).solution, points(4, 3)),
    "matrix_rank-free cond": (lambda x: torch.linalg.cond(x), spread(3)),
    "lu_solve": (lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(x), W[:3]), spread(3)),
    "lu": (lambda x: torch.linalg.lu(x)[1:], spread(3)),
    "matrix_exp": (torch.matrix_exp, points(3, 3)),
    "matrix_exp of a large matrix": (lambda x: torch.matrix_exp(x * 20 - 30 * torch.eye(3)), points(2, 3, 3)),
    "matrix_exp of zeros": (torch.matrix_exp, torch.zeros(2, 2, dtype=f64)),
    "matrix_power": (lambda x: torch.linalg.matrix_power(x, 3), points(3, 3)),
    "solve_right": (lambda x: torch.linalg.solve(x, W[:3], left=False), spread(3)),
    "tensorinv": (lambda x: torch.linalg.tensorinv(x.reshape(3, 3), ind=1), spread(3)),
    "qr": (lambda x: torch.linalg.qr(x)[1], points(4, 3)),
    "householder": (lambda x: torch.linalg.vander(x[0]), points(4, 3)),
    "rfft": (lambda x: torch.view_as_real(torch.fft.rfft(x)), points(4, 6)),
    "fft abs": (lambda x: torch.fft.fft(x).abs(), points(4, 6)),
    "irfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=6), points(4, 6)),
    "stft": (
        lambda x: torch.view_as_real(torch.stft(x, 4, window=torch.ones(4, dtype=f64), return_complex=True)),
        points(16),
    ),
    "complex functions": (
        lambda x: torch.view_as_real(
            torch.sqrt(torch.complex(x[0], x[1])) * torch.tanh(torch.complex(x[2], x[3]) * 1j)
        ),
        points(4, 3),
    ),
    "complex literal": (lambda x: (x * torch.tensor(2 + 1j, dtype=torch.complex128)).imag, points(4, 3)),
    "fft2": (lambda x: torch.view_as_real(torch.fft.fft2(x, norm="ortho")), points(4, 6)),
    "ifft": (lambda x: torch.fft.ifft(x, norm="forward").real * x, points(4, 6)),
    "complex exp": (lambda x: torch.view_as_real(torch.exp(torch.complex(x[0], x[1]))), points(4, 3)),
    "polar": (lambda x: torch.polar(x[0], x[1]).real, positive(4, 3)),
    "complex mul angle": (
        lambda x: (torch.complex(x[0], x[1]) * torch.complex(x[2], x[3])).angle(),
        points(4, 3),
    ),
    "i0": (torch.special.i0, points(4)),
    "i0e": (torch.special.i0e, points(4)),
    "i1": (torch.special.i1, points(4)),
    "i1e": (torch.special.i1e, points(4)),
    "ndtri": (torch.special.ndtri, points(4, low=0.1, high=0.9)),
    "log_ndtr": (torch.special.log_ndtr, points(4)),
    "gammainc": (lambda x: torch.special.gammainc(torch.tensor(2.0, dtype=f64), x), positive(4)),
    "gammaincc": (lambda x: torch.special.gammaincc(torch.tensor(2.0, dtype=f64), x), positive(4)),
    "multigammaln": (lambda x: torch.special.multigammaln(x + 2, 2), positive(4)),
    "polygamma0": (lambda x: torch.polygamma(2, x), positive(4)),
    "logit": (lambda x: torch.special.logit(x, eps=1e-3), points(4, low=0.1, high=0.9)),
    "packed": (packed, points(3, 3, 3)),
    "encoder": (lambda x: enc(x, src_key_padding_mask=pad), points(2, 3, 4)),
    "ctc": (
        lambda x: F.ctc_loss(
            x.log_softmax(2), torch.tensor([[1, 2], [2, 2]]), torch.tensor([5, 5]), torch.tensor([2, 1])
        ),
        points(5, 2, 4),
    ),
    "max_pool idx": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        points(1, 1, 4, 4),
    ),
    "adaptive": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), points(1, 1, 5, 4)),
    "scripted": (lambda x: scripted(x), points(2, 3)),
    "out": (lambda x: torch.add(x.detach(), 1, out=torch.empty(4, 3, dtype=f64)) * x, points(4, 3)),
    "scatter mean": (
        lambda x: torch.zeros(2, 3, dtype=f64).index_add(0, torch.tensor([0, 1, 0, 1]), x),
        points(4, 3),
    ),
    "scatter_reduce mean": (
        lambda x: torch.zeros(2, 3, dtype=f64).scatter_reduce(
            0, torch.tensor([[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]]), x, "mean", include_self=False
        ),
        points(4, 3),
    ),
    "avg_pool divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), points(1, 1, 4, 4)),
    "grid": (lambda x: F.affine_grid(x[None, :2, :3], (1, 1, 3, 3), align_corners=False), points(4, 3)),
    "vecdot": (lambda x: torch.linalg.vecdot(x, x * 2), points(4, 3)),
    "cov": (lambda x: torch.cov(x), points(4, 6)),
    "corrcoef": (lambda x: torch.corrcoef(x), points(4, 6)),
    "histc-free bucketize": (
        lambda x: x * torch.bucketize(x, torch.tensor([-1.0, 0, 1.0], dtype=f64)),
        points(4, 3),
    ),
    "searchsorted": (
        lambda x: x * torch.searchsorted(torch.tensor([-1.0, 0, 1.0], dtype=f64), x),
        points(4, 3),
    ),
    "checkpoint": (
        lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False),
        points(4, 3),
    ),
    "linspace T": (lambda x: torch.lerp(x[0], x[1], torch.linspace(0, 1, 3, dtype=f64)), points(4, 3)),
    "triu_indices": (lambda x: x[tuple(torch.triu_indices(3, 3))], points(4, 3)),
    "tensor_split": (lambda x: torch.cat(x.tensor_split((1, 3))), points(4, 3)),
    "isin": (lambda x: x * torch.isin(idx, torch.tensor([1, 2])), points(4, 3)),
    "cartesian": (lambda x: torch.cartesian_prod(x[0], x[1]), points(4, 3)),
    "fold": (lambda x: F.fold(x.reshape(1, 4, 4), (3, 3), (2, 2)), points(4, 4)),
    "erfinv": (torch.erfinv, points(4, low=-0.9, high=0.9)),
    "igrad": (lambda x: torch.gradient(x)[0], points(6)),
}

WITHOUT_SECOND = {"ctc"}
"""What PyTorch has no second derivative of."""


@pytest.mark.parametrize("case", CASES)
def test_value_and_derivatives_are_those_of_pytorch(case: str) -> None:
    fn, x = CASES[case]
    with warnings.catch_warnings(action="ignore"):
        agree(fn, x, rtol=1e-9, second=case not in WITHOUT_SECOND)


@pytest.mark.parametrize("case", ["packed", "encoder", "ctc", "mask closed", "mvn"])
def test_a_recording_at_a_point_is_the_same(case: str) -> None:
    fn, x = CASES[case]
    without = export(fn, [tensor_spec(x)], ["x"])
    found = export(fn, [tensor_spec(x)], ["x"], point=[x.clone().requires_grad_()])
    assert found.model.SerializeToString() == without.model.SerializeToString()


def test_a_complex_result_or_argument_is_refused_by_name() -> None:
    with pytest.raises(gw.TraceError, match="view_as_real"):
        export(torch.fft.fft, [tensor_spec(points(4))])
    with pytest.raises(gw.TraceError, match="complex"):
        export(torch.real, [tensor_spec(points(4).to(torch.complex128))])


@pytest.mark.usefixtures("client")
def test_a_mask_of_an_argument_is_refused_and_one_of_a_closed_over_tensor_followed() -> None:
    w = points(4)
    with pytest.raises(gw.TraceError, match=r"torch\.where"):
        remote.remote(lambda x: x[x > 0])(points(4))
    f = remote.remote(lambda x: x[w > 0] * 2)
    for _ in range(2):
        torch.testing.assert_close(f(points(4)), points(4)[w > 0] * 2)
        w.neg_()
