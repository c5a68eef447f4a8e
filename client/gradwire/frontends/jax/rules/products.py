"""Products of arrays: contractions and convolutions."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.jax.dtypes import BFLOAT16
from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.shapes import dilated, padded
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue


def _multiplied(call: Call, *operands: GraphValue) -> list[GraphValue]:
    """Operands in the dtype in which their products are summed."""
    wanted = call.dtype
    if wanted == BFLOAT16 or wanted.kind in "iub":
        wanted = ops.FLOAT32 if wanted == BFLOAT16 else ops.INT64
    return [ops.cast(operand, wanted) for operand in operands]


@rule("dot_general")
def contraction(call: Call, a: GraphValue, b: GraphValue) -> GraphValue:
    """Return a MatMul where the axes stand right for one, else an Einsum."""
    (left, right), (left_batch, right_batch) = (
        tuple(tuple(int(axis) for axis in axes) for axes in pair) for pair in call.params["dimension_numbers"]
    )
    a, b = _multiplied(call, a, b)
    batch = tuple(range(len(left_batch)))
    if (
        left_batch == right_batch == batch
        and len(left) == 1
        and a.ndim == len(batch) + 2
        and b.ndim == len(batch) + 2
    ):
        a = ops.transpose(a, [*batch, a.ndim - 1, a.ndim - 2]) if left[0] == a.ndim - 2 else a
        b = ops.transpose(b, [*batch, b.ndim - 1, b.ndim - 2]) if right[0] == b.ndim - 1 else b
        return ops.cast(ops.matmul(a, b), call.dtype)
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
    return ops.cast(ops.einsum(equation, [a, b], call.shape), call.dtype)


def _spatial(x: GraphValue, widths: Sequence[tuple[int, int]], gaps: Sequence[int]) -> GraphValue:
    """Images with zeros between their elements and around them; negative widths crop."""
    zero = ops.constant_like(x, 0)
    for axis, gap in enumerate(gaps):
        x = dilated(x, 2 + axis, gap - 1, zero)
    return padded(x, [(0, 0), (0, 0), *widths], zero)


@rule("conv_general_dilated")
def convolution(call: Call, x: GraphValue, kernel: GraphValue) -> GraphValue:
    """Put a Conv between transpositions; a dilated input (a transposed convolution) is spread out first."""
    params = call.params
    numbers: Any = params["dimension_numbers"]
    if call.dtype.kind in "iub":
        x, kernel = (ops.cast(operand, ops.FLOAT64) for operand in (x, kernel))
    else:
        x, kernel = _multiplied(call, x, kernel)
    x = ops.transpose(x, [int(axis) for axis in numbers.lhs_spec])
    kernel = ops.transpose(kernel, [int(axis) for axis in numbers.rhs_spec])
    groups, batches = int(params["feature_group_count"]), int(params["batch_group_count"])
    if batches > 1:  # groups of the batch are as good as groups of channels
        apart = ops.reshape(x, (batches, x.shape[0] // batches, *x.shape[1:]))
        apart = ops.transpose(apart, [1, 0, *range(2, apart.ndim)])
        x = ops.reshape(apart, (apart.shape[0], batches * x.shape[1], *x.shape[2:]))
        groups = batches
    widths = [(int(low), int(high)) for low, high in params["padding"]]
    x = _spatial(x, widths, [int(gap) for gap in params["lhs_dilation"]])
    order = [int(axis) for axis in numbers.out_spec]
    shape = tuple(call.shape[axis] for axis in order)
    if x.ndim == 2:
        return _without_space(call, x, kernel, groups, order)
    result = call.graph.one(
        "Conv",
        [x, kernel],
        shape,
        x.dtype,
        kernel_shape=list(kernel.shape[2:]),
        strides=[int(step) for step in params["window_strides"]],
        dilations=[int(step) for step in params["rhs_dilation"]],
        group=groups,
    )
    return ops.cast(ops.transpose(result, np.argsort(order).tolist()), call.dtype)


def _without_space(
    call: Call, x: GraphValue, kernel: GraphValue, groups: int, order: Sequence[int]
) -> GraphValue:
    """Return the convolution over no axes: a product of matrices, for each group."""
    outputs = kernel.shape[0]
    a = ops.reshape(x, (x.shape[0], groups, x.shape[1] // groups))
    b = ops.reshape(kernel, (groups, outputs // groups, kernel.shape[1]))
    shape = (x.shape[0], groups, outputs // groups)
    result = ops.reshape(ops.einsum("ngc,goc->ngo", [a, b], shape), (x.shape[0], outputs))
    return ops.cast(ops.transpose(result, np.argsort(order).tolist()), call.dtype)
