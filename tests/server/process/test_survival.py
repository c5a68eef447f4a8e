"""What a server of several tenants survives without their noticing: hasty callers, dead processes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gradwire as gw
from gradwire_server.access.tokens import TokenSet, new_token, write_tokens
from gradwire_server.process import embedded, trees
from tests.conftest import wait_until_serving
from tests.server import calls, processes

SPARES = 1
MATRIX = np.random.default_rng(0).standard_normal((400, 400)) / 20.0
POINT = np.random.default_rng(1).standard_normal(400)


def slow(x: Any) -> Any:
    return gw.fori(0, 400, lambda i, s: np.tanh(MATRIX @ s), x)


@dataclass
class Site:
    server: embedded.EmbeddedServer
    patient: str
    hasty: str

    def workers(self) -> list[Any]:
        return processes.workers(self.server.process_id)

    def whole(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while len(self.workers()) < 2 + SPARES or any(one.status() == "stopped" for one in self.workers()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        wait_until_serving(self.server.address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.json"
    (patient, patient_text), (hasty, hasty_text) = new_token("patient"), new_token("hasty")
    write_tokens(tokens, TokenSet((patient, hasty)))
    server = embedded.start(
        workers=2,
        spare_workers=SPARES,
        heartbeat_seconds=3.0,
        fast_path_flops=0.0,
        cache_dir=None,
        token_file=tokens,
        log_level="error",
    )
    try:
        wait_until_serving(server.address)
        yield Site(server, patient_text, hasty_text)
    finally:
        server.stop()


@pytest.fixture
def client(site: Site) -> Iterator[gw.Client]:
    site.whole()
    with gw.connect(site.server.address, token=site.patient, verify="never") as connected:
        yield connected


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> Any:
    with gw.connect(site.server.address, token=site.patient, verify="never") as connected:
        return jacobian(connected)


def jacobian(client: gw.Client, **options: Any) -> Any:
    function = client.function(slow, gw.spec(400))
    return function.jacobian(POINT, mode="forward", block_width=20, timeout=90, **options)


def strike_after(blocks: int, fault: Any) -> Any:
    """A function for `progress=` that calls `fault` once, when so many blocks have arrived."""
    done = threading.Event()

    def report(progress: gw.Progress) -> None:
        if progress.blocks_done >= blocks and not done.is_set():
            done.set()
            fault()

    return report


def test_a_lost_worker_is_replaced_within_a_second(site: Site, client: gw.Client, undisturbed: Any) -> None:
    computing: list[Any] = []

    def fault() -> None:
        killed = processes.computing(site.server.process_id, 0.3)[0]
        killed.kill()
        time.sleep(0.3)
        computing.extend(one for one in processes.computing(site.server.process_id, 0.5) if one != killed)

    found = jacobian(client, progress=strike_after(2, lambda: threading.Thread(target=fault).start()))
    assert found.tobytes() == undisturbed.tobytes()
    assert len(computing) == 2


def test_a_frozen_worker_is_noticed_and_its_block_done_again(
    site: Site, client: gw.Client, undisturbed: Any
) -> None:
    frozen: list[Any] = []

    def fault() -> None:
        frozen.append(processes.computing(site.server.process_id, 0.3)[0])
        frozen[0].send_signal(signal.SIGSTOP)

    found, info = jacobian(client, progress=strike_after(2, fault), return_info=True)
    assert found.tobytes() == undisturbed.tobytes()
    assert info.summary.blocks_rerun >= 1
    assert not frozen[0].is_running()


def test_health_says_so_when_no_worker_is_left_and_when_there_are_workers_again(
    site: Site, client: gw.Client
) -> None:
    seen = set()
    with grpc.insecure_channel(site.server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for worker in site.workers():
            worker.kill()
        began = time.monotonic()
        while time.monotonic() < began + 20:
            seen.add(health.Check(health_pb2.HealthCheckRequest(), timeout=5).status)
            if health_pb2.HealthCheckResponse.NOT_SERVING in seen and len(site.workers()) == 2 + SPARES:
                break
            time.sleep(0.02)
    assert health_pb2.HealthCheckResponse.NOT_SERVING in seen
    assert len(site.workers()) == 2 + SPARES


def test_what_takes_longer_to_compile_than_its_callers_wait_can_be_used_in_the_end(
    client: gw.Client,
) -> None:
    operations = np.random.default_rng(5).choice(["Sin", "Tanh", "Atan", "Erf"], 1500)
    nodes = "\n".join(f"v{i + 1} = {operation}(v{i})" for i, operation in enumerate(operations))
    text = calls.HEADER + f"g (double[4] v0) => (double[4] v1500) {{ {nodes} }}"
    function = client.function(onnx.parser.parse_model(text))
    late, began = 0, time.monotonic()
    while time.monotonic() < began + 90:
        try:
            function.jacobian(np.ones(4), timeout=0.5)
            break
        except gw.DeadlineError:
            late += 1
    else:
        pytest.fail("every attempt began anew")
    assert late > 0, "it compiles too quickly to tell"


def test_hasty_callers_do_not_slow_others(site: Site, client: gw.Client) -> None:
    endless = onnx.parser.parse_model(calls.HEADER + calls.ENDLESS)
    over = threading.Event()
    refusals: list[gw.ServerError] = []

    def hurry() -> None:
        with gw.connect(site.server.address, token=site.hasty, retry=gw.Retry(seconds=0)) as own:
            function = own.function(endless)
            while not over.is_set():
                try:
                    function.value(np.ones(2), timeout=0.3)
                except gw.ServerError as error:
                    refusals.append(error)

    function = client.function(lambda x: np.sin(MATRIX @ x), gw.spec(400))
    expected = function.jacobian(POINT)
    threads = [threading.Thread(target=hurry) for _ in range(4)]
    for thread in threads:
        thread.start()
    waits = []
    try:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            began = time.monotonic()
            np.testing.assert_array_equal(function.jacobian(POINT, timeout=30), expected)
            waits.append(time.monotonic() - began)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert refusals
    waits.sort()
    print(f"{len(waits)} Jacobians, median {waits[len(waits) // 2]:.3f} s, worst {waits[-1]:.3f} s")
    # Without anything against them each took 9 s.
    assert len(waits) >= 5


def test_a_server_that_loses_a_part_of_ray_comes_back_and_streams_go_on(
    site: Site, client: gw.Client, undisturbed: Any
) -> None:
    def fault() -> None:
        for process in trees.descendants(site.server.process_id):
            with contextlib.suppress(Exception):
                if process.name() == "raylet":
                    process.kill()

    notes: list[str] = []
    strike = strike_after(3, fault)

    def report(progress: gw.Progress) -> None:
        notes.append(progress.note)
        strike(progress)

    found, info = jacobian(client, progress=report, return_info=True)
    assert found.tobytes() == undisturbed.tobytes()
    assert info.resumed >= 1
    assert "server unavailable, retrying" in notes
