"""The comparison at the first use finds faults of the tracer: mends are taken out, and it has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwire.frontends.numpy import dispatch, trace_function
from gradwire.frontends.numpy.arrays.cells import ViewCell
from gradwire.frontends.numpy.functions.manipulation import selection
from gradwire.graphs.comparison import Difference
from gradwire.graphs.spec import spec_of
from tests.client.frontends.numpy.oracle import by_engine, difference

X = np.array([0.5, 2.0, -1.0])


def clipped_into(x: Any) -> Any:
    y = np.zeros_like(x)
    np.clip(x, 0, 1, out=y)
    return y


def padded_oddly(x: Any) -> Any:
    return np.pad(x, (2, 0), "reflect", reflect_type="odd")


def read_through_a_view(x: Any) -> Any:
    y = x.copy()
    view = y[1:]
    before = np.sum(view)
    y[1] = 7.0
    return before * view


def _no_store(name: str, result: Any, out: Any, broadcast: bool = True) -> Any:
    return result


def _even(x: Any, axis: int, width: tuple[int, int], mode: Any) -> Any:
    return selection.along(x, axis, np.pad(np.arange(x.shape[axis]), width, mode))


def _as_first_read(view: ViewCell, read: Callable[[ViewCell], Any] = ViewCell.read) -> Any:
    return read(view) if view._seen < 0 else view._value


MENDS: dict[Callable[[Any], Any], tuple[object, str, object]] = {
    clipped_into: (dispatch, "stored", _no_store),
    padded_oddly: (selection, "_pad_oddly", _even),
    read_through_a_view: (ViewCell, "read", _as_first_read),
}


def found(function: Callable[[Any], Any]) -> Difference | None:
    traced = trace_function(function, [spec_of(X)])
    (name,) = [value.name for value in traced.model.graph.input]
    assert traced.bound.reference is not None
    return difference(traced.bound.reference, [X], by_engine(traced.model, {name: X}))


@pytest.mark.parametrize("function", MENDS)
def test_a_fault_is_found_where_its_mend_is_taken_out(
    function: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(function) is None
    monkeypatch.setattr(*MENDS[function])
    assert found(function) is not None
