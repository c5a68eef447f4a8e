"""Streams of batches that break, stall or are stopped: what is lost is said, what can be had again is."""

import asyncio
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from google.rpc import error_details_pb2

import gradwire as gw
from tests.client import wire_server
from tests.client.accumulate_server import FIT, AccumulateServer, fit, fit_gradient
from tests.client.conftest import QUICK

W, B = np.array([1.0, -2.0, 0.5]), np.array(0.25)


def batches_of(*sizes: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(7)
    return [(rng.standard_normal((n, 3)), rng.standard_normal(n)) for n in sizes]


DATA = batches_of(4, 4, 4, 3)


def gradient(data: Any, w: Any = W) -> Any:
    return sum(fit_gradient({"w": w, "b": B, "x": x, "y": y})["w"] for x, y in data)


def actions(server: AccumulateServer) -> list[str]:
    return [message.WhichOneof("action") for message in server.accumulated]


def test_what_is_wrong_with_a_batch_is_raised_by_a_later_call_until_zero(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    fit_server.stream_faults.refuse = 1
    with loss.accumulator(W, B) as acc:
        acc.add(*DATA[0])
        acc.add(*DATA[1])
        for use in (acc.read, acc.read, lambda: acc.add(*DATA[2]), lambda: acc.grad):
            with pytest.raises(
                gw.InvalidArgumentError, match=r"batch 1: input 'x'.*the 2 batches .* lost: call zero"
            ):
                use()
        fit_server.stream_faults.refuse = None
        acc.zero()
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)


def test_the_details_of_an_error_are_kept(loss: gw.Function, fit_server: AccumulateServer) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="LIMIT_EXCEEDED", metadata={"limit": "array_bytes", "allowed": "8"}
    )
    with loss.accumulator(W, B) as acc:
        fit_server.faults.error = wire_server.status(8, "too large", info)
        with pytest.raises(gw.LimitError, match=r"too large$") as caught:
            acc.add(*DATA[0])
        assert (caught.value.limit, caught.value.allowed) == ("array_bytes", 8.0)
        fit_server.faults.error = None
        acc.add(*DATA[0])  # nothing was lost, so nothing needs to be zeroed
        np.testing.assert_allclose(acc.grad[0], gradient(DATA[:1]), rtol=1e-13)


def test_a_break_after_batches_that_went_by_value_says_what_is_lost(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    fit_server.stream_faults.break_at = [2]
    with loss.accumulator(W, B) as acc:
        with pytest.raises(gw.UnavailableError, match=r"draining.*gradient of the [234] batches.*zero\(\)"):
            acc.add_all(DATA)
            acc.read()
        acc.zero(w=-W)
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA, -W), rtol=1e-13)


def test_a_break_before_the_first_batch_costs_nothing(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    fit_server.faults.unavailable = 3  # registering, then opening the stream
    with loss.accumulator(W, B) as acc:
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)


def test_a_server_that_is_away_for_good_is_given_up(loss: gw.Function, fit_server: AccumulateServer) -> None:
    fit_server.faults.unavailable = 99
    with loss.accumulator(W, B) as acc, pytest.raises(gw.UnavailableError, match=r"starting$"):
        acc.add(*DATA[0])


def test_a_server_that_forgot_graph_and_parameters_is_told_again(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    w, x = np.linspace(0.0, 1.0, 200_000), np.ones((1, 200_000))
    want = fit_gradient({"w": w, "b": B, "x": x, "y": np.zeros(1)})["w"]
    loss = fit_client.function(FIT)
    for _ in range(2):
        with loss.accumulator(w, B) as acc:
            acc.add(x, np.zeros(1))
            np.testing.assert_allclose(acc.grad[0], want, rtol=1e-13)
        fit_server.forget()


def test_large_constants_of_a_function_go_with_the_parameters_and_are_sent_once(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    table = np.linspace(0.0, 1.0, 200_000)
    f = fit_client.function(
        lambda w, x: np.sum((x * np.sum(w * table)) ** 2), gw.spec(()), gw.spec(3), names=("w", "x")
    )
    for _ in range(2):
        with f.accumulator(1.0) as acc:
            assert acc.grad == 0.0
    starts = [message.start for message in fit_server.accumulated if message.HasField("start")]
    assert fit_server.calls.count("PutTensor") == 1
    assert len(starts) == 3  # the first was answered by asking for the constant
    assert all(sum(bool(t.tensor_id) for t in start.inputs.values()) == 1 for start in starts)
    assert all(list(start.wrt) == ["w"] for start in starts)


# Uploaded batches.


def test_uploaded_batches_travel_once(fit_client: gw.Client, fit_server: AccumulateServer) -> None:
    data = batches_of(40_000, 40_000, 300)
    uploaded = [(fit_client.put(x), fit_client.put(y)) for x, y in data]
    with fit_client.function(FIT).accumulator(W, B) as acc:
        for step in (1.0, 2.0, 3.0):
            acc.zero(w=step * W)
            acc.add_all(uploaded)
            np.testing.assert_allclose(acc.grad[0], gradient(data, step * W), rtol=1e-10)
    assert fit_server.calls.count("PutTensor") == 6
    assert "chunk" not in actions(fit_server)
    assert sum(message.ByteSize() for message in fit_server.accumulated) < 10_000


def test_an_uploaded_array_is_taken_wherever_an_array_is(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    x = fit_client.put(DATA[0][0])
    assert (x.shape, x.dtype, len(x)) == ((4, 3), np.float64, 4)
    np.testing.assert_array_equal(np.asarray(x), DATA[0][0])
    assert repr(x) == f"<Uploaded {x.tensor_id[:12]} float64[4, 3]>"
    squares = fit_client.function(wire_server.MATRIX)
    np.testing.assert_array_equal(squares(x), np.sin(DATA[0][0]))
    w = fit_client.put(W)
    with fit_client.function(FIT).accumulator(w, B) as acc:
        acc.add(x, DATA[0][1])
        np.testing.assert_allclose(acc.grad[0], gradient(DATA[:1]), rtol=1e-13)
    (start,) = [message.start for message in fit_server.accumulated if message.HasField("start")]
    assert start.inputs["w"].tensor_id == w.tensor_id


def test_an_array_uploaded_as_another_type_is_refused(loss: gw.Function, fit_client: gw.Client) -> None:
    x = fit_client.put(DATA[0][0].astype(np.float32))
    with (
        loss.accumulator(W, B) as acc,
        pytest.raises(gw.InvalidArgumentError, match=r"x: .*uploaded as float32: upload it as float64"),
    ):
        acc.add(x, DATA[0][1])


@pytest.mark.parametrize("at", [0, 2])
def test_uploaded_batches_are_sent_again_by_themselves_when_the_stream_breaks(
    fit_client: gw.Client, fit_server: AccumulateServer, at: int
) -> None:
    uploaded = [(fit_client.put(x), fit_client.put(y)) for x, y in DATA]
    fit_server.stream_faults.break_at = [at, 3]
    loss = fit_client.function(fit, gw.spec(3), gw.spec(()), gw.spec((4, 3)), gw.spec(4))
    with loss.accumulator(W, B) as acc:
        for batch in uploaded:
            acc.add(batch)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)
        assert acc.read().batches == 4
    assert fit_server.calls.count("Accumulate") == 3


def test_uploaded_batches_that_the_server_lost_are_uploaded_again(
    fit_client: gw.Client, fit_server: AccumulateServer
) -> None:
    uploaded = [(fit_client.put(x), fit_client.put(y)) for x, y in DATA]
    fit_server.stream_faults.forget_at = 2
    with fit_client.function(FIT).accumulator(W, B) as acc:
        acc.add_all(uploaded)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)
    assert fit_server.calls.count("PutTensor") == 16
    fit_server.forget()
    with fit_client.function(FIT).accumulator(W, B) as acc:
        acc.add_all(uploaded)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)


def test_a_server_that_keeps_no_upload_does_not_make_a_loop(
    fit_client: gw.Client, fit_server: AccumulateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hole(dict[str, Any]):
        def __setitem__(self, *_: Any) -> None: ...

    x = fit_client.put(DATA[0][0])
    monkeypatch.setattr(fit_server, "tensors", Hole())
    with (
        fit_client.function(FIT).accumulator(W, B) as acc,
        pytest.raises(gw.NotFoundError, match="no such array"),
    ):
        acc.add(x, fit_client.put(DATA[0][1]))
        acc.read()
    assert fit_server.calls.count("Accumulate") == 2


def test_one_batch_by_value_makes_a_break_final(fit_client: gw.Client, fit_server: AccumulateServer) -> None:
    fit_server.stream_faults.break_at = [2]
    with fit_client.function(FIT).accumulator(W, B) as acc:
        acc.add(*map(fit_client.put, DATA[0]))
        acc.add(*DATA[1])
        with pytest.raises(gw.UnavailableError, match="lost"):
            acc.add(*map(fit_client.put, DATA[2]))
            acc.read()


# Time, Ctrl-C and closing.


def test_an_answer_that_takes_too_long_stops_the_work(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    fit_server.stream_faults.silent = True
    with loss.accumulator(W, B, timeout=30) as acc:
        acc.add(*DATA[0])
        with pytest.raises(gw.DeadlineError, match=r"timeout of 0\.2 s.*gradient of the 1 batch added"):
            acc.read(timeout=0.2)
        assert fit_server.gone.wait(5)
        with pytest.raises(gw.CancelledError, match=r"stopped before it had ended.*zero"):
            acc.add(*DATA[1])
        fit_server.stream_faults.silent = False
        acc.zero()
        acc.add(*DATA[1])
        np.testing.assert_allclose(acc.grad[0], gradient(DATA[1:2]), rtol=1e-13)


def test_a_server_that_does_not_read_on_holds_batches_back(
    loss: gw.Function, fit_server: AccumulateServer
) -> None:
    fit_server.stream_faults.unread = 1
    x, y = np.ones((50_000, 3)), np.ones(50_000)  # 1.6 MB
    with loss.accumulator(W, B, timeout=1.0) as acc:
        acc.add(x, y)
        with pytest.raises(gw.DeadlineError, match=r"timeout of 1 s"):
            for _ in range(200):  # 320 MB, unless something holds them back
                acc.add(x, y)
        assert acc.batches < 40


def test_waiting_for_another_call_costs_nothing(loss: gw.Function, fit_server: AccumulateServer) -> None:
    def read() -> None:
        with pytest.raises(gw.DeadlineError):
            acc.read(timeout=2.0)

    fit_server.stream_faults.silent = True
    with loss.accumulator(W, B) as acc:
        acc.add(*DATA[0])
        reader = threading.Thread(target=read)
        reader.start()
        while "read" not in actions(fit_server)[2:]:
            time.sleep(0.01)
        with pytest.raises(gw.DeadlineError, match=r"calls before it took longer.*nothing was lost"):
            acc.add(*DATA[1], timeout=0.1)
        assert acc.batches == 1
        reader.join()


def test_ctrl_c_stops_the_work_and_zero_begins_again(loss: gw.Function, fit_server: AccumulateServer) -> None:
    fit_server.stream_faults.silent = True
    with loss.accumulator(W, B) as acc:
        acc.add(*DATA[0])
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            acc.read()
        assert fit_server.gone.wait(5)
        fit_server.stream_faults.silent = False
        acc.zero()
        acc.add_all(DATA)
        np.testing.assert_allclose(acc.grad[0], gradient(DATA), rtol=1e-13)


@pytest.mark.parametrize("way", ["accumulator", "client"])
def test_closing_in_the_middle_stops_the_work(fit_server: AccumulateServer, way: str) -> None:
    fit_server.stream_faults.silent = True
    client = gw.connect(fit_server.address, retry=QUICK)
    acc = client.function(FIT).accumulator(W, B)
    acc.add(*DATA[0])
    caught: list[BaseException] = []

    def read() -> None:
        try:
            acc.read()
        except Exception as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while "read" not in actions(fit_server)[2:]:
        time.sleep(0.01)
    (acc if way == "accumulator" else client).close()
    reader.join(10)
    assert fit_server.gone.wait(5)
    (error,) = caught
    assert isinstance(error, RuntimeError if way == "accumulator" else gw.CancelledError), error
    assert "closed" in str(error)
    acc.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed: make another"):
        acc.add(*DATA[1])


def test_a_cancelled_task_loses_what_was_accumulated_and_no_more(fit_server: AccumulateServer) -> None:
    async def work() -> None:
        fit_server.stream_faults.silent = True
        async with (
            gw.aio.connect(fit_server.address, retry=QUICK) as client,
            client.function(FIT).accumulator(W, B) as acc,
        ):
            await acc.add(*DATA[0])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(acc.grad(), 0.2)
            with pytest.raises(gw.CancelledError, match="1 batch added so far is lost"):
                await acc.grad()
            fit_server.stream_faults.silent = False
            await acc.zero()
            await acc.add(*DATA[1])
            np.testing.assert_allclose((await acc.grad())[0], gradient(DATA[1:2]), rtol=1e-13)

    asyncio.run(work())
