"""Makes pickled functions again, in another process or this one."""

from collections.abc import Sequence
from typing import Any

from gradwire._sync.client import Client
from gradwire._sync.connecting import connect
from gradwire._sync.function import Function
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Transform
from gradwire.transport.retry import Retry

_clients: dict[tuple[str, Retry], Client] = {}
"""One for each server that functions came from; they connect with their first call, and stay open."""


def parts_of(function: Any) -> tuple[str, Retry, Model, tuple[Transform, ...]]:
    """Return what an `AsyncFunction` is made of, as values that can be pickled.

    The Python function that it was traced from is left behind: the graph is all that is needed.
    """
    connection = function._connection
    return connection.address, connection.retry, function._model.alone(), function.transforms


def remade(address: str, retry: Retry, model: Model, transforms: Sequence[Transform]) -> Function:
    """Return the function on the same server; nothing is sent before it is used."""
    if (address, retry) not in _clients:
        _clients[address, retry] = connect(address, retry=retry)
    client = _clients[address, retry]
    return Function(client._client.of(model, transforms), client._bridge)
