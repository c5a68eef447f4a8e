"""In-place writes, views and disabled gradients have the values and derivatives that PyTorch gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradwire as gw
from gradwire.frontends.torch.capture import tensor_spec
from gradwire.frontends.torch.export import export
from gradwire_engine.lowering.interpreter import evaluate
from tests.client.frontends.torch.torch_oracle import agree
from tests.client.frontends.torch.torch_table import points

f64 = torch.float64
A = points(4, 4)


def view_without_gradients(a: torch.Tensor) -> torch.Tensor:
    q = a * 2
    with torch.no_grad():
        following = q[1:]
    return q[:-1] * following


def straight_through(a: torch.Tensor) -> torch.Tensor:
    y = a * 3
    with torch.no_grad():
        y.round_()
    return y * a


def straight_through_a_view(a: torch.Tensor) -> torch.Tensor:
    y = a * 3
    with torch.no_grad():
        y[1].clamp_(-1, 1)
    return y * a


def written_data(a: torch.Tensor) -> torch.Tensor:
    y = a * 2
    y.data[0] = 5.0
    return y * 3 + a


def scaled_data(a: torch.Tensor) -> torch.Tensor:
    y = a * 2
    y.data.mul_(2.0)
    return y * a


def copied_without_gradients(a: torch.Tensor) -> torch.Tensor:
    y = a * 2
    with torch.no_grad():
        y.copy_(a.sin())
    return y * y


def a_copy_without_gradients_into_new_memory(a: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(4, 4, dtype=f64)
    with torch.no_grad():
        y.copy_(a.sin())
    y[0] = a[0]
    return y * a


def detached_values(a: torch.Tensor) -> torch.Tensor:
    y = a.exp()
    return (y - y.detach() + 1) * a.detach().sin() * a


def a_toggle(a: torch.Tensor) -> torch.Tensor:
    with torch.set_grad_enabled(False):
        b = a * 2
        with torch.enable_grad():
            c = a * 3
    return b * a + c


@torch.no_grad()
def _normalized(a: torch.Tensor) -> torch.Tensor:
    return a / a.norm()


def a_decorated_function(a: torch.Tensor) -> torch.Tensor:
    return _normalized(a) * a


def power_iteration(a: torch.Tensor) -> torch.Tensor:
    u = torch.ones(4, dtype=f64)
    with torch.no_grad():
        for _ in range(3):
            u = F.normalize(a @ u, dim=0)
            v = F.normalize(a.T @ u, dim=0)
    return u @ a @ v


def through_as_strided(a: torch.Tensor) -> torch.Tensor:
    z = a * 1
    z.as_strided((4,), (5,)).mul_(3.0)
    z.as_strided((2, 2), (4, 1), 6).copy_(a[:2, :2])
    return z * a


def as_strided_of_a_view(a: torch.Tensor) -> torch.Tensor:
    return a.T[1:].as_strided((3, 2), (1, 4)) * 2


def through_unfold(a: torch.Tensor) -> torch.Tensor:
    z = a * 1
    z.unfold(1, 2, 2)[..., 0].mul_(2.0)
    z.unfold(0, 2, 2).add_(a[:2, :, None])
    return z * a


def through_fill_diagonal(a: torch.Tensor) -> torch.Tensor:
    z = a * a
    z.fill_diagonal_(2.0)
    return z * a


def through_a_reshaped_transpose(a: torch.Tensor) -> torch.Tensor:
    z = a * 1
    b = z.T.unsqueeze(0).squeeze(0)
    z.mul_(a)
    b[0].add_(1.0)
    return b + z


def through_split_and_unbind(a: torch.Tensor) -> torch.Tensor:
    z = a * 1
    z.narrow(1, 2, 2).clamp_(min=0.1)
    z.select(1, 3).copy_(a[0])
    z[1:] *= 2
    first, second = z.split(2)
    last = z.unbind(1)[3]
    return torch.cat([first.mul(second), last[:, None].expand(4, 4), z.chunk(2, 1)[0].T * z[:2]])


def through_movedim_and_expand(a: torch.Tensor) -> torch.Tensor:
    z = a.reshape(2, 2, 4).clone()
    wide = z[:, None].expand(2, 3, 2, 4)
    z.movedim(0, 2)[0].mul_(2.0)
    return wide.sum(1) * z


def integers_by_element(a: torch.Tensor) -> torch.Tensor:
    index = torch.zeros(3, dtype=torch.int64)
    index[0], index[1:] = 3, torch.arange(2)
    index.view(-1)[2] += 1
    return a[index] * a[:3]


def integers_from_the_argument(a: torch.Tensor) -> torch.Tensor:
    index = torch.zeros(4, dtype=torch.int64)
    index[:] = a.argmax(1)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0] = a[0] > 0
    return torch.where(mask, a * a, a).gather(1, index[:, None]) * a


def relaid_in_place(a: torch.Tensor) -> torch.Tensor:
    z = a * 1
    z.t_()
    z.unsqueeze_(0)
    z.mul_(a)
    z.squeeze_(0)
    return z * a


def stored_with_out(a: torch.Tensor) -> torch.Tensor:
    z = torch.zeros(4, 4, dtype=f64)
    with torch.no_grad():
        torch.mul(a, 2, out=z)
        torch.matmul(a, a, out=z[:, :])
    return z * a


def stored_integers_with_out(a: torch.Tensor) -> torch.Tensor:
    index = torch.empty(4, dtype=torch.int64)
    torch.arange(4, out=index)
    torch.add(index, -3, out=index)
    return a[index.abs()] * a


def written_twice_in_a_loop(a: torch.Tensor) -> torch.Tensor:
    state = a[0].clone()
    kept = []
    for k in range(3):
        state[k] = state.sum() * a[k, k]
        kept.append(state.clone())
    return torch.stack(kept)


CASES: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    view_without_gradients, straight_through, straight_through_a_view, written_data, scaled_data,
    copied_without_gradients, a_copy_without_gradients_into_new_memory, detached_values, a_toggle,
    a_decorated_function, power_iteration, through_as_strided, as_strided_of_a_view, through_unfold,
    through_fill_diagonal, through_a_reshaped_transpose, through_split_and_unbind, through_movedim_and_expand,
    integers_by_element, integers_from_the_argument, relaid_in_place, stored_with_out,
    stored_integers_with_out, written_twice_in_a_loop,
)  # fmt: skip


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_values_and_derivatives_are_those_of_pytorch(fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    agree(fn, A)


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_a_recording_at_a_point_computes_the_same_elsewhere(
    fn: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    one = export(fn, [tensor_spec(A)], ["a"], point=[A.clone().requires_grad_()])
    elsewhere = points(4, 4, seed=5)
    (found,) = evaluate(one.model, {"a": elsewhere.numpy()})
    np.testing.assert_allclose(np.asarray(found), fn(elsewhere).detach().numpy(), rtol=1e-12, atol=1e-13)


def test_arguments_of_any_strides_are_what_they_are() -> None:
    for x in (A.T, A[::2], A[:, 1:3], A[1:].T, A.expand(4, 4)):
        agree(lambda x: x.reshape(-1) * 2, x, second=False)
        one = export(lambda x: x.T.as_strided((2,), (1,)), [tensor_spec(x)], ["x"], point=[x])
        (found,) = evaluate(one.model, {"x": x.numpy()})
        np.testing.assert_array_equal(np.asarray(found), x.T.as_strided((2,), (1,)).numpy())


def test_a_write_to_a_detached_tensor_of_values_with_a_gradient_is_refused() -> None:
    def fn(a: torch.Tensor) -> torch.Tensor:
        q = a * 2
        d = q.detach()
        d[0] = a[0]
        return d * q

    with pytest.raises(gw.TraceError, match="detached"):
        export(fn, [tensor_spec(A)])
