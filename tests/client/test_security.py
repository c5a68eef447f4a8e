"""How a client protects its connection: what it refuses to send in plain text, and several addresses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from tests.client.wire_server import SQUARE, WireServer

TOKEN = "gw_00000000_" + "A" * 43


@pytest.mark.parametrize("connect", [gw.connect, gw.aio.connect])
@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1:50051",
        "gradwire.example:50051",
        "dns:///gradwire.example:1",
        "127.gradwire.example:1",
        "localhost.example:1",
        "127.0.0.1:1,10.0.0.1:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
    ],
)
def test_a_token_does_not_travel_in_plain_text_over_a_network(connect: Any, address: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="in plain text: pass tls=True"):
        connect(address, token=TOKEN)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "localhost:1",
        "[::1]:1",
        "unix:/tmp/socket",
        "127.0.0.1:1,127.0.0.2:1",
        "ipv4:127.0.0.1:1",
    ],
)
def test_a_token_travels_within_this_machine(address: str) -> None:
    gw.connect(address, token=TOKEN).close()


def test_a_token_travels_where_the_user_says_that_something_else_encrypts() -> None:
    gw.connect("10.0.0.1:50051", token=TOKEN, tls=False).close()
    gw.connect("10.0.0.1:50051", token=TOKEN, tls=True).close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"token": "two words"}, "without spaces"),
        ({"token": "schlüssel"}, "a token is a text"),
        ({"token": 3}, "a token is a text"),
        ({"cert": "cert.pem"}, "two paths"),
        ({"cert": ("cert.pem",)}, "two paths"),
        ({"ca": "absent.pem"}, "absent.pem cannot be read"),
        ({"cert": ("absent.pem", "absent.key")}, "absent.pem cannot be read"),
        ({"ca": "ca.pem", "tls": False}, "leave out tls=False"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=said):
        gw.connect("127.0.0.1:1", **arguments)


def test_a_url_is_told_to_pass_tls() -> None:
    with pytest.raises(gw.InvalidArgumentError, match=r"'gpu\.example:50051', and pass tls=True"):
        gw.connect("https://gpu.example")


class TestSeveralAddresses:
    def free(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            return f"127.0.0.1:{taken.getsockname()[1]}"

    @pytest.mark.parametrize("form", ["list", "text", "environment"])
    def test_the_first_that_answers_is_used(
        self, wire_server: WireServer, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = wire_server.address.rpartition(":")[2]
        addresses = [self.free(), f"localhost:{port}"]
        monkeypatch.setenv("GRADWIRE_ADDRESS", ", ".join(addresses))
        given = {"list": addresses, "text": ",".join(addresses), "environment": None}[form]
        with gw.connect(given) as client:
            np.testing.assert_array_equal(client.function(SQUARE)([3.0]), [9.0])

    @pytest.mark.parametrize("wrong", [[], ["a:1", "b"], "a:1,", ["a:1", 2]])
    def test_each_is_checked(self, wrong: Any) -> None:
        with pytest.raises(gw.InvalidArgumentError, match="address"):
            gw.connect(wrong)

    def test_an_unknown_name_is_said(self) -> None:
        with pytest.raises(gw.InvalidArgumentError, match=r"nowhere\.invalid"):
            gw.connect(["127.0.0.1:1", "nowhere.invalid:1"])


def test_certificates_are_read_when_the_client_is_made(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    client = gw.connect("127.0.0.1:1", ca=path)
    path.unlink()
    client.close()
