"""Writes sparse derivatives: SciPy's files of one matrix, and a summary for people."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gradwire as gw

_PRINTED = 50
"""Values printed where there is no file."""


def check_sparse_output(output: Path | None) -> None:
    """Check, before anything is computed, that a sparse matrix can be written.

    Raises:
        gw.GradwireError: SciPy is not installed.
        typer.BadParameter: another suffix than .npz.
    """
    if output is None:
        return
    if output.suffix != ".npz":
        raise typer.BadParameter(
            f"{output}: a sparse matrix is written as .npz, which scipy.sparse.load_npz reads",
            param_hint="--output",
        )
    if find_spec("scipy") is None:
        raise gw.GradwireError("--sparse --output writes a file of scipy.sparse: pip install scipy")


def write_sparse(matrix: Any, plan: gw.Plan, output: Path | None) -> None:
    """Write a sparse matrix to a file and a summary of it to the terminal; without a file, its values too.

    Args:
        matrix: all outputs by all inputs: SciPy's, or coordinates.
        plan: how it was computed.
        output: a .npz file, or None.
    """
    print(plan)
    heights, widths = plan.heights, plan.widths
    tops, lefts = [0, *accumulate(heights)], [0, *accumulate(widths)]
    if len(plan.entries) > 1:
        print("one matrix:")
        for k, entry in enumerate(plan.entries):
            i, j = divmod(k, len(widths))
            rows, columns = f"{tops[i]:,}:{tops[i + 1]:,}", f"{lefts[j]:,}:{lefts[j + 1]:,}"
            print(f"  {plan.name(entry)}: rows {rows}, columns {columns}")
    if output is None:
        _print_values(matrix)
        return
    from scipy.sparse import save_npz

    save_npz(output, matrix)
    rows, columns = matrix.shape
    print(f"{output}: {rows:,} x {columns:,}, {matrix.nnz:,} values of {matrix.dtype.name}")


def _print_values(matrix: Any) -> None:
    if isinstance(matrix, gw.Coordinates):
        order = np.lexsort((matrix.columns, matrix.rows))[:_PRINTED]
        entries = zip(matrix.rows[order], matrix.columns[order], matrix.values[order], strict=True)
    else:
        found = matrix.tocoo()
        entries = zip(found.row[:_PRINTED], found.col[:_PRINTED], found.data[:_PRINTED], strict=True)
    print("row column value")
    for row, column, value in entries:
        print(f"{row} {column} {value:.8g}")
    if matrix.nnz > _PRINTED:
        print(f"... and {matrix.nnz - _PRINTED:,} more: write all of them with --output FILE.npz")
