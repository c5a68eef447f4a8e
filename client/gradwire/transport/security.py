"""How a connection is protected: the token that calls show, and transport security."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from gradwire.errors import InvalidArgumentError
from gradwire.transport.address import hosts_of
from gradwire_wire.hosts import is_loopback

TOKEN_VARIABLE = "GRADWIRE_TOKEN"  # noqa: S105  (its name)
"""The environment variable with the token of a client that is given none."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Security:
    """How a connection is protected.

    Attributes:
        token: that calls show; "" for none. It is not shown in `repr`, and does not go into pickles.
        tls: whether the connection is encrypted.
        ca: a PEM file of the roots that the server's certificate leads to; "" for the system's.
        cert: PEM files of this client's own certificate and key, where the server asks for one.
    """

    token: str = ""
    tls: bool = False
    ca: str = ""
    cert: tuple[str, str] | None = None

    def __repr__(self) -> str:
        shown = "a token" if self.token else "no token"
        return f"<{'TLS' if self.tls else 'plain text'}, {shown}>"

    def without_token(self) -> "Security":
        """Return what may be stored."""
        return replace(self, token="")

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """Return the metadata of each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the certificates; None for plain text.

        Raises:
            InvalidArgumentError: a file cannot be read.
        """
        if not self.tls:
            return None
        certificate, key = (_read(path) for path in self.cert) if self.cert else (None, None)
        return grpc.ssl_channel_credentials(_read(self.ca) if self.ca else None, key, certificate)


def security(
    address: str,
    token: str | None = None,
    tls: bool | None = None,
    ca: PathLike | None = None,
    cert: Sequence[PathLike] | None = None,
) -> Security:
    """Make the protection of a connection from the arguments of `gw.connect`.

    Args:
        address: of the server.
        token: that calls show; from the environment variable `GRADWIRE_TOKEN` if it is None.
        tls: whether the connection is encrypted; None for: if `ca` or `cert` is given.
        ca: a PEM file of roots.
        cert: PEM files of a certificate and its key.

    Raises:
        InvalidArgumentError: they do not fit together, or a token would travel in plain text over a network.
    """
    given = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    if not isinstance(given, str) or not given.isascii() or any(c.isspace() for c in given):
        raise InvalidArgumentError("a token is a text such as gradwire token new prints, without spaces")
    pair: tuple[str, str] | None = None
    if cert is not None:
        if isinstance(cert, str | os.PathLike) or len(cert) != 2:
            raise InvalidArgumentError("cert is two paths: of the certificate and of its key, in PEM")
        pair = os.fspath(cert[0]), os.fspath(cert[1])
    if tls is False and (ca is not None or pair is not None):
        raise InvalidArgumentError("ca and cert are for an encrypted connection: leave out tls=False")
    encrypted = (ca is not None or pair is not None) if tls is None else bool(tls)
    if given and not encrypted and tls is None and not all(map(is_loopback, hosts_of(address))):
        raise InvalidArgumentError(
            f"the token would travel to {address} in plain text: pass tls=True (or ca=, the file of the "
            "server's root certificate), or tls=False where something else encrypts the connection"
        )
    return Security(given, encrypted, "" if ca is None else os.fspath(ca), pair)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from None
