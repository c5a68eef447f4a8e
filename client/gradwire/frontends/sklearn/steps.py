"""Steps that skl2onnx lacks, or has without some of their methods: methods of estimators, with formulas.

A pipeline is converted with such steps in the places of the estimators; `replaced` puts them there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import VotingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler
from sklearn.svm import OneClassSVM

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn import densities, gaussian_process, inverses, maps, vectors
from gradwire.frontends.sklearn.formulas import Formula, converter

FORMULAS: dict[tuple[type, str], Formula] = {
    (GaussianMixture, "predict"): densities.mixture_labels,
    (GaussianMixture, "predict_proba"): densities.mixture_probabilities,
    (GaussianMixture, "score_samples"): densities.mixture,
    (GaussianNB, "predict_log_proba"): densities.naive_bayes,
    (GaussianProcessClassifier, "predict"): gaussian_process.labels,
    (GaussianProcessClassifier, "predict_proba"): gaussian_process.probabilities,
    (KernelDensity, "score_samples"): densities.kernel_density,
    (KernelRidge, "predict"): maps.kernel_ridge,
    (LinearDiscriminantAnalysis, "transform"): maps.discriminant,
    (MinMaxScaler, "inverse_transform"): inverses.min_max,
    (Nystroem, "transform"): maps.nystroem,
    (OneClassSVM, "score_samples"): vectors.one_class_scores,
    (PCA, "inverse_transform"): inverses.components,
    (PowerTransformer, "transform"): maps.power,
    (RBFSampler, "transform"): maps.fourier_features,
    (RobustScaler, "inverse_transform"): inverses.robust,
    (StandardScaler, "inverse_transform"): inverses.standard,
}
"""Formulas of methods; each yields what the method returns."""


class Step(BaseEstimator):  # type: ignore[misc]
    """A method of a fitted estimator, as an estimator that skl2onnx converts.

    Args:
        estimator: the fitted estimator.
        method: its method.
        columns: how many features the method takes.
    """

    def __init__(self, estimator: Any, method: str, columns: int) -> None:
        self.estimator, self.method = estimator, method
        self.n_features_in_ = columns

    @property
    def formula(self) -> Formula:
        """The method's formula."""
        formula: Formula = _formula(self.estimator, self.method)
        return formula


def _formula(estimator: Any, method: str) -> Any:
    if isinstance(estimator, MLPRegressor) and method == "predict" and estimator.n_outputs_ > 1:
        return maps.network
    return FORMULAS.get((type(estimator), method))


def _shapes(operator: Any) -> None:
    """Tell skl2onnx the output's type; the number of columns is set afterwards."""
    model = operator.raw_operator
    kind = FloatTensorType if isinstance(operator.inputs[0].type, FloatTensorType) else DoubleTensorType
    if model.method == "predict" and hasattr(model.estimator, "predict_proba"):
        kind = Int64TensorType
    operator.outputs[0].type = kind([None, None])


def _evaluated(step: Any, x: TracedArray) -> Iterator[Any]:
    return iter(step.formula(step.estimator, x))


update_registered_converter(Step, "GradwireStep", _shapes, converter(_evaluated), overwrite=True)


def replaced(estimator: Any, method: str) -> Any:
    """Return the estimator with steps in the places of those that skl2onnx cannot convert.

    Args:
        estimator: a fitted estimator, such as a pipeline.
        method: the method that is asked for.

    Raises:
        InvalidArgumentError: the method of a part has no formula.
    """
    if isinstance(estimator, Pipeline):
        return _pipeline(estimator, method)
    if isinstance(estimator, VotingClassifier) and method != "transform":
        estimator = copy.copy(estimator)
        estimator.flatten_transform = False  # which concerns the method transform alone
        return estimator
    if _formula(estimator, method) is not None:
        return Step(estimator, method, columns_of(estimator, method))
    if method in ("inverse_transform", "score_samples"):
        known = sorted(kind.__name__ for kind, name in FORMULAS if name == method)
        raise InvalidArgumentError(
            f"{type(estimator).__name__}.{method} has no graph: those of {', '.join(known)} have; write "
            "it in NumPy and pass that function"
        )
    return estimator


def _pipeline(pipeline: Any, method: str) -> Any:
    steps = [(name, part) for name, part in pipeline.steps if part is not None and part != "passthrough"]
    if method == "inverse_transform":
        return Pipeline([(name, replaced(part, method)) for name, part in reversed(steps)])
    if not steps:
        return pipeline
    *first, (name, last) = steps
    changed = [(label, replaced(part, "transform")) for label, part in first]
    return Pipeline([*changed, (name, replaced(last, method))])


def columns_of(estimator: Any, method: str) -> int:
    """Return how many features a method takes."""
    if method != "inverse_transform":
        return int(estimator.n_features_in_)
    if isinstance(estimator, Pipeline):
        return columns_of(estimator.steps[-1][1], method)
    return int(getattr(estimator, "n_components_", estimator.n_features_in_))
