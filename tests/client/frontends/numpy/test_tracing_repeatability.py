"""A function that draws random numbers, reads a clock or counts its calls is refused."""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
from typing import Any

import numpy as np
import pytest

from gradwire.errors import TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec

GENERATOR = np.random.default_rng(1)
LEGACY = np.random.RandomState(1)
PYTHONS = random.Random(1)
COUNTER = itertools.count()


def noise(x: Any) -> Any:
    return x + GENERATOR.normal(size=3)


def _dropout(x: Any, rng: np.random.Generator) -> Any:
    return np.where(rng.random(3) < 0.5, x, 0.0)


class _Layer:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(2)

    def __call__(self, x: Any) -> Any:
        return x * self.rng.normal()


class _Model:
    def __init__(self) -> None:
        self.layers = [_Layer()]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


REACHED: dict[str, Any] = {
    "a global generator": (noise, "a Generator"),
    "a generator of a function that is called": (lambda x: noise(x) * 2, "a Generator"),
    "a generator of the old kind": (lambda x: x * LEGACY.normal(), "a RandomState"),
    "a generator of Python's": (lambda x: x * PYTHONS.random(), "a Random"),
    "a generator bound by partial": (
        functools.partial(_dropout, rng=np.random.default_rng(0)),
        "a Generator",
    ),
    "a generator held by an object": (_Layer(), "a Generator"),
    "a generator held by a method's object": (_Model().forward, "a Generator"),
    "numpy's own state": (lambda x: x + np.random.normal(size=3), r"np\.random"),
    "python's own state": (lambda x: x * random.random(), "random"),
    "a shuffle of two": (lambda x: (GENERATOR.integers(2), x)[1], "a Generator"),
}


@pytest.mark.parametrize("case", REACHED)
def test_draws_from_a_generator_within_reach_are_refused_by_its_kind(case: str) -> None:
    function, kind = REACHED[case]
    with pytest.raises(TraceError, match=rf"drew random numbers from {kind}.*pass them in as an input"):
        trace(function, [spec(3)])


def test_a_generator_of_a_closure_is_within_reach() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(TraceError, match="a Generator"):
        trace(lambda x: x + rng.normal(size=3), [spec(3)])


STATEFUL: dict[str, Any] = {
    "fresh entropy": (lambda x: x + np.random.default_rng().normal(size=3), r"float64\[3\] \["),
    "the clock": (lambda x: x * time.perf_counter(), "a constant is"),
    "bytes of the system": (lambda x: x * float(int.from_bytes(os.urandom(8))), "a constant is"),
    "a counter": (lambda x: x * float(next(COUNTER)), "a constant is"),
    "a large array": (lambda x: np.random.default_rng().normal(size=(70_000, 3)) @ x, "has other elements"),
    "operations": (lambda x: x if next(COUNTER) % 2 else np.sin(x), "operations differ"),
}


@pytest.mark.parametrize("case", STATEFUL)
def test_what_changes_from_call_to_call_is_refused_and_the_constant_named(case: str) -> None:
    function, difference = STATEFUL[case]
    with pytest.raises(TraceError, match=difference):
        trace(function, [spec(3)])


def test_a_generator_made_from_a_fixed_seed_inside_is_a_constant() -> None:
    def projected(x: Any) -> Any:
        return np.random.default_rng(7).normal(size=(2, 3)) @ x

    (weights,) = trace(projected, [spec(3)]).graph.initializer
    expected = np.random.default_rng(7).normal(size=(2, 3))
    np.testing.assert_array_equal(np.frombuffer(weights.raw_data), expected.ravel())


def test_numbers_drawn_before_are_constants_and_nan_equals_itself() -> None:
    samples = np.random.default_rng(0).normal(size=3)
    trace(lambda x: x + samples, [spec(3)])
    trace(lambda x: np.where(x > 0, x, np.nan), [spec(3)])


def test_sizes_and_orders_that_depend_on_inputs_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="integer"):
        trace(lambda x: x.sum() + rng.normal(size=x.astype(np.int64)[0]).sum(), [spec(3)])
    with pytest.raises(TraceError, match="a Generator"), pytest.warns(UserWarning):
        trace(lambda x: (rng.shuffle(x), x)[1], [spec(3)])
    with pytest.raises(TraceError, match=r"np\.asarray"):
        trace(lambda x: rng.permutation(x), [spec(3)])


def test_generators_are_left_where_a_refusal_finds_them() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    trace(lambda x: x * (2.0 if rng is None else 3.0), [spec(3)])
    assert rng.bit_generator.state == before
