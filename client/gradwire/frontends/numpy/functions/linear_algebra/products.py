"""Products of matrices, vectors and tensors."""

from __future__ import annotations

import math
import operator
import string
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced, value_of, wrap
from gradwire.frontends.numpy.axes import all_axes
from gradwire.frontends.numpy.casts import check_cast
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.frontends.numpy.functions.manipulation.shaping import chosen_elements
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import Shape
from gradwire.graphs.sizes import is_symbolic, surely_equal


def _both(a: Any, b: Any) -> tuple[Any, Any]:
    graph = graph_of(a, b)
    return traced(graph, a), traced(graph, b)


@implements("linalg.matmul")
def matmul(a: Any, b: Any, /) -> Any:
    return np.matmul(a, b)


@implements("dot")
def dot(a: Any, b: Any) -> Any:
    a, b = _both(a, b)
    if not a.ndim or not b.ndim:
        return a * b
    if b.ndim <= 2:
        return np.matmul(a, b)
    return tensordot(a, b, ([-1], [-2]))


@implements("vdot")
def vdot(a: Any, b: Any, /) -> Any:
    return np.matmul(np.ravel(a), np.ravel(b))


@implements("inner")
def inner(a: Any, b: Any, /) -> Any:
    a, b = _both(a, b)
    return a * b if not a.ndim or not b.ndim else tensordot(a, b, ([-1], [-1]))


@implements("outer", "linalg.outer")
def outer(a: Any, b: Any) -> Any:
    return np.ravel(a)[:, None] * np.ravel(b)[None, :]


@implements("linalg.vecdot")
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    a, b = _both(x1, x2)
    return np.moveaxis(a * b, axis, -1).sum(-1)


@implements("tensordot", "linalg.tensordot")
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = _both(a, b)
    if isinstance(axes, Sequence):
        left, right = (
            all_axes(tuple(x) if isinstance(x, Sequence) else x, y.ndim)
            for x, y in zip(axes, (a, b), strict=True)
        )
    else:
        count = operator.index(axes)
        left, right = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    shared = tuple(a.shape[axis] for axis in left)
    if shared != tuple(b.shape[axis] for axis in right):
        raise ValueError("shape-mismatch for sum")
    rows = [axis for axis in range(a.ndim) if axis not in left]
    columns = [axis for axis in range(b.ndim) if axis not in right]
    outside = tuple(a.shape[axis] for axis in rows) + tuple(b.shape[axis] for axis in columns)
    height, depth = math.prod(a.shape[axis] for axis in rows), math.prod(shared)
    first = np.reshape(np.transpose(a, [*rows, *left]), (height, depth))
    second = np.reshape(np.transpose(b, [*right, *columns]), (depth, math.prod(outside[len(rows) :])))
    return np.reshape(np.matmul(first, second), outside)


@implements("kron")
def kron(a: Any, b: Any) -> Any:
    a, b = _both(a, b)
    rank = max(a.ndim, b.ndim)
    first = np.reshape(a, (1,) * (rank - a.ndim) + a.shape)
    second = np.reshape(b, (1,) * (rank - b.ndim) + b.shape)
    shape = tuple(m * n for m, n in zip(first.shape, second.shape, strict=True))
    first = np.reshape(first, [extent for m in first.shape for extent in (m, 1)])
    second = np.reshape(second, [extent for n in second.shape for extent in (1, n)])
    return np.reshape(first * second, shape)


@implements("cross")
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis, axis, axis)
    a, b = _both(a, b)
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    if not {a.shape[-1], b.shape[-1]} <= {2, 3}:
        raise ValueError("incompatible dimensions for cross product (dimension must be 2 or 3)")
    a0, a1, b0, b1 = a[..., 0], a[..., 1], b[..., 0], b[..., 1]
    flat = a0 * b1 - a1 * b0
    if a.shape[-1] == b.shape[-1] == 2:
        return flat
    a2 = a[..., 2] if a.shape[-1] == 3 else 0
    b2 = b[..., 2] if b.shape[-1] == 3 else 0
    parts = np.broadcast_arrays(a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, flat)
    return np.moveaxis(np.stack(parts, axis=-1), -1, axisc)


@implements("linalg.cross")
def linalg_cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return cross(x1, x2, axis=axis)


@implements("linalg.multi_dot")
def multi_dot(arrays: Sequence[Any]) -> Any:
    """Multiply in the order of least work (matrix chain multiplication by dynamic programming).

    See Cormen, Leiserson, Rivest and Stein, "Introduction to Algorithms", section 14.2 (4th edition, 2022).
    """
    if len(arrays) < 2:
        raise ValueError("Expecting at least two arrays.")
    sides = [np.shape(arrays[0])[0] if np.ndim(arrays[0]) == 2 else 1]
    sides += [np.shape(array)[-1] if np.ndim(array) == 2 else 1 for array in arrays]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(arrays))}
    for length in range(1, len(arrays)):
        for low in range(len(arrays) - length):
            high = low + length
            best[low, high] = min(
                (
                    best[low, cut][0]
                    + best[cut + 1, high][0]
                    + sides[low] * sides[cut + 1] * sides[high + 1],
                    cut,
                )
                for cut in range(low, high)
            )

    def product(low: int, high: int) -> Any:
        if low == high:
            return arrays[low]
        cut = best[low, high][1]
        return np.dot(product(low, cut), product(cut + 1, high))

    return product(0, len(arrays) - 1)


@implements("linalg.matrix_power")
def matrix_power(a: Any, n: int) -> Any:
    if n < 0:
        a, n = np.linalg.inv(a), -n
    if n == 0:
        return np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape) + np.zeros_like(a)
    factors = []
    while n:
        if n & 1:
            factors.append(a)
        n >>= 1
        a = np.matmul(a, a) if n else a
    return reduce(np.matmul, factors)


@implements("einsum")
def einsum(
    *operands: Any, optimize: Any = False, dtype: Any = None, order: str = "K", casting: str = "safe"
) -> TracedArray:
    """Sum products; an equation that only picks elements of one operand gives a view, as in NumPy.

    `optimize` has no effect: the compiler chooses the order.
    """
    equation, arrays = _explicit(operands)
    graph = graph_of(*arrays)
    kind = common_dtype(*arrays, dtype=dtype)
    for array in arrays:
        check_cast(common_dtype(array), kind, casting)
    equation, shape, single = _checked(equation, [np.shape(array) for array in arrays])
    if len(arrays) == 1 and _picks(equation):
        (array,) = arrays  # in its own dtype, whatever is asked for
        places = np.einsum(equation, np.arange(array.size).reshape(array.shape))
        return chosen_elements(array, places)
    values = [value_of(graph, array, kind) for array in arrays]
    # An axis of one element is the same for all positions along a label.
    squeezed = [
        ops.reshape(value, tuple(extent for axis, extent in enumerate(value.shape) if axis not in axes))
        for value, axes in zip(values, single, strict=True)
    ]
    wide = [ops.wide(value) for value in squeezed]
    result = wrap(ops.cast(ops.einsum(equation, wide, shape), kind))
    return result if order in ("K", "A", "C") else result.copy(order)


def _picks(equation: str) -> bool:
    """Whether an explicit equation of one operand sums over nothing."""
    term, _, output = equation.partition("->")
    return set(term) == set(output)


def _explicit(operands: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the equation as text, also if it is given as lists of numbers."""
    if isinstance(operands[0], str):
        return operands[0].replace(" ", ""), list(operands[1:])
    pairs = [tuple(operands[i : i + 2]) for i in range(0, len(operands) - 1, 2)]
    equation = ",".join(_letters(numbers) for _, numbers in pairs)
    if len(operands) % 2:
        equation += "->" + _letters(operands[-1])
    return equation, [array for array, _ in pairs]


def _letters(numbers: Sequence[Any]) -> str:
    # Capitals come first: NumPy orders implicit outputs by number.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if number is Ellipsis else alphabet[number] for number in numbers)


def _checked(equation: str, shapes: Sequence[Shape]) -> tuple[str, Shape, list[list[int]]]:
    """Write an equation with a letter for every axis and an explicit output.

    Returns:
        The equation, the shape of its result, and for each operand the axes of one element that stand for a
        longer one, which the equation leaves out.

    Raises:
        ValueError: the equation does not fit the shapes.
    """
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {len(terms)} terms in {equation!r} for {len(shapes)} operands")
    free = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    for term, shape, count in zip(terms, shapes, free, strict=True):
        if count < 0 or (count and "..." not in term):
            raise ValueError(f"einsum: term {term!r} of {equation!r} does not fit shape {shape}")
    if not arrow:
        labels = left.replace("...", "").replace(",", "")
        output = ("..." if any(free) else "") + "".join(
            sorted(label for label in set(labels) if labels.count(label) == 1)
        )
    elif any(free) and "..." not in output:
        raise ValueError(f"einsum: the output of {equation!r} needs an ellipsis for the other axes")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    dots = "".join(unused[: max(free)])
    terms = [term.replace("...", dots[len(dots) - count :]) for term, count in zip(terms, free, strict=True)]
    output = output.replace("...", dots)
    extents: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, extent in zip(term, shape, strict=True):
            known = extents.setdefault(label, extent)
            if not surely_equal(known, 1) and not surely_equal(extent, 1) and known != extent:
                raise ValueError(f"einsum: extent of {label!r} in {equation!r} is {known} and {extent}")
            extents[label] = extent if surely_equal(known, 1) else known
    if any(label not in extents for label in output):
        raise ValueError(f"einsum: the output of {equation!r} names an axis that no term has")
    single = [
        [
            axis
            for axis, label in enumerate(term)
            if surely_equal(shape[axis], 1) and not surely_equal(extents[label], 1)
        ]
        for term, shape in zip(terms, shapes, strict=True)
    ]
    kept = [
        "".join(label for axis, label in enumerate(term) if axis not in axes)
        for term, axes in zip(terms, single, strict=True)
    ]
    return f"{','.join(kept)}->{output}", tuple(extents[label] for label in output), single


@implements("convolve")
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    a, v = _both(a, v)
    if _shorter(a, v):
        a, v = v, a
    return _slide(a, v[::-1], mode)


@implements("correlate")
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    a, v = _both(a, v)
    return _slide(v, a, mode)[::-1] if _shorter(a, v) else _slide(a, v, mode)


def _shorter(a: TracedArray, v: TracedArray) -> bool:
    """Whether `a` is shorter than `v`; of an array of unknown size it is demanded that it is not."""
    if is_symbolic(a.size) and not is_symbolic(v.size):
        a.graph.require(a.size - v.size)
        return False
    return v.size > a.size


def _slide(a: TracedArray, kernel: TracedArray, mode: str) -> TracedArray:
    """Sum the products of the shorter `kernel` with windows of `a`."""
    if a.ndim != 1 or kernel.ndim != 1 or surely_equal(kernel.size, 0):
        raise ValueError("np.convolve and np.correlate take one-dimensional arrays that are not empty")
    kind = common_dtype(a, kernel)
    inner = kind if kind.kind == "f" else ops.FLOAT64
    extent = kernel.size
    pads = {
        "full": (extent - 1, extent - 1),
        "same": (extent // 2, (extent - 1) // 2),
        "valid": (0, 0),
    }
    if mode not in pads:
        raise ValueError(f"mode must be full, same or valid, not {mode!r}")
    low, high = pads[mode]
    count = a.size + low + high - extent + 1
    signal, filter_ = (ops.reshape(ops.cast(x.value, inner), (1, 1, x.size)) for x in (a, kernel))
    result = a.graph.one(
        "Conv", [signal, filter_], (1, 1, count), inner, kernel_shape=[extent], pads=[low, high]
    )
    return wrap(ops.cast(ops.reshape(result, (count,)), kind))
