"""Converters for skl2onnx from formulas: the nodes of an estimator are traced from NumPy code.

skl2onnx leaves the number of rows open, and traced arrays have fixed shapes. A formula is therefore traced at
a few rows, and must not write that number into the graph: NumPy's `reshape`, `newaxis`, `broadcast_to` and
indexing with integers do, arithmetic, products, reductions, `where`, `take` and `concatenate` do not.
`column_axis` and `filled` stand in for those that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper
from skl2onnx.common.data_types import guess_numpy_type

from gradwire.frontends.numpy.arrays.array import TracedArray, value_of, wrap
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder

Formula = Callable[[Any, TracedArray], Iterator[Any]]
"""Yields the outputs of a fitted estimator for rows of its features, (rows, features), in order.

What comes after the last output that is wanted is not run.
"""

Converter = Callable[[Any, Any, Any], None]
"""What skl2onnx calls with its scope, operator and container to add the nodes of an estimator."""

_ROWS = 2


def converter(formula: Formula) -> Converter:
    """Make a converter for skl2onnx of a formula, which gets rows in float64, or in float32 if they are."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        (entry,), model = operator.inputs, operator.raw_operator
        dtype: np.dtype[Any] = np.dtype(guess_numpy_type(entry.type))
        columns = getattr(model, "n_features_in_", entry.type.shape[1])
        graph = GraphBuilder()
        x = wrap(graph.input("x", (_ROWS, int(columns)), dtype))
        rows = x if dtype == np.float32 else x.astype(np.float64)
        results = islice(formula(model, rows), len(operator.outputs))
        wanted = {f"y{place}": value_of(graph, result) for place, result in enumerate(results)}
        names = {"x": entry.full_name}
        names.update(zip(wanted, (output.full_name for output in operator.outputs), strict=True))
        _splice(graph.model(wanted, "formula").embedded().graph, names, scope, container)

    return convert


def _splice(graph: onnx.GraphProto, names: dict[str, str], scope: Any, container: Any) -> None:
    """Copy constants and nodes into skl2onnx's graph, under the given names and else under unique ones."""

    def renamed(name: str) -> str:
        if name not in names:
            names[name] = str(scope.get_unique_variable_name(name))
        return names[name]

    for tensor in graph.initializer:
        container.add_initializer(renamed(tensor.name), tensor.data_type, list(tensor.dims), tensor)
    limit = container.target_opset_any_domain("")
    for node in graph.node:
        container.add_node(
            node.op_type,
            [renamed(name) for name in node.input],
            [renamed(name) for name in node.output],
            op_version=onnx.defs.get_schema(node.op_type, limit).since_version,
            name=scope.get_unique_operator_name(node.op_type),
            **{one.name: onnx.helper.get_attribute_value(one) for one in node.attribute},
        )


def column_axis(x: TracedArray) -> TracedArray:
    """Return `x[:, None]`, (rows, 1, features)."""
    graph, (rows, features) = x.graph, x.shape
    return wrap(graph.one("Unsqueeze", [x.value, graph.ints([1])], (rows, 1, features), x.dtype))


def filled(x: TracedArray, number: float, extent: int) -> TracedArray:
    """Return `np.full((len(x), extent), number)` in the dtype of `x`."""
    graph, shape = x.graph, (x.shape[0], extent)
    rows = graph.one("Shape", [x.value], (1,), ops.INT64, start=0, end=1)
    extents = ops.concat([rows, graph.ints([extent])], axis=0)
    return wrap(graph.one("Expand", [ops.constant_like(x.value, number), extents], shape, x.dtype))
