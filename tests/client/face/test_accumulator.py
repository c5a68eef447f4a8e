"""Gradients that add up over batches, against closed forms and a server in NumPy."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from tests.client.accumulate_server import FIT, FIT_OF_FOUR, AccumulateServer, fit, fit_gradient
from tests.client.conftest import QUICK

W, B = np.array([1.0, -2.0, 0.5]), np.array(0.25)
PARAMS = {"w": W, "b": B}


def batches_of(*sizes: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(len(sizes))
    return [(rng.standard_normal((n, 3)), rng.standard_normal(n)) for n in sizes]


DATA = batches_of(4, 4, 4, 3)


def expected(data: Any = DATA, **params: Any) -> dict[str, Any]:
    """The loss and its derivatives over all rows at once."""
    x, y = np.concatenate([x for x, _ in data]), np.concatenate([y for _, y in data])
    return fit_gradient({**PARAMS, **params, "x": x, "y": y})


def traced(client: gw.Client) -> gw.Function:
    return client.function(fit, gw.spec(3), gw.spec(()), gw.spec((4, 3)), gw.spec(4))


def test_gradients_add_up_over_batches_and_stay_when_they_are_read(loss: gw.Function) -> None:
    with loss.accumulator(W, B) as acc:
        for seen, (x, y) in enumerate(DATA, 1):
            acc.add(x, y)
            want = expected(DATA[:seen])
            gradient_w, gradient_b = acc.grad
            np.testing.assert_allclose(gradient_w, want["w"], rtol=1e-13)
            np.testing.assert_allclose(gradient_b, want["b"], rtol=1e-13)
            np.testing.assert_allclose(acc.value, want[""], rtol=1e-13)
        assert (acc.batches, acc.rows) == (4, 15)
        found = acc.read()
        assert (found.batches, found.rows, found.batches_by_worker) == (4, 15, {"w0": 4})
        assert (found.batches_rerun, found.compute) == (0, 0.25)
        assert repr(acc) == "<Accumulator of e by w, b: 4 batches, 15 rows>"


def test_value_and_gradient_cost_one_question(loss: gw.Function, fit_server: AccumulateServer) -> None:
    with loss.accumulator(W, B) as acc:
        acc.add_all(DATA)
        _ = acc.value, acc.grad, acc.grad, acc.read()
    reads = [m.WhichOneof("action") for m in fit_server.accumulated].count("read")
    assert reads == 2  # one of them after the start, to hear what is wrong with it


def test_before_a_batch_everything_is_zero(loss: gw.Function) -> None:
    with loss.accumulator(W, B) as acc:
        np.testing.assert_array_equal(acc.grad[0], np.zeros(3))
        assert (acc.value, acc.batches, acc.rows) == (0.0, 0, 0)


@pytest.mark.parametrize("give", ["positional", "named", "mapping", "tuple", "mixed"])
def test_parameters_and_batches_are_given_in_any_way(loss: gw.Function, give: str) -> None:
    x, y = DATA[0]
    make, add = {
        "positional": (lambda: loss.accumulator(W, B), lambda acc: acc.add(x, y)),
        "named": (lambda: loss.accumulator(b=B, w=W), lambda acc: acc.add(y=y, x=x)),
        "mapping": (lambda: loss.accumulator({"b": B, "w": W}), lambda acc: acc.add({"y": y, "x": x})),
        "tuple": (lambda: loss.accumulator((W, B)), lambda acc: acc.add((x, y))),
        "mixed": (lambda: loss.accumulator(W, b=B), lambda acc: acc.add(x, y=y)),
    }[give]
    with make() as acc:
        add(acc)
        np.testing.assert_allclose(acc.grad[0], expected(DATA[:1])["w"], rtol=1e-13)


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_all_batches_of_an_iterable_are_added(loss: gw.Function, kind: type) -> None:
    with loss.accumulator(W, B) as acc:
        acc.add_all({"x": x, "y": y} if kind is dict else kind((x, y)) for x, y in DATA)
        np.testing.assert_allclose(acc.grad[0], expected()["w"], rtol=1e-13)


def test_wrt_chooses_among_the_shared_inputs(loss: gw.Function) -> None:
    want = expected()
    for wrt, check in (
        ("b", lambda found: np.testing.assert_allclose(found, want["b"], rtol=1e-13)),
        (0, lambda found: np.testing.assert_allclose(found, want["w"], rtol=1e-13)),
        (["b"], lambda found: np.testing.assert_allclose(found[0], want["b"], rtol=1e-13)),
        (["b", "w"], lambda found: np.testing.assert_allclose(found[1], want["w"], rtol=1e-13)),
    ):
        with loss.accumulator(W, B, wrt=wrt) as acc:
            acc.add_all(DATA)
            check(acc.grad)


def test_an_input_that_all_batches_share_need_not_be_a_parameter(loss: gw.Function) -> None:
    x, _ = DATA[0]
    with loss.accumulator(w=W, x=x, wrt="w") as acc:
        for b in (0.0, 1.0):
            acc.add(b=b, y=np.ones(4))
        parts = [fit_gradient({"w": W, "b": np.array(b), "x": x, "y": np.ones(4)})["w"] for b in (0.0, 1.0)]
        np.testing.assert_allclose(acc.grad, sum(parts), rtol=1e-13)


def test_a_mean_counts_each_batch_by_its_rows(loss: gw.Function) -> None:
    parts = [fit_gradient({**PARAMS, "x": x, "y": y})["w"] for x, y in DATA]
    with loss.accumulator(W, B, reduction="mean") as acc:
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], np.average(parts, axis=0, weights=[4, 4, 4, 3]), rtol=1e-13)
        acc.zero()
        for x, y in DATA:
            acc.add(x, y, rows=1)
        assert acc.rows == 4
        np.testing.assert_allclose(acc.grad[0], np.mean(parts, axis=0), rtol=1e-13)


def test_zero_forgets_and_zero_with_parameters_goes_on_there(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    with loss.accumulator(W, B) as acc:
        acc.add_all(DATA)
        acc.zero()
        assert (acc.batches, acc.rows) == (0, 0)
        acc.add(*DATA[0])
        np.testing.assert_allclose(acc.grad[0], expected(DATA[:1])["w"], rtol=1e-13)
        acc.zero(w=2 * W)
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], expected(w=2 * W)["w"], rtol=1e-13)
        acc.zero(W, 2 * B)
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[1], expected(b=2 * B)["b"], rtol=1e-13)
    assert fit_server.calls.count("Accumulate") == 1


def test_parameters_are_taken_as_they_are_when_they_are_given(loss: gw.Function) -> None:
    w = W.copy()
    with loss.accumulator(w, B) as acc:
        w[:] = 99.0  # before anything was sent
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], expected()["w"], rtol=1e-13)


def test_large_batches_go_in_chunks_and_may_be_written_to_once_they_are_added(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((100_000, 6))
    x, y = base[:, ::2], rng.standard_normal(100_000)  # 2.4 MB, not contiguous
    want = expected([(x, y)] * 2)
    with loss.accumulator(W, B) as acc:
        acc.add(x, y)
        copies = x.copy(), y.copy()
        acc.add(*copies)
        copies[0][:], copies[1][:] = np.nan, np.nan
        np.testing.assert_allclose(acc.grad[0], want["w"], rtol=1e-11)
    actions = [m.WhichOneof("action") for m in fit_server.accumulated]
    assert actions == ["start", "read", *(["batch"] + ["chunk"] * 3) * 2, "read"]
    assert max(m.ByteSize() for m in fit_server.accumulated) < 1.1 * 2**20


def test_large_parameters_and_gradients_go_in_pieces(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal(200_000), rng.standard_normal((2, 200_000))
    fit_server.stream_faults.chunk_bytes = 1_000_003  # aligned with nothing
    with fit_client.function(FIT).accumulator(w, B) as acc:
        acc.add(x, np.zeros(2))
        want = fit_gradient({"w": w, "b": B, "x": x, "y": np.zeros(2)})
        np.testing.assert_allclose(acc.grad[0], want["w"], rtol=1e-12)
        acc.zero(w=2 * w)
        acc.add(x, np.zeros(2))
        want = fit_gradient({"w": 2 * w, "b": B, "x": x, "y": np.zeros(2)})
        np.testing.assert_allclose(acc.grad[0], want["w"], rtol=1e-12)
    assert fit_server.calls.count("PutTensor") == 2


# Batches of other sizes.


def test_traced_code_is_traced_once_more_for_each_new_size(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    data = batches_of(4, 4, 3, 4, 3, 2)
    with traced(fit_client).accumulator(W, B) as acc:
        acc.add_all(data)
        np.testing.assert_allclose(acc.grad[0], expected(data)["w"], rtol=1e-13)
    own = [m.batch.function.graph_id for m in fit_server.accumulated if m.WhichOneof("action") == "batch"]
    assert [bool(one) for one in own] == [False, False, True, False, True, True]
    assert own[2] == own[4] != own[5]
    assert fit_server.calls.count("RegisterGraph") == 3


def test_a_model_of_fixed_shapes_refuses_other_sizes_and_keeps_what_it_has(fit_client: gw.Client) -> None:
    with fit_client.function(FIT_OF_FOUR).accumulator(W, B) as acc:
        acc.add(*DATA[0])
        with pytest.raises(gw.InvalidArgumentError, match=r"x: float64\[4, 3\].*\(3, 3\).*a name in place"):
            acc.add(*DATA[3])
        np.testing.assert_allclose(acc.grad[0], expected(DATA[:1])["w"], rtol=1e-13)


def test_code_that_cannot_take_a_batch_says_which(fit_client: gw.Client) -> None:
    with traced(fit_client).accumulator(W, B) as acc, pytest.raises(Exception) as caught:
        acc.add(np.ones((4, 2)), np.ones(4))
    assert any("traced again" in note and "(4, 2)" in note for note in caught.value.__notes__)


# Misuse.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.accumulator(), "the inputs that all batches share"),
        (lambda f: f.accumulator(W, B, *DATA[0]), "nothing is left to come with the batches"),
        (lambda f: f.accumulator(W, q=B), "no input 'q'"),
        (lambda f: f.accumulator(W, w=W), "given twice"),
        (lambda f: f.accumulator(np.ones((3, 1)), B), r"w: float64\[K\] is shared.*\(3, 1\)"),
        (lambda f: f.accumulator(W.astype(complex), B), "cannot be given as complex128"),
        (lambda f: f.accumulator(W, B, wrt="x"), "wrt names input 'x', which comes with the batches"),
        (lambda f: f.accumulator(W, B, wrt="z"), "no input 'z'"),
        (lambda f: f.accumulator(W, B, of="z"), "no output 'z'"),
        (lambda f: f.accumulator(W, B, reduction="average"), "'sum' or 'mean', not 'average'"),
        (lambda f: f.accumulator(W, B, timeout=-1), "positive"),
    ],
)
def test_misuse_is_refused_before_anything_is_sent(
    loss: gw.Function, fit_server: AccumulateServer, make: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(loss)
    assert fit_server.calls == []


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda acc: acc.add(np.ones((4, 3))), r"missing input: y: float64\[N\]"),
        (lambda acc: acc.add(w=W, x=np.ones((4, 3)), y=np.ones(4)), r"'w' is shared.*zero\(w=...\)"),
        (lambda acc: acc.add({"w": W, "y": np.ones(4)}), r"'w' is shared"),
        (lambda acc: acc.add(np.ones(4), np.ones(4)), r"x: float64\[N, K\] cannot be given .* \(4,\)"),
        (lambda acc: acc.add(np.ones((4, 3)), np.ones(5)), "x has 4, y has 5.*rows="),
        (lambda acc: acc.add(*DATA[0], rows=0), "positive"),
        (lambda acc: acc.add(*DATA[0], W), "3 arguments given"),
        (lambda acc: acc.zero(x=np.ones((4, 3))), "no input 'x'"),
        (lambda acc: acc.zero(np.ones((2, 2))), r"w: float64\[K\] is shared"),
    ],
)
def test_misuse_of_an_accumulator_costs_nothing_that_it_has(
    loss: gw.Function, use: Any, message: str
) -> None:
    with loss.accumulator(W, B) as acc:
        acc.add(*DATA[0])
        with pytest.raises(gw.InvalidArgumentError, match=message):
            use(acc)
        assert acc.batches == 1
        np.testing.assert_allclose(acc.grad[0], expected(DATA[:1])["w"], rtol=1e-13)


# Several threads, and the asynchronous interface.


def test_threads_may_add_to_one_accumulator(loss: gw.Function) -> None:
    rng = np.random.default_rng(1)
    data = [(rng.standard_normal((50_000, 3)), rng.standard_normal(50_000)) for _ in range(8)]
    with loss.accumulator(W, B) as acc:
        threads = [threading.Thread(target=acc.add, args=batch) for batch in data]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (acc.batches, acc.rows) == (8, 400_000)
        np.testing.assert_allclose(acc.grad[0], expected(data)["w"], rtol=1e-10)


def test_the_asynchronous_interface_does_the_same(fit_server: AccumulateServer) -> None:
    async def arriving() -> Any:
        for batch in DATA:
            await asyncio.sleep(0)
            yield batch

    async def work() -> None:
        async with gw.aio.connect(fit_server.address, retry=QUICK) as client:
            f = client.function(FIT)
            async with f.accumulator(W, B) as acc:
                await asyncio.gather(*(acc.add(x, y) for x, y in DATA))
                value, (gradient, _) = await asyncio.gather(acc.value(), acc.grad())
                np.testing.assert_allclose(value, expected()[""], rtol=1e-13)
                np.testing.assert_allclose(gradient, expected()["w"], rtol=1e-13)
                await acc.zero(w=-W)
                await acc.add_all(arriving())
                await acc.add_all(DATA[:1])
                assert (acc.batches, acc.rows) == (5, 19)
                found = await acc.read()
                np.testing.assert_allclose(found.grad[0], expected([*DATA, DATA[0]], w=-W)["w"], rtol=1e-13)
                uploaded = await client.put(DATA[0][0])
                await acc.zero(w=W)
                await acc.add(uploaded, DATA[0][1])
                np.testing.assert_allclose((await acc.grad())[0], expected(DATA[:1])["w"], rtol=1e-13)

    asyncio.run(work())
