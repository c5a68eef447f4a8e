"""Checks every differentiable operator's derivatives in float64, on models of the suite and generated cases.

At points that the rules of points.py keep away from kinks: the JVP against a Richardson-extrapolated
difference (relative 1e-6), the adjoint identity (1e-12), the forward against the reverse Jacobian (1e-12),
and the same for second derivatives where the case is small.

Set TEST_GRADWIRE_DERIVATIVES=full (`make derivatives`) for every case of the suite and many generated ones;
by default each operator has a sample, the same in every run.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gradwire_engine.errors import EngineError, NotDifferentiable, ValueNeeded
from gradwire_engine.lowering import all_rules
from gradwire_engine.planning.function import fixed_arguments
from gradwire_engine.planning.plan import JACOBIAN, Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec
from tests.conformance import composed, generated, lifted
from tests.conformance.lifted import Subject, flatten, qualified
from tests.conformance.points import DISCRETE
from tests.engine.lowering.derivative_checks import check_directions, check_flat, gradient_of

FULL = os.environ.get("TEST_GRADWIRE_DERIVATIVES") == "full"

FLOOR = 1e-3
"""Smaller derivatives are compared as if of this size, as some are 0 except for rounding."""

JACOBIAN_ENTRIES = 4096
"""The derivatives of cases with more entries are checked along directions only."""

SECOND_ORDER_INPUTS = 12 if FULL else 9
"""Of cases with more inputs, or four times as many outputs, only first derivatives are checked."""

FIRST_ORDER = frozenset({"gradwire.sci:Igamma", "gradwire.sci:Igammac"})
"""Operators whose second derivative in one input (the order of a gamma function) has no closed form here."""

ELSEWHERE = {
    "gradwire.sci:Betainc": "it has a derivative in one of its inputs alone: science/test_distributions.py",
    "ai.onnx.preview.training:Gradient": "it is a derivative: networks/test_training.py",
    "gradwire.sci:StopGradient": "its derivative is 0 by definition: science/test_functions.py",
    "gradwire.sci:Vmap": "its derivatives are its body's: science/test_batching.py",
    "gradwire.sci:CustomDerivative": "its derivatives are those of its graphs: "
    "science/test_custom_derivatives.py",
    **{
        f"com.microsoft:{op}": "an optimizer's, which no suite has: networks/test_fused.py"
        for op in ("BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "QuickGelu", "SkipLayerNormalization")
    },
}
"""Operators whose derivatives are tested in modules under tests/engine/lowering, with the module."""


def rules_with(derivative: str) -> list[str]:
    """Returns qualified names of the operators whose newest rule has a derivative of this kind."""
    newest = {(item.domain, item.op): item for item in sorted(all_rules(), key=lambda item: item.since)}
    return sorted(qualified(*key) for key, item in newest.items() if item.derivative == derivative)


@cache
def given_by_operator() -> dict[str, list[Subject]]:
    found = defaultdict(list)
    for subject in (*lifted.subjects(), *composed.subjects()):
        found[subject.op].append(subject)
    return dict(found)


def check(subject: Subject) -> None:
    """Checks one subject's derivatives."""
    flat = flatten(subject)
    if not flat.x.size or not flat.size:
        return
    if flat.x.size * flat.size > JACOBIAN_ENTRIES:
        check_directions(flat.function, flat.x, modes=flat.modes, floor=FLOOR)
        return
    small = flat.x.size <= SECOND_ORDER_INPUTS and flat.size <= 4 * SECOND_ORDER_INPUTS
    second = small and "reverse" in flat.modes and subject.op not in FIRST_ORDER
    order = 2 if second else 1
    check_flat(flat.function, flat.x, order=order, modes=flat.modes, floor=FLOOR)


DIFFERENTIABLE = [op for op in rules_with("any") + rules_with("forward") if op not in DISCRETE | {*ELSEWHERE}]


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if FULL or op not in generated.FAMILIES])
def test_derivatives_of_the_suites_models_hold_in_double_precision(op: str) -> None:
    subjects = given_by_operator().get(op, [])
    if not FULL:
        subjects = Random(op).sample(subjects, min(2, len(subjects)))
    failures = []
    for subject in subjects:
        try:
            check(subject)
        except Exception as error:
            failures.append(f"{subject}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if op in generated.FAMILIES])
def test_derivatives_hold_for_generated_shapes_axes_and_attributes(op: str) -> None:
    @settings(
        max_examples=40 if FULL else 2,
        derandomize=not FULL,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(generated.subjects(op))
    def holds(subject: Subject) -> None:
        check(subject)

    holds()


def test_every_differentiable_operator_is_checked() -> None:
    unchecked = [
        op for op in DIFFERENTIABLE if op not in generated.FAMILIES and op not in given_by_operator()
    ]
    assert not unchecked, f"no case differentiates {unchecked}"


KINKS: list[tuple[str, list[float], dict[str, object], float]] = [
    ("Abs", [0.0], {}, 0.0),
    ("Sign", [0.0], {}, 0.0),
    ("Relu", [0.0], {}, 0.0),
    ("Floor", [1.0], {}, 0.0),
    ("Ceil", [1.0], {}, 0.0),
    ("Round", [0.5], {}, 0.0),
    ("ReduceL1", [0.0], {"keepdims": 0}, 0.0),
    ("ReduceL2", [0.0], {"keepdims": 0}, 0.0),
    ("ReduceMax", [1.0, 1.0], {"keepdims": 0}, 0.5),
    ("ReduceMin", [1.0, 1.0], {"keepdims": 0}, 0.5),
]
"""Operator, a point on a kink, attributes, and the documented derivative of each element there."""


@pytest.mark.parametrize(("op", "x", "attributes", "expected"), KINKS, ids=[case[0] for case in KINKS])
def test_at_a_kink_both_modes_give_the_documented_derivative(
    op: str, x: list[float], attributes: dict[str, object], expected: float
) -> None:
    forward, reverse = gradient_of(op, np.array(x), **attributes)
    wanted = expected * np.eye(len(x)) if forward.shape[0] == len(x) else np.full((1, len(x)), expected)
    np.testing.assert_array_equal(forward, wanted)
    np.testing.assert_array_equal(reverse, wanted)


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_a_tie_of_two_arrays_shares_the_derivative(op: str) -> None:
    forward, reverse = gradient_of(op, np.array([1.0]), np.array([1.0]))
    np.testing.assert_array_equal(forward, [[0.5, 0.5]])
    np.testing.assert_array_equal(reverse, [[0.5, 0.5]])


UNDEFINED = {
    "Bernoulli": "(double[2] x) => (double[2] y) { y = Bernoulli <seed = 1.0> (x) }",
    "Multinomial": "(float[1, 3] x) => (int32[1, 1] y) { y = Multinomial <seed = 1.0> (x) }",
    "NonMaxSuppression": """(float[1, 2, 4] boxes, float[1, 1, 2] x) => (int64[2, 3] y) {
        n = Constant <value = int64 {2}> ()
        y = NonMaxSuppression (boxes, x, n) }""",
    "NonZero": "(double[2] x) => (int64[1, n] y) { y = NonZero (x) }",
    "ConvInteger": "(uint8[1, 1, 3] x, uint8[1, 1, 2] w) => (int32[1, 1, 2] y) { y = ConvInteger (x, w) }",
    "QLinearConv": """(uint8[1, 1, 3] x, float s, uint8 z, uint8[1, 1, 2] w) => (uint8[1, 1, 2] y) {
        y = QLinearConv (x, s, z, w, s, z, s, z) }""",
}
"""A graph with each operator that defines no derivative, where the outputs' types alone do not refuse it."""


def test_every_operator_without_a_derivative_is_listed() -> None:
    assert sorted(UNDEFINED) == rules_with("none")


@pytest.mark.parametrize("op", sorted(UNDEFINED))
def test_an_operator_without_a_derivative_is_refused_by_name(op: str) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 21]> agraph {UNDEFINED[op]}'
    with pytest.raises(EngineError) as caught:
        graph = register(text.encode(), text=True)
        arguments = fixed_arguments(graph.info.signature)
        assert arguments is not None
        make_plan(graph, Problem(FunctionSpec(graph.info.graph_id), arguments, JACOBIAN))
    assert op in str(caught.value), caught.value
    assert isinstance(caught.value, NotDifferentiable | ValueNeeded)
