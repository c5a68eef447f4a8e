"""Deleting graphs and arrays, and those that nobody uses any more, on a server with a cache on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import gradwire as gw
from gradwire_server.access.tokens import TokenSet, new_token, write_tokens
from gradwire_server.compute.caches.disk import kept_files
from gradwire_server.process import embedded
from gradwire_wire.v1 import function_pb2, graph_pb2, tensor_pb2
from tests.server.calls import channel_with, evaluation, put, refusal, register, stub

SQUARE = "g (double[n] x) => (double[n] y) { y = Mul(x, x) }"
SECRET = "g (double[3] x) => (double[3] y) <double[3] w = {41, 42, 43}> { y = Mul(x, w) }"
UNUSED = 2.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("deleting")
    made = {name: new_token(name) for name in ("alice", "bob")}
    write_tokens(folder / "tokens.json", TokenSet(tuple(token for token, _ in made.values())))
    server = embedded.start(
        workers=1,
        cache_dir=folder / "cache",
        log_level="error",
        token_file=folder / "tokens.json",
        held_seconds=UNUSED,
    )
    try:
        yield server.address, folder / "cache", {name: text for name, (_, text) in made.items()}
    finally:
        server.stop()


@pytest.fixture
def alice(served: tuple[str, Path, dict[str, str]]) -> Iterator[grpc.Channel]:
    with channel_with(served[0], served[2]["alice"]) as channel:
        yield channel


@pytest.fixture
def bob(served: tuple[str, Path, dict[str, str]]) -> Iterator[grpc.Channel]:
    with channel_with(served[0], served[2]["bob"]) as channel:
        yield channel


def delete_graph(channel: grpc.Channel, graph_id: str) -> bool:
    return bool(stub(channel).DeleteGraph(graph_pb2.DeleteGraphRequest(graph_id=graph_id), timeout=30).held)


def delete_tensor(channel: grpc.Channel, tensor_id: str) -> bool:
    request = tensor_pb2.DeleteTensorRequest(tensor_id=tensor_id)
    return bool(stub(channel).DeleteTensor(request, timeout=30).held)


def by_id(graph_id: str, reference: tensor_pb2.TensorRef) -> function_pb2.EvaluateRequest:
    """An evaluation at an uploaded array."""
    request = evaluation(graph_id, {})
    x = tensor_pb2.Tensor(dtype=reference.dtype, shape=reference.shape, tensor_id=reference.tensor_id)
    request.inputs["x"].CopyFrom(x)
    return request


def code_of(channel: grpc.Channel, request: function_pb2.EvaluateRequest) -> str:
    """The name of the status of an evaluation."""
    try:
        stub(channel).Evaluate(request, timeout=60)
    except grpc.RpcError as error:
        return refusal(error).code.name
    return "OK"


def test_a_deleted_graph_is_unknown_even_where_its_kernel_was_tiny(alice: grpc.Channel) -> None:
    graph_id = register(alice, SQUARE).graph_id
    request = evaluation(graph_id, {"x": np.ones(3)})
    # The second goes without looking at the graph, the third shows that it still does.
    assert [code_of(alice, request) for _ in range(3)] == ["OK"] * 3
    assert delete_graph(alice, graph_id)
    assert code_of(alice, request) == "NOT_FOUND"
    assert not delete_graph(alice, graph_id)
    register(alice, SQUARE)
    assert code_of(alice, request) == "OK"


def test_a_deleted_array_is_unknown_even_where_it_was_placed(alice: grpc.Channel) -> None:
    graph_id, reference = register(alice, SQUARE).graph_id, put(alice, np.ones(3))
    request = by_id(graph_id, reference)
    assert [code_of(alice, request) for _ in range(3)] == ["OK"] * 3
    assert delete_tensor(alice, reference.tensor_id)
    assert code_of(alice, request) == "NOT_FOUND"
    assert not delete_tensor(alice, reference.tensor_id)


def test_nobody_deletes_what_another_tenant_holds(alice: grpc.Channel, bob: grpc.Channel) -> None:
    graph_id, reference = register(alice, SQUARE).graph_id, put(alice, np.ones(3))
    assert not delete_graph(bob, graph_id)
    assert not delete_tensor(bob, reference.tensor_id)
    assert code_of(alice, by_id(graph_id, reference)) == "OK"


def test_a_deleted_graph_leaves_no_copy_on_disk(
    alice: grpc.Channel, served: tuple[str, Path, dict[str, str]]
) -> None:
    weights = np.array([41.0, 42, 43]).tobytes()

    def copies() -> int:
        return sum(weights in file.path.read_bytes() for file in kept_files(served[1]))

    graph_id = register(alice, SECRET).graph_id
    deadline = time.monotonic() + 10
    while not copies() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert copies() == 1
    assert delete_graph(alice, graph_id)
    assert copies() == 0


def test_what_nobody_uses_expires_and_what_is_used_stays(alice: grpc.Channel) -> None:
    graph_id = register(alice, SQUARE).graph_id
    used, unused = put(alice, np.ones(3)), put(alice, np.ones(4))
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * UNUSED:
        assert code_of(alice, by_id(graph_id, used)) == "OK"
        time.sleep(UNUSED / 8)
    assert code_of(alice, by_id(graph_id, unused)) == "NOT_FOUND"
    time.sleep(2 * UNUSED)
    assert code_of(alice, evaluation(graph_id, {"x": np.ones(3)})) == "NOT_FOUND"


def test_the_sdk_forgets_a_function_with_its_constants_and_sends_them_again_when_they_are_used(
    served: tuple[str, Path, dict[str, str]],
) -> None:
    address, _, tokens = served
    large = np.linspace(0, 1, 1 << 18)
    with gw.connect(address, token=tokens["alice"]) as client:
        f = client.function(lambda x: x * np.sum(large * x[0]), gw.spec(3))
        assert len(f.constants) == 1
        before = f(np.ones(3))
        assert client.forget(f) and not client.forget(f)
        held = client.put(large)
        assert client.forget(held) and not client.forget(held)
        np.testing.assert_array_equal(f(np.ones(3)), before)
        with pytest.raises(gw.InvalidArgumentError, match="holds no ndarray"):
            client.forget(large)  # type: ignore[arg-type]
