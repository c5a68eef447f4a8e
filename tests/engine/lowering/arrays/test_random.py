"""Random operators: refused without a seed, the same every time with one."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import run

X = np.full((50, 40), 0.25)
CASES = {
    "RandomNormal": ([], {"shape": [50, 40], "mean": 2.0, "scale": 0.5}),
    "RandomUniform": ([], {"shape": [50, 40], "low": 1.0, "high": 3.0}),
    "RandomNormalLike": ([X], {"mean": 2.0, "scale": 0.5}),
    "RandomUniformLike": ([X], {"low": 1.0, "high": 3.0}),
    "Bernoulli": ([X], {}),
    "Multinomial": ([np.log(np.array([[1.0, 2.0, 1.0]]))], {"sample_size": 2000}),
}
MOMENTS = {
    "RandomNormal": (2.0, 0.5),
    "RandomUniform": (2.0, 3**-0.5),
    "RandomNormalLike": (2.0, 0.5),
    "RandomUniformLike": (2.0, 3**-0.5),
    "Bernoulli": (0.25, 0.1875**0.5),
    "Multinomial": (1.0, 0.5**0.5),
}


@pytest.mark.parametrize("op", CASES)
def test_without_a_seed_the_node_is_refused(op: str) -> None:
    inputs, options = CASES[op]
    with pytest.raises(InvalidGraph, match=f"{op}.*deterministic graphs"):
        run(op, *inputs, **options)


@pytest.mark.parametrize("op", CASES)
def test_a_seed_fixes_the_draw_and_its_distribution(op: str) -> None:
    inputs, options = CASES[op]
    first, second = (run(op, *inputs, seed=5.0, **options) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, run(op, *inputs, seed=6.0, **options))
    mean, deviation = MOMENTS[op]
    assert abs(first.mean() - mean) < 5 * deviation / np.sqrt(first.size)
    assert abs(first.std() - deviation) < 0.1 * deviation


def test_types_follow_the_input_or_the_attribute() -> None:
    assert run("RandomNormal", shape=[2], seed=1.0).dtype == np.float32
    assert run("RandomNormalLike", X, seed=1.0).dtype == np.float64
    assert run("Bernoulli", X, seed=1.0, dtype=7).dtype == np.int64
    assert run("Multinomial", np.zeros((1, 2)), seed=1.0).dtype == np.int32
