"""What counts as a difference between two computations of the same, and what is rounding's."""

from collections.abc import Callable

import numpy as np
import pytest

from gradwire.graphs.comparison import moved_inputs, width_of, worst_difference

Function = Callable[[np.ndarray], np.ndarray]


def difference(function: Function, x: np.ndarray, found: np.ndarray) -> object:
    width = width_of([x])
    return worst_difference(
        [function(x)], [found], width, lambda: [[function(at)] for (at,) in moved_inputs([x], width, 0)]
    )


def test_results_that_differ_by_rounding_agree() -> None:
    x = np.array([1.0, 1e-30, 1e30, 0.0, -0.0])
    assert difference(np.copy, x, x * (1 + 1e-15)) is None


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-7), (np.float32, 1e-2)])
def test_the_largest_difference_is_named_with_its_place(dtype: type, relative: float) -> None:
    x = np.arange(1.0, 7.0, dtype=dtype).reshape(2, 3)
    found = x.copy()
    found[0, 1] *= 1 + relative / 4
    found[1, 2] *= 1 + relative
    worst = difference(np.copy, x, found)
    assert worst is not None
    assert worst.place == (1, 2)
    assert worst.relative == pytest.approx(relative, rel=1e-3)


def test_what_has_no_number_agrees_with_the_same_alone() -> None:
    x = np.array([np.nan, np.inf, -np.inf])
    assert difference(np.copy, x, x) is None
    assert difference(np.copy, x, np.array([np.nan, np.inf, np.inf])) is not None
    assert difference(np.copy, np.ones(1), np.array([np.nan])) is not None
    assert difference(np.copy, np.array([np.nan]), np.ones(1)) is not None


def test_a_number_where_zero_is_expected_differs() -> None:
    assert difference(np.zeros_like, np.ones(2), np.array([0.0, 1e-300])) is not None


def test_whole_numbers_and_bools_agree_exactly_or_not_at_all() -> None:
    x = np.array([2**53 + 1])
    assert difference(np.copy, x, x) is None
    assert difference(np.copy, x, x - 1) is not None


def test_what_cancellation_leaves_is_not_compared() -> None:
    def cancelling(x: np.ndarray) -> np.ndarray:
        return np.sum(x * np.array([1e16, 1.0, -1e16]), keepdims=True)

    x = np.array([1.0, 3.0, 1.0])
    assert difference(cancelling, x, np.array([4.0])) is None
    assert difference(cancelling, x, np.array([1e6])) is not None


def test_a_program_that_amplifies_rounding_is_given_what_it_makes_of_the_last_places() -> None:
    def logistic(x: np.ndarray) -> np.ndarray:
        for _ in range(60):
            x = 3.99 * x * (1 - x)
        return x

    x = np.array([0.3])
    assert difference(logistic, x, logistic(np.nextafter(x, 1))) is None


def test_either_side_of_a_jump_will_do_at_the_jump_and_not_elsewhere() -> None:
    assert difference(np.sign, np.array([0.0]), np.array([1.0])) is None
    assert difference(np.sign, np.array([1e-3]), np.array([-1.0])) is not None
