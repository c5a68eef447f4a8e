"""Names, structure and bytes of traced models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire.frontends.numpy import trace, trace_function
from gradwire.graphs.spec import ArraySpec, spec, spec_of
from tests.client.frontends.numpy.oracle import operators


def _inputs(model: Any) -> list[str]:
    return [item.name for item in model.graph.input]


def _outputs(model: Any) -> list[str]:
    return [item.name for item in model.graph.output]


def test_inputs_are_named_after_parameters() -> None:
    model = trace(lambda a, bias: a + bias, [spec(3), spec(3)])
    assert (_inputs(model), _outputs(model)) == (["a", "bias"], ["y"])


def test_given_names_come_before_those_of_specs_and_parameters() -> None:
    specs = [spec(3, name="left"), spec(3)]
    assert _inputs(trace(lambda a, b: a + b, specs)) == ["left", "b"]
    assert _inputs(trace(lambda a, b: a + b, specs, ["u", "v"])) == ["u", "v"]


def test_variadic_functions_number_their_inputs() -> None:
    assert _inputs(trace(lambda *arrays: arrays[0] + arrays[1], [spec(3), spec(3)])) == ["x0", "x1"]


def test_ufuncs_themselves_can_be_traced() -> None:
    assert operators(trace(np.sin, [spec(3)])) == ["Sin"]


def test_outputs_never_share_the_name_of_an_input() -> None:
    assert _outputs(trace(lambda y: y * 2, [spec(3)])) == ["out"]
    assert _outputs(trace(lambda y0: (y0, y0), [spec(3)])) == ["out0", "out1"]
    assert _outputs(trace(lambda x: {"x": x, "z": x}, [spec(3)])) == ["out_x", "z"]


def test_names_that_are_used_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'x' is taken"):
        trace(lambda a, b: a + b, [spec(3), spec(3)], ["x", "x"])


def test_what_a_function_returns_can_be_packed_again() -> None:
    for fn, packed in [
        (lambda x: x, 1),
        (lambda x: (x, x), (1, 2)),
        (lambda x: [x, x], [1, 2]),
        (lambda x: {"a": x, "b": x}, {"a": 1, "b": 2}),
    ]:
        traced = trace_function(fn, [spec(3)])
        assert traced.pack([1, 2][: len(traced.model.graph.output)]) == packed


def test_the_same_function_gives_the_same_bytes() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 3))

    def fn(x: Any) -> Any:
        return np.tanh(weights @ x).sum()

    assert trace(fn, [spec(3)]).SerializeToString() == trace(fn, [spec(3)]).SerializeToString()


def test_what_no_output_needs_is_left_out() -> None:
    def fn(x: Any) -> Any:
        _ = np.linalg.inv(x) @ np.ones((3, 3))
        return x * 2.0

    model = trace(fn, [spec((3, 3))])
    assert operators(model) == ["Mul"]
    assert len(model.graph.initializer) == 1


def test_models_import_only_the_domains_they_use() -> None:
    assert [item.domain for item in trace(lambda x: x + 1, [spec(3)]).opset_import] == [""]
    assert [item.domain for item in trace(np.hypot, [spec(3), spec(3)]).opset_import] == ["", "gradwire.sci"]


def test_python_floats_keep_all_their_digits() -> None:
    model = trace(lambda x: x * 0.1, [spec(3)])
    assert np.frombuffer(model.graph.initializer[0].raw_data, np.float64)[0] == 0.1


def test_specs_take_shapes_and_dtypes_as_numpy_does() -> None:
    assert spec(3) == ArraySpec((3,), np.dtype(np.float64), None)
    assert spec([2, 3], "f4").dtype == np.float32
    assert spec(()).shape == ()
    assert spec(np.int64(2)).shape == (2,)
    assert spec_of(np.zeros((2, 3), np.float32)) == spec((2, 3), np.float32)
    assert spec_of(1.5) == spec(())
    assert (spec((2, 3)).size, spec((2, 3)).ndim) == (6, 2)


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [(-1, float, ValueError), (2.5, float, TypeError), (2, complex, TypeError), (2, "U3", TypeError)],
)
def test_specs_that_mean_nothing_are_refused(shape: Any, dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        spec(shape, dtype)
