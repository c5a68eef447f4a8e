"""Addresses of servers: "host:port", several of them, or another target that gRPC resolves.

"dns:///gradwire.example:50051" follows a name that stands for several servers; "unix:/run/gradwire" is a
socket of this machine.
"""

import os
import re
import socket
from collections.abc import Sequence
from difflib import get_close_matches
from urllib.parse import urlsplit

from gradwire.errors import InvalidArgumentError

VARIABLE = "GRADWIRE_ADDRESS"
"""The environment variable with the address of a client that is given none."""

_SCHEMES = {"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"}
_HOST = re.compile(r"[\w.-]+")
_BARE_IPV6 = re.compile(r"[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:/\s\[\]]+):(\d{1,5})")


def checked(address: str | Sequence[str] | None) -> str:
    """Return the address of a server, from the environment if it is None; several are joined by commas.

    Raises:
        InvalidArgumentError: there is none, or it is no address: it is a URL, say, or has no port.
    """
    if address is None:
        return _checked(_from_environment(), f" in {VARIABLE}")
    texts = [address] if isinstance(address, str) else address
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError(f'an address is a text, "host:port", or a list of them, not {address!r}')
    return _checked(",".join(texts), "")


def target(address: str) -> str:
    """Return what gRPC connects to: the first of several addresses that answers.

    The names of several addresses are looked up here, once: a name that changes is for "dns:///name:port".

    Raises:
        InvalidArgumentError: the name of one of several is unknown.
    """
    if "," not in address or address.partition(":")[0] in _SCHEMES:
        return address
    parts = [part.rpartition(":") for part in address.split(",")]
    found = [_looked_up(host.strip("[]"), port) for host, _, port in parts]
    for scheme in ("ipv4", "ipv6"):
        if all(scheme in addresses for addresses in found):
            return f"{scheme}:{','.join(addresses[scheme] for addresses in found)}"
    raise InvalidArgumentError(f"some of {address} are IPv4 and some IPv6: connect to those of one kind")


def _looked_up(host: str, port: str) -> dict[str, str]:
    try:
        answers = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidArgumentError(f"the name {host!r} is unknown: {error.strerror}") from None
    addresses: dict[str, str] = {}
    for family, _, _, _, place in answers:
        if family == socket.AF_INET:
            addresses.setdefault("ipv4", f"{place[0]}:{port}")
        elif family == socket.AF_INET6:
            addresses.setdefault("ipv6", f"[{place[0]}]:{port}")
    return addresses


def hosts_of(address: str) -> list[str]:
    """Return the hosts that an address names; a socket, or another target of gRPC, as it is."""
    scheme, _, rest = address.partition(":")
    if scheme in ("ipv4", "ipv6"):
        address = rest
    elif scheme in _SCHEMES:
        return [address]
    return [part.rpartition(":")[0].strip("[]") for part in address.split(",")]


def host_of(address: str) -> str:
    """Return the name in the first of several addresses: the servers' certificate has it."""
    return hosts_of(address)[0]


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
    if "," in address and address.partition(":")[0] not in _SCHEMES:
        return ",".join(_one(part.strip(), where) for part in address.split(","))
    return _one(address, where)


def _one(address: str, where: str) -> str:
    scheme, separator, rest = address.partition(":")
    if separator and scheme in _SCHEMES:
        return address
    what = f"{address!r}{where} is no address of a server: an address is host:port"
    if rest.startswith("//"):
        host = urlsplit(address).netloc.rpartition("@")[2]
        port = "" if _HOST_AND_PORT.fullmatch(host) else ":50051"
        encrypted = ", and pass tls=True" if scheme in ("https", "grpcs") else ""
        raise InvalidArgumentError(
            f"{what}, without {scheme}://, as in '{host or 'localhost'}{port}'{encrypted}"
        )
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        host = address.rstrip(":") if _HOST.fullmatch(address.rstrip(":")) else "localhost"
        if _BARE_IPV6.fullmatch(address):
            host = f"[{address}]"
        raise InvalidArgumentError(f"{what}, as in '{host}:50051'")
    if not 0 < int(match[2]) < 1 << 16:
        raise InvalidArgumentError(f"{what}, with a port of 1 to 65535")
    return address
