"""A traced function is compared with the function that it came from, on a real server."""

import asyncio
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradwire as gw

X = np.array([0.5, 2.0])


def faulty(x: Any) -> Any:
    """Is another function while it is traced: what a fault of the tracer looks like."""
    return 3 * x if is_traced(x) else 2 * x


def is_traced(x: Any) -> bool:
    return not isinstance(x, np.ndarray)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


USES: dict[str, Callable[[gw.Function], object]] = {
    "value": lambda f: f(X),
    "vjp": lambda f: f.vjp(X, X),
    "jvp": lambda f: f.jvp(X, X),
    "jacobian": lambda f: f.jacobian(X),
    "sink": lambda f: f.jacobian(X, sink=lambda block: None),
    "blocks": lambda f: list(f.jacobian_blocks(X)),
    "value_and_jacobian": lambda f: f.value_and_jacobian(X),
    "batch": lambda f: f(np.stack([X, X]), batched="x"),
    "transformed": lambda f: f.as_vjp()(X, X),
}


@pytest.mark.parametrize("use", USES)
def test_every_first_use_at_a_point_compares(client: gw.Client, use: str) -> None:
    f = client.function(faulty, gw.spec(2))
    with pytest.raises(gw.TraceMismatchError, match=r"y\[0\] is 1.5 by the graph and 1 by faulty itself"):
        USES[use](f)


def test_solvers_streams_and_accumulators_compare_too(client: gw.Client) -> None:
    f = client.function(faulty, gw.spec(2))
    with pytest.raises(gw.TraceMismatchError):
        f.callbacks().value(X)
    with f.stream() as stream, pytest.raises(gw.TraceMismatchError):
        stream.value(X).result()

    def loss(w: Any, x: Any) -> Any:
        return np.sum(faulty(w) * x)

    with client.function(loss, gw.spec(2), gw.spec((4, 2))).accumulator(X) as acc:
        with pytest.raises(gw.TraceMismatchError):
            acc.add(np.ones((4, 2)))
        with pytest.raises(gw.TraceMismatchError):  # it is traced again for other extents
            acc.add(np.ones((3, 2)))


def test_a_difference_is_raised_until_the_function_is_made_anew(client: gw.Client) -> None:
    f = client.function(faulty, gw.spec(2))
    for _ in range(2):
        with pytest.raises(gw.TraceMismatchError):
            f(X)


@pytest.mark.parametrize(("mode", "calls"), [("first", 1), ("always", 3), ("never", 0)])
def test_functions_are_compared_when_they_are_told_to(client: gw.Client, mode: Any, calls: int) -> None:
    run = []

    def counted(x: Any) -> Any:
        if not is_traced(x):
            run.append(x)
        return np.sum(x**2)

    f = client.function(counted, gw.spec(2), verify=mode)
    for _ in range(3):
        np.testing.assert_allclose(f.grad(X), 2 * X)
    assert len(run) == calls


def test_the_mode_of_a_client_is_that_of_its_functions(server: Any) -> None:
    with gw.connect(server.address, verify="never") as client:
        np.testing.assert_array_equal(client.vjp(faulty, X, X), 3 * X)
        with pytest.raises(gw.TraceMismatchError):
            client.function(faulty, X, verify="first")(X)
        with pytest.raises(gw.InvalidArgumentError, match="'first', 'always' or 'never', not 'often'"):
            client.function(faulty, X, verify="often")  # type: ignore[arg-type]
    with pytest.raises(gw.InvalidArgumentError, match="verify is"):
        gw.connect(server.address, verify=True)  # type: ignore[arg-type]


def test_one_liners_of_the_same_code_are_compared_once(client: gw.Client) -> None:
    run = []

    def counted(x: Any) -> Any:
        if not is_traced(x):
            run.append(x)
        return np.sum(x**3)

    for _ in range(3):
        client.grad(counted, X)
    assert len(run) == 1


def test_code_that_gives_the_graph_of_other_code_is_compared_for_itself(client: gw.Client) -> None:
    client.jvp(lambda x: 3 * x, X, X)
    with pytest.raises(gw.TraceMismatchError):
        client.jvp(faulty, X, X)


def test_a_slow_function_is_compared_in_the_background(client: gw.Client) -> None:
    ended = threading.Event()

    def slow(x: Any) -> Any:
        if is_traced(x):
            return 3 * x
        ended.wait(60)
        return 2 * x

    f = client.function(slow, gw.spec(2))
    np.testing.assert_array_equal(f(X), 3 * X)
    np.testing.assert_array_equal(f(X), 3 * X)
    ended.set()
    with pytest.raises(gw.TraceMismatchError):
        for _ in range(600):
            f(X)
            time.sleep(0.05)


def test_a_function_that_cannot_be_run_says_once_that_it_was_not_compared(client: gw.Client) -> None:
    def traced_alone(x: Any) -> Any:
        if not is_traced(x):
            raise ValueError("I am for graphs")
        return x + 1

    f = client.function(traced_alone, gw.spec(2))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        f(X)
        f(X)
    (warning,) = seen
    assert issubclass(warning.category, gw.GraphWarning)
    assert "not compared with traced_alone: ValueError: I am for graphs" in str(warning.message)
    assert "I am for graphs" in f.describe().verified


def test_the_shapes_of_results_are_compared(client: gw.Client) -> None:
    f = client.function(lambda x: x if is_traced(x) else x[None], gw.spec(2))
    with pytest.raises(gw.TraceMismatchError, match=r"shapes \[\(1, 2\)\] at this point, but its graph"):
        f(X)


def test_describe_says_what_was_compared(client: gw.Client) -> None:
    f = client.function(lambda x: (np.sin(x), np.sum(x)), gw.spec(2))
    assert "not compared with <lambda> yet" in f.describe().verified
    f(X)
    assert f.describe().verified == "compared with <lambda>: the value of y0, y1"
    model = '<ir_version: 8, opset_import: ["" : 18]> g (double[2] x) => (double[2] y) { y = Sin(x) }'
    assert client.function(model).describe().verified == ""


def test_neither_the_arguments_nor_numpys_warnings_reach_the_caller(client: gw.Client) -> None:
    def writes(x: Any) -> Any:
        y = np.log(x)
        x[...] = 0
        return y

    x = np.array([0.0, -1.0])
    np.testing.assert_array_equal(client.function(writes, gw.spec(2))(x), [-np.inf, np.nan])
    np.testing.assert_array_equal(x, [0.0, -1.0])


def test_an_empty_batch_compares_nothing(client: gw.Client) -> None:
    assert client.function(faulty, gw.spec(2))(np.ones((0, 2)), batched="x").shape == (0, 2)


async def test_concurrent_first_uses_share_one_comparison(server: Any) -> None:
    run = []

    def counted(x: Any) -> Any:
        if not is_traced(x):
            run.append(x)
        return 2 * x if not is_traced(x) else 3 * x

    async with gw.aio.connect(server.address) as client:
        f = client.function(counted, gw.spec(2))
        found = await asyncio.gather(*(f(X) for _ in range(4)), return_exceptions=True)
    assert [type(one) for one in found] == [gw.TraceMismatchError] * 4
    assert len(run) <= 8  # once, and for moved inputs when it differed


class TestCheck:
    def test_a_function_that_agrees_with_itself_passes(
        self, client: gw.Client, capsys: pytest.CaptureFixture[str]
    ) -> None:
        f = client.function(lambda a, x: (np.sin(a @ x), np.sum(x**4)), gw.spec((3, 2)), gw.spec(2))
        report = f.check(np.arange(6.0).reshape(3, 2), X)
        assert report.passed
        assert len(report.rows) == 5
        assert all(row.difference < (1e-6 if "differences" in row.name else 1e-12) for row in report.rows)
        assert capsys.readouterr().out.strip() == str(report)

    def test_single_precision_is_held_to_what_it_can_do(self, client: gw.Client) -> None:
        f = client.function(lambda x: np.sum(np.tanh(x)), gw.spec(2, dtype=np.float32))
        assert f.check(X.astype(np.float32)).passed

    def test_a_graph_that_is_not_the_function_fails(self, client: gw.Client) -> None:
        with pytest.raises(gw.CheckError, match=r"value: graph and function .* DIFFERS") as failure:
            client.function(faulty, gw.spec(2)).check(X)
        assert "J v: graph and differences" in str(failure.value)

    def test_a_derivative_that_is_not_the_functions_fails(self, client: gw.Client) -> None:
        """Rounding is a step, but someone who trains through it takes its slope for 1."""
        model = '<ir_version: 8, opset_import: ["" : 18]> g (double[2] x) => (double[2] y) { y = Abs(x) }'
        assert client.function(model).check(X).rows[0].skipped
        f = client.function(lambda x: x * np.floor(x / 1e-3), gw.spec(2))
        with pytest.raises(gw.CheckError, match=r"J v: graph and differences .* DIFFERS"):
            f.check(np.array([0.50005, 2.00005]))

    def test_what_has_no_reverse_mode_is_skipped_by_name(self, client: gw.Client) -> None:
        f = client.function(
            lambda x: gw.while_(lambda s: np.sum(s) < 100, lambda s: s * 2, x), gw.spec(2), verify="never"
        )
        skipped = [row.name for row in f.check(X).rows if "reverse mode is not possible" in row.skipped]
        assert skipped == ["<w, J v> and <J'w, v>", "J: forward and reverse mode", "u'H v and v'H u"]
