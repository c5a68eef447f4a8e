"""Constant folding while a graph is built: what is computed at once, and what stays a node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import GraphValue

INTEGERS = np.arange(6).reshape(2, 3)

FOLDED: dict[str, tuple[Callable[[GraphValue], GraphValue], object]] = {
    "arithmetic": (lambda x: ops.binary("Add", x, ops.constant_like(x, 2)), INTEGERS + 2),
    "comparison": (lambda x: ops.compare("Less", x, ops.constant_like(x, 2)), INTEGERS < 2),
    "choice": (
        lambda x: ops.where(ops.compare("Less", x, ops.constant_like(x, 2)), x, ops.constant_like(x, 9)),
        np.where(INTEGERS < 2, INTEGERS, 9),
    ),
    "cast": (lambda x: ops.cast(x, np.dtype(np.int8)), INTEGERS.astype(np.int8)),
    "reshape": (lambda x: ops.reshape(x, (3, 2)), INTEGERS.reshape(3, 2)),
    "transpose": (lambda x: ops.transpose(x, [1, 0]), INTEGERS.T),
    "expand": (lambda x: ops.expand(x, (4, 2, 3)), np.broadcast_to(INTEGERS, (4, 2, 3))),
    "concat": (lambda x: ops.concat([x, x], 1), np.concatenate([INTEGERS, INTEGERS], 1)),
    "slice": (lambda x: ops.slices(x, [(1, 1, 1, 2)]), INTEGERS[:, 1:]),
    "reverse": (lambda x: ops.reverse(x, [0, 1]), INTEGERS[::-1, ::-1]),
}


@pytest.mark.parametrize("name", FOLDED)
def test_operators_of_integer_constants_are_computed_at_once(name: str) -> None:
    build, expected = FOLDED[name]
    graph = GraphBuilder(folding=True)
    known = graph.known(build(graph.constant(INTEGERS)))
    assert known is not None
    np.testing.assert_array_equal(known, expected, strict=True)
    assert not graph.root.nodes


@pytest.mark.parametrize("name", FOLDED)
def test_they_are_nodes_in_a_graph_that_does_not_fold(name: str) -> None:
    graph = GraphBuilder()
    assert graph.known(FOLDED[name][0](graph.constant(INTEGERS))) is None


def test_floating_point_arithmetic_is_left_to_the_service_and_its_arrangement_is_not() -> None:
    graph = GraphBuilder(folding=True)
    x = graph.constant(np.ones(3))
    assert graph.known(ops.binary("Add", x, x)) is None
    assert graph.known(ops.reshape(x, (3, 1))) is not None


def test_integers_wrap_without_a_warning() -> None:
    graph = GraphBuilder(folding=True)
    x = graph.constant(np.asarray(127, np.int8))
    assert graph.known_scalar(ops.binary("Add", x, x)) == -2


def test_what_would_become_large_stays_a_node() -> None:
    graph = GraphBuilder(folding=True)
    assert graph.known(ops.expand(graph.scalar(0, ops.INT64), (5000,))) is None


def test_a_uniform_constant_is_known_and_folds_into_another() -> None:
    graph = GraphBuilder(folding=True)
    zeros = graph.constant(np.zeros(100, np.int64))
    known = graph.known(ops.binary("Add", zeros, graph.scalar(1, ops.INT64)))
    assert known is not None
    np.testing.assert_array_equal(known, np.ones(100, np.int64))
