"""Polynomial features: monomials, each the product of a shorter one and a feature."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn.formulas import filled

Monomial = tuple[int, ...]
"""The features that are multiplied, ascending, each repeated as often as its power."""


def polynomial(model: Any, x: TracedArray) -> Iterator[Any]:
    """PolynomialFeatures, degree by degree: each takes two gathers and a product."""
    wanted = [_monomial(row) for row in np.asarray(model.powers_)]
    levels = _levels(wanted)
    values: Any = filled(x, 1.0, 1)
    parts = [values]
    for degree, (shorter, level) in enumerate(pairwise(levels), 1):
        factors = np.take(x, [one[-1] for one in level], axis=1)
        if degree == 1:
            values = factors
        else:
            place = {one: column for column, one in enumerate(shorter)}
            values = np.take(values, [place[one[:-1]] for one in level], axis=1) * factors
        parts.append(values)
    place = {one: column for column, one in enumerate(one for level in levels for one in level)}
    yield np.take(np.concatenate(parts, axis=1), [place[one] for one in wanted], axis=1)


def _monomial(powers: Any) -> Monomial:
    return tuple(int(feature) for feature in np.repeat(np.arange(len(powers)), powers))


def _levels(wanted: list[Monomial]) -> list[list[Monomial]]:
    """Return the wanted monomials and all their prefixes, by degree."""
    needed = {one[:length] for one in wanted for length in range(len(one) + 1)} | {()}
    degree = max(map(len, needed))
    return [sorted(one for one in needed if len(one) == length) for length in range(degree + 1)]
