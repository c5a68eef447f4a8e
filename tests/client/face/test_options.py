"""The options of derivatives are declared once: every method takes them under the same names and types."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import gradwire as gw
from gradwire._face.client import AsyncClient
from gradwire._face.function import AsyncFunction
from gradwire._face.options import (
    GradientOptions,
    HessianMode,
    HessianOptions,
    JacobianMode,
    JacobianOptions,
    Options,
    ProductOptions,
)
from gradwire_engine.planning import derivatives
from gradwire_wire.kinds import KINDS, MODES

METHODS = {
    "jacobian": JacobianOptions,
    "value_and_jacobian": JacobianOptions,
    "jacobian_blocks": JacobianOptions,
    "hessian": HessianOptions,
    "value_and_hessian": HessianOptions,
    "value_grad_and_hessian": HessianOptions,
    "hessian_blocks": HessianOptions,
    "value": ProductOptions,
    "jvp": ProductOptions,
    "vjp": ProductOptions,
    "hvp": GradientOptions,
    "grad": GradientOptions,
    "value_and_grad": GradientOptions,
}


def options_of(method: Callable[..., Any]) -> dict[str, Any]:
    """The types of a method's keyword-only parameters."""
    hints = get_type_hints(method)
    parameters = inspect.signature(method).parameters.values()
    return {one.name: hints[one.name] for one in parameters if one.kind is one.KEYWORD_ONLY}


@pytest.mark.parametrize("face", [AsyncFunction, gw.Function])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_its_options_as_they_are_declared(face: type[Any], name: str) -> None:
    declared = get_type_hints(METHODS[name])
    taken = options_of(getattr(face, name))
    assert taken.items() <= declared.items()
    if name in ("jacobian", "hessian", "jvp", "vjp", "hvp", "grad"):  # those with a one-liner
        assert taken.keys() == declared.keys()


def test_a_one_liner_takes_the_options_of_its_method() -> None:
    for face in (AsyncClient, gw.Client):
        for name in ("jacobian", "hessian", "jvp", "vjp", "hvp", "grad"):
            parameter = inspect.signature(getattr(face, name)).parameters["options"]
            assert parameter.annotation.__args__ == (METHODS[name],)


def test_what_is_not_chosen_is_left_to_the_server() -> None:
    message = Options().plan_options("jacobian")
    assert (message.mode, message.block_width, message.block_memory_bytes) == (0, 0, 0)
    with pytest.raises(gw.InvalidArgumentError, match="None to leave it to the server"):
        Options(block_memory=-1).plan_options("hessian")


def test_a_wrong_option_is_refused_by_name(client: gw.Client) -> None:
    f = client.function(lambda x: x * x, gw.spec(3))
    with pytest.raises(gw.InvalidArgumentError, match="no input 'block_widht'"):
        f.jacobian([1.0, 2.0, 3.0], block_widht=2)
    wrong: Any = {"wtr": "x"}
    with pytest.raises(gw.InvalidArgumentError, match="no input 'wtr'"):
        client.jacobian(lambda x: x * x, [1.0, 2.0, 3.0], **wrong)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, "4"])
@pytest.mark.parametrize("name", ["block_width", "block_memory"])
def test_a_width_or_memory_that_is_no_positive_whole_number_is_refused_by_name(
    name: str, value: object
) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=f"{name} is a positive whole number"):
        Options(**{name: value}).plan_options("jacobian")  # type: ignore[arg-type]


def test_an_integer_of_numpy_is_a_width() -> None:
    assert Options(block_width=np.int64(3)).plan_options("jacobian").block_width == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["", "sideways", "forward_over_reverse"])
def test_a_mode_that_is_none_of_the_kind_is_refused(mode: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="mode of a jacobian"):
        Options(mode=mode).plan_options("jacobian")  # type: ignore[arg-type]


def test_modes_have_the_same_names_here_on_the_wire_and_in_the_engine() -> None:
    jacobian, hessian = get_args(JacobianMode), get_args(HessianMode)
    assert {*jacobian, *hessian, ""} == MODES.keys()
    assert jacobian == (derivatives.FORWARD, derivatives.REVERSE)
    assert hessian == (derivatives.FORWARD_OVER_REVERSE, derivatives.FORWARD_OVER_FORWARD)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mode_of_the_other_kind_is_refused_with_those_that_there_are(kind: Any) -> None:
    own, other = (JacobianMode, HessianMode) if kind == "jacobian" else (HessianMode, JacobianMode)
    for mode in get_args(own):
        assert Options(mode=mode).plan_options(kind).mode == MODES[mode]
    for mode in get_args(other):
        with pytest.raises(gw.InvalidArgumentError, match=get_args(own)[0]):
            Options(mode=mode).plan_options(kind)
