"""Starts a server on this machine for one client, and stops it with the client."""

import atexit
from typing import Any, Protocol

from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire._sync.connecting import connect
from gradwire.errors import GradwireError, InvalidArgumentError
from gradwire.transport.retry import Retry


class _Server(Protocol):
    address: str

    def stop(self) -> None: ...


class LocalClient(Client):
    """A client with a server of its own; closing the client stops the server."""

    def __init__(self, client: Client, server: _Server) -> None:
        super().__init__(client._client, client._bridge)
        self._server: _Server | None = server
        atexit.register(self.close)

    def close(self) -> None:
        """Close the connection and stop the server; further calls do nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        atexit.unregister(self.close)
        try:
            super().close()
        finally:
            server.stop()


def local(
    workers: int = 2, *, retry: Retry | None = None, verify: Verify = "first", **settings: Any
) -> LocalClient:
    """Start a server with a local Ray, and connect to it through a socket that only this user reaches.

        with gw.local(workers=2) as client:
            H = client.hessian(lambda x: np.sum(np.sqrt(x)), np.ones((2, 2)))

    Use it with `with`, or `close` it; the server also stops when the process ends. Needs the extra:
    pip install "gradwire[server]".

    Args:
        workers: how many worker processes Ray starts.
        retry: how calls are retried.
        verify: when traced functions are compared with the functions they came from, where
            `Client.function` is not told otherwise: "first", "always" or "never".
        **settings: of the server, such as `block_memory_bytes=64 << 20`.

    Raises:
        GradwireError: the server is not installed.
        InvalidArgumentError: a setting is unknown or not valid.
    """
    try:
        from gradwire_server.process import embedded
    except ImportError as error:
        raise GradwireError(
            f"gw.local needs the server ({error}): pip install 'gradwire[server]', "
            "or connect to a running one with gw.connect('host:port')"
        ) from error
    try:
        server = embedded.start(workers=workers, **settings)
    except ValueError as error:  # about a setting
        raise InvalidArgumentError(str(error)) from None
    try:
        return LocalClient(connect(server.address, retry=retry, verify=verify), server)
    except BaseException:
        server.stop()
        raise
