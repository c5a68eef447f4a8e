"""What is given for an input arrives as it is, or is refused with the argument and the value named."""

import math
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire._face.arguments import convert
from gradwire.graphs.signature import Value
from tests.client.wire_server import BILINEAR, ENERGY, MIX, PICK, SQUARE, WireServer

INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.fixture
def f(client: gw.Client) -> gw.Function:
    return client.function(MIX)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_are_converted_where_all_fit_and_refused_by_value_elsewhere(dtype: np.dtype[Any]) -> None:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    value = Value("n", dtype, (None,))
    held: list[Any] = [[low, high], [[low], [high]], [], np.array([low], object)]
    held += [np.array([low, high], other) for other in INTEGERS if _fits(low, other) and _fits(high, other)]
    for given in held:
        array = convert(value, given)
        assert array.dtype == dtype
        assert array.tolist() == np.asarray(given, object).tolist()
    for wrong in (low - 1, high + 1, 2**70, -(2**70)):
        with pytest.raises(
            gw.InvalidArgumentError, match=rf"input n.*cannot hold {wrong}: {dtype} goes from"
        ):
            convert(value, [wrong])


def _fits(number: int, dtype: np.dtype[Any]) -> bool:
    return int(np.iinfo(dtype).min) <= number <= int(np.iinfo(dtype).max)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("float32", [1.0, 1e300]),
        ("float32", np.array([-1e39])),
        ("float16", [70000]),
        ("float16", np.float32(1e5)),
        ("complex64", np.array([1e300 + 1j])),
    ],
)
def test_a_number_that_would_become_infinite_is_refused(dtype: str, given: Any) -> None:
    value = Value("x", np.dtype(dtype), None)
    with pytest.raises(gw.InvalidArgumentError, match=r"input x.*infinite"):
        convert(value, given)


def test_what_is_infinite_or_nan_already_stays_so() -> None:
    given = [math.inf, -math.inf, math.nan, 3.4e38]
    np.testing.assert_array_equal(
        convert(Value("x", np.dtype("float32"), None), given), np.array(given, "float32")
    )


def test_integers_that_fit_reach_the_function(client: gw.Client) -> None:
    f, x = client.function(PICK), np.array([10.0, 20.0, 30.0])
    for indices in ([2, 0], np.array([2, 0], np.uint64), np.array([2, 0], object)):
        np.testing.assert_array_equal(f(x, indices), [30, 10])
    with pytest.raises(gw.InvalidArgumentError, match=f"input i.*cannot hold {2**63}"):
        f(x, [2**63, 0])


MASKS: list[Any] = [True, False, [True, False], [0, True], np.array([True, False]), np.True_]


TAKEN = {"value": ["batched"], "jvp": ["wrt", "of", "batched"], "vjp": ["wrt", "of", "batched"]}
TAKEN |= {call: ["wrt", "of"] for call in ("jacobian", "as_jvp", "as_vjp", "plan")}


@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize(("call", "word"), [(call, word) for call in TAKEN for word in TAKEN[call]])
def test_a_bool_is_no_position(f: gw.Function, call: str, word: str, mask: Any) -> None:
    for equal in (1, [1, 0], [0, 1]):  # to a mask, and kept
        f.as_jvp(wrt=equal), f.as_jvp(of=equal), f.as_vjp(wrt=equal), f.as_vjp(of=equal)
    a, b = np.ones(3), np.ones((2, 2))
    points = {"jvp": (a, b, (a, b)), "vjp": (a, b, (a, b)), "as_jvp": (), "as_vjp": ()}
    with pytest.raises(gw.InvalidArgumentError, match=f"{word} takes names and positions, not (True|False)"):
        getattr(f, call)(*points.get(call, (a, b)), **{word: mask})


@pytest.mark.parametrize("position", [np.int64(1), np.uint8(1), np.array(1), -1, np.int8(-1)])
def test_integers_of_every_type_are_positions(f: gw.Function, position: Any) -> None:
    alone = f.as_vjp(wrt=position).signature.outputs
    several = f.as_vjp(wrt=[position]).signature.outputs
    array = f.as_vjp(wrt=np.array([position])).signature.outputs
    assert [value.name for value in alone] == ["b.cotangent"]
    assert alone == several == array


@pytest.mark.parametrize("wrong", [1.0, [1.0], [None], b"x", int])
def test_what_is_neither_name_nor_position_is_refused(f: gw.Function, wrong: Any) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="wrt"):
        f.as_jvp(wrt=wrong)


TIMEOUTS: list[Any] = [0, -1, -0.0, math.nan, -math.inf, "5", True, [1.0], 1j]


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=repr)
def test_a_timeout_that_is_no_positive_number_is_refused_before_anything_is_sent(
    wire_server: WireServer, client: gw.Client, timeout: Any
) -> None:
    f, two, x = client.function(ENERGY), client.function(BILINEAR), np.ones(3)
    calls = [
        lambda: f(x, timeout=timeout),
        lambda: f.grad(x, timeout=timeout),
        lambda: f.hvp(x, x, timeout=timeout),
        lambda: f.hessian(x, timeout=timeout),
        lambda: f.plan(x, timeout=timeout),
        lambda: list(f.hessian_blocks(x, timeout=timeout)),
        lambda: f.callbacks(timeout=timeout),
        lambda: two.accumulator(x, timeout=timeout),
        lambda: client.put(x, timeout=timeout),
        lambda: client.wait_ready(timeout),
        lambda: client.grad(ENERGY, x, timeout=timeout),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(gw.InvalidArgumentError, match="timeout is a positive number of seconds"):
            call()
        assert not wire_server.calls, number


@pytest.mark.parametrize("timeout", [None, math.inf, np.inf, 1e300, np.float32(60), 60, np.int64(60)])
def test_a_timeout_may_be_infinite_or_of_any_real_type(client: gw.Client, timeout: Any) -> None:
    f = client.function(SQUARE)
    np.testing.assert_array_equal(f(np.arange(3.0), timeout=timeout), [0, 1, 4])
    np.testing.assert_array_equal(f.jacobian(np.arange(3.0), timeout=timeout), np.diag([0, 2, 4]))
    with f.stream() as stream:
        np.testing.assert_array_equal(stream(np.arange(3.0), timeout=timeout).result(), [0, 1, 4])


@pytest.mark.parametrize(("option", "wrong"), [("sink", 3), ("progress", 3), ("progress", "bar")])
def test_an_option_that_takes_a_function_refuses_anything_else(
    wire_server: WireServer, f: gw.Function, option: str, wrong: Any
) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=f"{option} is .* not {wrong!r}"):
        f.jacobian(np.ones(3), np.ones((2, 2)), **{option: wrong})
    assert not wire_server.calls


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"timout": 3}, "no input 'timout', nor an option of that name; did you mean 'timeout'"),
        ({"block_widht": 3}, "did you mean 'block_width'"),
        ({"argnums": 0}, "wrt= chooses the inputs"),
        ({"argnum": 0}, "wrt= chooses the inputs"),
        ({"reduction": "sum"}, "the option reduction= is one of other calls"),
        ({"quite_else": 0}, "nor an option of that name; the inputs are: a, b"),
    ],
)
def test_a_misspelt_option_is_not_taken_for_an_input(
    f: gw.Function, named: dict[str, Any], message: str
) -> None:
    with pytest.raises(gw.InvalidArgumentError) as caught:
        f.jacobian(np.ones(3), np.ones((2, 2)), **named)
    assert message in str(caught.value)


def test_a_name_in_a_mapping_is_an_input_alone(f: gw.Function) -> None:
    with pytest.raises(gw.InvalidArgumentError) as caught:
        f({"a": np.ones(3), "b": np.ones((2, 2)), "timeout": 1.0})
    assert "option" not in str(caught.value)
