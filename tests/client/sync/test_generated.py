"""The synchronous face is the one that the script generates, and has all of the asynchronous one."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gradwire as gw
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.client import AsyncClient
from gradwire._face.function import AsyncFunction

SCRIPT = Path(__file__).parents[3] / "scripts" / "generate_sync.py"
INTERNAL = {"model", "transforms", "with_evaluator"}


def test_the_files_are_as_generated() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"),
    [(AsyncFunction, gw.Function), (AsyncClient, gw.Client), (AsyncAccumulator, gw.Accumulator)],
)
def test_every_method_has_its_counterpart(asynchronous: type[Any], synchronous: type[Any]) -> None:
    for name in dir(asynchronous):
        if name.startswith("_") or name in INTERNAL:
            continue
        own, other = getattr(asynchronous, name), getattr(synchronous, name)
        assert inspect.getdoc(other), name
        assert "await" not in (inspect.getdoc(other) or "") and "Async" not in (inspect.getdoc(other) or "")
        if callable(own) and callable(other):
            assert list(inspect.signature(own).parameters) == list(inspect.signature(other).parameters), name
