"""A NumPy server for each test, which answers by the names of functions, and clients of it."""

from collections.abc import Iterator

import pytest

import gradwire as gw
from tests.client.accumulate_server import FIT, AccumulateServer
from tests.client.wire_server import WireServer

QUICK = gw.Retry(attempts=4, first_wait=0.01, longest_wait=0.02)


@pytest.fixture
def wire_server() -> Iterator[WireServer]:
    server = WireServer()
    yield server
    server.stop()


@pytest.fixture
def client(wire_server: WireServer) -> Iterator[gw.Client]:
    with gw.connect(wire_server.address, retry=QUICK, verify="never") as connected:
        yield connected


@pytest.fixture
def fit_server() -> Iterator[AccumulateServer]:
    server = AccumulateServer()
    yield server
    server.stop()


@pytest.fixture
def fit_client(fit_server: AccumulateServer) -> Iterator[gw.Client]:
    with gw.connect(fit_server.address, retry=QUICK, verify="never") as connected:
        yield connected


@pytest.fixture
def loss(fit_client: gw.Client) -> gw.Function:
    return fit_client.function(FIT)
