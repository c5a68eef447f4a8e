"""Values and derivatives of scikit-learn's models are those of the fitted estimators, in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.base import is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import VotingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import QuantileTransformer
from sklearn.svm import SVC, SVR

import gradwire as gw
import gradwire.sklearn
from gradwire.frontends.sources import load
from gradwire_engine.planning.registration import register
from tests.client.frontends.jax.engine_client import EngineClient
from tests.client.frontends.sklearn.estimators import (
    METHODS,
    POINT,
    ROWS,
    SMOOTH,
    STEPS,
    TANGENT,
    TARGET,
    THREE,
    TWO,
    difference,
    fitted,
)
from tests.engine.small_graphs import value_of


def _evaluated(source):
    return EngineClient().function(load(source, ()).data)


def _method(estimator):
    """What an estimator alone is a function of, as documented."""
    names = ("predict_proba", "decision_function", "transform", "predict")
    if is_regressor(estimator):
        names = ("predict",)
    return next(getattr(estimator, name) for name in names if hasattr(estimator, name))


def _products(function, output, tangent, rng):
    """A tangent of the output, and both sides of the adjoint identity."""
    along = function.as_jvp(["X"], [output]).value({"X": POINT, "X.tangent": tangent})
    cotangent = rng.normal(size=along.shape)
    back = function.as_vjp(["X"], [output]).value({"X": POINT, f"{output}.cotangent": cotangent})
    return along, np.vdot(along, cotangent), np.vdot(tangent, back)


@pytest.mark.parametrize("name", SMOOTH)
def test_values_and_derivatives_are_the_estimators(name):
    estimator = fitted(*SMOOTH[name])
    function, method = _evaluated(estimator), _method(estimator)
    (output,) = function.signature.outputs
    value = function.value({"X": POINT})
    np.testing.assert_allclose(value, method(POINT), rtol=1e-10, atol=1e-12)
    assert value.dtype == np.float64
    along, left, right = _products(function, output.name, TANGENT, np.random.default_rng(1))
    np.testing.assert_allclose(along, difference(method, POINT, TANGENT), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_values_and_derivatives_of_methods_with_formulas_are_the_estimators(name):
    estimator, target, method_name = METHODS[name]
    method = getattr(fitted(estimator, target), method_name)
    function = _evaluated(method)
    (output,) = function.signature.outputs
    columns = function.signature.inputs[0].shape[1]
    at, tangent = POINT[:, :columns], TANGENT[:, :columns]
    value = function.value({"X": at})
    np.testing.assert_allclose(value, method(at), rtol=1e-9, atol=1e-12)
    along = function.as_jvp(["X"], [output.name]).value({"X": at, "X.tangent": tangent})
    np.testing.assert_allclose(along, difference(method, at, tangent), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("estimator", "target"),
    [
        (GaussianProcessClassifier(optimizer=None), TWO),
        (GaussianProcessClassifier(optimizer=None), THREE),
        (GaussianMixture(2, random_state=0), None),
        (VotingClassifier([("ridge", LogisticRegression()), ("bayes", GaussianNB())]), TWO),
    ],
)
def test_labels_are_the_estimators(estimator, target):
    estimator = fitted(estimator, target)
    np.testing.assert_array_equal(_evaluated(estimator.predict).value({"X": ROWS}), estimator.predict(ROWS))


def test_logarithms_hold_far_from_the_data():
    estimator = fitted(GaussianMixture(2, random_state=0), None)
    far = {"X": POINT + 100.0}
    np.testing.assert_allclose(
        _evaluated(estimator.score_samples).value(far), estimator.score_samples(far["X"]), rtol=1e-9
    )
    bayes = fitted(GaussianNB(), THREE).predict_log_proba
    np.testing.assert_allclose(_evaluated(bayes).value(far), bayes(far["X"]), rtol=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_trees_have_the_estimators_values_to_single_precision_and_derivative_zero(name):
    estimator = fitted(*STEPS[name])
    function, method = _evaluated(estimator), _method(estimator)
    (output,) = function.signature.outputs
    np.testing.assert_allclose(function.value({"X": POINT}), method(POINT), rtol=1e-6, atol=1e-7)
    along, _, _ = _products(function, output.name, TANGENT, np.random.default_rng(1))
    np.testing.assert_array_equal(along, np.zeros_like(along))


@pytest.mark.parametrize("name", ["logistic", "support_vectors_of_three", "pairs_of_three", "discriminant"])
def test_each_method_of_a_classifier_is_a_function_of_its_own(name):
    estimator = fitted(*SMOOTH[name])
    labels = _evaluated(estimator.predict)
    np.testing.assert_array_equal(labels.value({"X": ROWS}), estimator.predict(ROWS))
    assert [value.floating for value in labels.signature.outputs] == [False]
    scores = _evaluated(estimator.decision_function)
    np.testing.assert_allclose(scores.value({"X": ROWS}), estimator.decision_function(ROWS), atol=1e-12)


def test_the_standard_deviation_of_a_process_comes_along_and_differentiates():
    estimator = fitted(GaussianProcessRegressor(Matern(nu=2.5), alpha=0.1, normalize_y=True), TARGET)
    function = _evaluated(gradwire.sklearn.model(estimator, return_std=True))
    mean, deviation = function.value({"X": POINT})
    expected = estimator.predict(POINT, return_std=True)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-10)
    np.testing.assert_allclose(deviation, expected[1], rtol=1e-10)
    along, left, right = _products(function, "std", TANGENT, np.random.default_rng(1))
    finite = difference(lambda x: estimator.predict(x, return_std=True)[1], POINT, TANGENT)
    np.testing.assert_allclose(along, finite, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(left, right, rtol=1e-10)


def test_a_process_with_a_constant_kernel_predicts_for_every_row():
    estimator = fitted(GaussianProcessRegressor(ConstantKernel(2.0), alpha=0.1, optimizer=None), TARGET)
    model = gradwire.sklearn.model(estimator, gw.spec((3, 4)), return_std=True)
    expected = estimator.predict(POINT, return_std=True)
    np.testing.assert_allclose(_evaluated(model).value({"X": POINT}), expected, rtol=1e-10)


@pytest.mark.parametrize("nu", [1.5, 2.5])
def test_a_process_has_both_derivatives_at_its_own_training_points(nu):
    # They are continuous there, so that those a little aside are the oracle.
    estimator = fitted(GaussianProcessRegressor(Matern(nu=nu), alpha=0.1, optimizer=None), TARGET)
    function = _evaluated(estimator)
    slope = function.as_jvp(["X"], ["prediction"])
    curvature = slope.as_jvp(["X"], ["prediction.tangent"])
    at = ROWS[:3]
    here, aside = ({"X": at + shift, "X.tangent": TANGENT} for shift in (0, 1e-7))
    np.testing.assert_allclose(slope.value(here), slope.value(aside), atol=1e-5)
    here["X.tangent.2"] = aside["X.tangent.2"] = TANGENT
    assert abs(curvature.value(here)).min() > 1e-2
    np.testing.assert_allclose(curvature.value(here), curvature.value(aside), rtol=1e-4, atol=1e-4)


def test_probabilities_of_support_vectors_are_as_exact_as_libsvms_iteration():
    with pytest.warns(FutureWarning, match="probability"):
        estimator = fitted(SVC(probability=True, random_state=0), THREE)
    function = _evaluated(estimator)
    np.testing.assert_allclose(
        function.value({"X": POINT}), estimator.predict_proba(POINT), atol=5e-3, rtol=0
    )


def test_rows_are_free_unless_a_spec_fixes_them_and_single_precision_stays_single():
    estimator = fitted(LinearRegression(), TARGET)
    free = load(estimator, ()).signature
    assert str(free) == "(X: float64[rows, 4]) -> (prediction: float64[rows])"
    fixed = load(estimator, (gw.spec((7, 4), np.float32, "samples"),)).signature
    assert str(fixed) == "(samples: float32[7, 4]) -> (prediction: float32[7])"
    assert load(estimator, (), ["samples"]).signature.inputs[0].name == "samples"


def test_the_graph_passes_the_full_check_and_holds_no_dead_nodes():
    model = gradwire.sklearn.model(fitted(LogisticRegression(), TWO))
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    assert "ArgMax" not in operators, "labels were not asked for"
    labels = gradwire.sklearn.model(fitted(LogisticRegression(), THREE).predict)
    assert "ArgMax" in {node.op_type for node in labels.graph.node}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: LinearRegression(), "not fitted yet"),
        (lambda: RBF(), "cannot make a function of RBF"),
        (lambda: fitted(LinearRegression(), TARGET).fit, "LinearRegression.fit has no graph.*predict"),
        (lambda: fitted(TransformedTargetRegressor(LinearRegression()), TARGET), "no converter"),
        (lambda: SVR(kernel="precomputed").fit(ROWS @ ROWS.T, TARGET), "kernel='precomputed'"),
        (
            lambda: fitted(GaussianProcessRegressor(Matern(nu=1.1), optimizer=None, alpha=1.0), TARGET),
            "nu=1.1 needs a Bessel function",
        ),
        (lambda: fitted(LogisticRegression(), np.array(["a", "b"])[TWO]).predict, "labels are text"),
        (
            lambda: fitted(GaussianProcessClassifier(optimizer=None), np.array(["a", "b"])[TWO]).predict,
            "labels are text.*predict_proba",
        ),
        (lambda: fitted(BayesianGaussianMixture(), None), "fit a GaussianMixture"),
        (
            lambda: fitted(PCA(2), None).score_samples,
            "PCA.score_samples has no graph: those of .*KernelDensity",
        ),
        (lambda: fitted(QuantileTransformer(n_quantiles=9), None).inverse_transform, "those of MinMaxScaler"),
        (
            lambda: fitted(LinearDiscriminantAnalysis(), THREE).predict_log_proba,
            "take the logarithm of predict_proba",
        ),
        (
            lambda: fitted(VotingClassifier([("a", LogisticRegression())]), TWO).transform,
            "predict_proba of one with voting='soft'",
        ),
        (lambda: fitted(KernelDensity(kernel="tophat"), None), "kernel='gaussian'"),
    ],
)
def test_what_has_no_graph_is_refused_by_name(source, words):
    with pytest.raises(gw.InvalidArgumentError, match=words):
        load(source(), ())


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (gw.spec(4), "takes rows of 4 features"),
        (gw.spec((2, 5)), "takes rows of 4 features"),
        (gw.spec((2, 4), np.int64), "int64"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(at, words):
    with pytest.raises(gw.InvalidArgumentError, match=words):
        load(fitted(LinearRegression(), TARGET), (at,))


def test_a_deviation_is_only_that_of_a_process():
    with pytest.raises(gw.InvalidArgumentError, match="not LinearRegression"):
        gradwire.sklearn.model(fitted(LinearRegression(), TARGET), return_std=True)


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
def test_a_file_that_skl2onnx_made_differentiates_with_its_labels_of_text_left_out(tmp_path, zipmap):
    estimator = fitted(*SMOOTH["logistic_of_words"])
    exported = to_onnx(
        estimator,
        initial_types=[("X", DoubleTensorType([None, 4]))],
        options={id(estimator): {"zipmap": zipmap}},
    )
    path = tmp_path / "classifier.onnx"
    path.write_bytes(exported.SerializeToString())
    with pytest.warns(gw.GraphWarning, match="label' is left out"):
        model = load(path, ())
    function = EngineClient().function(model.data)
    outputs = [value.name for value in function.signature.outputs]
    along = function.as_jvp(["X"], outputs).value({"X": POINT, "X.tangent": TANGENT})
    along = np.stack(along, axis=1) if isinstance(along, tuple) else along
    expected = difference(estimator.predict_proba, POINT, TANGENT)
    np.testing.assert_allclose(along, expected, rtol=1e-8, atol=1e-9)


def test_the_engine_gives_probabilities_for_dictionaries():
    estimator = fitted(*SMOOTH["logistic"])
    exported = to_onnx(estimator, ROWS[:1].astype(np.float32))
    graph = register(exported.SerializeToString())
    (name,) = [name for name, type_ in graph.info.signature.outputs if type_.dtype == "float32"]
    probabilities = value_of(graph, {"X": ROWS.astype(np.float32)})[name]
    np.testing.assert_allclose(probabilities, estimator.predict_proba(ROWS), atol=1e-5)


def test_trees_come_with_a_warning_from_the_engine():
    graph = register(load(fitted(*STEPS["forest"]), ()).data)
    assert any("piecewise constant" in text for text in graph.info.warnings)
