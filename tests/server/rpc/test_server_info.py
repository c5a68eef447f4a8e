"""What a server says of itself."""

from __future__ import annotations

from importlib.metadata import version

import gradwire as gw
from gradwire_server.process.embedded import EmbeddedServer
from gradwire_server.rpc.server_info import limits_of
from gradwire_server.settings import Settings
from tests.conftest import wait_until_serving


def test_a_client_is_told_versions_workers_and_limits(server: EmbeddedServer) -> None:
    wait_until_serving(server.address)
    with gw.connect(server.address) as client:
        info = client.server_info()
    assert (info.version, info.jax_version) == (gw.__version__, version("jax"))
    assert info.device == "cpu" and info.threads_per_worker == 1 and info.tenant == ""
    assert info.workers >= 1
    assert info.limits["graph_bytes"] == Settings.read().graph_bytes
    assert info.evaluate_seconds == 300
    assert len(info.fingerprint) == 32
    assert "graph_bytes" in info._repr_html_()


def test_every_limit_that_an_error_names_is_among_them() -> None:
    named = {"graph_bytes", "graph_nodes", "array_bytes", "tensor_bytes", "upload_bytes", "plan_blocks"}
    assert named <= limits_of(Settings.read()).keys()
