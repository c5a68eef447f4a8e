"""The tree over batches: the same bits in whatever order they arrive, wherever it is read."""

from __future__ import annotations

from fractions import Fraction
from math import log2
from random import Random
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire_engine.values import ArrayType
from gradwire_server.compute.accumulation import PartialSum, SummationTree, batch_sum, empty_sum, rounded

Array = np.ndarray[Any, Any]
TYPES = (ArrayType("float64", ()), ArrayType("float64", (3,)))


def leaves(count: int) -> list[tuple[Array, Array]]:
    """Batches of widely different sizes, so that the order of additions shows in the bits."""
    rng = np.random.default_rng(7)
    scale = 10.0 ** rng.integers(-8, 8, count)
    return [(np.asarray(rng.standard_normal() * s), rng.standard_normal(3) * s) for s in scale]


def recursive(values: list[Array]) -> Array:
    """The tree's definition: the largest power of two of them on the left, the rest on the right."""
    if len(values) == 1:
        return values[0]
    half = 1 << (len(values) - 1).bit_length() - 1
    return np.asarray(recursive(values[:half]) + recursive(values[half:]))


def batch(arrays: tuple[Array, Array], writeable: bool = False) -> PartialSum:
    made = tuple(array.copy() for array in arrays)
    for array in made:
        array.flags.writeable = writeable
    return batch_sum(made, 2, "w", 0.5)


def read(tree: SummationTree) -> tuple[bytes, ...]:
    total = tree.total() or empty_sum(TYPES)
    found = rounded(total, TYPES, mean=False)
    again = rounded(tree.total() or empty_sum(TYPES), TYPES, mean=False)
    assert [array.tobytes() for array in again] == [array.tobytes() for array in found]
    tree.release()
    return tuple(array.tobytes() for array in found)


@given(st.integers(1, 40).flatmap(lambda n: st.permutations(range(n))), st.booleans())
def test_any_order_of_arrival_has_the_bits_of_the_tree(order: list[int], writeable: bool) -> None:
    values = leaves(len(order))
    tree = SummationTree()
    for index in order:
        tree.add(index, batch(values[index], writeable))
    tree.mark(len(order))
    expected = tuple(recursive([value[part] for value in values]).tobytes() for part in (0, 1))
    assert read(tree) == expected


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_reads_between_batches_change_nothing_that_follows(count: int, random: Random) -> None:
    """Each read sees the batches sent before it, while later ones arrive before earlier ones."""
    values = leaves(count)
    tree, arrived, later = SummationTree(), 0, 0
    while arrived < count:
        # What had arrived before this read was sent before it.
        sent = random.randint(max(later, 1), count)
        later = random.randint(sent, count)
        tree.mark(sent)
        for index in random.sample(range(arrived, later), later - arrived):
            tree.add(index, batch(values[index], random.random() < 0.5))
        arrived = later
        expected = tuple(recursive([value[part] for value in values[:sent]]).tobytes() for part in (0, 1))
        assert read(tree) == expected


@given(st.permutations(range(33)))
def test_the_sum_is_as_exact_as_pairs_make_it(order: list[int]) -> None:
    values = [value for value, _ in leaves(33)]
    tree = SummationTree()
    for index in order:
        tree.add(index, batch_sum((values[index].copy(),), 1, "w", 0.0))
    tree.mark(33)
    total = tree.total()
    assert total is not None
    exact = sum(Fraction(float(value)) for value in values)
    size = sum(abs(Fraction(float(value))) for value in values)
    # Each leaf takes part in at most ceil(log2(33)) = 6 additions.
    assert abs(Fraction(float(total.arrays[0])) - exact) <= 6.1 * Fraction(2) ** -53 * size


def test_few_sums_are_held_while_one_batch_is_late() -> None:
    values = leaves(1001)
    tree = SummationTree()
    for index in range(1, 1001):
        tree.add(index, batch(values[index]))
        assert tree.held <= 2 * log2(index + 1) + 1
    tree.add(0, batch(values[0]))
    assert tree.held == (1001).bit_count()
    assert tree.nbytes == tree.held * 4 * 8


def test_counts_and_times_add_up() -> None:
    tree = SummationTree()
    for index, worker in enumerate(["a", "b", "a"]):
        tree.add(index, batch_sum((np.ones(2),), index + 5, worker, 0.25))
    tree.mark(3)
    total = tree.total()
    assert total is not None
    assert (total.batches, total.rows, total.seconds) == (3, 18, 0.75)
    assert dict(total.by_worker) == {"a": 2, "b": 1}


def test_a_mean_weighs_batches_by_rows_and_a_batch_of_none_adds_empty_sum() -> None:
    tree = SummationTree()
    for index, (value, rows) in enumerate([(1.0, 3), (np.nan, 0), (5.0, 1)]):
        tree.add(index, batch_sum((np.asarray(value),), rows, "w", 0.0, weight=rows))
    tree.mark(3)
    total = tree.total()
    assert total is not None
    assert rounded(total, [ArrayType("float64", (1,))], mean=True)[0].tolist() == [2.0]


def test_no_batches_sum_to_zeros() -> None:
    tree = SummationTree()
    tree.mark(0)
    assert tree.total() is None
    found = rounded(empty_sum(TYPES), TYPES, mean=True)
    assert [array.tolist() for array in found] == [0.0, [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)])
def test_narrow_floats_are_added_in_float64_and_rounded_once(dtype: np.dtype[Any]) -> None:
    count = 1000
    value = np.asarray([0.1]).astype(dtype)
    tree = SummationTree()
    for index in range(count):
        tree.add(index, batch_sum((value,), 1, "w", 0.0))
    tree.mark(count)
    total = tree.total()
    assert total is not None
    (found,) = rounded(total, [ArrayType(dtype.name, (1,))], mean=False)
    assert found.dtype == dtype
    assert found.tobytes() == (count * value.astype(np.float64)).astype(dtype).tobytes()


def test_infinities_and_overflow_are_results() -> None:
    tree = SummationTree()
    tree.add(0, batch_sum((np.asarray([np.inf, 1e308]),), 1, "w", 0.0))
    tree.add(1, batch_sum((np.asarray([-np.inf, 1e308]),), 1, "w", 0.0))
    tree.mark(2)
    total = tree.total()
    assert total is not None
    (found,) = rounded(total, [ArrayType("float64", (2,))], mean=False)
    assert np.isnan(found[0]) and np.isposinf(found[1])
