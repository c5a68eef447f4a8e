"""Sequences and optionals while a graph is traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import one_node

A, B, C = np.arange(3.0), np.ones((2, 2)), np.array(5.0)


def call(op: str, *inputs: Any, **attributes: Any) -> Any:
    model = one_node(op, *inputs, **attributes)
    return evaluate(model, {f"x{k}": value for k, value in enumerate(inputs) if value is not None})[0]


def test_items_of_different_shapes_make_a_sequence() -> None:
    sequence = call("SequenceConstruct", A, B, C)
    assert [item.shape for item in sequence] == [(3,), (2, 2), ()]
    assert call("SequenceLength", sequence) == 3
    assert call("SequenceEmpty", dtype=1) == []


def test_positions_count_from_either_end() -> None:
    sequence = [A, B, C]
    assert call("SequenceAt", sequence, np.int64(-1)) is C
    assert [item.ndim for item in call("SequenceInsert", sequence, C, np.int64(1))] == [1, 0, 2, 0]
    assert [item.ndim for item in call("SequenceInsert", sequence, C)] == [1, 2, 0, 0]
    assert [item.ndim for item in call("SequenceErase", sequence, np.int64(-2))] == [1, 0]
    assert [item.ndim for item in call("SequenceErase", sequence)] == [1, 2]
    assert len(sequence) == 3


def test_a_position_outside_is_refused_with_the_length() -> None:
    with pytest.raises(InvalidGraph, match="position 3 is outside a sequence of length 3"):
        call("SequenceAt", [A, B, C], np.int64(3))
    with pytest.raises(InvalidGraph, match="the sequence is empty"):
        call("SequenceErase", [])


@pytest.mark.parametrize(
    ("split", "options", "shapes"),
    [
        (None, {"axis": 1}, [(2, 1), (2, 1), (2, 1)]),
        (None, {"axis": 1, "keepdims": 0}, [(2,), (2,), (2,)]),
        (np.int64(2), {"axis": 1}, [(2, 2), (2, 1)]),
        (np.array([1, 1]), {"axis": 0}, [(1, 3), (1, 3)]),
    ],
)
def test_split_to_sequence_and_concat_are_inverse(
    split: np.ndarray | None, options: dict[str, int], shapes: list[tuple[int, ...]]
) -> None:
    x = np.arange(6.0).reshape(2, 3)
    inputs = [x] if split is None else [x, split]
    pieces = call("SplitToSequence", *inputs, **options)
    assert [piece.shape for piece in pieces] == shapes
    new_axis = int(options.get("keepdims", 1) == 0)
    joined = call("ConcatFromSequence", pieces, axis=options["axis"], new_axis=new_axis)
    np.testing.assert_array_equal(joined, x)


def test_traced_items_pass_through_a_sequence_with_their_derivatives() -> None:
    def function(x: jax.Array) -> jax.Array:
        pieces = call("SplitToSequence", x, axis=0)
        joined: jax.Array = call("ConcatFromSequence", pieces[::-1], axis=0)
        return jnp.sin(joined)

    np.testing.assert_allclose(jax.jacrev(function)(A), np.diag(np.cos(A))[::-1], rtol=1e-15)


def test_an_empty_optional_has_no_element_and_refuses_to_give_one() -> None:
    assert not call("OptionalHasElement", None)
    assert call("OptionalHasElement", A)
    assert call("Optional", A) is A
    assert call("OptionalGetElement", [A]) == [A]
    with pytest.raises(InvalidGraph, match="test it with OptionalHasElement first"):
        call("OptionalGetElement", None)
