"""Servers restart, drain, stall and forget; calls go on where they can and say why where they cannot."""

import os
import signal
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import gradwire as gw
from tests.client.wire_server import MATRIX, SQUARE, WireServer, status

X = np.arange(1.0, 11.0)


def test_a_server_that_forgot_everything_is_told_again(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(MATRIX)
    x = np.random.default_rng(0).normal(size=(200, 200))
    f(x)
    wire_server.forget()
    np.testing.assert_array_equal(f(x), np.sin(x))
    g = client.function(SQUARE)
    g(X)
    wire_server.forget()
    np.testing.assert_array_equal(g.jacobian(X), np.diag(2 * X))
    wire_server.forget()
    assert g.plan(X).blocks == 4
    wire_server.forget()
    with g.stream() as s:
        np.testing.assert_array_equal(s.value(X).result(10), X**2)


def test_only_what_is_missing_is_sent_again(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(MATRIX)
    x = np.random.default_rng(0).normal(size=(200, 200))
    f(x)
    wire_server.graphs.clear()
    f(x)
    assert (wire_server.calls.count("RegisterGraph"), wire_server.calls.count("PutTensor")) == (2, 1)
    wire_server.tensors.clear()
    f(x)
    assert (wire_server.calls.count("RegisterGraph"), wire_server.calls.count("PutTensor")) == (2, 2)


def test_a_server_that_never_finds_what_it_was_sent_does_not_loop(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.error = status(5, "gone")
    with pytest.raises(gw.NotFoundError, match="gone"):
        client.function(SQUARE)(X)
    assert wire_server.calls.count("Evaluate") == 2


@pytest.mark.parametrize("call", ["value", "jacobian", "plan", "stream"])
def test_calls_are_tried_again_while_the_server_is_away(
    client: gw.Client, wire_server: WireServer, call: str
) -> None:
    f = client.function(SQUARE)
    f(X)
    wire_server.faults.unavailable = 2
    if call == "stream":
        with f.stream() as s:
            np.testing.assert_array_equal(s.value(X).result(10), X**2)
    else:
        getattr(f, call)(X)
    assert wire_server.faults.unavailable == 0


def test_registration_is_tried_again_too(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.unavailable = 3
    np.testing.assert_array_equal(client.function(SQUARE)(X), X**2)


def test_attempts_are_bounded(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.unavailable = 99
    with pytest.raises(gw.UnavailableError, match="starting") as caught:
        client.function(SQUARE)(X)
    assert isinstance(caught.value, ConnectionError)
    assert len(wire_server.calls) == 4


def test_a_server_that_is_not_there_is_named() -> None:
    with (
        gw.connect("127.0.0.1:1", retry=gw.Retry(attempts=1)) as client,
        pytest.raises(gw.UnavailableError, match=r"cannot reach the server at 127\.0\.0\.1:1"),
    ):
        client.function(SQUARE)(X)


def test_a_broken_stream_is_resumed_without_computing_anything_twice(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.block_width = 1
    wire_server.faults.chunk_bytes = 13
    wire_server.faults.break_after = [3, 0, 4]
    J, info = client.function(SQUARE).jacobian(X, return_info=True)
    np.testing.assert_array_equal(J, np.diag(2 * X))
    assert info.resumed == 3
    requests = [r for r in wire_server.requests if hasattr(r, "skip")]
    assert [list(r.skip) for r in requests] == [[], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4, 5, 6]]
    assert [r.resume_id.partition(" ")[0] for r in requests] == ["", "plan-1", "plan-1", "plan-1"]
    assert len({r.resume_id for r in requests[1:]}) == 1


def test_blocks_are_not_given_twice_after_a_break(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.break_after = [2]
    indices = [block.index for block in client.function(SQUARE).jacobian_blocks(X)]
    assert indices == [0, 1, 2, 3]


def test_attempts_count_anew_whenever_blocks_have_arrived(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.block_width = 1
    wire_server.faults.break_after = [1] * 8  # twice the attempts that one call has
    np.testing.assert_array_equal(client.function(SQUARE).jacobian(X), np.diag(2 * X))


def test_without_progress_a_breaking_stream_is_given_up(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.chunk_bytes, wire_server.faults.break_after = 16, [0] * 20
    with pytest.raises(gw.UnavailableError, match="draining"):
        client.function(SQUARE).jacobian(X)
    assert wire_server.calls.count("Differentiate") == 4


def test_progress_never_counts_the_lost_part_of_a_block_twice(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.chunk_bytes, wire_server.faults.break_after = 16, [2]
    reports: list[gw.Progress] = []
    client.function(SQUARE).jacobian(X, progress=reports.append)
    assert max(r.bytes_done for r in reports) == reports[-1].bytes_done == 800


def test_a_server_that_plans_differently_is_asked_for_everything_again(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.break_after = [2]

    def upgrade(progress: gw.Progress) -> None:
        if progress.blocks_done == 2:
            wire_server.faults.plan_id, wire_server.faults.block_width = "plan-2", 4

    J, info = client.function(SQUARE).jacobian(X, progress=upgrade, return_info=True)
    np.testing.assert_array_equal(J, np.diag(2 * X))
    assert (info.plan.plan_id, info.plan.blocks) == ("plan-2", 3)


def test_blocks_that_cannot_be_resumed_say_so(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.break_after = [2]
    blocks = client.function(SQUARE).jacobian_blocks(X)
    next(blocks)
    wire_server.faults.plan_id = "plan-2"
    with pytest.raises(gw.PreconditionError, match="planned differently"):
        list(blocks)


@pytest.mark.parametrize("call", ["value", "jacobian"])
def test_a_timeout_ends_the_call_and_the_work(client: gw.Client, wire_server: WireServer, call: str) -> None:
    f = client.function(SQUARE)
    f(X)
    wire_server.faults.delay = 0.4
    started = time.monotonic()
    with pytest.raises(gw.DeadlineError, match=r"timeout of 0\.2 s") as caught:
        getattr(f, call)(X, timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - started < 2.0
    wire_server.faults.delay = 0.0
    np.testing.assert_array_equal(f(X), X**2)


def test_a_timeout_bounds_all_attempts_together(wire_server: WireServer) -> None:
    wire_server.faults.unavailable = 10**6
    retry = gw.Retry(attempts=1000, first_wait=0.05, longest_wait=0.05)
    with gw.connect(wire_server.address, retry=retry) as client:
        started = time.monotonic()
        with pytest.raises((gw.UnavailableError, gw.DeadlineError)):
            client.function(SQUARE).value(X, timeout=0.5)
        assert time.monotonic() - started < 2.0


def test_calls_are_tried_again_for_30_seconds_by_default() -> None:
    retry = gw.Retry()
    assert (retry.seconds, retry.attempts) == (30.0, None)
    with pytest.raises(ValueError, match="negative"):
        gw.Retry(seconds=-1)


def test_a_server_that_stays_away_is_given_up_after_the_time_for_it(wire_server: WireServer) -> None:
    wire_server.faults.unavailable = 10**6
    with gw.connect(wire_server.address, retry=gw.Retry(seconds=0.5, longest_wait=0.1)) as client:
        started = time.monotonic()
        with pytest.raises(gw.UnavailableError, match="starting"):
            client.function(SQUARE)(X)
        assert 0.45 < time.monotonic() - started < 2.0
    assert len(wire_server.calls) > 6


def test_the_time_counts_anew_whenever_a_block_has_arrived(wire_server: WireServer) -> None:
    wire_server.faults.block_width, wire_server.faults.delay = 1, 0.1
    wire_server.faults.break_after = [1] * 10
    with gw.connect(wire_server.address, retry=gw.Retry(seconds=0.6, longest_wait=0.01)) as client:
        started = time.monotonic()
        np.testing.assert_array_equal(client.function(SQUARE).jacobian(X), np.diag(2 * X))
        assert time.monotonic() - started > 0.9


def test_progress_says_that_the_server_is_away(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.break_after = [2]
    reports: list[gw.Progress] = []
    client.function(SQUARE).jacobian(X, progress=reports.append)
    notes = [(r.note, r.phase) for r in reports if r.note]
    assert notes == [("server unavailable, retrying", "computing")]
    assert reports[-1].note == ""


def again(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return info


@pytest.mark.parametrize("code", [8, 14])
@pytest.mark.parametrize("call", ["value", "jacobian", "plan", "register"])
def test_a_call_comes_again_when_the_server_says_so(
    client: gw.Client, wire_server: WireServer, code: int, call: str
) -> None:
    f = client.function(SQUARE)
    if call != "register":
        f(X)
    wire_server.faults.refuse = [status(code, "busy", again(0.3))]
    started = time.monotonic()
    getattr(f, "value" if call == "register" else call)(X)
    assert 0.3 <= time.monotonic() - started < 2.0


def test_a_limit_is_not_tried_again_without_such_advice_or_beyond_the_deadline(
    client: gw.Client, wire_server: WireServer
) -> None:
    f = client.function(SQUARE)
    f(X)
    for refusal, timeout in ((status(8, "too large"), None), (status(8, "busy", again(9.0)), 2.0)):
        wire_server.calls.clear()
        wire_server.faults.refuse = [refusal]
        started = time.monotonic()
        with pytest.raises(gw.LimitError) as caught:
            f.value(X, timeout=timeout)
        assert time.monotonic() - started < 1.0
        assert wire_server.calls == ["Evaluate"]
    assert caught.value.retry_after == 9.0


def test_a_timeout_is_positive(client: gw.Client) -> None:
    with pytest.raises(ValueError, match="positive"):
        client.function(SQUARE).value(X, timeout=0)


def test_ctrl_c_cancels_the_call_and_leaves_the_client_usable(
    client: gw.Client, wire_server: WireServer
) -> None:
    f = client.function(SQUARE)
    f(X)
    wire_server.faults.block_width, wire_server.faults.delay = 1, 0.5
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        f.jacobian(X)
    assert time.monotonic() - started < 2.0
    assert wire_server.cancelled.wait(5)
    wire_server.faults.delay = 0.0
    np.testing.assert_array_equal(f.jacobian(X), np.diag(2 * X))


def test_several_threads_share_a_client(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(SQUARE)
    wrong: list[object] = []

    def work(k: int) -> None:
        for _ in range(20):
            y = f(X + k)
            if not np.array_equal(y, (X + k) ** 2):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert wire_server.calls.count("RegisterGraph") == 1


ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT: (gw.InvalidArgumentError, ValueError),
    grpc.StatusCode.FAILED_PRECONDITION: (gw.NotDifferentiableError, gw.PreconditionError),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (gw.LimitError, gw.ServerError),
    grpc.StatusCode.UNAUTHENTICATED: (gw.UnauthenticatedError, gw.ServerError),
    grpc.StatusCode.PERMISSION_DENIED: (gw.PermissionDeniedError, PermissionError),
    grpc.StatusCode.DEADLINE_EXCEEDED: (gw.DeadlineError, TimeoutError),
    grpc.StatusCode.CANCELLED: (gw.CancelledError, gw.ServerError),
    grpc.StatusCode.INTERNAL: (gw.InternalError, gw.ServerError),
    grpc.StatusCode.DATA_LOSS: (gw.ServerError, gw.GradwireError),
}


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
@pytest.mark.parametrize("call", ["value", "jacobian", "plan"])
def test_each_status_is_an_exception_with_the_servers_words(
    client: gw.Client, wire_server: WireServer, code: grpc.StatusCode, call: str
) -> None:
    f = client.function(SQUARE)
    f(X)
    info = error_details_pb2.ErrorInfo(
        reason="WHY", metadata={"limit": "graph_bytes", "allowed": "10", "requested": "11.5"}
    )
    wire_server.faults.error = status(code.value[0], "node 'n3' is at fault", info)
    kind, also = ERRORS[code]
    with pytest.raises(kind, match="node 'n3' is at fault") as caught:
        getattr(f, call)(X)
    error = caught.value
    assert isinstance(error, also) and error.code == code.name and error.reason == "WHY"
    assert str(error) == "node 'n3' is at fault"
    if isinstance(error, gw.LimitError):
        assert (error.limit, error.allowed, error.requested) == ("graph_bytes", 10.0, 11.5)
    wire_server.faults.error = None
    np.testing.assert_array_equal(f(X), X**2)


def test_fields_at_fault_are_in_the_message(client: gw.Client, wire_server: WireServer) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field='inputs["x"]', description="is 2 x 3")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    wire_server.faults.error = status(3, "does not fit", bad)
    with pytest.raises(gw.InvalidArgumentError) as caught:
        client.function(SQUARE)(X)
    assert str(caught.value) == 'does not fit (inputs["x"]: is 2 x 3)'


def test_what_the_server_warns_of_reaches_the_user_once(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.warnings = ["constant 'c' was rounded to float32"]
    f = client.function(SQUARE)
    with pytest.warns(gw.GraphWarning, match="rounded to float32") as seen:
        f(X)
        f(X)
    assert len(seen) == 1
    assert f.describe().warnings == ("constant 'c' was rounded to float32",)


def test_a_large_graph_that_the_server_has_is_not_sent(wire_server: WireServer) -> None:
    import onnx

    large = onnx.ModelProto()
    large.CopyFrom(SQUARE)
    large.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(50_000), "w"))
    for expected in (1, 1):
        with gw.connect(wire_server.address) as client:
            client.function(large)(X)
        assert wire_server.calls.count("RegisterGraph") == expected
    assert wire_server.calls.count("GetGraph") == 2
