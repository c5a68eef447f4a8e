"""Constant folding: results of nodes whose inputs are integer constants, computed while the graph is built.

Positions and masks that are made of constants stay constants in the graph this way. Floating-point arithmetic
is left to the service; only the rearrangement of constants is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ELEMENTS = 4096
"""A result may have as many elements, or as many as its inputs together."""

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Sub": np.subtract,
    "Where": np.where,
}
_ARRANGING = frozenset({"Reshape", "Transpose"})

FOLDED = frozenset({*_ELEMENTWISE, *_ARRANGING, "Cast", "Concat", "Expand", "Slice"})
"""Operators that are folded."""


def fold(
    op: str,
    inputs: Sequence[Array],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    attributes: Mapping[str, Any],
) -> Array | None:
    """Return the result of a node, or None where it stays a node.

    Args:
        op: one of `FOLDED`, of ONNX's own domain.
        inputs: the elements of every input.
        shape: shape of the result.
        dtype: dtype of the result.
        attributes: the node's attributes.
    """
    if op in _ARRANGING:
        data = inputs[0]
        return data.reshape(shape) if op == "Reshape" else data.transpose(attributes["perm"])
    if dtype.kind not in "iub" or any(array.dtype.kind not in "iub" for array in inputs):
        return None
    if int(np.prod(shape)) > max(_ELEMENTS, sum(array.size for array in inputs)):
        return None
    if op == "Cast":
        return inputs[0].astype(dtype)
    if op == "Concat":
        return np.concatenate(inputs, attributes["axis"])
    if op == "Expand":
        return np.broadcast_to(inputs[0], shape)
    if op == "Slice":
        return _sliced(*inputs)
    with np.errstate(over="ignore"):  # integers wrap
        return np.asarray(_ELEMENTWISE[op](*inputs), dtype)


def _sliced(data: Array, starts: Array, ends: Array, axes: Array, steps: Array) -> Array:
    """Evaluate a Slice whose starts are not negative; a negative end of a negative step is past the front."""
    cut = [slice(None)] * data.ndim
    for start, end, axis, step in zip(*(part.tolist() for part in (starts, ends, axes, steps)), strict=True):
        cut[axis] = slice(start, None if end < 0 else end, step)
    return data[tuple(cut)]
