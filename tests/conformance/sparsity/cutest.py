"""CUTEst's problems as sif2jax has them, loaded one by one: importing all of them takes minutes."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Array = np.ndarray[Any, Any]

GROUPS = (
    "_bounded_minimisation",
    "_constrained_minimisation",
    "_nonlinear_equations",
    "_quadratic_problems",
    "_unconstrained_minimisation",
)


@dataclass(frozen=True)
class Derivative:
    """A derivative of a problem.

    Attributes:
        kind: "Hessian" of the objective or "Jacobian" of the constraints.
        function: whose Jacobian it is, from vector to vector.
        start: the problem's own starting point.
    """

    kind: str
    function: Callable[[Any], Any]
    start: Array

    def points(self, count: int = 3) -> list[Array]:
        """Return the starting point moved by some noise, as many times."""
        draw = np.random.default_rng(len(self.start))
        return [
            self.start * (1 + 0.1 * draw.standard_normal(self.start.shape))
            + 0.1 * draw.standard_normal(self.start.shape)
            for _ in range(count)
        ]


def names() -> list[str]:
    """Return the modules of all problems, those that sif2jax does not export included: "group.module"."""
    root = _root() / "cutest"
    return [
        f"{group}.{'.'.join(path.relative_to(root / group).with_suffix('').parts)}"
        for group in GROUPS
        for path in sorted((root / group).rglob("*.py"))
        if not path.name.startswith("_")
    ]


def problems(name: str) -> Iterator[Any]:
    """Yield the problems of a module."""
    parts = f"sif2jax.cutest.{name}".split(".")
    for k in range(1, len(parts)):
        _bare_package(".".join(parts[:k]), _root().joinpath(*parts[1:k]))
    # Some modules import the abstract problems from the package.
    vars(sys.modules["sif2jax"]).update(
        (name, value)
        for name, value in vars(importlib.import_module("sif2jax._problem")).items()
        if name.startswith("Abstract")
    )
    module = importlib.import_module(".".join(parts))
    base = importlib.import_module("sif2jax._problem").AbstractProblem
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if issubclass(cls, base) and cls.__module__ == module.__name__ and not inspect.isabstract(cls):
            yield cls()


def derivatives(problem: Any) -> Iterator[Derivative]:
    """Yield the Hessian of a problem's objective and the Jacobian of its constraints."""
    start, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), problem.y0))

    def objective(x: Any) -> Any:
        return jnp.sum(jnp.asarray(problem.objective(unravel(x), problem.args)))

    def constraints(x: Any) -> Any:
        return ravel_pytree(problem.constraint(unravel(x)))[0]

    if "NonlinearEquations" not in {cls.__name__[8:] for cls in type(problem).__mro__}:
        yield Derivative("Hessian", jax.grad(objective), np.asarray(start))
    if hasattr(problem, "constraint"):
        yield Derivative("Jacobian", constraints, np.asarray(start))


def _root() -> Path:
    spec = importlib.util.find_spec("sif2jax") if "sif2jax" not in sys.modules else None
    path = sys.modules["sif2jax"].__path__[0] if spec is None else Path(str(spec.origin)).parent
    return Path(path)


def _bare_package(name: str, path: Path) -> None:
    """Make a package known without what its `__init__` imports, which is every problem there is."""
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
