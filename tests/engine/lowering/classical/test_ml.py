"""Classical models against their formulas, and derivatives of those that have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, ndtri
from scipy.special import softmax as scipy_softmax

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import gradient_of, is_float, run

ML = "ai.onnx.ml"
rng = np.random.default_rng(8)


def _run(op: str, *inputs: Any, version: int = 1, **options: Any) -> Any:
    return run(op, *inputs, domain=ML, domain_opset=version, **options)


def _jacobian(op: str, x: np.ndarray, **options: Any) -> np.ndarray:
    """Forward and reverse must agree; the operators round their results to float32."""
    forward, reverse = gradient_of(op, x, domain=ML, **options)
    np.testing.assert_allclose(reverse, forward, rtol=1e-6, atol=1e-7)
    return forward


def _difference(function: Any, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    columns = []
    for index in np.ndindex(x.shape):
        bump = np.zeros_like(x)
        bump[index] = step
        columns.append((function(x + bump) - function(x - bump)).ravel() / (2 * step))
    return np.stack(columns, 1)


def test_scaler_subtracts_then_multiplies() -> None:
    x = rng.standard_normal((2, 3))
    y = _run("Scaler", x, offset=[1.0, 2.0, 3.0], scale=[0.5, 2.0, 4.0])
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, (x - [1, 2, 3]) * [0.5, 2, 4], rtol=1e-6)
    np.testing.assert_allclose(_jacobian("Scaler", x[:1], scale=[0.5, 2.0, 4.0]), np.diag([0.5, 2, 4]))


@pytest.mark.parametrize(
    ("norm", "of"),
    [
        ("MAX", lambda x: x.max(1, keepdims=True)),
        ("L1", lambda x: np.abs(x).sum(1, keepdims=True)),
        ("L2", lambda x: np.linalg.norm(x, axis=1, keepdims=True)),
    ],
)
def test_normalizer_divides_rows_by_their_norm_and_leaves_zeros(norm: str, of: Any) -> None:
    x = rng.uniform(-1, 1, (2, 3))
    np.testing.assert_allclose(_run("Normalizer", x, norm=norm), x / of(x), rtol=1e-6)
    np.testing.assert_array_equal(_run("Normalizer", np.zeros((1, 3)), norm=norm), 0)
    expected = _difference(lambda point: point / of(point), x)
    np.testing.assert_allclose(_jacobian("Normalizer", x, norm=norm), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(_jacobian("Normalizer", np.zeros((1, 2)), norm=norm), np.eye(2))


@pytest.mark.parametrize("missing", [np.nan, -1.0])
def test_imputer_replaces_values_and_their_derivative(missing: float) -> None:
    x = np.array([[1.0, missing], [missing, 4.0]])
    options = {"imputed_value_floats": [7.0, 8.0], "replaced_value_float": missing}
    np.testing.assert_array_equal(_run("Imputer", x, **options), [[1, 8], [7, 4]])
    np.testing.assert_array_equal(_jacobian("Imputer", x, **options), np.diag([1, 0, 0, 1]))


def test_imputer_replaces_integers() -> None:
    x = np.array([[1, -1], [2, 3]])
    y = _run("Imputer", x, imputed_value_int64s=[9], replaced_value_int64=-1)
    np.testing.assert_array_equal(y, [[1, 9], [2, 3]])


def test_binarizer_is_a_step_with_derivative_zero() -> None:
    x = np.array([[0.5, 1.0, 2.0]])
    np.testing.assert_array_equal(_run("Binarizer", x, threshold=1.0), [[0, 0, 1]])
    np.testing.assert_array_equal(_jacobian("Binarizer", x, threshold=1.0), 0)


def test_array_feature_extractor_takes_from_the_last_axis() -> None:
    x = rng.standard_normal((2, 4))
    np.testing.assert_array_equal(_run("ArrayFeatureExtractor", x, np.array([2, 0])), x[:, [2, 0]])
    assert _run("ArrayFeatureExtractor", x[0], np.array([1])).shape == (1, 1)
    with pytest.raises(InvalidGraph, match="outside the 4 features"):
        _run("ArrayFeatureExtractor", x, np.array([4]))


def test_feature_vectorizer_cuts_and_fills_to_the_declared_widths() -> None:
    a, b = np.ones((2, 3)), np.full((2, 1), 2.0)
    y = _run("FeatureVectorizer", a, b, inputdimensions=[2, 3])
    np.testing.assert_array_equal(y, [[1, 1, 2, 0, 0]] * 2)


def test_one_hot_encoder_gives_zeros_for_unknown_categories() -> None:
    y = _run("OneHotEncoder", np.array([3.0, 9.0]), cats_int64s=[1, 3])
    np.testing.assert_array_equal(y, [[0, 1], [0, 0]])


def test_label_encoder_knows_nan_duplicates_and_a_default() -> None:
    x = np.array([1.0, np.nan, 2.0, 5.0], np.float32)
    y = _run(
        "LabelEncoder",
        x,
        version=2,
        keys_floats=[2.0, 1.0, np.nan, 1.0],
        values_int64s=[20, 9, 30, 10],
        default_int64=-7,
    )
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, [10, 30, 20, -7])


def test_label_encoder_maps_integers_to_floats() -> None:
    y = _run("LabelEncoder", np.array([4, 7]), version=2, keys_int64s=[7], values_floats=[0.5])
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, [0, 0.5])


TRANSFORMS = {
    "NONE": lambda s: s,
    "LOGISTIC": expit,
    "SOFTMAX": lambda s: scipy_softmax(s, axis=1),
    "PROBIT": ndtri,
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_regressor_transforms_its_scores(transform: str) -> None:
    x = rng.uniform(0.1, 0.4, (2, 3))
    weights = np.array([[0.5, 0.25, 0.125], [0.75, 0.5, 0.25]])
    options = {"coefficients": weights.ravel().tolist(), "intercepts": [0.0625, 0.125], "targets": 2}

    def expected(point: np.ndarray) -> np.ndarray:
        return TRANSFORMS[transform](point @ weights.T + [0.0625, 0.125])

    y = _run("LinearRegressor", x, post_transform=transform, **options)
    np.testing.assert_allclose(y, expected(x), rtol=1e-5)
    jacobian = _jacobian("LinearRegressor", x, post_transform=transform, **options)
    np.testing.assert_allclose(jacobian, _difference(expected, x), rtol=1e-4, atol=1e-6)


def test_softmax_zero_keeps_zero_scores_zero() -> None:
    y = _run(
        "LinearRegressor",
        np.ones((1, 1)),
        targets=3,
        coefficients=[0.0, 1.0, 2.0],
        post_transform="SOFTMAX_ZERO",
    )
    np.testing.assert_allclose(y[0, 1:], scipy_softmax([1.0, 2.0]), rtol=1e-6)
    assert y[0, 0] == 0


def test_linear_classifier_gives_labels_and_differentiable_scores() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    options = {"coefficients": [1.0, 0.0, 0.0, 1.0, -1.0, -1.0], "intercepts": [0.0] * 3}
    labels, scores = _run(
        "LinearClassifier", x, classlabels_ints=[10, 20, 30], post_transform="SOFTMAX", outputs=2, **options
    )
    np.testing.assert_array_equal(labels, [10, 20, 30])
    raw = x @ np.reshape(options["coefficients"], (3, 2)).T
    np.testing.assert_allclose(scores, scipy_softmax(raw, axis=1), rtol=1e-6)
    assert labels.dtype == np.int64


def test_one_score_for_two_labels_is_the_margin_of_the_second() -> None:
    labels, scores = _run(
        "LinearClassifier",
        np.array([[2.0], [-3.0]]),
        classlabels_ints=[4, 5],
        coefficients=[1.0],
        post_transform="LOGISTIC",
        outputs=2,
    )
    np.testing.assert_array_equal(labels, [5, 4])
    np.testing.assert_allclose(scores, [[expit(-2), expit(2)], [expit(3), expit(-3)]], rtol=1e-6)


def test_string_labels_are_refused_where_something_reads_them() -> None:
    with pytest.raises(InvalidGraph, match="integer labels"):
        _run(
            "LinearClassifier", np.ones((1, 1)), classlabels_strings=["a", "b"], coefficients=[1.0], outputs=2
        )


KERNELS = {
    "LINEAR": lambda x, v: x @ v.T,
    "POLY": lambda x, v: (0.5 * x @ v.T + 0.25) ** 3,
    "SIGMOID": lambda x, v: np.tanh(0.5 * x @ v.T + 0.25),
    "RBF": lambda x, v: np.exp(-0.5 * ((x[:, None] - v) ** 2).sum(-1)),
}


def _exact(values: np.ndarray) -> np.ndarray:
    """Returns values that attributes, which are float32, hold exactly."""
    return np.round(values * 64) / 64


@pytest.mark.parametrize("kernel", KERNELS)
def test_svm_regressor_sums_kernels_and_differentiates(kernel: str) -> None:
    x, vectors = rng.standard_normal((2, 3)), _exact(rng.standard_normal((4, 3)))
    weights = _exact(rng.standard_normal(4))
    options = {
        "kernel_type": kernel,
        "kernel_params": [0.5, 0.25, 3.0],
        "support_vectors": vectors.ravel().tolist(),
        "coefficients": weights.tolist(),
        "n_supports": 4,
        "rho": [0.125],
    }

    def expected(point: np.ndarray) -> np.ndarray:
        return KERNELS[kernel](point, vectors) @ weights[:, None] + 0.125

    np.testing.assert_allclose(_run("SVMRegressor", x, **options), expected(x), rtol=1e-5, atol=1e-6)
    jacobian = _jacobian("SVMRegressor", x, **options)
    np.testing.assert_allclose(jacobian, _difference(expected, x), rtol=1e-4, atol=1e-5)


def _svm_options(classes: int, vectors: np.ndarray, weights: np.ndarray, rho: list[float]) -> dict[str, Any]:
    return {
        "kernel_type": "LINEAR",
        "support_vectors": vectors.ravel().tolist(),
        "vectors_per_class": [len(vectors) // classes] * classes,
        "coefficients": weights.ravel().tolist(),
        "rho": rho,
        "classlabels_ints": list(range(5, 5 + classes)),
    }


def test_svm_classifier_votes_over_pairs_of_classes() -> None:
    vectors, weights = _exact(rng.standard_normal((6, 2))), _exact(rng.standard_normal((2, 6)))
    x, rho = rng.standard_normal((5, 2)), [0.25, -0.5, 0.125]
    labels, scores = _run("SVMClassifier", x, outputs=2, **_svm_options(3, vectors, weights, rho))
    kernels = x @ vectors.T
    expected, votes = [], np.zeros((5, 3))
    for pair, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        part_i, part_j = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
        score = (
            kernels[:, part_i] @ weights[j - 1, part_i] + kernels[:, part_j] @ weights[i, part_j] + rho[pair]
        )
        expected.append(score)
        votes[np.arange(5), np.where(score > 0, i, j)] += 1
    np.testing.assert_allclose(scores, np.stack(expected, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, 5 + votes.argmax(1))


def test_svm_probabilities_solve_the_coupling_problem_and_differentiate() -> None:
    vectors, weights = _exact(rng.standard_normal((6, 2))), _exact(rng.standard_normal((2, 6)))
    options = _svm_options(3, vectors, weights, [0.25, -0.5, 0.125])
    _, margins = _run("SVMClassifier", x := rng.standard_normal((1, 2)), outputs=2, **options)
    a, b = [-1.0, -0.5, -2.0], [0.25, 0.0, -0.25]
    _, p = _run("SVMClassifier", x, outputs=2, prob_a=a, prob_b=b, **options)
    r = np.zeros((3, 3))
    for pair, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        r[i, j] = expit(-(margins[0, pair] * a[pair] + b[pair]))
        r[j, i] = 1 - r[i, j]

    def objective(q: np.ndarray) -> float:
        return sum((r[j, i] * q[i] - r[i, j] * q[j]) ** 2 for i in range(3) for j in range(i))

    assert abs(p.sum() - 1) < 1e-6
    for _ in range(20):
        step = 0.01 * rng.standard_normal(3)
        assert objective(p[0]) <= objective(p[0] + step - step.mean())
    jacobian = _jacobian("SVMClassifier", x, outputs=2, prob_a=a, prob_b=b, **options)
    np.testing.assert_allclose(jacobian.sum(0), 0, atol=1e-6)
    assert np.abs(jacobian).max() > 1e-3


def test_integer_inputs_are_scored_as_floats() -> None:
    x = np.array([[1, 2]])
    assert not is_float(x)
    y = _run("LinearRegressor", x, coefficients=[0.5, 0.25])
    np.testing.assert_array_equal(y, [[1.0]])
