"""Every example runs to its end, and so do the checks that it makes of its own numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_and_finds_the_numbers_that_it_checks(example, server, tmp_path):
    code = example.read_text(encoding="utf-8")
    assert "gw.local(workers=2)" in code, f"{example.name} does not open a server of its own"
    # The run's server in place of one for each example: starting one takes longer than most examples.
    script = tmp_path / example.name
    script.write_text(
        code.replace("gw.local(workers=2)", f"gw.connect({server.address!r})"), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example says what it found"
