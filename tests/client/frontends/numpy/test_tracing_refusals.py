"""What has no place in a graph is refused at once, with the user's line and what to write instead."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwire.errors import GradwireError, TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec

PLAIN = np.zeros(3)


def _branch(x: Any) -> Any:
    if x[0] > 0:
        return x
    return -x


def _fill_plain(x: Any) -> Any:
    y = np.zeros(3)
    y[0] = x[0]
    return y


def _add_to_plain(x: Any) -> Any:
    y = np.zeros(3)
    y += x
    return y


def _add_in_plain_slot(x: Any) -> Any:
    y = np.zeros(3)
    y[1:] += x[1:]
    return y


def _draw(x: Any) -> Any:
    return x + np.random.normal(size=3)


def _draw_plainly(x: Any) -> Any:
    return x * random.random()


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "branch": (_branch, r"np\.where\(condition, a, b\)"),
    "while": (lambda x: [x for _ in iter(lambda: bool(x.sum() < 3), False)], r"np\.where"),
    "and": (lambda x: (x > 0) and (x < 1), r"np\.logical_and"),
    "float": (lambda x: float(x[0]), r"np\.sin, not math\.sin"),
    "int": (lambda x: int(x[0]), r"astype\(np\.int64\)"),
    "complex": (lambda x: complex(x[0]), r"NumPy's functions"),
    "math": (lambda x: math.sin(x[0]), r"np\.sin, not math\.sin"),
    "range": (lambda x: list(range(x.astype(np.int64)[0])), r"shapes must be fixed"),
    "list index": (lambda x: [1, 2][x.astype(np.int64)[0]], r"np\.stack"),
    "plain table": (lambda x: PLAIN[x.astype(np.int64)], r"gw\.asarray\(table\)"),
    "asarray": (lambda x: np.asarray(x), r"drop np\.asarray"),
    "array of parts": (lambda x: np.array([x[0], x[1]]), r"gw\.asarray\(\[\.\.\.\]\)"),
    "array of complex parts": (lambda x: np.array([1j * x[0], 1]), r"gw\.asarray\(\[\.\.\.\]\)"),
    "digits": (lambda x: f"{x[0]:.2f}", r"'\.2f'.*without a format"),
    "digits of a complex number": (lambda x: f"{x[0] * 1j:.2f}", r"without a format"),
    "item": (lambda x: x[0].item(), r"np\.sin, not math\.sin"),
    "tolist": (lambda x: x.tolist(), r"iterate over the array"),
    "flat": (lambda x: x.flat[0], r"\.ravel\(\)"),
    "in": (lambda x: 3.0 in x, r"np\.any"),
    "filling a plain array": (_fill_plain, r"np\.zeros_like\(x\) or gw\.zeros"),
    "adding to a plain array": (_add_to_plain, r"y = y \+ x"),
    "adding to a plain slot": (_add_in_plain_slot, r"y = y \+ x"),
    "out": (lambda x: np.add(x, 1, out=np.zeros(3)), r"plain NumPy array"),
    "where argument": (lambda x: np.add(x, 1, where=x > 0), r"np\.where\(condition, result, otherwise\)"),
    "mask": (lambda x: x[x > 0], r"np\.where\(mask, a, b\)"),
    "mask assignment of an array": (lambda x: x.__setitem__(x > 0, np.ones(2)), r"np\.where\(mask, new, x\)"),
    "bool key": (lambda x: x[True], r"np\.where"),
    "slice bound": (lambda x: x[: x.astype(np.int64)[0]], r"np\.arange\(length\)"),
    "ufunc": (lambda x: np.nextafter(x, 1.0), r"ufunc nextafter"),
    "masked arrays": (lambda x: x * np.ma.masked_array(PLAIN, [0, 1, 0]), r"MaskedArray.*a\.filled"),
    "masked arrays first": (lambda x: np.ma.masked_array(PLAIN, [0, 1, 0]) * x, r"masked array"),
    "masked arrays in functions": (lambda x: np.where(x > 0, x, np.ma.masked_array(PLAIN)), r"MaskedArray"),
    "masked arrays assigned": (lambda x: x.__setitem__(..., np.ma.masked_array(PLAIN)), r"MaskedArray"),
    "masked complex arrays": (lambda x: x * np.ma.masked_array(PLAIN * 1j), r"MaskedArray"),
    "matrices": (lambda x: x * np.matrix(np.eye(3)), r"numpy\.matrix.*np\.asarray"),
    "matrices first": (lambda x: np.matrix(np.eye(3)) * x, r"numpy\.matrix"),
    "unknown function": (lambda x: np.setxor1d(x, x), r"np\.setxor1d"),
    "unknown argument": (lambda x: np.var(x, where=x > 0), r"np\.var with these arguments"),
    "one-argument where": (lambda x: np.where(x > 0), r"np\.where\(condition, a, b\)"),
    "nonzero": (lambda x: np.nonzero(x), r"np\.where\(condition, a, b\)"),
    "unique": (lambda x: np.unique(x), r"np\.sort"),
    "traced bins": (lambda x: np.digitize(x, x), r"np\.searchsorted"),
    "bins of traced positions": (lambda x: np.bincount(x.astype(np.int64)), r"np\.add\.at"),
    "histogram": (lambda x: np.histogram(x), r"smooth kernel"),
    "traced quantile": (lambda x: np.quantile(x, x), r"keep q fixed"),
    "unknown quantile": (lambda x: np.quantile(x, 0.5, method="inverted_cdf"), r"hazen"),
    "complex by value": (lambda x: np.emath.sqrt(x), r"astype\(complex\)"),
    "allclose": (lambda x: np.allclose(x, 1), r"np\.max"),
    "eig": (lambda x: np.linalg.eig(x[None]), r"np\.linalg\.eigh"),
    "singular vectors": (lambda x: np.linalg.svd(x[None]), r"full_matrices=False"),
    "complex output": (lambda x: np.fft.fft(x), r"np\.real\(z\) and np\.imag\(z\)"),
    "complex constant output": (lambda x: (x, 1j), r"np\.abs\(z\)"),
    "order of complex numbers": (lambda x: x * 1j < 2, r"np\.abs\(z\)"),
    "sorting complex numbers": (lambda x: np.sort(x * 1j), r"np\.abs\(z\)"),
    "unknown function of complex numbers": (lambda x: np.prod(x * 1j), r"np\.real\(z\)"),
    "plain complex array": (lambda x: np.asarray(x * 1j), r"np\.real\(z\)"),
    "truth of a complex number": (lambda x: bool((x * 1j)[0]), r"np\.real\(z\)"),
    "complex numbers made real": (lambda x: (x * 1j).astype(float), r"np\.real\(z\)"),
    "random numbers": (_draw, r"pass them in as an input"),
    "random numbers of Python": (_draw_plainly, r"pass them in as an input"),
    "nothing": (lambda x: None, r"return an array"),
    "empty tuple": (lambda x: (), r"empty"),
    "text": (lambda x: "x", r"arrays or numbers"),
    "nothing inside": (lambda x: (x, {"a": None}), r"output 1\.a.*is None"),
    "keys that are no text": (lambda x: {1: x}, r"text keys"),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_to_write_instead(name: str) -> None:
    function, advice = REFUSALS[name]
    with pytest.raises(TraceError, match=advice):
        trace(function, [spec(3)])


def test_refusals_name_the_line_of_the_function() -> None:
    with pytest.raises(TraceError, match=r"test_tracing_refusals\.py:\d+: if x\[0\] > 0:"):
        trace(_branch, [spec(3)])


def test_trace_errors_are_type_errors_and_errors_of_the_package() -> None:
    assert issubclass(TraceError, TypeError)
    assert issubclass(TraceError, GradwireError)


def test_an_array_that_outlives_its_trace_is_refused() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x) or x, [spec(3)])  # type: ignore[func-returns-value]
    with pytest.raises(TraceError, match=r"test_tracing_refusals\.py:\d+: trace.*inside the function"):
        trace(lambda x: x + kept[0], [spec(3)])
    with pytest.raises(TraceError, match="inside the function"):
        trace(lambda x: kept[0], [spec(3)])


def test_too_few_specs_are_refused_by_name() -> None:
    with pytest.raises(TraceError, match="missing a required argument: 'y'"):
        trace(lambda x, y: x + y, [spec(3)])


def test_shapes_that_do_not_fit_raise_where_numpy_would() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        trace(lambda x, y: x + y, [spec(3), spec(4)])
    with pytest.raises(ValueError, match="matmul"):
        trace(lambda x, y: x @ y, [spec(3), spec(4)])
    with pytest.raises(ValueError, match="einsum"):
        trace(lambda x, y: np.einsum("i,i", x, y), [spec(3), spec(4)])
