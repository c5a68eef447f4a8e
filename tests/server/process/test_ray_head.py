"""The child process that holds a local Ray."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from gradwire_server.process.ray_head import RayHead


def test_a_ray_that_is_still_starting_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    head = RayHead(1, 0, 1 << 26)
    child = psutil.Process(head._process.pid)
    while len(child.children()) < 2:
        time.sleep(0.01)
    everything = [child, *child.children()]
    began = time.monotonic()
    head.stop()
    assert time.monotonic() - began < 5
    assert not [process for process in everything if process.is_running() and process.status() != "zombie"]
