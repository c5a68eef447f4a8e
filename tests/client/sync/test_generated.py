"""The synchronous face is the one that the script generates, and has all of the asynchronous one."""

import ast
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gradwire as gw
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.client import AsyncClient
from gradwire._face.function import AsyncFunction

SCRIPT = Path(__file__).parents[3] / "scripts" / "generate_sync.py"
INTERNAL = {"held", "of", "transforms", "with_evaluator"}


@pytest.fixture
def script() -> ModuleType:
    """The script as a module, which a test may change."""
    spec = importlib.util.spec_from_file_location("generate_sync", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def mirrored(script: ModuleType, method: str, *known: str) -> str:
    """The synchronous method, given the attributes that the synchronous class has."""
    parsed = ast.parse(method).body[0]
    return ast.unparse(ast.fix_missing_locations(script.mirrored(parsed, "_client", set(known), set())))


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


def test_contexts_loops_and_comprehensions_become_plain(script: ModuleType) -> None:
    method = """
async def total(self) -> float:
    async with self.stream() as stream:
        async for value in self.values():
            stream.take(value)
        return sum([await self.weight(value) async for value in self.values()])
"""
    assert mirrored(script, method, "stream", "values", "weight") == (
        "def total(self) -> float:\n"
        "    with self.stream() as stream:\n"
        "        for value in self.values():\n"
        "            stream.take(value)\n"
        "        return sum([self.weight(value) for value in self.values()])"
    )


@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.sleep(1)",
        "async with asyncio.timeout(1):\n        await self.values()",
        "async for value in arriving(): pass",
        "return [value async for value in arriving()]",
    ],
)
def test_a_body_that_waits_for_what_has_no_plain_counterpart_is_not_copied(
    script: ModuleType, body: str
) -> None:
    copied = mirrored(script, f"async def run(self) -> int:\n    {body}", "values")
    assert copied == "def run(self) -> int:\n    return self._bridge.run(self._client.run())"


@pytest.mark.parametrize("table", ["PHRASES", "EXAMPLES"])
def test_a_phrase_or_example_that_no_docstring_takes_is_a_fault(
    script: ModuleType, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    getattr(script, table)["nowhere to be found"] = "anything"
    assert script.main(check=True) == 1
    assert "nowhere to be found" in capsys.readouterr().err
