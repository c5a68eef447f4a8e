"""The loops that are compiled ahead are those that plans of sparse derivatives call, with the same types."""

from __future__ import annotations

import subprocess
import sys

FIRST_USES = """
import importlib, pkgutil
import jax.numpy as jnp
import numpy as np
from numba.core.dispatcher import Dispatcher
import gradwire_engine.sparsity as package
from gradwire_engine.abstract import abstract
from gradwire_engine.sparsity.coloring.choice import choose
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.problem import Structure
from gradwire_engine.sparsity.coloring.recovery import direct_recovery
from gradwire_engine.sparsity.detection import detect, linear_program
from gradwire_engine.sparsity.warming import compile_loops

found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
modules = [importlib.import_module(module.name) for module in found]
loops = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
compile_loops()
known = {loop: set(loop.signatures) for loop in loops}
index = np.random.default_rng(0).integers(0, 30, 80)
programs = {
    "stencil": lambda x: [jnp.roll(x, 1) + jnp.roll(x, -2)],
    "gather": lambda x: [x[index] - x[index[::-1]], x.sum()],
    "scatter": lambda x: [jnp.zeros(30).at[index[:30]].add(x)],
    "scan": lambda x: [jnp.cumsum(x.reshape(5, 6), axis=1)],
}
for name, function in programs.items():
    tangents = [abstract((30,), np.float64)]
    pattern = detect(linear_program(function, [], tangents, {}), 1 << 28).pattern
    direct_recovery(choose(pattern, costs=Costs(1.0, 1.0)), pattern)
    dense = pattern.dense().astype(int)
    union = dense.T @ dense
    square = type(pattern).of_coordinates(*np.nonzero(union), union.shape)
    direct_recovery(choose(square, Structure.SYMMETRIC), square)
print([(loop.__name__, str(new)) for loop in loops for new in set(loop.signatures) - known[loop]])
"""


def test_no_loop_is_compiled_for_types_that_were_not_compiled_ahead() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
