"""A server's ports for metrics, probes and administrators, over real connections."""

from __future__ import annotations

import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest
import typer.testing
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gradwire as gw
from gradwire_server.access.tokens import ADMIN, COMPUTE, TokenSet, new_token, write_tokens
from gradwire_server.cli.app import app
from gradwire_server.process import embedded
from gradwire_wire.v1 import admin_pb2, admin_pb2_grpc
from tests.conftest import wait_until_serving
from tests.server.calls import ENDLESS


@dataclass(frozen=True)
class Watched:
    """A server with all its ports, that asks for tokens."""

    address: str
    http: str
    admin: str
    token: str
    admin_token: str


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    tokens = tmp_path_factory.mktemp("watched") / "tokens.json"
    (user, text), (admin, admin_text) = (
        new_token("alice", scopes=[COMPUTE]),
        new_token("root", scopes=[ADMIN]),
    )
    write_tokens(tokens, TokenSet((user, admin)))
    http, port = _free(), _free()
    server = embedded.start(
        workers=1, cache_dir=None, log_level="error", token_file=tokens, metrics_port=http, admin_port=port
    )
    try:
        wait_until_serving(server.address)
        yield Watched(server.address, f"http://127.0.0.1:{http}", f"127.0.0.1:{port}", text, admin_text)
    finally:
        server.stop()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _sample(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    found = 0.0
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name:
            own = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            if labels.items() <= own.items():
                found += float(match[3])
    return found


def test_metrics_count_what_a_client_did(watched: Watched) -> None:
    before = _get(f"{watched.http}/metrics")
    with gw.connect(watched.address, token=watched.token) as client:
        f = client.function(lambda x: np.sin(x), gw.spec(300))
        f.jacobian(np.ones(300), block_width=100)
        with pytest.raises(gw.InvalidArgumentError):
            client.function("ir_version: 8", gw.spec(3))
    with (
        gw.connect(watched.address, token="gw_00000000_" + "A" * 43) as client,
        pytest.raises(gw.UnauthenticatedError),
    ):
        client.function("0" * 64)
    after = _get(f"{watched.http}/metrics")

    def grown(name: str, **labels: str) -> float:
        return _sample(after, name, **labels) - _sample(before, name, **labels)

    assert grown("gradwire_calls_total", call="Differentiate", code="OK", tenant="alice") == 1
    assert grown("gradwire_calls_total", call="GetGraph", code="UNAUTHENTICATED", tenant="") == 1
    assert grown("gradwire_blocks_total") == 3
    assert grown("gradwire_sent_bytes_total", call="Differentiate", tenant="alice") >= 300 * 300 * 8
    assert grown("gradwire_call_seconds_count", call="Differentiate") == 1
    assert grown("gradwire_tasks_total", task="compile", outcome="done") >= 1
    assert grown("gradwire_worker_seconds_total", tenant="alice") > 0
    assert grown("gradwire_cache_lookups_total", cache="plans", found="nowhere") == 1
    assert _sample(after, "gradwire_calls_open") == 0
    assert _sample(after, "gradwire_workers") == 1
    assert _sample(after, "gradwire_held_bytes", purpose="graphs") > 0
    assert _sample(after, "gradwire_resident_bytes") > 50e6


def test_probes_are_answered_in_plain_text_without_a_token(watched: Watched) -> None:
    assert _get(f"{watched.http}/healthz") == "alive\n"
    assert _get(f"{watched.http}/readyz") == "serving\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(f"{watched.http}/")
    with grpc.insecure_channel(watched.admin) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_port_for_administrators_wants_a_token_for_administrators(watched: Watched) -> None:
    request = admin_pb2.GetServerStatusRequest()
    with grpc.insecure_channel(watched.admin) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        for token, code in (
            ("", grpc.StatusCode.UNAUTHENTICATED),
            (watched.token, grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as error:
                stub.GetServerStatus(request, metadata=[("authorization", f"Bearer {token}")], timeout=10)
            assert error.value.code() == code
        allowed = [("authorization", f"Bearer {watched.admin_token}")]
        assert stub.GetServerStatus(request, metadata=allowed, timeout=10).serving
        servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(
            channelz_pb2.GetServersRequest(), metadata=allowed, timeout=10
        )
        assert servers.server


def test_a_token_for_administrators_computes_nothing(watched: Watched) -> None:
    with (
        gw.connect(watched.address, token=watched.admin_token) as client,
        pytest.raises(gw.PermissionDeniedError, match="admin, not compute"),
    ):
        client.function(lambda x: x, gw.spec())(1.0)


def test_the_command_shows_a_call_while_it_runs(watched: Watched) -> None:
    def status() -> str:
        done = typer.testing.CliRunner().invoke(
            app, ["status", "--address", watched.admin], env={"GRADWIRE_TOKEN": watched.admin_token}
        )
        assert done.exit_code == 0, done.output
        return done.output

    with gw.connect(watched.address, token=watched.token) as client:
        model = f'<ir_version: 8, opset_import: ["" : 17]>\n{ENDLESS}'
        f = client.function(model)
        busy = threading.Thread(target=lambda: _expires(f))
        busy.start()
        shown = ""
        while busy.is_alive() and "evaluate for" not in shown:
            shown = status()
        busy.join()
    assert re.search(r"\w+: Evaluate\w* of alice from unix:, .* 1 tasks on workers", shown), shown
    assert "worker-1: evaluate for" in shown
    assert re.search(r"graphs: [\d.]+ \w+ of [\d.]+ [MG]iB", shown)


def _expires(f: gw.Function) -> None:
    with pytest.raises(gw.DeadlineError):
        f(np.ones(2), timeout=4.0)


def test_the_command_says_when_it_is_the_wrong_port(watched: Watched) -> None:
    run = typer.testing.CliRunner().invoke
    done = run(app, ["status", "--address", watched.address], env={"GRADWIRE_TOKEN": watched.token})
    assert done.exit_code == 1 and "admin-port" in done.stderr
    done = run(app, ["status", "--address", f"127.0.0.1:{_free()}"])
    assert done.exit_code == 1 and "Traceback" not in done.output


def test_an_error_has_the_id_under_which_the_call_is_logged(watched: Watched) -> None:
    with (
        gw.connect(watched.address, token=watched.token) as client,
        pytest.raises(gw.NotFoundError) as caught,
    ):
        client.function("0" * 64)
    assert re.fullmatch(r"[0-9a-f]{16}", caught.value.request_id)
