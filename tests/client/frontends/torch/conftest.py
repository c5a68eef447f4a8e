"""A client of the shared server, which `gradwire.torch` uses without being told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import gradwire as gw
import gradwire.torch

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def torch_client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as client, gradwire.torch.use(client):
        yield client


@pytest.fixture
def client(torch_client: gw.Client) -> gw.Client:
    return torch_client
