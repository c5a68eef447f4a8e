"""SciPy's functions that speak the Array API trace once SciPy is told to let them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np, scipy.special, scipy.optimize
from tests.client.frontends.numpy.oracle import agree
x = np.random.default_rng(0).normal(size=(3, 5))
agree({function}, x{argument})
"""

FUNCTIONS = {
    "lambda x: scipy.special.logsumexp(x, axis=1)": "",
    "lambda x: scipy.special.softmax(x, axis=1)": "",
    "scipy.optimize.rosen": "[0]",
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_scipy_trace_with_its_array_api_switched_on(function: str) -> None:
    root = str(Path(__file__).parents[4])
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": root}
    program = PROGRAM.format(function=function, argument=FUNCTIONS[function])
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
