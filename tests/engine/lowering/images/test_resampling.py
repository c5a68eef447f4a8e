"""Resize and Upsample against the definition written out, with derivatives (they are linear)."""

from __future__ import annotations

import jax
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

X = np.random.default_rng(2).normal(size=(1, 1, 4, 5))


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def resize(
    x: np.ndarray,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    roi: np.ndarray | None = None,
    traced: bool = False,
    **options: object,
) -> np.ndarray:
    """Evaluates Resize of `x`; its other inputs decide shapes and are static."""
    given = {"x1": roi, "x2": scales, "x3": sizes}
    constants = {name: value for name, value in given.items() if value is not None}
    inputs = [x, roi, scales, sizes]
    while inputs[-1] is None:
        inputs.pop()
    model = one_node("Resize", *inputs, **options)

    def function(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        return evaluate(model, {"x0": x, **constants})[0]

    result = np.asarray((jax.jit(function) if traced else function)(x))
    assert result.dtype == x.dtype
    return result


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_traced_and_static_data_are_resized_alike(mode: str) -> None:
    static, traced = (resize(X, f32(1, 1, 1.7, 0.6), mode=mode, traced=flag) for flag in (False, True))
    np.testing.assert_allclose(traced, static, rtol=1e-14, atol=1e-15)


MODES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
]


@pytest.mark.parametrize("coordinates", MODES)
@pytest.mark.parametrize(
    "method",
    [
        {"mode": "linear"},
        {"mode": "linear", "antialias": 1},
        {"mode": "cubic"},
        {"mode": "cubic", "antialias": 1},
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        {"mode": "nearest"},
        {"mode": "nearest", "nearest_mode": "ceil"},
        {"mode": "nearest", "nearest_mode": "floor"},
        {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    ],
    ids=lambda method: "-".join(str(value) for value in method.values()),
)
@pytest.mark.parametrize("scales", [(1, 1, 0.6, 0.45), (1, 1, 2.3, 1.6)], ids=["down", "up"])
def test_resize_agrees_with_the_reference_in_every_mode(
    coordinates: str, method: dict[str, object], scales: tuple[float, ...]
) -> None:
    x, options = X, {**method, "coordinate_transformation_mode": coordinates}
    if coordinates == "align_corners":
        # The reference takes scale times size for the length of the result, and agrees where that is whole.
        x, scales = X[..., :4], tuple(int(scale * 4) / 4 for scale in scales)
    expected = ReferenceEvaluator(_typed("Resize", options)).run(None, {"x": x, "scales": f32(*scales)})[0]
    # The reference computes its cubic weights in float32, as the type of cubic_coeff_a.
    tolerance = 3e-5 if method["mode"] == "cubic" else 1e-12
    np.testing.assert_allclose(resize(x, f32(*scales), **options), expected, rtol=0, atol=tolerance)


def _typed(op: str, options: dict[str, object]) -> onnx.ModelProto:
    """Returns a model with the types that the reference evaluator requires."""
    node = onnx.helper.make_node(op, ["x", "", "scales"], ["y"], **options)
    double, single = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_value_info("x", double, [None] * 4),
            onnx.helper.make_tensor_value_info("scales", single, [4]),
        ],
        [onnx.helper.make_tensor_value_info("y", double, [None] * 4)],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=10)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["align_corners", "tf_crop_and_resize"])
@pytest.mark.parametrize("opset", [11, 13, 18, 19])
def test_corners_are_aligned_to_the_whole_length_of_the_result(
    coordinates: str, method: str, opset: int
) -> None:
    ramp = np.arange(6.0)[None, None]
    roi = f32(0, 0, 0, 1, 1, 1)
    options = {"mode": method, "coordinate_transformation_mode": coordinates, "opset": opset}
    # 1.7 times 6 is 10.2: the result has 10 elements, the last of which is the input's last.
    result = resize(ramp, f32(1, 1, 1.7), None, roi, **options)
    positions = np.arange(10) * 5 / 9
    if method == "nearest":
        np.testing.assert_array_equal(result[0, 0], np.ceil(positions - 0.5))
    else:
        np.testing.assert_allclose(result[0, 0, [0, -1]], [0, 5], atol=1e-12)
    if method == "linear":
        np.testing.assert_allclose(result[0, 0], positions, rtol=1e-13)


def test_linear_resize_reproduces_a_ramp_and_cubic_a_parabola_inside() -> None:
    ramp = np.arange(8.0)[None, None]
    where = (np.arange(16) + 0.5) / 2 - 0.5
    linear = resize(ramp, f32(1, 1, 2), mode="linear")[0, 0]
    np.testing.assert_allclose(linear, np.clip(where, 0, 7), rtol=1e-15)
    # Keys' kernel is exact on quadratics for a = -0.5.
    cubic = resize(ramp**2, f32(1, 1, 2), mode="cubic", cubic_coeff_a=-0.5)[0, 0]
    np.testing.assert_allclose(cubic[4:-4], where[4:-4] ** 2, rtol=1e-13)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_has_both_derivatives(mode: str) -> None:
    check_op("Resize", X, None, None, i64(1, 1, 6, 3), mode=mode)


def test_antialiased_resize_has_both_derivatives() -> None:
    check_op("Resize", X, None, None, i64(1, 1, 2, 3), mode="cubic", antialias=1)


def test_a_region_outside_the_image_reads_the_extrapolation_value() -> None:
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    roi = f32(0, 0, 0.25, -0.5, 1, 1, 0.75, 0.5)
    result = resize(X, None, i64(1, 1, 3, 3), roi, extrapolation_value=9.0, **options)
    rows, columns = 0.75 + np.arange(3) * 0.75, -2 + np.arange(3) * 2.0
    assert (result[0, 0, :, 0] == 9.0).all()
    for i, row in enumerate(rows):
        low = int(row)
        mixed = X[0, 0, low] * (low + 1 - row) + X[0, 0, low + 1] * (row - low)
        np.testing.assert_allclose(result[0, 0, i, 1:], mixed[columns[1:].astype(int)], rtol=1e-12)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("not_larger", (1, 1, 6, 8)), ("not_smaller", (1, 1, 7, 9)), ("stretch", (1, 1, 7, 8))],
)
def test_the_aspect_ratio_policy_decides_the_size(policy: str, expected: tuple[int, ...]) -> None:
    result = resize(X, None, i64(7, 8), axes=[2, 3], keep_aspect_ratio_policy=policy, mode="linear")
    assert result.shape == expected


def test_axes_may_be_negative_and_in_any_order() -> None:
    expected = resize(X, None, i64(1, 1, 8, 3), mode="linear")
    result = resize(X, None, i64(3, 8), axes=[-1, 2], mode="linear")
    np.testing.assert_allclose(result, expected, rtol=1e-14)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_before_opset_11_the_first_elements_coincide_and_nearest_rounds_down(op: str, opset: int) -> None:
    x = np.arange(3.0)
    model = one_node(op, x, f32(2.5), opset=opset, mode="nearest")
    result = evaluate(model, {"x0": x, "x1": f32(2.5)})[0]
    np.testing.assert_array_equal(result, [0, 0, 0, 1, 1, 2, 2])


def test_upsample_of_opset_7_takes_its_scales_from_an_attribute() -> None:
    np.testing.assert_array_equal(
        run("Upsample", np.arange(2.0), scales=[2.0], mode="linear", opset=7), [0, 0.5, 1, 1]
    )


def test_integers_are_rounded_and_stay_in_range() -> None:
    x = np.array([0, 255, 0, 255], np.uint8)
    result = resize(x, f32(2), mode="cubic")
    assert result.dtype == np.uint8
    assert result.min() == 0
    assert result.max() == 255


def test_half_precision_is_computed_in_single() -> None:
    x = np.linspace(0, 1, 5).astype(np.float16)
    expected = resize(x.astype(np.float64), f32(3), mode="cubic").astype(np.float16)
    np.testing.assert_allclose(resize(x, f32(3), mode="cubic"), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "quintic"}, "mode 'quintic' is not one of"),
        ({"coordinate_transformation_mode": "polar"}, "coordinate_transformation_mode 'polar'"),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, "needs roi"),
    ],
)
def test_what_resize_does_not_know_is_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        resize(X, f32(1, 1, 2, 2), **options)
