"""What loops, branches and batches refuse, traced and on plain arrays, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire.errors import TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from tests.client.frontends.numpy.oracle import operators

X = np.array([0.4, -0.7, 1.1])


kept: list[Any] = []


def _keep(c: Any) -> Any:
    kept.append(c * 2)
    return c


def _escape(x: Any) -> Any:
    kept.clear()
    gw.fori(0, 2, lambda i, c: _keep(c), x)
    return x + kept[0]


def _escape_as_output(x: Any) -> Any:
    kept.clear()
    gw.fori(0, 2, lambda i, c: _keep(c), x)
    return kept[0]


def _escape_to_a_sibling(x: Any) -> Any:
    kept.clear()
    return gw.cond(x[0] > 0, lambda: _keep(x), lambda: kept[0])


def _assign_outside(x: Any) -> Any:
    table = gw.zeros(3)

    def step(i: Any, c: Any) -> Any:
        table[i] = c[0]
        return c

    return gw.fori(0, 2, step, x), table


def _add_outside(x: Any) -> Any:
    total = x * 1.0

    def step(c: Any, row: Any) -> Any:
        np.add(total, row, out=total)
        return c, None

    return gw.scan(step, x, x), total


def _assign_to_an_outer_view(x: Any) -> Any:
    half = (x * 1.0)[1:]

    def step(i: Any, c: Any) -> Any:
        half[0] = c[0]
        return c

    return gw.fori(0, 2, step, x)


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a carry that changes shape": (
        lambda x: gw.scan(lambda c, r: ((c[0], np.outer(c[1], x)), r), (x, x), x),
        r"gw\.scan: carry\[1\] changes from float64\[3\] to float64\[3, 3\] in f .*start from an array",
    ),
    "a carry that changes dtype": (
        lambda x: gw.fori(0, 3, lambda i, c: {"a": c["a"] + x[0]}, {"a": 0}),
        r"gw\.fori: carry\['a'\] changes from int64\[\] to float64\[\] in body .*start from float64",
    ),
    "a carry that changes structure": (
        lambda x: gw.while_(lambda c: c[0][0] > 0, lambda c: [c[0], c[0]], (x, x)),
        r"gw\.while_: body takes a carry of structure \(array, array\) and returns one of \[array, array\]",
    ),
    "a carry that is forgotten": (
        lambda x: gw.fori(0, 3, lambda i, c: None, x),
        r"structure array and returns one of None",
    ),
    "a carry that is no array": (
        lambda x: gw.fori(0, 3, lambda i, c: c, {"name": "x"}),
        r"gw\.fori: init\['name'\] is a str",
    ),
    "a step that returns one thing": (
        lambda x: gw.scan(lambda c, r: c, x, x),
        r"f returns a TracedArray .*return \(carry, y\)",
    ),
    "a condition that is a number": (
        lambda x: gw.while_(lambda c: c.sum(), lambda c: c, x),
        r"gw\.while_: cond returns float64\[\].*compare",
    ),
    "conditions in an array": (
        lambda x: gw.while_(lambda c: c > 0, lambda c: c, x),
        r"cond returns bool\[3\].*np\.any or np\.all",
    ),
    "a predicate that is a number": (
        lambda x: gw.cond(x[0], lambda: x, lambda: x),
        r"gw\.cond: pred is float64\[\].*compare",
    ),
    "predicates in an array": (
        lambda x: gw.cond(x > 0, lambda: x, lambda: -x),
        r"pred is bool\[3\].*np\.where to choose element by element",
    ),
    "a predicate that is text": (lambda x: gw.cond("yes", lambda: x, lambda: -x), r"pred is a? ?str"),
    "branches of different structure": (
        lambda x: gw.cond(x[0] > 0, lambda: (x, x), lambda: x),
        r"true_fn returns \(array, array\) and false_fn array",
    ),
    "branches of different shape": (
        lambda x: gw.cond(x[0] > 0, lambda: {"a": x}, lambda: {"a": x[0]}),
        r"the result\['a'\] is float64\[3\] from true_fn and float64\[\] from false_fn",
    ),
    "branches of different dtype": (
        lambda x: gw.cond(x[0] > 0, lambda: x, lambda: x > 0),
        r"the result is float64\[3\] from true_fn and bool\[3\] from false_fn",
    ),
    "a value that leaves its body": (_escape, r"outside of that function.*return it from that function"),
    "an output that leaves its body": (_escape_as_output, r"return it from that function"),
    "a value of the other branch": (_escape_to_a_sibling, r"return it from that function"),
    "assignment to an array around": (_assign_outside, r"table\[i\] = c\[0\].*as the carry of a loop"),
    "in-place arithmetic on an array around": (_add_outside, r"as the carry of a loop"),
    "assignment to a view around": (_assign_to_an_outer_view, r"half\[0\] = c\[0\].*as the carry of a loop"),
    "a carry that becomes complex": (
        lambda x: gw.fori(0, 2, lambda i, c: c * 1j, x),
        r"takes a carry of structure array and returns one of complex array",
    ),
    "a batch of nothing known": (lambda x: gw.vmap(lambda a: "text")(x), r"gw\.vmap: the result is a str"),
    "an if on a traced value": (lambda x: x if x[0] > 0 else -x, r"gw\.cond for if, gw\.while_ for while"),
    "a range of a traced value": (
        lambda x: [i for i in range(x.astype(np.int64)[0])],  # noqa: C416
        r"gw\.fori instead of range.*gw\.scan",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_to_write_instead(name: str) -> None:
    program, advice = REFUSALS[name]
    with pytest.raises(TraceError, match=advice):
        trace(program, [spec(3)])


LOCAL = ["a carry that changes shape", "a carry that changes dtype", "a carry that changes structure"]
LOCAL += ["a step that returns one thing", "a condition that is a number", "predicates in an array"]


@pytest.mark.parametrize("name", LOCAL)
def test_plain_arrays_are_refused_like_traced_ones(name: str) -> None:
    program, _ = REFUSALS[name]
    with pytest.raises(TraceError):
        program(np.abs(X))


MISFITS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no length": (lambda x: gw.scan(lambda c, _: (c, c), x), ValueError, r"give length="),
    "negative length": (lambda x: gw.scan(lambda c, _: (c, c), x, length=-1), ValueError, r"length is -1"),
    "different lengths": (
        lambda x: gw.scan(lambda c, _: (c, c), x, (x, np.ones(4)), length=3),
        ValueError,
        r"length 3, xs\[0\] 3, xs\[1\] 4",
    ),
    "nothing to scan along": (
        lambda x: gw.scan(lambda c, _: (c, c), x, {"a": 1.0}),
        ValueError,
        r"xs\['a'\] is a single number",
    ),
    "a bound that is no integer": (
        lambda x: gw.fori(0, 2.5, lambda i, c: c, x),
        TypeError,
        r"upper is a float",
    ),
    "a traced bound that is no integer": (
        lambda x: gw.fori(x[0] if isinstance(x[0], gw.tracing.TracedArray) else 0.5, 3, lambda i, c: c, x),
        TypeError,
        r"lower is (float64\[\]|a float)",
    ),
    "negative trips": (
        lambda x: gw.while_(lambda c: c[0] > 0, lambda c: c, x, max_trips=-1),
        ValueError,
        r"max_trips is -1",
    ),
    "nothing to slice": (lambda x: gw.vmap(np.sin, in_axes=None)(x), ValueError, r"slices no argument"),
    "an axis too many": (
        lambda x: gw.vmap(lambda a, b: a, in_axes=(0, 1))(x, x),
        ValueError,
        r"argument\[1\] along axis 1, but its shape is \(3,\)",
    ),
    "different extents": (
        lambda x: gw.vmap(lambda a, b: a)(x, np.ones(4)),
        ValueError,
        r"3 of argument\[0\], 4 of argument\[1\]",
    ),
    "axes for another structure": (
        lambda x: gw.vmap(lambda a: a["u"], in_axes=({"v": 0},))({"u": x}),
        ValueError,
        r"in_axes has \{'v': 0\} where there is \{'u': array\}",
    ),
    "an axis that is no integer": (
        lambda x: gw.vmap(np.sin, in_axes="x")(x),
        TypeError,
        r"in_axes has a str",
    ),
    "a result that is not stacked": (
        lambda x: gw.vmap(np.sin, out_axes=None)(x),
        ValueError,
        r"out_axes is None for the result",
    ),
    "a result on an axis too many": (
        lambda x: gw.vmap(np.sin, out_axes=1)(x),
        ValueError,
        r"the result on axis 1 of an array of 1 axes",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("traces", [True, False], ids=["traced", "plain"])
def test_arguments_that_do_not_fit_raise_alike_traced_and_plain(name: str, traces: bool) -> None:
    program, error, reason = MISFITS[name]
    with pytest.raises(error, match=reason):
        if traces:
            trace(program, [spec(3)])
        else:
            program(np.abs(X))


def test_plain_results_of_different_structures_are_refused() -> None:
    with pytest.raises(TraceError, match="for one slice"):
        gw.vmap(lambda a: (a, a) if a > 0 else a)(np.array([1.0, -1.0]))
    with pytest.raises(TraceError, match="at first"):
        gw.scan(lambda c, a: (c, (a, a) if a > 0 else a), 0.0, np.array([1.0, -1.0]))


def test_a_body_that_raises_leaves_the_trace_usable() -> None:
    def program(x: Any) -> Any:
        try:
            gw.fori(0, 2, lambda i, c: np.zeros(5) @ c, x)
        except ValueError:
            return np.sin(x)
        raise AssertionError

    assert operators(trace(program, [spec(3)])) == ["Sin"]
