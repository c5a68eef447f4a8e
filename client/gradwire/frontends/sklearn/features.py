"""Polynomial features: monomials, each the product of a shorter one and a feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.sklearn.nodes import Nodes

Monomial = tuple[int, ...]
"""The features that are multiplied, in ascending order, each as often as its power says."""


def polynomial(scope: Any, operator: Any, container: Any) -> None:
    """PolynomialFeatures, degree by degree: one gather and one product for each degree."""
    g = Nodes(scope, operator, container)
    wanted = [_monomial(row) for row in np.asarray(g.estimator.powers_)]
    levels = _levels(wanted)
    parts: list[str] = []
    places: dict[Monomial, int] = {}
    level, name = levels[0], g.filled(g.x, 1.0, 1)
    for degree in range(len(levels)):
        if degree:
            before = {one: place for place, one in enumerate(level)}
            level = levels[degree]
            shorter = g("Gather", name, np.array([before[one[:-1]] for one in level]), axis=1)
            factor = g("Gather", g.x, np.array([one[-1] for one in level]), axis=1)
            name = g("Mul", shorter, factor) if degree > 1 else factor
        places.update({one: len(places) + place for place, one in enumerate(level)})
        parts.append(name)
    everything = g("Concat", *parts, axis=1)
    g("Gather", everything, np.array([places[one] for one in wanted]), axis=1, output=0)


def _monomial(powers: Any) -> Monomial:
    return tuple(int(feature) for feature in np.repeat(np.arange(len(powers)), powers))


def _levels(wanted: list[Monomial]) -> list[list[Monomial]]:
    """Every wanted monomial and those that it is made from, by degree."""
    needed = {one[:length] for one in wanted for length in range(len(one) + 1)} | {()}
    degree = max(map(len, needed))
    return [sorted(one for one in needed if len(one) == length) for length in range(degree + 1)]
