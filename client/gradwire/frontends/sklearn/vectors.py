"""Support vector machines, linear and with kernels.

Coefficients are laid out as scikit-learn documents `dual_coef_`: a column for each support vector, sorted by
class, and a row for each class that the vector's own class is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from skl2onnx.operator_converters.support_vector_machines import convert_sklearn_svm_classifier

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.sklearn.formulas import converter
from gradwire.frontends.sklearn.kernels import products, squared_distances

Matrix = npt.NDArray[np.float64]


def regressor(model: Any, x: TracedArray) -> Iterator[Any]:
    """SVR and NuSVR: a weighted sum of kernels."""
    yield _margins(model, x, _dense(model.dual_coef_).T)


def one_class(model: Any, x: TracedArray) -> Iterator[Any]:
    """OneClassSVM: the side of the boundary, 1 or -1, and the signed margin."""
    margin = _margins(model, x, _dense(model.dual_coef_).T)
    yield np.where(margin >= 0.0, 1, -1)
    yield margin


def one_class_scores(model: Any, x: TracedArray) -> Iterator[Any]:
    """OneClassSVM: the margin without its offset."""
    yield _margins(model, x, _dense(model.dual_coef_).T) + np.asarray(model.offset_, x.dtype)


def convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Convert SVC and NuSVC: probabilities with skl2onnx, labels and scores with `classifier`.

    Probabilities have three digits in either precision: libsvm's own iteration stops there.
    """
    model = operator.raw_operator
    raw = container.get_options(model, {"raw_scores": False})["raw_scores"]
    if hasattr(model, "predict_proba") and not raw:
        convert_sklearn_svm_classifier(scope, operator, container)
    else:
        converter(classifier)(scope, operator, container)


def classifier(model: Any, x: TracedArray) -> Iterator[Any]:
    """SVC and NuSVC: labels by one-versus-one votes, and the scores of `decision_function`."""
    classes = len(model.classes_)
    if classes == 2:
        margin = _margins(model, x, _dense(model.dual_coef_).T)
        yield _label_of_side(model, margin)
        yield margin
        return
    pairs = list(combinations(range(classes), 2))
    margins = _margins(model, x, _pairwise(model, pairs))
    first, second = (np.eye(classes, dtype=x.dtype)[list(side)] for side in zip(*pairs, strict=True))
    won = (margins >= 0.0).astype(x.dtype)
    votes = won @ first + (1.0 - won) @ second
    if model.decision_function_shape == "ovo":
        yield _label_of_largest(model, votes)
        yield margins
        return
    # Sums of margins, scaled to less than a third of a vote, order classes with equal votes.
    sums = margins @ (first - second)
    scores = votes + sums / (3.0 * (np.abs(sums) + 1.0))
    yield _label_of_largest(model, scores if model.break_ties else votes)
    yield scores


def linear_classifier(model: Any, x: TracedArray) -> Iterator[Any]:
    """LinearSVC: the class of the largest margin."""
    coefficients, intercepts = (np.asarray(one, x.dtype) for one in (model.coef_, model.intercept_))
    margins = x @ coefficients.T + np.atleast_1d(intercepts)
    yield _label_of_side(model, margins) if len(coefficients) == 1 else _label_of_largest(model, margins)
    yield margins


def _label_of_side(model: Any, margin: Any) -> Any:
    """Return the second of two classes where the margin, (rows, 1), is positive, else the first."""
    return _labels(model, np.sum(margin > 0.0, axis=1))


def _label_of_largest(model: Any, scores: Any) -> Any:
    """Return the class of the largest score in each row."""
    return _labels(model, np.argmax(scores, axis=1))


def _labels(model: Any, places: Any) -> Any:
    """Return the classes at these positions; the positions themselves if classes are text."""
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "UO":
        return places
    return np.take(wrap(places.graph.constant(classes.astype(np.int64))), places)


def _margins(model: Any, x: TracedArray, weights: Matrix) -> Any:
    """Return the kernel of every row with every support vector, times weights, plus intercepts."""
    vectors = _dense(model.support_vectors_)
    intercepts = np.asarray(model.intercept_, x.dtype)
    if model.kernel == "linear":  # vectors and weights are multiplied in advance
        return x @ (vectors.T @ weights).astype(x.dtype) + intercepts
    return _kernel(model, x, vectors) @ weights.astype(x.dtype) + intercepts


def _kernel(model: Any, x: TracedArray, vectors: Matrix) -> Any:
    """Return the kernel of every row with every support vector, (rows, vectors)."""
    scale = float(model._gamma)
    match model.kernel:
        case "rbf":
            return np.exp(-scale * squared_distances(x, vectors))
        case "poly":
            return (scale * products(x, vectors) + float(model.coef0)) ** float(model.degree)
        case "sigmoid":
            return np.tanh(scale * products(x, vectors) + float(model.coef0))
        case other:
            raise InvalidArgumentError(
                f"{type(model).__name__} with kernel={other!r} has no graph: fit with 'linear', 'poly', "
                "'rbf' or 'sigmoid'"
            )


def _pairwise(model: Any, pairs: list[tuple[int, int]]) -> Matrix:
    """Return weights of all support vectors, (vectors, pairs); zero where a pair has not their class."""
    coefficients = _dense(model.dual_coef_)
    ends = np.cumsum([0, *model.n_support_])
    weights = np.zeros((coefficients.shape[1], len(pairs)))
    for pair, (one, other) in enumerate(pairs):
        mine, theirs = slice(ends[one], ends[one + 1]), slice(ends[other], ends[other + 1])
        weights[mine, pair] = coefficients[other - 1, mine]
        weights[theirs, pair] = coefficients[one, theirs]
    return weights


def _dense(matrix: Any) -> Matrix:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)
