"""Compiled loops where their machine code cannot be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_loop_runs_where_the_disk_is_full(tmp_path: Path) -> None:
    # The system refuses to write files of over 1,000 bytes, as it does on a disk that is full.
    program = """
import resource
import numpy as np
from gradwire_engine.sparsity import compiled
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
start, rows = compiled.transpose(np.array([0, 2, 3]), np.array([0, 1, 1], np.int32), 2)
print(start.tolist(), rows.tolist())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[0, 1, 3] [0, 0, 1]\n"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 1000]
