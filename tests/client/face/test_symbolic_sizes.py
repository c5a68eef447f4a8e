"""Functions that are traced for sizes by name, on a real server."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def energy(x: Any, y: Any) -> Any:
    return np.sum((x[1:] - x[:-1]) ** 2 * y[1:]) / x.shape[0]


@pytest.fixture(scope="module")
def f(client: gw.Client) -> gw.Function:
    return client.function(energy, gw.spec("n"), gw.spec("n"))


def slope(x: Any, y: Any) -> Any:
    steps = 2 * (x[1:] - x[:-1]) * y[1:] / len(x)
    return np.pad(steps, (1, 0)) - np.pad(steps, (0, 1))


def at(size: int) -> tuple[Any, Any]:
    random = np.random.default_rng(size)
    return random.standard_normal(size), random.standard_normal(size)


@pytest.mark.parametrize("size", [2, 5])
def test_values_and_derivatives_are_those_of_every_size(f: gw.Function, size: int) -> None:
    x, y = at(size)
    np.testing.assert_allclose(f(x, y), energy(x, y), rtol=1e-14)
    np.testing.assert_allclose(f.grad(x, y, wrt="x"), slope(x, y), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(f.jacobian(x, y, wrt="x"), slope(x, y), rtol=1e-12, atol=1e-14)
    assert f.hessian(x, y, wrt="x").shape == (size, size)


def test_the_file_serves_all_sizes(f: gw.Function, client: gw.Client, tmp_path: Path) -> None:
    f.save(tmp_path / "f.onnx")
    read = client.function(tmp_path / "f.onnx")
    assert str(read.signature) == "(x: float64[n], y: float64[n]) -> (out: float64[])"
    for size in (3, 4):
        np.testing.assert_allclose(read(*at(size)), energy(*at(size)), rtol=1e-14)


def test_a_size_is_one_number_from_one_on(f: gw.Function) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="the size n is 3 in input 'x' and 4 in input 'y'"):
        f(np.ones(3), np.ones(4))
    with pytest.raises(gw.InvalidArgumentError, match="the size n of input 'x' is 0"):
        f(np.ones(0), np.ones(0))
    copy = pickle.loads(pickle.dumps(f))
    with pytest.raises(gw.InvalidArgumentError, match="the size n is 3"):
        copy(np.ones(3), np.ones(1))


def test_a_batch_has_one_more_axis(f: gw.Function) -> None:
    x, y = (np.stack(pair) for pair in zip(at(3), at(3)[::-1], strict=True))
    found = f(x, y, batched=["x", "y"])
    np.testing.assert_allclose(found, [energy(*pair) for pair in zip(x, y, strict=True)], rtol=1e-14)


def test_a_size_that_a_slice_needs_is_named(client: gw.Client) -> None:
    f = client.function(lambda x: np.sum(x[:3]), gw.spec("n"))
    assert f(np.ones(4)) == 3
    with pytest.raises(gw.InvalidArgumentError, match="x: n >= 3"):
        f(np.ones(2))


def test_every_new_size_is_compared(client: gw.Client) -> None:
    def odd(x: Any) -> Any:
        return 2.0 * np.sum(x) if isinstance(x, np.ndarray) and len(x) == 4 else np.sum(x)

    f = client.function(odd, gw.spec("n"))
    assert f(np.ones(3)) == 3
    with pytest.raises(gw.TraceMismatchError):
        f(np.ones(4))
    assert f(np.ones(3)) == 3


def test_a_plan_is_for_numbers(f: gw.Function) -> None:
    assert f.plan(gw.spec(4), gw.spec(4)).kind == "jacobian"
    with pytest.raises(gw.InvalidArgumentError, match=r"gw\.spec\(100\)"):
        f.plan(gw.spec("n"), gw.spec("n"))


def test_batches_of_any_length_share_one_graph(client: gw.Client) -> None:
    loss = client.function(
        lambda w, x, y: np.sum((x @ w - y) ** 2), gw.spec(3), gw.spec(("n", 3)), gw.spec("n")
    )
    w, random = np.array([1.0, -1.0, 2.0]), np.random.default_rng(0)
    batches = [(random.standard_normal((n, 3)), random.standard_normal(n)) for n in (2, 5)]
    with loss.accumulator(w=w) as total:
        for x, y in batches:
            total.add(x, y)
        found = total.grad
    expected = sum(2 * x.T @ (x @ w - y) for x, y in batches)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_other_frameworks_are_told_to_give_numbers(client: gw.Client) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(gw.InvalidArgumentError, match="for NumPy functions"):
        client.function(torch.nn.Linear(2, 2), gw.spec(("n", 2)))
    import gradwire.torch

    with pytest.raises(gw.InvalidArgumentError, match="for NumPy functions"):
        gradwire.torch.function(torch.nn.Linear(2, 2), gw.spec(("n", 2)), client=client)
