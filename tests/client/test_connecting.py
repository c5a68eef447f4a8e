"""How a client finds its server, and what it says of itself."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from tests.client.wire_server import BILINEAR, SQUARE, WireServer


@pytest.mark.parametrize("connect", [gw.connect, gw.aio.connect])
@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("http://gpu.example:50051/v1", "without http://, as in 'gpu.example:50051'"),
        ("https://gpu.example", "as in 'gpu.example:50051'"),
        ("grpc://[::1]:7", "as in '[::1]:7'"),
        ("localhost", "as in 'localhost:50051'"),
        ("localhost:", "as in 'localhost:50051'"),
        ("::1", "as in '[::1]:50051'"),
        ("", "as in 'localhost:50051'"),
        ("host:port", "host:port"),
        ("host:99999", "1 to 65535"),
        ("host:0", "1 to 65535"),
        ("host:50051 ", "host:port"),
        (50051, '"host:port"'),
        (("localhost", 50051), '"host:port"'),
    ],
)
def test_what_is_no_address_is_refused_with_one(connect: Any, address: Any, instead: str) -> None:
    with pytest.raises(gw.InvalidArgumentError) as caught:
        connect(address)
    assert instead in str(caught.value) and "address" in str(caught.value)


@pytest.mark.parametrize("address", ["a:1", "10.0.0.1:50051", "[::1]:50051", "unix:/tmp/s", "dns:///a.b:1"])
def test_an_address_that_grpc_resolves_is_taken(address: str) -> None:
    with gw.connect(address) as client:
        assert client.address == address


def test_without_an_address_it_is_that_of_the_environment(
    wire_server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADWIRE_ADDRESS", wire_server.address)
    with gw.connect() as client:
        np.testing.assert_array_equal(client.function(SQUARE)([3.0]), [9.0])


def test_an_environment_without_an_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADWIRE_ADDRESS", raising=False)
    with pytest.raises(gw.InvalidArgumentError, match="or set GRADWIRE_ADDRESS; "):
        gw.connect()
    monkeypatch.setenv("GRADWIRE_ADRESS", "host:1")
    with pytest.raises(gw.InvalidArgumentError, match="GRADWIRE_ADRESS is set, which nothing reads"):
        gw.connect()
    for wrong in ("", "http://host:1"):
        monkeypatch.setenv("GRADWIRE_ADDRESS", wrong)
        with pytest.raises(gw.InvalidArgumentError, match="GRADWIRE_ADDRESS"):
            gw.connect()


def test_a_client_shows_its_address(client: gw.Client) -> None:
    assert repr(client) == f"<Client of {client.address}>"
    assert repr(client._client) == f"<AsyncClient of {client.address}>"


def test_what_holds_a_connection_says_what_to_do_instead_of_pickling_it(client: gw.Client) -> None:
    f, two = client.function(SQUARE), client.function(BILINEAR)
    things = [client, client._client, f.asynchronous, two.callbacks(0), two.accumulator([1.0])]
    for thing in things:
        for keep in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                keep(thing)
            assert f"gw.connect('{client.address}')" in str(caught.value), thing


@pytest.mark.parametrize("name", ["torch", "jax", "sklearn"])
def test_a_framework_that_was_not_imported_says_how(name: str) -> None:
    code = f"import gradwire as gw\nassert not hasattr(gw, {name!r})\ngw.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"AttributeError: gradwire.{name} is imported by itself: import gradwire.{name}" in done.stderr
