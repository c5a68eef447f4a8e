"""Makes pickled functions again, in another process or this one."""

from collections.abc import Sequence
from typing import Any

from gradwire._sync.client import Client
from gradwire._sync.connecting import connect
from gradwire._sync.function import Function
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Transform
from gradwire.transport.retry import Retry
from gradwire.transport.security import Security

_Key = tuple[str, Retry, Security]
_clients: dict[_Key, Client] = {}
"""One for each server that functions came from; they connect with their first call, and stay open."""

_tokens: dict[tuple[str, Security], str] = {}
"""Of the servers that functions were copied from in this process: a pickle holds no token."""


def parts_of(function: Any) -> tuple[str, Retry, Model, tuple[Transform, ...], Security]:
    """Return what an `AsyncFunction` is made of, as values that can be pickled.

    The Python function that it was traced from is left behind: the graph is all that is needed. So is the
    token: another process has it in the variable `GRADWIRE_TOKEN`.
    """
    connection = function._connection
    stored = connection.security.without_token()
    if connection.security.token:
        _tokens[connection.address, stored] = connection.security.token
    return connection.address, connection.retry, function._model.alone(), function.transforms, stored


def remade(
    address: str,
    retry: Retry,
    model: Model,
    transforms: Sequence[Transform],
    security: Security = Security(),  # noqa: B008  (frozen)
) -> Function:
    """Return the function on the same server; nothing is sent before it is used."""
    key = address, retry, security
    if key not in _clients:
        _clients[key] = connect(
            address,
            token=_tokens.get((address, security)),
            tls=security.tls,
            ca=security.ca or None,
            cert=security.cert,
            retry=retry,
        )
    client = _clients[key]
    return Function(client._client.of(model, transforms), client._bridge)
