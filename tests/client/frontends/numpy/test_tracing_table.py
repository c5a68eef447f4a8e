"""docs/tracing.md says what traces, and every function that traces is checked by a case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire.errors import TraceError
from gradwire.frontends.numpy import complex_dispatch, dispatch, trace
from gradwire.graphs.spec import spec
from tests.client.frontends.numpy import table


@pytest.fixture(scope="module")
def marks() -> table.Marks:
    return table.marks()


def test_the_page_of_what_traces_is_current(marks: table.Marks) -> None:
    written = table.PAGE.read_text(encoding="utf-8").partition("## Arrays")[2]
    assert written == table.page(marks).partition("## Arrays")[2], "make tracing writes docs/tracing.md again"


def test_every_function_that_traces_is_checked_by_a_case(marks: table.Marks) -> None:
    checked = {name for name, of_complex in marks if not of_complex}
    assert not sorted(table.known() - checked)


def test_every_function_of_complex_arrays_is_checked_by_a_case_of_them(marks: table.Marks) -> None:
    checked = {name for name, of_complex in marks if of_complex}
    assert not sorted(set(complex_dispatch.implemented()) - checked)


@pytest.mark.parametrize("function", dispatch.refused(), ids=dispatch.public_name)
def test_what_is_refused_by_name_says_what_to_do_instead(function: Any) -> None:
    def fn(x: Any) -> Any:
        return x.__array_function__(function, (type(x),), (x,), {})

    with pytest.raises(TraceError) as refusal:
        trace(fn, [spec(3)])
    assert dispatch.public_name(function) in str(refusal.value)
    assert dispatch.refused()[function] in str(refusal.value)


def test_functions_that_nobody_thought_of_are_refused_by_name() -> None:
    with pytest.raises(TraceError, match=r"np\.busday_count"):
        trace(lambda x: x.__array_function__(np.busday_count, (type(x),), (x, x), {}), [spec(3)])
