"""docs/tracing.md: what traces, from the cases that the tests check.

    python -m tests.client.frontends.numpy.table          writes the page

Each case is traced with an ear on NumPy's protocols: what it calls of NumPy and SciPy is what it stands for.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from gradwire.frontends.numpy import TracedArray, complex_dispatch, dispatch, trace
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex
from gradwire.frontends.numpy.ufuncs.rules import RULES
from gradwire.graphs.spec import spec_of
from tests.client.frontends.numpy import (
    test_tracing_functions,
    test_tracing_slopes,
    test_tracing_special,
)
from tests.client.frontends.numpy.cases import fourier, linalg, special
from tests.client.frontends.numpy.cases.case import Case

PAGE = Path(__file__).parents[4] / "docs" / "tracing.md"

INTRODUCTION = f"""# What traces

Written by `make tracing`; do not edit.

A NumPy function is traced by being called with stand-ins for its arrays; what they go through is recorded as
a graph. These are the functions that stand-ins can go through, as of NumPy {np.__version__} and
SciPy {scipy.__version__}. *Real* and *complex* say what tests check: the *value* against NumPy's
or SciPy's own, the *slope* (forward and reverse mode) against a difference of those values. A value without a
slope is a whole number or a truth value. A blank means that such arguments are refused.

- To put traced numbers together, write `gw.asarray([[np.cos(a), 0], [0, 1]])`: nested to any depth, real or
  complex; on plain numbers it is NumPy's own. `np.array([...], like=a)` does the same. Without `like=`,
  `np.array` is refused: NumPy lets nobody take part in it.
- Methods (`x.sum()`), operators and indexing go the way of the functions. `out=` is stored to if it is a
  traced array, and refused otherwise. An argument of NumPy's signature has its effect here or is refused:
  `order="K"` and `"A"` go by how elements lie in memory, which a function does not know.
- What NumPy makes a view is one: it shows later writes to its base and passes on its own. A write through
  `reshape` is refused where NumPy may have made a copy.
- Matrices of `scipy.sparse` that the function closes over, in any format, multiply traced arrays: `A @ x`,
  `x @ A`, `A.T @ x`. Masked arrays, `np.matrix` and other subclasses are refused by name.
- Arguments and results may be nested: dicts, tuples, lists, named tuples and dataclasses of arrays. Results
  have the same structure, and `f.jacobian` is the tree of trees that JAX gives: `J["loss"]["w"]`. `wrt="p"`
  and `of="loss"` choose a part, `wrt="p.w"` a leaf. A leaf of whole numbers has None for a derivative.
- At the zero vector `np.linalg.norm`, `np.std` and `np.hypot` have the derivative 0, and so has the absolute
  value at 0; zeros, ties, poles and tails of the elementwise functions are checked against mpmath, to second
  order.
- Complex arrays come from `np.fft`, complex constants and `x.astype(complex)`. A function takes and returns
  real arrays: return `np.abs(z)`, or `np.real(z)` and `np.imag(z)`.
- A size may have a name in place of a number: `gw.spec("n")`, `gw.spec((None, 3))`, `gw.spec(("n", "m"))`.
  The function is traced once, for all sizes from 1 on, and `f.save` writes a file for all of them.
  `x.shape[0]` counts as a number in arithmetic (`np.sum(x) / x.shape[0]`). Slices count from an end
  (`x[1:-1]`, `x[:3]`) and demand arrays of that length. What needs the number is refused: `len(x)`, loops,
  `np.arange(n)`.
- The function is called twice. If it draws random numbers, or its second graph differs from the first, it is
  refused: draw the samples outside and pass them in.
- What is refused says so by name and line, with what to write instead. What is not listed is refused as well.
- Loops, branches and batches that depend on inputs: [control flow](control-flow.md).
"""


@dataclass(frozen=True)
class Checked:
    """A case, and what the tests make of it."""

    case: Case
    slope: bool


@dataclass(frozen=True)
class Mark:
    """What is checked of a function with real or with complex arguments."""

    value: bool = False
    slope: bool = False

    def __str__(self) -> str:
        return "value, slope" if self.slope else "value" if self.value else ""


Marks = dict[tuple[str, bool], Mark]
"""By public name, and whether an argument is complex."""


def cases() -> Iterator[Checked]:
    """Every case that a test takes its functions from."""
    for group in (test_tracing_slopes.NEW, fourier.CASES, linalg.CASES, special.CASES):
        for case in group.values():
            yield Checked(case, case.slope_rtol is not None)
    for name, (function, arguments) in test_tracing_functions.CASES.items():
        yield Checked(Case(function, arguments), name in test_tracing_slopes.FUNCTIONS)
    for name in test_tracing_functions.REDUCTIONS:
        case = Case(getattr(np, name), (test_tracing_functions.A,))
        yield Checked(case, name in test_tracing_slopes.REDUCTIONS)


@contextlib.contextmanager
def listening() -> Iterator[dict[tuple[str, bool], bool]]:
    """What is called on traced arrays, whether with complex numbers, and whether floats result."""
    heard: dict[tuple[str, bool], bool] = {}
    depth = 0

    def wrapped(method: Callable[..., Any], name_of: Callable[..., str], plain: Callable[..., Any]) -> Any:
        def listen(self: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                result = method(self, target, *args, **kwargs)
            finally:
                depth -= 1
            if not depth:
                key = name_of(target, *args), complex_dispatch.involved((self, *plain(*args, **kwargs)))
                heard[key] = heard.get(key, False) or _is_floating(result)
            return result

        return listen

    saved = {
        (kind, name): getattr(kind, name) for kind in (TracedArray, TracedComplex) for name in _PROTOCOLS
    }
    for (kind, name), method in saved.items():
        setattr(kind, name, wrapped(method, *_PROTOCOLS[name]))
    try:
        yield heard
    finally:
        for (kind, name), method in saved.items():
            setattr(kind, name, method)


def _is_floating(result: Any) -> bool:
    """Whether a slope belongs to it; what changes its argument returns nothing."""
    if isinstance(result, list | tuple):
        return any(map(_is_floating, result))
    return result is None or getattr(getattr(result, "dtype", None), "kind", "") in ("f", "c")


def _ufunc_name(ufunc: np.ufunc, *_: Any) -> str:
    home = "np" if getattr(np, ufunc.__name__, None) is ufunc else "scipy.special"
    return f"{home}.{ufunc.__name__}"


def _function_name(function: Any, *_: Any) -> str:
    return dispatch.public_name(function)


_PROTOCOLS: dict[str, Any] = {
    "__array_ufunc__": (_ufunc_name, lambda method, *inputs, **_: inputs),
    "__array_function__": (_function_name, lambda types, args, kwargs: (*args, *kwargs.values())),
}


def marks() -> Marks:
    """What the cases check."""
    found: Marks = defaultdict(Mark)
    for checked in cases():
        specs = [spec_of(np.asarray(argument)) for argument in checked.case.arguments]
        with listening() as heard:
            trace(checked.case.function, specs)
        for key, floating in heard.items():
            found[key] = Mark(True, found[key].slope or (checked.slope and floating))
    return found


def known() -> set[str]:
    """The public names of all functions that trace with real arguments."""
    names = set(map(dispatch.public_name, dispatch.implemented()))
    for rule in RULES:
        for home, module in (("np", np), ("scipy.special", scipy.special)):
            ufunc = getattr(module, rule, None)
            if isinstance(ufunc, np.ufunc) and _ufunc_name(ufunc) == f"{home}.{rule}":
                names.add(_ufunc_name(ufunc))
    return names


LAST_ONLY = {
    f"scipy.special.{name}": " in the last argument" for name in ("betainc", "betaincc", "fdtr", "stdtr")
}
"""Functions that have no derivative with respect to their parameters."""

SECTIONS = (
    ("Arrays", lambda name: name.count(".") == 1 and not _is_ufunc(name)),
    ("Elementwise functions of NumPy", lambda name: name.count(".") == 1 and _is_ufunc(name)),
    ("Linear algebra", lambda name: name.startswith("np.linalg.")),
    ("Fourier transforms", lambda name: name.startswith("np.fft.")),
    ("Windows", lambda name: name.startswith("np.lib.")),
    ("Elementwise functions of SciPy", lambda name: name.startswith("scipy.special.")),
)


def _is_ufunc(name: str) -> bool:
    return isinstance(getattr(np, name.partition(".")[2], None), np.ufunc)


def page(found: Marks) -> str:
    """The page."""
    lines = [INTRODUCTION]
    names = sorted(known() | set(complex_dispatch.implemented()))
    for title, chosen in SECTIONS:
        lines += [f"## {title}", "", "| function | real | complex |", "|---|---|---|"]
        for name in filter(chosen, names):
            real, imaginary = (found.get((name, flag), Mark()) for flag in (False, True))
            lines.append(f"| `{name}` | {real}{LAST_ONLY.get(name, '')} | {imaginary} |")
        lines.append("")
    lines += _ours()
    lines += ["## Refused by name", "", "| function | what to do instead |", "|---|---|"]
    lines += [
        f"| {', '.join(f'`{name}`' for name in sorted(names))} | {advice} |" for advice, names in _refused()
    ]
    return "\n".join(lines) + "\n"


def _ours() -> list[str]:
    names = sorted({name.split()[0] for name in test_tracing_special.OURS})
    return [
        "## SciPy's other special functions",
        "",
        "They are not ufuncs and turn their arguments into plain arrays first. Use `gw.special`, or switch",
        "SciPy's Array API on (`SCIPY_ARRAY_API=1` before SciPy is imported).",
        "",
        "| function | real |",
        "|---|---|",
        *(f"| `gw.special.{name}` | value, slope |" for name in names),
        "",
    ]


def _refused() -> Iterable[tuple[str, set[str]]]:
    by_advice: dict[str, set[str]] = defaultdict(set)
    for function, advice in dispatch.refused().items():
        by_advice[advice].add(dispatch.public_name(function))
    return sorted(by_advice.items(), key=lambda item: min(item[1]))


if __name__ == "__main__":
    PAGE.write_text(page(marks()), encoding="utf-8")
