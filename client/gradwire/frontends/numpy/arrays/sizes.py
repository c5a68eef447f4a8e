"""What NumPy's functions do with sizes of axes that are not known while a function is traced."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.ufuncs.rules import call
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import active
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import Size, is_symbolic


def arithmetic(ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """Apply a ufunc to sizes, plain arrays and numbers; a size counts as an integer of Python.

    Raises:
        TraceError: no function is being traced, or the dtype of the result would not be NumPy's.
    """
    if any(isinstance(item, TracedArray) for item in inputs):
        return NotImplemented
    graph = active.get()
    if graph is None or method != "__call__" or kwargs:
        raise refuse(f"np.{ufunc.__name__} of a size", "use sizes in arithmetic within a traced function")
    narrow = [value for value in graph.root.inputs if value.dtype.kind == "f" and value.dtype != ops.FLOAT64]
    if narrow and all(isinstance(item, int | float) or is_symbolic(item) for item in inputs):
        raise refuse(
            f"np.{ufunc.__name__} of a size and a number, whose dtype gives way to {narrow[0].dtype},",
            "combine sizes with arrays, one at a time: x / n * 2.0 for x * (2.0 / n)",
        )
    results = [wrap(value) for value in call(ufunc, inputs, graph)]
    return results[0] if len(results) == 1 else tuple(results)


Size.arithmetic = staticmethod(arithmetic)
