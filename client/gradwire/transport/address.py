"""Addresses of servers: "host:port", or another target that gRPC resolves, such as "unix:/run/gradwire"."""

import os
import re
from difflib import get_close_matches
from urllib.parse import urlsplit

from gradwire.errors import InvalidArgumentError

VARIABLE = "GRADWIRE_ADDRESS"
"""The environment variable with the address of a client that is given none."""

_SCHEMES = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
_HOST = re.compile(r"[\w.-]+")
_BARE_IPV6 = re.compile(r"[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:/\s\[\]]+):(\d{1,5})")


def checked(address: str | None) -> str:
    """Return the address of a server, from the environment if it is None.

    Raises:
        InvalidArgumentError: there is none, or it is no address: it is a URL, say, or has no port.
    """
    if address is None:
        return _checked(_from_environment(), f" in {VARIABLE}")
    if not isinstance(address, str):
        raise InvalidArgumentError(f'an address is a text, "host:port", not {address!r}')
    return _checked(address, "")


def _from_environment() -> str:
    address = os.environ.get(VARIABLE)
    if address is None:
        near = get_close_matches(VARIABLE, [name for name in os.environ if name.startswith("GRADWIRE_")], n=1)
        hint = "".join(f" ({one} is set, which nothing reads: is it meant?)" for one in near)
        raise InvalidArgumentError(
            f'which server? Pass its address, gw.connect("host:port"), or set {VARIABLE}{hint}; '
            "gw.local() starts a server on this machine"
        )
    if not address:
        raise InvalidArgumentError(f"{VARIABLE} is empty: set it to the server's host:port, or unset it")
    return address


def _checked(address: str, where: str) -> str:
    scheme, separator, rest = address.partition(":")
    if separator and scheme in _SCHEMES:
        return address
    what = f"{address!r}{where} is no address of a server: an address is host:port"
    if rest.startswith("//"):
        host = urlsplit(address).netloc.rpartition("@")[2]
        port = "" if _HOST_AND_PORT.fullmatch(host) else ":50051"
        raise InvalidArgumentError(f"{what}, without {scheme}://, as in '{host or 'localhost'}{port}'")
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        host = address.rstrip(":") if _HOST.fullmatch(address.rstrip(":")) else "localhost"
        if _BARE_IPV6.fullmatch(address):
            host = f"[{address}]"
        raise InvalidArgumentError(f"{what}, as in '{host}:50051'")
    if not 0 < int(match[2]) < 1 << 16:
        raise InvalidArgumentError(f"{what}, with a port of 1 to 65535")
    return address
