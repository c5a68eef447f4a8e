"""Checks the pattern of every differentiable operator's derivatives against dense ones: nothing is missed.

Set TEST_GRADWIRE_SPARSITY=full (`make sparsity`) for every case; by default a sample, the same in every run.
"""

from __future__ import annotations

import os
from random import Random

import jax
import numpy as np
import pytest

from tests.conformance.lifted import Flat, Subject, flatten
from tests.conformance.sparsity.comparison import Comparison, compare
from tests.conformance.test_derivatives import (
    DIFFERENTIABLE,
    FIRST_ORDER,
    SECOND_ORDER_INPUTS,
    given_by_operator,
)

FULL = os.environ.get("TEST_GRADWIRE_SPARSITY") == "full"

SAMPLED_OPERATORS = 24

ENTRIES = 1 << 18
"""Cases with larger derivatives are left out."""

EXPLAINED: dict[str, str] = {}
"""Primitives that may be taken for dense, with the reason."""


def checked(flat: Flat, order: int) -> Comparison:
    """Compare a case's Jacobian, or the Hessian of a combination of its outputs, at nearby points."""
    draw = np.random.default_rng(5)
    points = [flat.x, *(flat.x + 1e-3 * draw.standard_normal(flat.x.shape) for _ in range(2))]
    if order == 1:
        return compare(flat.function, points)
    weights = draw.uniform(0.5, 1.5, flat.size)
    return compare(lambda x: jax.vjp(flat.function, x)[1](weights)[0], points)


def faults(subject: Subject) -> list[str]:
    """Return what is wrong with the patterns of a subject's derivatives."""
    flat = flatten(subject)
    if not flat.x.size or not flat.size or flat.x.size * flat.size > ENTRIES:
        return []
    small = flat.x.size <= SECOND_ORDER_INPUTS and flat.size <= 4 * SECOND_ORDER_INPUTS
    second = small and "reverse" in flat.modes and subject.op not in FIRST_ORDER
    found = []
    for order in (1, 2) if second else (1,):
        answer = checked(flat, order)
        if answer.missed:
            found.append(f"{subject}, order {order}: {answer.missed} of {answer.measured} missed")
        if unexplained := set(answer.dense_primitives) - EXPLAINED.keys():
            found.append(f"{subject}, order {order}: {sorted(unexplained)} were taken for dense")
    return found


OPERATORS = [op for op in DIFFERENTIABLE if given_by_operator().get(op)]


@pytest.mark.parametrize("op", OPERATORS if FULL else sorted(Random(10).sample(OPERATORS, SAMPLED_OPERATORS)))
def test_no_entry_of_an_operators_derivatives_is_missed(op: str) -> None:
    subjects = given_by_operator()[op]
    chosen = subjects if FULL else Random(op).sample(subjects, 1)
    found = [fault for subject in chosen for fault in faults(subject)]
    assert not found, "\n".join(found)
