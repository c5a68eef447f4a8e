"""Derivatives that go to files, and are finished by another process after the first was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire_wire.v1 import derivative_pb2

SIDE = 40
X = np.linspace(0.5, 1.5, SIDE)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def function(client: gw.Client) -> gw.Function:
    """Close over a matrix that is large enough to travel by its id."""
    a = np.random.default_rng(0).standard_normal((SIDE, 4096)) / 64
    b = np.random.default_rng(1).standard_normal((4096, SIDE)) / 64
    return client.function(lambda x: np.sin(a @ np.tanh(b @ x)), gw.spec(SIDE))


class Stopped(Exception):
    """Ends a derivative as a lost connection or a deadline would."""


def unfinished(f: gw.Function, path: Path, blocks: int) -> None:
    """Stop a derivative after some of its blocks were noted."""

    def stop(progress: gw.Progress) -> None:
        if (path.parent / f"{path.name}.gradwire" / "state.json").exists() and progress.blocks_done >= blocks:
            raise Stopped

    with pytest.raises(Stopped):
        f.jacobian(X, out=path, block_width=1, progress=stop)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwire.transport import files

    monkeypatch.setattr(files, "_SECONDS", 0.0)
    monkeypatch.setattr(files, "_SHARE", 0)


def test_the_array_is_made_in_the_file(client: gw.Client, tmp_path: Path) -> None:
    f = function(client)
    path = tmp_path / "J.npy"
    J = f.jacobian(X, out=path)
    assert isinstance(J, np.memmap) and os.listdir(tmp_path) == ["J.npy"]
    np.testing.assert_array_equal(np.load(path), f.jacobian(X))


def test_several_arrays_are_several_files(client: gw.Client, tmp_path: Path) -> None:
    g = client.function(lambda x, y: (x * y, np.sum(x)), gw.spec(3), gw.spec(3))
    x, y = np.arange(3.0), np.arange(3.0) + 1
    out = ((tmp_path / "a", tmp_path / "b"), (tmp_path / "c", tmp_path / "d"))
    found, whole = g.jacobian(x, y, out=out), g.jacobian(x, y)
    for pair, other, names in zip(found, whole, ("ab", "cd"), strict=True):
        for one, expected, name in zip(pair, other, names, strict=True):
            np.testing.assert_array_equal(one, expected)
            np.testing.assert_array_equal(np.load(tmp_path / name), expected)


def test_an_empty_array_is_a_file_too(client: gw.Client, tmp_path: Path) -> None:
    f = client.function(lambda x: x * 2, gw.spec(0))
    assert f.jacobian(np.ones(0), out=tmp_path / "J.npy").shape == (0, 0)
    assert np.load(tmp_path / "J.npy").shape == (0, 0)


def test_what_does_not_fit_is_refused(client: gw.Client, tmp_path: Path) -> None:
    f = function(client)
    with pytest.raises(gw.InvalidArgumentError, match="2 paths, but the result has 1"):
        f.jacobian(X, out=(tmp_path / "a", tmp_path / "b"))
    with pytest.raises(gw.InvalidArgumentError, match="paths and arrays"):
        f.jacobian(X, out=(tmp_path / "a", np.empty((SIDE, SIDE))))
    with pytest.raises(gw.InvalidArgumentError, match="nothing is unfinished"):
        gw.resume(tmp_path / "J.npy", client)
    assert not os.listdir(tmp_path)


def test_only_the_blocks_that_are_missing_are_computed(client: gw.Client, tmp_path: Path) -> None:
    f, path = function(client), tmp_path / "J.npy"
    unfinished(f, path, 10)
    with pytest.raises(gw.InvalidArgumentError, match=r"gw\.resume"):
        f.jacobian(X, out=path)
    seen: list[gw.Progress] = []
    J = gw.resume(path, client, progress=seen.append)
    seen = [one for one in seen if one.phase != "uploading"]
    assert seen[0].blocks_done >= 9 and seen[-1].blocks_done == seen[-1].blocks_total == SIDE
    assert seen[0].bytes_done == seen[0].blocks_done * SIDE * 8
    np.testing.assert_array_equal(J, f.jacobian(X, block_width=1))
    assert os.listdir(tmp_path) == ["J.npy"]


def test_blocks_of_another_plan_are_not_kept(client: gw.Client, tmp_path: Path) -> None:
    f, path = function(client), tmp_path / "J.npy"
    unfinished(f, path, 5)
    state = tmp_path / "J.npy.gradwire" / "state.json"
    other = {"plan_id": "another", "resume_id": "another.point"}
    state.write_text(json.dumps(json.loads(state.read_text()) | other))
    np.testing.assert_array_equal(gw.resume(path, client), f.jacobian(X, block_width=1))


def test_blocks_of_another_point_are_refused(client: gw.Client, tmp_path: Path) -> None:
    f, path = function(client), tmp_path / "J.npy"
    unfinished(f, path, 5)
    kept = tmp_path / "J.npy.gradwire" / "request"
    request = derivative_pb2.DifferentiateRequest.FromString(kept.read_bytes())
    (name,) = (name for name, tensor in request.inputs.items() if tensor.HasField("data"))
    request.inputs[name].data = (X + 1).tobytes()
    kept.write_bytes(request.SerializeToString())
    with pytest.raises(gw.InvalidArgumentError, match="another point"):
        gw.resume(path, client)


def test_a_folder_of_another_version_is_refused(client: gw.Client, tmp_path: Path) -> None:
    f, path = function(client), tmp_path / "J.npy"
    unfinished(f, path, 1)
    state = tmp_path / "J.npy.gradwire" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 99}))
    with pytest.raises(gw.InvalidArgumentError, match="another version"):
        gw.resume(path, client)


KILLED = """
import sys, time
import numpy as np
import gradwire as gw
from gradwire.transport import files
from tests.client.face.test_files import X, function

files._SECONDS = files._SHARE = 0
address, path = sys.argv[1:]
with gw.connect(address) as client:
    f = function(client)
    f.jacobian(X, out=path, block_width=1, progress=lambda _: time.sleep(0.02))
"""


def test_a_killed_process_is_taken_over(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "J.npy"
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.address, str(path)])
    state = tmp_path / "J.npy.gradwire" / "state.json"
    try:
        deadline = time.monotonic() + 60
        while not state.exists() or len(json.loads(state.read_text())["done"]) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = json.loads(state.read_text())["done"]
    assert 3 <= len(done) < SIDE
    with gw.connect(server.address) as client:
        seen: list[gw.Progress] = []
        J = gw.resume(path, client, progress=seen.append)
        assert next(one for one in seen if one.phase == "compiling").blocks_done == len(done)
        whole = function(client).jacobian(X, block_width=1)
    np.testing.assert_array_equal(J, whole)
    assert not state.exists()
