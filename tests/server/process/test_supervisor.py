"""The parent of the serving process, with children that only pretend to serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHILD = """#!{python}
import os, signal, socket, sys, time
count = len(open("{log}").readlines()) + 1
with open("{log}", "a") as log:
    log.write(" ".join(argument for argument in sys.argv if argument.startswith("--")) + "\\n")
parent = socket.socket(fileno=int(os.environ["GRADWIRE_PARENT_FD"]))
signal.signal(signal.SIGHUP, lambda *_: open("{log}", "a").write("hangup\\n"))
{program}
"""
SERVE = """
parent.sendall(b'{{"address": "127.0.0.1:4711"}}\\n{{"parts": {{"raylet": 999999999}}}}\\n')
if count <= {deaths}:
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
parent.recv(1)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Starts a supervisor whose children run a program; returns it and the flags of each child."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(program: str) -> tuple[subprocess.Popen[bytes], Path]:
        log, child = tmp_path / "log", tmp_path / "child"
        log.touch()
        child.write_text(CHILD.format(python=sys.executable, log=log, program=program))
        child.chmod(0o755)
        supervise = (
            "import sys; from gradwire_server.process import supervisor;"
            f"sys.executable = {str(child)!r}; sys.exit(supervisor.main(['--port=0', '--log-format=json']))"
        )
        process = subprocess.Popen([sys.executable, "-c", supervise], stderr=subprocess.PIPE)
        begun.append(process)
        return process, log

    yield begin
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(log: Path, lines: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(found := log.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_a_child_that_dies_is_started_again_on_its_port_and_signals_reach_it(start) -> None:  # type: ignore[no-untyped-def]
    process, log = start(SERVE.format(deaths=2))
    flags = wait_for(log, 3)
    assert flags == ["--port=0 --log-format=json", *["--port=0 --log-format=json --port=4711"] * 2]
    time.sleep(0.3)
    process.send_signal(signal.SIGHUP)
    assert wait_for(log, 4)[-1] == "hangup"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 0
    assert told.decode().count("it is started again") == 2
    assert "signal SIGKILL" in told.decode() and '"lost": "raylet"' in told.decode()


def test_a_child_that_dies_again_and_again_is_given_up(start) -> None:  # type: ignore[no-untyped-def]
    process, log = start(SERVE.format(deaths=99))
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(wait_for(log, 5)) == 5
    assert "not started any more" in told.decode()


def test_a_child_that_never_served_is_not_started_again(start) -> None:  # type: ignore[no-untyped-def]
    process, log = start("sys.exit(2)")
    assert process.wait(10) == 2
    assert len(wait_for(log, 1)) == 1


def test_a_child_ends_with_a_supervisor_that_is_killed(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ended = tmp_path / "ended"
    process, log = start(SERVE.format(deaths=0) + f"open({str(ended)!r}, 'w').close()")
    wait_for(log, 1)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not ended.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
