"""Functions of graphs that the server holds, by their ids."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw

X = np.array([0.5, 2.0])
UNKNOWN = "0" * 64


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def known(client: gw.Client) -> gw.Function:
    f = client.function(lambda x, y: {"s": np.sin(x) * y, "n": np.sum(x)}, gw.spec("n"), gw.spec(()))
    f(X, 3.0)
    return f


@pytest.fixture(params=["function", "registered"])
def by_id(request: Any, client: gw.Client) -> Any:
    return getattr(client, request.param)


def test_a_function_by_its_id_is_the_function(by_id: Any, known: gw.Function) -> None:
    f = by_id(known.graph_id)
    assert str(f.signature) == str(known.signature) and f.graph_id == known.graph_id
    np.testing.assert_array_equal(f(X, 3.0)[0], known(X, 3.0)["s"])
    np.testing.assert_array_equal(f.jacobian(X, 3.0, of="s", wrt="x"), np.diag(3 * np.cos(X)))
    np.testing.assert_array_equal(f.grad(X, 3.0, of="n", wrt="x"), [1, 1])
    copy = pickle.loads(pickle.dumps(f))
    np.testing.assert_array_equal(copy(X, 3.0)[0], f(X, 3.0)[0])


def test_an_unknown_id_is_the_servers_error(by_id: Any) -> None:
    with pytest.raises(gw.NotFoundError, match=UNKNOWN):
        by_id(UNKNOWN)


def test_the_bytes_are_not_the_servers_to_give(client: gw.Client, known: gw.Function, tmp_path: Path) -> None:
    f = client.registered(known.graph_id)
    with pytest.raises(gw.TraceError, match="only the server holds the graph"):
        f.save(tmp_path / "f.onnx")


def test_a_graph_is_taken_as_it_is(client: gw.Client, known: gw.Function) -> None:
    for choice in ({"outputs": ["s"]}, {"rounding": "straight_through"}, {"names": ["a", "b"]}):
        with pytest.raises(gw.InvalidArgumentError, match="taken as it is"):
            client.function(known.graph_id, **choice)  # type: ignore[arg-type]
    with pytest.raises(gw.InvalidArgumentError, match="taken as it is"):
        client.function(known.graph_id, gw.spec(2))


def test_a_path_of_such_a_name_is_a_file(client: gw.Client, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=UNKNOWN):
        client.function(tmp_path / UNKNOWN)


def test_a_coroutine_asks_where_an_event_loop_runs(server: Any, known: gw.Function) -> None:
    async def ask() -> Any:
        async with gw.aio.connect(server.address) as client:
            with pytest.raises(gw.InvalidArgumentError, match=r"await client\.registered"):
                client.function(known.graph_id)
            f = await client.registered(known.graph_id)
            return await f(X, 3.0)

    np.testing.assert_array_equal(asyncio.run(ask())[0], np.sin(X) * 3)
