"""Signatures follow transforms as the engine itself has it."""

from itertools import product

import numpy as np
import pytest

import gradwire as gw
from gradwire.graphs.signature import FunctionSpec, Signature, Transform, Value, select, select_scalar
from gradwire_engine.planning import transforms as engine
from gradwire_engine.values import Signature as EngineSignature
from gradwire_engine.values import TensorType

F8 = np.dtype(np.float64)
MINE = Signature(
    (Value("x", F8, (3,)), Value("y", F8, ("N", 2)), Value("i", np.dtype(np.int64), (4,))),
    (Value("e", F8, ()), Value("z", F8, ("N",))),
)
THEIRS = EngineSignature(
    (
        ("x", TensorType("float64", (3,))),
        ("y", TensorType("float64", ("N", 2))),
        ("i", TensorType("int64", (4,))),
    ),
    (("e", TensorType("float64", ())), ("z", TensorType("float64", ("N",)))),
)
KINDS = {"gradient": engine.Gradient, "jvp": engine.Jvp, "vjp": engine.Vjp, "hvp": engine.Hvp}


def engine_names(steps: list[Transform]) -> tuple[list[str], list[str]]:
    function = engine.Function(THEIRS, lambda inputs: {})
    for step in steps:
        of = step.of[0] if step.kind in ("gradient", "hvp") else step.of
        function = engine.apply(function, KINDS[step.kind](step.wrt, of, step.keep_values))
    return [n for n, _ in function.signature.inputs], [n for n, _ in function.signature.outputs]


@pytest.mark.parametrize(
    "kinds", [*product(KINDS), *product(KINDS, repeat=2), ("jvp", "jvp", "jvp"), ("vjp", "vjp", "hvp")]
)
@pytest.mark.parametrize("keep", [False, True])
def test_names_after_any_chain_of_transforms_are_the_engines(kinds: tuple[str, ...], keep: bool) -> None:
    spec = FunctionSpec("id", MINE)
    steps = []
    for kind in kinds:
        outputs = spec.signature.outputs
        of = (outputs[0].name,) if kind in ("gradient", "hvp") else select(outputs, None, "output", "of")
        step = Transform(kind, select(spec.signature.inputs, None, "input", "wrt"), of, keep)
        steps.append(step)
        spec = spec.then(step)
    assert (
        [v.name for v in spec.signature.inputs],
        [v.name for v in spec.signature.outputs],
    ) == engine_names(steps)


def test_a_seed_has_the_type_of_what_it_belongs_to() -> None:
    jvp = FunctionSpec("id", MINE).then(Transform("jvp", ("y",), ("z",))).signature
    assert str(jvp) == (
        "(x: float64[3], y: float64[N, 2], i: int64[4], y.tangent: float64[N, 2]) -> (z.tangent: float64[N])"
    )


def test_the_size_of_a_result_follows_from_symbols() -> None:
    assert MINE.result_bytes({"y": (7, 2)}) == 8 + 7 * 8
    assert MINE.result_bytes({}) is None


@pytest.mark.parametrize(
    ("wish", "names"),
    [(None, ("x", "y")), ("y", ("y",)), (0, ("x",)), (-2, ("y",)), (["y", 0], ("y", "x"))],
)
def test_inputs_are_chosen_by_name_or_position(wish: object, names: tuple[str, ...]) -> None:
    assert select(MINE.inputs, wish, "input", "wrt") == names  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("q", "there is no input 'q'; there are: x, y, i"),
        (3, "there is no input 3"),
        ("i", "'i' is int64: only floating-point inputs have derivatives"),
        (["x", 0], "twice"),
        ([], "empty"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_by_name(wish: object, words: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=words):
        select(MINE.inputs, wish, "input", "wrt")  # type: ignore[arg-type]


def test_a_gradient_asks_which_output_and_refuses_an_array() -> None:
    with pytest.raises(gw.InvalidArgumentError, match="say which one"):
        select_scalar(MINE.outputs, None)
    with pytest.raises(gw.InvalidArgumentError, match="one number"):
        select_scalar((Value("z", F8, (3,)),), None)
