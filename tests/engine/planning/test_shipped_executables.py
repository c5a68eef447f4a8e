"""Executables run in processes that have compiled nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from gradwire_engine.planning.kernels import EvaluateSpec, compile_kernel
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine.in_process import argument_types

PROGRAM = """
import sys, pathlib, numpy as np
from gradwire_engine.planning.kernels import load_kernel
kernel = load_kernel(pathlib.Path(sys.argv[1]).read_bytes())
a = np.array([[2.0, 1.0], [1.0, 3.0]])
(y,) = kernel.run({}, {"a": a})
np.save(sys.argv[2], np.asarray(y))
"""


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("Inverse", np.linalg.inv),
        ("Cholesky", np.linalg.cholesky),
        ("EigvalsH", np.linalg.eigvalsh),
        ("SvdValues", lambda a: np.linalg.svd(a, compute_uv=False)),
    ],
)
def test_a_kernel_with_linear_algebra_runs_where_it_was_not_compiled(
    op: str, expected: object, tmp_path: Path
) -> None:
    shape = "2, 2" if op in ("Inverse", "Cholesky") else "2"
    text = (
        '<ir_version: 10, opset_import: ["" : 21, "gradwire.sci" : 1]>'
        f"g (double[2, 2] a) => (double[{shape}] y) {{ y = gradwire.sci.{op}(a) }}"
    )
    graph = register(onnx.parser.parse_model(text).SerializeToString())
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    spec = EvaluateSpec(FunctionSpec(graph.info.graph_id), argument_types({"a": a}))
    shipped, result = tmp_path / "kernel", tmp_path / "result.npy"
    shipped.write_bytes(compile_kernel(graph, spec).serialize())
    subprocess.run([sys.executable, "-c", PROGRAM, str(shipped), str(result)], check=True, timeout=120)
    assert callable(expected)
    np.testing.assert_allclose(np.load(result), expected(a), rtol=1e-12)
