"""Compiled loops: machine code is cached for the sources that it was made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

from gradwire_engine.sparsity import compiled
from gradwire_engine.sparsity.compiled import mirror_images, sources

CALLER = """
from gradwire_engine.sparsity import compiled
compiled.sources = lambda: {stamp!r}
import callee
@compiled.compiled
def twice(x):
    return 2 * callee.value(x)
print(twice(1), sum(twice.stats.cache_hits.values()))
"""
CALLEE = """
from gradwire_engine.sparsity.compiled import compiled
@compiled
def value(x):
    return x + {offset}
"""


def test_a_changed_loop_is_seen_by_the_loops_that_call_it(tmp_path: Path) -> None:
    said = []
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    caller = tmp_path / "caller.py"
    for offset, stamp in ((1, "one"), (1, "one"), (5, "two")):
        (tmp_path / "callee.py").write_text(CALLEE.format(offset=offset))
        caller.write_text(CALLER.format(stamp=stamp))
        os.utime(caller, (1e9, 1e9))  # to numba, the caller is the same
        run = subprocess.run(
            [sys.executable, caller], env=environment, capture_output=True, text=True, check=True
        )
        said.append(run.stdout.split())
    assert said == [["4", "0"], ["4", "1"], ["12", "0"]]


def test_loops_carry_the_digest_of_all_sources() -> None:
    file: Any = mirror_images
    assert file._cache._cache_file._source_stamp == sources()
    assert len(sources()) == 64


def test_loops_compile_where_no_cache_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cache(*, nogil: bool, cache: bool = False) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(nogil=nogil)

    monkeypatch.setattr(compiled, "numba", SimpleNamespace(njit=without_cache))

    def total(values: Any) -> Any:
        found = 0
        for one in values:
            found += one
        return found

    assert compiled.compiled(total)(np.arange(4)) == 6
