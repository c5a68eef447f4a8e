"""What docs/sparse.md shows, executed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire_server.settings import Settings

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

PAGE = (Path(__file__).parents[2] / "docs" / "sparse.md").read_text(encoding="utf-8")


def test_the_newton_step_of_the_page_runs_and_prints_what_it_says(server: EmbeddedServer) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    code = code.replace("gw.local(workers=2)", f"gw.connect({server.address!r})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (printed,) = re.findall(r"print\(prepared\)  # (.*)", code)
    assert printed in done.stdout


def test_the_limits_of_the_page_are_the_servers() -> None:
    settings = Settings(workers=1)
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+)( GiB)? \|", PAGE, flags=re.M)
    assert [name for name, _, _ in rows] == ["detection_bytes", "nonzeros", "colors"]
    for name, number, unit in rows:
        assert getattr(settings, name) == int(number.replace(",", "")) * (1 << 30 if unit else 1)
