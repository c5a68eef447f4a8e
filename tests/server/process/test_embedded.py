"""Embedded servers: where they listen, who can reach them, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gradwire as gw
from gradwire_server.folders import private_folder
from gradwire_server.process import trees

ENDS_ITSELF = """
import os, signal
import gradwire as gw
client = gw.local(workers=1, cache_dir=None)
print(client.address, flush=True)
assert client.function(lambda x: x + 1, gw.spec())(1.0) == 2.0
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_local_server_is_reached_through_a_folder_of_this_user_alone() -> None:
    with gw.local(workers=1, cache_dir=None) as client:
        scheme, _, path = client.address.partition(":")
        assert scheme == "unix"
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        f = client.function(lambda x: np.sin(x), gw.spec(3))
        np.testing.assert_allclose(f.jacobian(np.ones(3)), np.cos(1) * np.eye(3))
        with gw.connect(client.address) as other:
            assert other.function(lambda x: x + 1, gw.spec())(1.0) == 2.0
    assert not Path(path).parent.exists()


def test_nothing_is_left_of_a_local_server_whose_program_was_killed() -> None:
    program = subprocess.run(
        [sys.executable, "-c", ENDS_ITSELF], capture_output=True, text=True, timeout=120, check=False
    )
    assert program.returncode == -signal.SIGKILL, program.stderr
    folder = Path(program.stdout.strip().partition(":")[2]).parent
    end = time.monotonic() + 60
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not folder.exists()


def test_modules_of_the_folder_that_a_program_runs_in_are_not_the_servers(tmp_path: Path) -> None:
    for name in ("code", "queue", "random"):  # which Ray, JAX and others import
        (tmp_path / f"{name}.py").write_text(
            "raise SystemExit('a module of the working folder was imported')"
        )
    program = (
        "import gradwire as gw\n"
        "with gw.local(workers=1, cache_dir=None) as client:\n"
        "    client.wait_ready()\n"
        "    assert client.function(lambda x: x + 1, gw.spec())(1.0) == 2.0\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_local_server_listens_at_a_port_where_one_is_asked_for() -> None:
    with gw.local(workers=1, cache_dir=None, port=0) as client:
        assert client.address.startswith("127.0.0.1:")
        assert client.function(lambda x: x + 1, gw.spec())(1.0) == 2.0


def test_a_long_folder_for_temporary_files_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = private_folder(60)
    try:
        assert len(os.fsencode(folder)) + 60 <= 107
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


def test_rays_session_lies_in_a_folder_of_this_user_alone_and_goes_with_the_server() -> None:
    with gw.local(workers=1, cache_dir=None) as client:
        client.wait_ready()
        raylet = next(
            process
            for process in trees.descendants(client._server.process_id)  # type: ignore[union-attr]
            if process.name() == "raylet"
        )
        session = next(
            Path(word.partition("=")[2]) for word in raylet.cmdline() if word.startswith("--session_dir=")
        )
        folder = session.parent.parent
        assert session.name.startswith("session_") and folder.name.startswith("gradwire-")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
