"""Converts a fitted estimator, or one of its methods, to an ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from skl2onnx import convert_sklearn, get_model_alias
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.ensemble import GradientBoostingClassifier, VotingClassifier
from sklearn.ensemble._forest import ForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import BayesianGaussianMixture
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sklearn import features, gaussian_process, vectors
from gradwire.frontends.sklearn.formulas import Converter, converter
from gradwire.frontends.sklearn.repair import finished, rename
from gradwire.frontends.sklearn.steps import FORMULAS, Step, columns_of, replaced
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.reference import Reference
from gradwire.graphs.spec import ArraySpec, spec

_OPSETS = {"": 18, "ai.onnx.ml": 3}

"""Operator sets that skl2onnx may use; they have every operator of the formulas here."""

_CONVERTERS: dict[type, Converter] = {
    GaussianProcessRegressor: converter(gaussian_process.process),
    LinearSVC: converter(vectors.linear_classifier),
    NuSVC: vectors.convert_classifier,
    NuSVR: converter(vectors.regressor),
    OneClassSVM: converter(vectors.one_class),
    PolynomialFeatures: converter(features.polynomial),
    SVC: vectors.convert_classifier,
    SVR: converter(vectors.regressor),
}
"""Converters that take the place of skl2onnx's."""

_LOGARITHMS = (
    DecisionTreeClassifier,
    ForestClassifier,
    GradientBoostingClassifier,
    LogisticRegression,
    MLPClassifier,
    SVC,
    NuSVC,
)
"""Classifiers whose logarithms of probabilities are just these."""

_TYPES = {np.dtype(np.float64): DoubleTensorType, np.dtype(np.float32): FloatTensorType}

_OUTPUTS = {
    "predict": "prediction",
    "predict_proba": "probabilities",
    "decision_function": "scores",
    "transform": "transformed",
    "predict_log_proba": "log_probabilities",
    "score_samples": "scores",
    "inverse_transform": "restored",
}
"""Methods that have a graph, and the name of its output."""

EstimatorOrMethod: TypeAlias = BaseEstimator | Callable[..., Any]
"""A fitted estimator, or one of its methods."""


def model(
    source: EstimatorOrMethod, at: ArraySpec | None = None, *, return_std: bool = False
) -> onnx.ModelProto:
    """Convert a fitted estimator to an ONNX model, for `client.function` and other tools.

        gp = gradwire.sklearn.model(process, return_std=True)
        mean, std = client.function(gp)(x)

    Args:
        source: a fitted estimator, or its bound method `predict`, `predict_proba`, `predict_log_proba`,
            `decision_function`, `transform`, `inverse_transform` or `score_samples`. An estimator alone means
            the method that can be differentiated: `predict_proba` of a classifier (`decision_function` where
            it has none), `predict` of a regressor, else `transform`.
        at: shape (rows, features) and dtype (float64 or float32) of the input; by default any number of rows
            in float64.
        return_std: add the standard deviation of a `GaussianProcessRegressor` as a second output, "std".

    Returns:
        A model with the input "X" and an output of the shape that the method returns: "prediction",
        "probabilities", "log_probabilities", "scores", "transformed" or "restored".

    Raises:
        InvalidArgumentError: `source` is no fitted estimator, it or its method has no graph, or it does not
            take rows like `at`.
    """
    estimator, method = _target(source)
    given = _input_spec(estimator, method, at)
    converted = replaced(estimator, _converted_method(estimator, method))
    final = _final(converted)
    if return_std and not isinstance(final, GaussianProcessRegressor):
        raise InvalidArgumentError(
            f"return_std is for a GaussianProcessRegressor, not {type(final).__name__}: leave it out"
        )
    options = _options(final, method, return_std)
    kind = _TYPES[given.dtype]
    try:
        proto = convert_sklearn(
            converted,
            type(estimator).__name__,
            [("X", kind([None, given.shape[1]]))],
            target_opset=_OPSETS,
            options={id(final): options},
            custom_conversion_functions=_CONVERTERS,
        )
    except InvalidArgumentError:
        raise
    except (MissingConverter, MissingShapeCalculator) as error:
        raise InvalidArgumentError(
            f"skl2onnx has no converter for a part of {type(estimator).__name__}: {_first_sentence(error)}"
            + _advice(final, method)
        ) from error
    except Exception as error:  # it has no exception of its own
        raise InvalidArgumentError(
            f"skl2onnx cannot convert {type(estimator).__name__}: {type(error).__name__}: {error}"
            + _advice(final, method)
        ) from error
    outputs = [output.name for output in proto.graph.output]
    position = _output_position(outputs, method)
    if method == "predict_log_proba" and not isinstance(final, Step):
        outputs[position] = _logarithm(proto.graph, outputs[position])
    kept = {outputs[position]: _OUTPUTS[method]}
    if return_std:
        kept[outputs[1]] = "std"
    rows = None if at is None else at.shape[0]
    return finished(proto, kept, rows, given.dtype, _columns(estimator, method, given))


def convert(source: Any, specs: Sequence[ArraySpec], names: Sequence[str] | None) -> BoundModel:
    """Convert an estimator or one of its methods for `client.function`."""
    if len(specs) > 1 or (names is not None and len(names) != 1):
        raise InvalidArgumentError(
            "a scikit-learn model has one input, (rows, features): give at most one spec and one name"
        )
    proto = model(source, specs[0] if specs else None)
    name = names[0] if names is not None else specs[0].name if specs else None
    if name is not None:
        rename(proto.graph, "X", name)
    estimator, method = _target(source)
    label = f"{type(estimator).__name__}.{method}"

    def values(arrays: Sequence[Any]) -> list[Any]:
        return [np.asarray(getattr(estimator, method)(*arrays))]

    return BoundModel(proto, reference=Reference(label, label, values))


def _target(source: Any) -> tuple[BaseEstimator, str]:
    """Return the estimator and the name of the method that `source` means."""
    owner, method = getattr(source, "__self__", source), getattr(source, "__name__", None)
    if not isinstance(owner, BaseEstimator) or (source is owner and callable(source)):
        raise InvalidArgumentError(
            f"cannot make a function of {source!r}: pass a fitted scikit-learn estimator or one of its "
            f"methods ({', '.join(_OUTPUTS)}); wrap other functions of arrays in a lambda"
        )
    try:
        check_is_fitted(owner)
    except NotFittedError as error:
        raise InvalidArgumentError(f"{error}") from None
    if method is None:
        method = _default_method(owner)
    if method not in _OUTPUTS:
        raise InvalidArgumentError(
            f"{type(owner).__name__}.{method} has no graph: pass the estimator, or its method "
            + ", ".join(name for name in _OUTPUTS if hasattr(owner, name))
        )
    while hasattr(owner, "best_estimator_"):  # of a search, the model that it found
        owner = owner.best_estimator_
    return owner, method


def _default_method(estimator: Any) -> str:
    wanted: tuple[str, ...]
    if is_classifier(estimator):
        wanted = ("predict_proba", "decision_function", "predict")
    elif is_regressor(estimator):
        wanted = ("predict",)
    else:
        wanted = ("transform", "decision_function", "predict_proba", "predict", "score_samples")
    found = next((name for name in wanted if hasattr(estimator, name)), None)
    if found is None:
        raise InvalidArgumentError(
            f"{type(estimator).__name__} has none of the methods {', '.join(_OUTPUTS)}"
        )
    return found


def _converted_method(estimator: Any, method: str) -> str:
    """Return the method to convert: that of probabilities for their logarithms, if these have no formula.

    Raises:
        InvalidArgumentError: the estimator's logarithms are not those of its probabilities.
    """
    final = _final(estimator)
    if method != "predict_log_proba" or (type(final), method) in FORMULAS:
        return method
    if not isinstance(final, _LOGARITHMS):
        raise InvalidArgumentError(
            f"{type(final).__name__}.predict_log_proba has no graph: take the logarithm of predict_proba's "
            "values, or fit a LogisticRegression"
        )
    return "predict_proba"


def _logarithm(graph: onnx.GraphProto, name: str) -> str:
    """Add the logarithm of an output as another output, and return its name."""
    output = next(value for value in graph.output if value.name == name)
    added = graph.output.add()
    added.CopyFrom(output)
    added.name = f"{name}_logarithm"
    graph.node.append(onnx.helper.make_node("Log", [name], [added.name]))
    return added.name


def _input_spec(estimator: Any, method: str, at: ArraySpec | None) -> ArraySpec:
    """Return the spec of the method's input, checked if it is given."""
    features = getattr(estimator, "n_features_in_", None)
    if method == "inverse_transform" and features is not None:
        features = columns_of(estimator, method)
    if at is None:
        if features is None:
            raise InvalidArgumentError(
                f"{type(estimator).__name__} does not say how many features it takes: add gw.spec((rows, "
                "features))"
            )
        return spec((1, int(features)))
    if at.ndim != 2 or (features is not None and at.shape[1] != features):
        raise InvalidArgumentError(
            f"{type(estimator).__name__} takes rows of {features or 'its'} features, not an input of shape "
            f"{list(at.shape)}: reshape it to (rows, features)"
        )
    if at.dtype not in _TYPES:
        raise InvalidArgumentError(
            f"the rows are {at.dtype.name}: use float64 (or float32), which can be differentiated"
        )
    return at


def _final(estimator: Any) -> Any:
    """Return the last step of a pipeline, or the estimator itself."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def _options(final: Any, method: str, return_std: bool) -> dict[str, bool]:
    """Return those of our options for skl2onnx that the estimator's converter knows."""
    try:
        allowed = get_converter(get_model_alias(type(final))).get_allowed_options() or {}
    except (RuntimeError, ValueError):  # conversion itself says what is missing
        return {}
    wanted = {"zipmap": False, "raw_scores": method == "decision_function", "return_std": return_std}
    if method == "decision_function" and "raw_scores" not in allowed and is_classifier(final):
        raise InvalidArgumentError(
            f"{type(final).__name__}.decision_function has no graph: use predict_proba"
        )
    return {name: value for name, value in wanted.items() if name in allowed}


def _output_position(outputs: Sequence[str], method: str) -> int:
    """Return which of skl2onnx's outputs a method returns: labels and means come first."""
    return 0 if method == "predict" or len(outputs) == 1 else 1


def _columns(estimator: Any, method: str, given: ArraySpec) -> tuple[int, ...] | None:
    """Return the shape of the method's result for one row, without its rows; None if it refuses ones."""
    row = np.ones((1, given.shape[1]), given.dtype)
    try:
        return tuple(np.shape(getattr(estimator, method)(row))[1:])
    except ValueError:  # the estimator does not accept ones
        return None


def _advice(final: Any, method: str) -> str:
    """Return what works instead, as the end of a message; "" where that is not known."""
    if isinstance(final, VotingClassifier):
        return "; ask for predict_proba of one with voting='soft', or for predict"
    if isinstance(final, BayesianGaussianMixture):
        return f"; fit a GaussianMixture, whose {method} has a graph"
    return ""


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0] + "; convert the other steps, or write it in NumPy"
