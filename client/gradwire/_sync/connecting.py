"""Connects to a running server."""

import os
from typing import Any

from gradwire._face.client import connect as connect_async
from gradwire._face.options import ProgressOption
from gradwire._face.verification import Verify
from gradwire._sync.bridge import shared_bridge
from gradwire._sync.client import Client
from gradwire.transport.retry import Retry


def connect(address: str | None = None, *, retry: Retry | None = None, verify: Verify = "first") -> Client:
    """Return a client of the server at "host:port".

    `verify` says when traced functions are compared with the functions they came from, where
    `Client.function` is not told otherwise.

    Without an address it is the one in the environment variable `GRADWIRE_ADDRESS`. It connects with the
    first call. Use it with `with`, or `close` it:

        with gw.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(f.jacobian(np.ones(3)))
    """
    bridge = shared_bridge()
    return Client(bridge.call(lambda: connect_async(address, retry=retry, verify=verify)), bridge)


def resume(
    path: str | os.PathLike[str],
    client: Client,
    *,
    progress: ProgressOption = False,
    timeout: float | None = None,
) -> Any:
    """Finish a derivative that was going to a file when its process ended: `client.resume(path)`.

    For example, after the end of a process that called `f.jacobian(x, out="J.npy")`:

        with gw.connect("localhost:50051") as client:
            J = gw.resume("J.npy", client)
    """
    return client.resume(path, progress=progress, timeout=timeout)
