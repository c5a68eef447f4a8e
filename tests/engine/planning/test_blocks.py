"""A plan run in this process: every block, assembled."""

from __future__ import annotations

import numpy as np

from gradwire_engine.values import ArrayType
from tests.engine import in_process
from tests.engine.small_graphs import graph_of, plan_of

OUTER = "(double[n] x, double[m] z) => (double[n, m] y) \
 { i = Constant<value_ints = [1]>() c = Unsqueeze(x, i) y = Mul(c, z) }"
X, Z = np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0])


def test_types_of_arrays_are_named() -> None:
    assert in_process.argument_types({"x": np.zeros((2, 0), np.float32), "b": np.array(True)}) == (
        ("x", ArrayType("float32", (2, 0))),
        ("b", ArrayType("bool", ())),
    )


def test_blocks_come_in_order_with_an_array_for_each_piece() -> None:
    graph = graph_of(OUTER)
    point = {"x": X, "z": Z}
    plan = plan_of(graph, point, mode="reverse", block_width=4)
    found = list(in_process.blocks(graph, plan, point))
    assert [block for block, _ in found] == list(plan.blocks)
    for block, arrays in found:
        for piece, array in zip(plan.pieces(block), arrays, strict=True):
            rows, columns = piece.row_stop - piece.row_start, piece.column_stop - piece.column_start
            assert array.shape == (rows, columns)


def test_assembled_entries_have_the_shape_of_the_output_then_of_the_input() -> None:
    graph = graph_of(OUTER)
    point = {"x": X, "z": Z}
    for mode in ("forward", "reverse"):
        by_x, by_z = in_process.assemble(graph, plan_of(graph, point, mode=mode, block_width=2), point)
        np.testing.assert_array_equal(by_x, np.einsum("ip,j->ijp", np.eye(3), Z))
        np.testing.assert_array_equal(by_z, np.einsum("i,jq->ijq", X, np.eye(2)))
