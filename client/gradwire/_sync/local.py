"""A server of one's own, for as long as it is needed."""

import atexit
from typing import Any, Protocol

from gradwire._sync.client import Client, connect
from gradwire.errors import GradwireError
from gradwire.transport.retry import Retry


class _Server(Protocol):
    address: str

    def stop(self) -> None: ...


class LocalClient(Client):
    """A client and the server that it has to itself; closing it stops the server."""

    def __init__(self, client: Client, server: _Server) -> None:
        super().__init__(client._client, client._bridge)
        self._server: _Server | None = server
        atexit.register(self.close)

    def close(self) -> None:
        """Give the connection up and stop the server; once."""
        server, self._server = self._server, None
        if server is None:
            return
        atexit.unregister(self.close)
        try:
            super().close()
        finally:
            server.stop()

    def __enter__(self) -> "LocalClient":
        return self


def local(workers: int = 2, *, retry: Retry | None = None, **settings: Any) -> LocalClient:
    """Start a server with a local Ray of so many workers, and connect to it.

    `settings` are the server's own, such as `block_memory_bytes=64 << 20`. Use it with `with`, or `close` it;
    the server also stops when the process ends. Needs the extra: pip install "gradwire[server]".

        with gw.local(workers=2) as client:
            H = client.hessian(lambda x: np.sum(np.sqrt(x)), np.ones((2, 2)))
    """
    try:
        from gradwire_server.process import embedded
    except ImportError as error:
        raise GradwireError(
            f"gw.local needs the server ({error}): pip install 'gradwire[server]', "
            "or connect to a running one with gw.connect('host:port')"
        ) from error
    server = embedded.start(workers=workers, **settings)
    try:
        return LocalClient(connect(server.address, retry=retry), server)
    except BaseException:
        server.stop()
        raise
