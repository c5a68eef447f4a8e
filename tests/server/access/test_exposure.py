"""What may be open to which network."""

from __future__ import annotations

import pytest

from gradwire_server.access.exposure import refusal, warning
from gradwire_wire.hosts import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "unix:/run/x"])
def test_these_hosts_are_reached_from_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    assert refusal(host, tls=False, tokens=True, plain_text_tokens=False) is None
    assert warning(host, tokens=False, client_certificates=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.0.0.1", "gradwire.example", "128.0.0.1"])
def test_these_hosts_are_open_to_a_network(host: str) -> None:
    assert not is_loopback(host)
    said = refusal(host, tls=False, tokens=True, plain_text_tokens=False)
    assert said is not None and host in said
    assert refusal(host, tls=True, tokens=True, plain_text_tokens=False) is None
    assert refusal(host, tls=False, tokens=True, plain_text_tokens=True) is None
    assert refusal(host, tls=False, tokens=False, plain_text_tokens=False) is None
    shouted = warning(host, tokens=False, client_certificates=False)
    assert shouted is not None and shouted.startswith("ANYONE")
    assert warning(host, tokens=True, client_certificates=False) is None
    assert warning(host, tokens=False, client_certificates=True) is None
