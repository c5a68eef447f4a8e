"""Connects to a running server."""

import os
from collections.abc import Sequence
from typing import Any

from gradwire._face.client import connect as connect_async
from gradwire._face.options import ProgressOption
from gradwire._face.verification import Verify
from gradwire._sync.bridge import shared_bridge
from gradwire._sync.client import Client
from gradwire.transport.retry import Retry
from gradwire.transport.security import PathLike


def connect(
    address: str | Sequence[str] | None = None,
    *,
    token: str | None = None,
    tls: bool | None = None,
    ca: PathLike | None = None,
    cert: Sequence[PathLike] | None = None,
    retry: Retry | None = None,
    verify: Verify = "first",
) -> Client:
    """Return a client of the server at "host:port".

    It connects with the first call. Use it with `with`, or `close` it:

        with gw.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(f.jacobian(np.ones(3)))

    Args:
        address: "host:port"; several of them, of which the first that answers is used; or another target of
            gRPC, such as "dns:///name:port" or "unix:/path". By default that in the environment variable
            `GRADWIRE_ADDRESS`.
        token: that the server asks for; by default that in `GRADWIRE_TOKEN`. It travels encrypted, or within
            this machine, unless `tls=False` says that something else encrypts the connection.
        tls: whether the connection is encrypted; by default if `ca` or `cert` is given.
        ca: a PEM file of the root of the server's certificate; by default the system's roots.
        cert: PEM files of this client's certificate and its key, where the server asks for one.
        retry: how calls are retried.
        verify: when traced functions are compared with the functions they came from, where
            `Client.function` is not told otherwise: "first", "always" or "never".

    Raises:
        InvalidArgumentError: the address is none, a file cannot be read, or the token would travel in plain
            text over a network.
    """
    bridge = shared_bridge()
    made = bridge.call(
        lambda: connect_async(address, token=token, tls=tls, ca=ca, cert=cert, retry=retry, verify=verify)
    )
    return Client(made, bridge)


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
