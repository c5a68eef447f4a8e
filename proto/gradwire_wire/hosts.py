"""Which hosts are this machine, for both sides: what is secret does not leave it unencrypted."""

from __future__ import annotations

import ipaddress

_SOCKETS = ("unix:", "unix-abstract:")


def is_loopback(host: str) -> bool:
    """Tell whether a host, or a socket of this machine, is reached from this machine alone."""
    if host.startswith(_SOCKETS) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False
