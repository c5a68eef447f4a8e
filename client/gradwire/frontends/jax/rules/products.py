"""Products of arrays: contractions and convolutions."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import Graph, Value
from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.shapes import dilated, padded

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _multiplied(call: Call, *operands: Value) -> list[Value]:
    """Operands in the dtype in which their products are summed."""
    wanted = call.dtype
    if wanted == _BFLOAT16 or wanted.kind in "iub":
        wanted = np.dtype(np.float32 if wanted == _BFLOAT16 else np.int64)
    return [ops.cast(call.graph, operand, wanted) for operand in operands]


@rule("dot_general")
def contraction(call: Call, a: Value, b: Value) -> Value:
    """A MatMul where the axes stand right for one, else an Einsum."""
    (left, right), (left_batch, right_batch) = (
        tuple(tuple(int(axis) for axis in axes) for axes in pair) for pair in call.params["dimension_numbers"]
    )
    graph = call.graph
    a, b = _multiplied(call, a, b)
    batch = tuple(range(len(left_batch)))
    if (
        left_batch == right_batch == batch
        and len(left) == 1
        and a.ndim == len(batch) + 2
        and b.ndim == len(batch) + 2
    ):
        a = ops.transpose(graph, a, [*batch, a.ndim - 1, a.ndim - 2]) if left[0] == a.ndim - 2 else a
        b = ops.transpose(graph, b, [*batch, b.ndim - 1, b.ndim - 2]) if right[0] == b.ndim - 1 else b
        return ops.cast(graph, ops.matmul(graph, a, b), call.dtype)
    letters = iter(string.ascii_letters)
    a_names, b_names = [""] * a.ndim, [""] * b.ndim
    for i, j in (*zip(left_batch, right_batch, strict=True), *zip(left, right, strict=True)):
        a_names[i] = b_names[j] = next(letters)
    shared = [a_names[i] for i in left_batch]
    for names in (a_names, b_names):
        names[:] = [name or next(letters) for name in names]
    free = [name for i, name in enumerate(a_names) if i not in (*left_batch, *left)]
    free += [name for j, name in enumerate(b_names) if j not in (*right_batch, *right)]
    equation = f"{''.join(a_names)},{''.join(b_names)}->{''.join(shared + free)}"
    result = graph.one("Einsum", [a, b], call.shape, a.dtype, equation=equation)
    return ops.cast(graph, result, call.dtype)


def _spatial(graph: Graph, x: Value, widths: Sequence[tuple[int, int]], gaps: Sequence[int]) -> Value:
    zero = ops.scalar(0, x.dtype)
    for axis, gap in enumerate(gaps):
        x = dilated(graph, x, 2 + axis, gap - 1, zero)
    return padded(graph, x, [(0, 0), (0, 0), *widths], zero)


@rule("conv_general_dilated")
def convolution(call: Call, x: Value, kernel: Value) -> Value:
    """A Conv between transpositions; a dilated input (a transposed convolution) is spread out first."""
    graph, params = call.graph, call.params
    numbers: Any = params["dimension_numbers"]
    if call.dtype.kind in "iub":
        x, kernel = (ops.cast(graph, operand, np.float64) for operand in (x, kernel))
    else:
        x, kernel = _multiplied(call, x, kernel)
    x = ops.transpose(graph, x, numbers.lhs_spec)
    kernel = ops.transpose(graph, kernel, numbers.rhs_spec)
    groups, batches = int(params["feature_group_count"]), int(params["batch_group_count"])
    if batches > 1:  # groups of the batch are as good as groups of channels
        apart = ops.reshape(graph, x, (batches, x.shape[0] // batches, *x.shape[1:]))
        apart = ops.transpose(graph, apart, [1, 0, *range(2, apart.ndim)])
        x = ops.reshape(graph, apart, (apart.shape[0], batches * x.shape[1], *x.shape[2:]))
        groups = batches
    widths = [(int(low), int(high)) for low, high in params["padding"]]
    x = _spatial(graph, x, widths, [int(gap) for gap in params["lhs_dilation"]])
    order = [int(axis) for axis in numbers.out_spec]
    shape = tuple(call.shape[axis] for axis in order)
    if x.ndim == 2:
        return _without_space(call, x, kernel, groups, order)
    result = graph.one(
        "Conv",
        [x, kernel],
        shape,
        x.dtype,
        kernel_shape=list(kernel.shape[2:]),
        strides=[int(step) for step in params["window_strides"]],
        dilations=[int(step) for step in params["rhs_dilation"]],
        group=groups,
    )
    return ops.cast(graph, ops.transpose(graph, result, np.argsort(order).tolist()), call.dtype)


def _without_space(call: Call, x: Value, kernel: Value, groups: int, order: Sequence[int]) -> Value:
    """A convolution over no axes is a product of matrices, for each group."""
    graph, outputs = call.graph, kernel.shape[0]
    a = ops.reshape(graph, x, (x.shape[0], groups, x.shape[1] // groups))
    b = ops.reshape(graph, kernel, (groups, outputs // groups, kernel.shape[1]))
    shape = (x.shape[0], groups, outputs // groups)
    result = graph.one("Einsum", [a, b], shape, x.dtype, equation="ngc,goc->ngo")
    result = ops.reshape(graph, result, (x.shape[0], outputs))
    return ops.cast(graph, ops.transpose(graph, result, np.argsort(order).tolist()), call.dtype)
