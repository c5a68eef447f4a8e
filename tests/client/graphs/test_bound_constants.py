"""Large arrays that a function closes over: what goes over the wire, how often, and what is computed."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.rpc import error_details_pb2

import gradwire as gw
from gradwire.graphs.constants import REFERENCED_BYTES
from tests.client import wire_server as fake
from tests.client.wire_server import WireServer, abort, status

RNG = np.random.default_rng(0)
A = RNG.normal(size=(16, 8192))
X, V, W = RNG.normal(size=8192), RNG.normal(size=8192), RNG.normal(size=16)
Q = RNG.normal(size=(363, 363))
Z = RNG.normal(size=363)


def affine_over(matrix: Any) -> Any:
    def affine(x: Any) -> Any:
        return matrix @ x

    return affine


def quadratic(x: Any) -> Any:
    return x @ (Q @ x)


def puts(server: WireServer) -> int:
    return server.calls.count("PutTensor")


def test_a_large_array_travels_once_and_never_in_the_graph(
    client: gw.Client, wire_server: WireServer
) -> None:
    assert A.nbytes == REFERENCED_BYTES
    f = client.function(affine_over(A), X)
    for scale in range(10):
        np.testing.assert_allclose(f(scale * X), scale * (A @ X))
    (graph,) = wire_server.graphs.values()
    assert graph.ByteSize() < 1000
    assert puts(wire_server) == 1
    (sent,) = wire_server.tensors.values()
    np.testing.assert_array_equal(sent, A)


def test_a_smaller_array_stays_in_the_graph(client: gw.Client, wire_server: WireServer) -> None:
    small = A[:, :-1].copy()
    f = client.function(affine_over(small), gw.spec(8191))
    assert not f.constants
    f.describe()
    (graph,) = wire_server.graphs.values()
    assert graph.ByteSize() > small.nbytes


def test_functions_and_clients_that_share_an_array_send_it_once(
    client: gw.Client, wire_server: WireServer
) -> None:
    client.function(affine_over(A), X)(X)
    client.function(affine_over(A.copy()), X)(X)
    client.function(lambda x: -(A @ x), X).describe()
    with gw.connect(wire_server.address) as other:
        other.function(affine_over(A), X)(X)
    assert puts(wire_server) == 1


async def test_calls_that_begin_together_send_it_once(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        f = client.function(affine_over(A), X)
        values = await asyncio.gather(*(f(scale * X) for scale in range(10)))
    for scale, value in enumerate(values):
        np.testing.assert_allclose(value, scale * (A @ X))
    assert puts(wire_server) == 1


def test_another_array_is_another_upload_for_the_same_graph(
    client: gw.Client, wire_server: WireServer
) -> None:
    f, g = client.function(affine_over(A), X), client.function(affine_over(2 * A), X)
    np.testing.assert_allclose(f(X), A @ X)
    np.testing.assert_allclose(g(X), 2 * (A @ X))
    np.testing.assert_allclose(f(X), A @ X)
    assert f.graph_id == g.graph_id
    assert (len(wire_server.graphs), wire_server.calls.count("RegisterGraph"), puts(wire_server)) == (1, 1, 2)


def test_what_was_traced_is_what_is_sent_whatever_becomes_of_the_array(client: gw.Client) -> None:
    matrix = A.copy()
    f = client.function(affine_over(matrix), X)
    matrix[:] = 0
    np.testing.assert_allclose(f(X), A @ X)
    held = f.constants["constant.0"]
    np.testing.assert_array_equal(held, A)
    assert not held.flags.writeable


def test_a_one_liner_takes_the_array_as_it_is_in_each_call(client: gw.Client) -> None:
    matrix = A.copy()
    fn = affine_over(matrix)
    np.testing.assert_allclose(client.jvp(fn, X, V), A @ V)
    matrix *= 3
    np.testing.assert_allclose(client.jvp(fn, X, V), 3 * (A @ V))


def test_every_derivative_is_of_the_arguments_alone(client: gw.Client, wire_server: WireServer) -> None:
    f, e = client.function(affine_over(A), X), client.function(quadratic, Z)
    wire_server.faults.block_width = 1024
    symmetric = Q + Q.T
    np.testing.assert_allclose(f.jvp(X, V), A @ V)
    np.testing.assert_allclose(f.vjp(X, W), W @ A)
    np.testing.assert_allclose(f.jacobian(X), A)
    np.testing.assert_allclose(e.grad(Z), symmetric @ Z)
    np.testing.assert_allclose(e.hvp(Z, Z), symmetric @ Z)
    np.testing.assert_allclose(e.hessian(Z), symmetric)
    np.testing.assert_allclose(e.gradient().jacobian(Z), symmetric)
    value, gradient = e.value_and_grad(Z)
    np.testing.assert_allclose(value, Z @ Q @ Z)
    np.testing.assert_allclose(gradient, symmetric @ Z)
    rows = np.concatenate([piece.data for block in f.jacobian_blocks(X) for piece in block.pieces], axis=1)
    assert rows.shape == A.shape
    assert f.plan().entries[0].column == "x"
    with f.stream() as s:
        np.testing.assert_allclose(s.vjp(X, W).result(10), W @ A)
    assert [list(names) for names in named(wire_server)] == [["x"]] * len(named(wire_server))


def named(server: WireServer) -> list[Any]:
    """The `wrt` of every request and transform: empty would mean the constants as well."""
    found = []
    for request in server.requests:
        message = getattr(request, "evaluate", request)
        for step in message.function.transforms if hasattr(message, "function") else ():
            found.append(getattr(step, step.WhichOneof("kind")).wrt)
        if hasattr(message, "wrt"):
            found.append(message.wrt)
    assert found
    return found


def test_users_do_not_see_the_input(client: gw.Client) -> None:
    f = client.function(affine_over(A), X)
    assert str(f.signature) == "(x: float64[8192]) -> (y: float64[16])"
    assert [value.name for value in f.as_vjp().signature.inputs] == ["x", "y.cotangent"]
    assert "over constant.0: float64[16, 8192]" in repr(f)


def test_a_function_made_by_a_transform_holds_the_array_too(client: gw.Client) -> None:
    f = client.function(affine_over(A), X)
    for derived in (f.as_jvp(), f.as_vjp(), client.function(quadratic, Z).gradient()):
        assert list(derived.constants) == ["constant.0"]


def test_users_can_neither_give_nor_choose_the_input(client: gw.Client) -> None:
    f = client.function(affine_over(A), X)
    for refused in (
        lambda: f(X, **{"constant.0": A}),
        lambda: f(X, A),
        lambda: f.jacobian(X, wrt="constant.0"),
        lambda: f(np.stack([X, X]), batched=["x", "constant.0"]),
    ):
        with pytest.raises(gw.InvalidArgumentError):
            refused()


def test_an_input_of_the_same_name_keeps_it(client: gw.Client) -> None:
    f = client.function(affine_over(A), X, names=["constant.0"])
    assert [value.name for value in f.signature.inputs] == ["constant.0"]
    assert list(f.constants) == ["constant.0_"]


def test_a_batch_shares_the_array(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(affine_over(A), X)
    batch = np.stack([X, V, X + V])
    np.testing.assert_allclose(f(batch, batched="x"), batch @ A.T)
    assert puts(wire_server) == 1


@pytest.mark.parametrize("call", ["value", "jacobian", "stream"])
def test_after_a_restart_graph_and_array_are_sent_again(
    client: gw.Client, wire_server: WireServer, call: str
) -> None:
    wire_server.faults.block_width = 1024
    f = client.function(affine_over(A), X)
    f(X)
    wire_server.forget()
    if call == "value":
        np.testing.assert_allclose(f(X), A @ X)
    elif call == "jacobian":
        np.testing.assert_allclose(f.jacobian(X), A)
    else:
        with f.stream() as s:
            np.testing.assert_allclose(s.value(X).result(10), A @ X)
    assert (wire_server.calls.count("RegisterGraph"), puts(wire_server)) == (2, 2)


def test_an_array_that_the_server_had_no_room_for_is_sent_again_alone(
    client: gw.Client, wire_server: WireServer
) -> None:
    f = client.function(affine_over(A), X)
    f(X)
    wire_server.tensors.clear()
    np.testing.assert_allclose(f.vjp(X, W), W @ A)
    assert (wire_server.calls.count("RegisterGraph"), puts(wire_server)) == (1, 2)


def test_a_jacobian_goes_on_over_a_restart(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(affine_over(A), X)
    wire_server.faults.block_width = 2048
    f(X)
    wire_server.faults.break_after = [2]
    blocks = []

    def forgets(block: gw.Block) -> None:
        blocks.append(block)
        wire_server.tensors.clear()

    f.jacobian(X, sink=forgets)
    assert sorted(block.index for block in blocks) == [0, 1, 2, 3]
    for block in blocks:
        for piece in block.pieces:
            np.testing.assert_array_equal(piece.data, A[piece.rows, piece.columns])
    assert puts(wire_server) == 2


class NoRoom(WireServer):
    """Takes no arrays."""

    def PutTensor(self, requests: Iterator[Any], context: Any) -> Any:
        metadata = {"limit": "tensor_bytes", "allowed": "1000", "requested": "1048576"}
        info = error_details_pb2.ErrorInfo(reason="LIMIT_EXCEEDED", metadata=metadata)
        abort(context, status(8, "the array has 1048576 bytes; the limit is 1000", info))


def test_a_limit_names_the_constant_that_is_over_it() -> None:
    server = NoRoom()
    try:
        with gw.connect(server.address) as client:
            f = client.function(affine_over(A), X)
            with pytest.raises(
                gw.LimitError, match=r"constant\.0.*float64\[16, 8192\].*closes over"
            ) as caught:
                f(X)
            assert caught.value.limit == "tensor_bytes"
            with pytest.raises(gw.LimitError, match=r"an input of float64\[400000\]: the array has"):
                client.function(fake.SQUARE)(np.ones(400_000))
    finally:
        server.stop()
