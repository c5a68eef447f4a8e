"""Value and derivative arrive from one trip, whole and once, whatever happens on the way."""

import numpy as np
import pytest

import gradwire as gw
from tests.client.wire_server import BILINEAR, ENERGY, MATRIX, MIX, SQUARE, WireServer, _mix_jacobian, status

X = np.arange(1.0, 11.0)
A, B = np.array([1.0, 2.0]), np.arange(6.0).reshape(2, 3)


def trips(server: WireServer) -> list[str]:
    """What was asked of the server, once it knew the graph."""
    return [call for call in server.calls if call != "RegisterGraph"]


def test_value_and_jacobian_are_one_trip(client: gw.Client, wire_server: WireServer) -> None:
    value, jacobian = client.function(SQUARE).value_and_jacobian(X)
    np.testing.assert_array_equal(value, X**2)
    np.testing.assert_array_equal(jacobian, np.diag(2 * X))
    assert trips(wire_server) == ["Differentiate"]


def test_value_and_hessian_are_one_trip(client: gw.Client, wire_server: WireServer) -> None:
    value, hessian = client.function(ENERGY).value_and_hessian(X)
    assert value.shape == () and value == (X**3).sum()
    np.testing.assert_array_equal(hessian, np.diag(6 * X))
    assert trips(wire_server) == ["Differentiate"]


def test_value_gradient_and_hessian_are_one_trip(client: gw.Client, wire_server: WireServer) -> None:
    value, gradient, hessian = client.function(ENERGY).value_grad_and_hessian(X)
    assert value == (X**3).sum()
    np.testing.assert_array_equal(gradient, 3 * X**2)
    np.testing.assert_array_equal(hessian, np.diag(6 * X))
    assert trips(wire_server) == ["Differentiate"]


def test_several_inputs_nest_as_they_do_apart(client: gw.Client) -> None:
    f = client.function(MIX)
    (p, q), jacobian = f.value_and_jacobian(A, B)
    np.testing.assert_array_equal(p, A * B.sum())
    np.testing.assert_array_equal(q, B**2)
    expected = _mix_jacobian({"a": A, "b": B})
    for row, y in enumerate("pq"):
        for column, x in enumerate("ab"):
            np.testing.assert_array_equal(jacobian[row][column], expected[y, x])
    (p, q), one = f.value_and_jacobian(A, B, of="q", wrt="b")
    np.testing.assert_array_equal(one, expected["q", "b"])
    np.testing.assert_array_equal(p, A * B.sum())
    e = client.function(BILINEAR)
    value, (ga, gb), ((aa, ab), (ba, _)) = e.value_grad_and_hessian(A, 2 * A)
    assert value == 10
    np.testing.assert_array_equal(ga, 2 * A)
    np.testing.assert_array_equal(gb, A)
    np.testing.assert_array_equal(ab, np.eye(2))
    np.testing.assert_array_equal(ba, np.eye(2))
    assert not aa.any()
    value, gradient, hessian = e.value_grad_and_hessian(A, A, wrt="b")
    np.testing.assert_array_equal(gradient, A)
    assert hessian.shape == (2, 2) and not hessian.any()


@pytest.mark.parametrize("chunk", [7, 13, 1 << 20])
@pytest.mark.parametrize("after", [0, 2, 99])
def test_values_come_between_any_blocks_and_in_any_pieces(
    client: gw.Client, wire_server: WireServer, chunk: int, after: int
) -> None:
    faults = wire_server.faults
    faults.chunk_bytes, faults.values_after, faults.shuffle = chunk, after, True
    x = np.arange(6.0).reshape(2, 3)
    value, jacobian = client.function(MATRIX).value_and_jacobian(x)
    np.testing.assert_array_equal(value, np.sin(x))
    np.testing.assert_array_equal(jacobian.reshape(6, 6), np.diag(np.cos(x).ravel()))


def test_values_that_arrived_are_not_asked_for_again_after_a_break(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.block_width, wire_server.faults.chunk_bytes = 1, 13
    wire_server.faults.break_after = [3, 4]
    value, jacobian = client.function(SQUARE).value_and_jacobian(X)
    np.testing.assert_array_equal(value, X**2)
    np.testing.assert_array_equal(jacobian, np.diag(2 * X))
    requests = [r for r in wire_server.requests if hasattr(r, "skip")]
    assert [(r.values, len(r.skip)) for r in requests] == [(True, 0), (False, 3), (False, 7)]


@pytest.mark.parametrize("after", [0, 2, 99])
def test_values_cut_off_by_a_break_come_whole_the_next_time(
    client: gw.Client, wire_server: WireServer, after: int
) -> None:
    faults = wire_server.faults
    faults.chunk_bytes, faults.values_after, faults.break_values = 24, after, [24, 0]
    value, jacobian = client.function(SQUARE).value_and_jacobian(X)
    np.testing.assert_array_equal(value, X**2)
    np.testing.assert_array_equal(jacobian, np.diag(2 * X))
    held = min(after, 4)
    requests = [r for r in wire_server.requests if hasattr(r, "skip")]
    assert [(r.values, len(r.skip)) for r in requests][:2] == [(True, 0), (True, held)]
    assert all(r.values for r in requests)


def test_a_new_plan_does_not_cost_the_values(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.break_after = [1]
    f = client.function(SQUARE)

    def change(progress: gw.Progress) -> None:
        wire_server.faults.plan_id = "plan-2" if progress.blocks_done else "plan-1"

    value, jacobian = f.value_and_jacobian(X, progress=change)
    np.testing.assert_array_equal(value, X**2)
    np.testing.assert_array_equal(jacobian, np.diag(2 * X))


def test_a_server_that_knows_of_no_values_is_named_as_the_cause(
    client: gw.Client, wire_server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_server, "_own_outputs", lambda *_: iter(()))
    with pytest.raises(gw.ServerError, match="no values; its version may not fit"):
        client.function(SQUARE).value_and_jacobian(X)


def test_values_sent_twice_or_out_of_order_are_refused(
    client: gw.Client, wire_server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire_server.faults.chunk_bytes = 24
    honest = wire_server._own_outputs
    f = client.function(SQUARE)
    monkeypatch.setattr(wire_server, "_own_outputs", lambda *a: iter([*honest(*a), *honest(*a)]))
    with pytest.raises(gw.ServerError, match="outputs twice"):
        f.value_and_jacobian(X)
    monkeypatch.setattr(wire_server, "_own_outputs", lambda *a: iter(list(honest(*a))[::2]))
    with pytest.raises(gw.ServerError, match="not what comes next"):
        f.value_and_jacobian(X)


def test_an_error_of_the_server_is_the_error_of_the_call(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(SQUARE)
    f(X)
    wire_server.faults.error = status(3, "no such thing")
    with pytest.raises(gw.InvalidArgumentError, match="no such thing"):
        f.value_and_jacobian(X)


async def test_the_asynchronous_interface_brings_values_too(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        value, jacobian = await client.function(SQUARE).value_and_jacobian(X)
        np.testing.assert_array_equal(value, X**2)
        np.testing.assert_array_equal(jacobian, np.diag(2 * X))
        value, hessian = await client.function(ENERGY).value_and_hessian(X)
        np.testing.assert_array_equal(hessian, np.diag(6 * X))
