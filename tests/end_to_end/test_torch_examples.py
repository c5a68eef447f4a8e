"""The examples for PyTorch run, and find the numbers that they check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "last_line"),
    [
        ("torch_tutorial.py", "all as in PyTorch"),
        ("torch_module_training.py", "the same training, elsewhere"),
    ],
)
def test_the_example_runs_to_its_end(name: str, last_line: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last_line
