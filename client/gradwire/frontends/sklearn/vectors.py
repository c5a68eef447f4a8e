"""Support vector machines, linear and with kernels, in the precision of the graph.

The shapes of libsvm's coefficients are those that scikit-learn documents for `dual_coef_`: a column for each
support vector, sorted by class, and a row for each class that its class is held against.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from skl2onnx.operator_converters.support_vector_machines import convert_sklearn_svm_classifier

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sklearn.kernels import products, squared_distances
from gradwire.frontends.sklearn.nodes import Nodes

Matrix = npt.NDArray[np.float64]


def regressor(scope: Any, operator: Any, container: Any) -> None:
    """SVR and NuSVR: a weighted sum of kernels."""
    g = Nodes(scope, operator, container)
    g("Add", _weighted(g, _dense(g.estimator.dual_coef_).T), np.asarray(g.estimator.intercept_), output=0)


def one_class(scope: Any, operator: Any, container: Any) -> None:
    """OneClassSVM: on which side of the boundary, and how far from it."""
    g = Nodes(scope, operator, container)
    margin = g(
        "Add", _weighted(g, _dense(g.estimator.dual_coef_).T), np.asarray(g.estimator.intercept_), output=1
    )
    g("Where", g("GreaterOrEqual", margin, 0.0), np.array(1), np.array(-1), output=0)


def classifier(scope: Any, operator: Any, container: Any) -> None:
    """SVC and NuSVC: labels by a vote of pairs of classes, and scores as `decision_function` gives them.

    Probabilities are skl2onnx's: libsvm finds them by an iteration that stops at three digits.
    """
    model = operator.raw_operator
    if (
        hasattr(model, "predict_proba")
        and not container.get_options(model, {"raw_scores": False})["raw_scores"]
    ):
        convert_sklearn_svm_classifier(scope, operator, container)
        return
    g = Nodes(scope, operator, container)
    classes = len(model.classes_)
    pairs = list(combinations(range(classes), 2))
    intercepts = np.asarray(model.intercept_)
    if classes == 2:
        margin = g("Add", _weighted(g, _dense(model.dual_coef_).T), intercepts, output=1)
        g.chosen(g("Cast", g("Squeeze", g("Greater", margin, 0.0), np.array([1])), to=7))
        return
    margins = g("Add", _weighted(g, _pairwise(model, pairs)), intercepts)
    won = g("Where", g("GreaterOrEqual", margins, 0.0), 1.0, 0.0)
    lost = g("Sub", 1.0, won)
    first, second = (np.eye(classes)[list(side)] for side in zip(*pairs, strict=True))
    votes = g("Add", g("MatMul", won, first), g("MatMul", lost, second))
    if model.decision_function_shape == "ovo":
        g("Identity", margins, output=1)
        g.label(votes)
        return
    # Votes decide; sums of margins, squeezed into less than a vote, order what has equally many.
    sums = g("MatMul", margins, first - second)
    within = g("Div", sums, g("Mul", g("Add", g("Abs", sums), 1.0), 3.0))
    scores = g("Add", votes, within, output=1)
    g.label(scores if model.break_ties else votes)


def linear_classifier(scope: Any, operator: Any, container: Any) -> None:
    """LinearSVC: the class of the largest margin."""
    g = Nodes(scope, operator, container)
    coefficients = np.asarray(g.estimator.coef_, np.float64)
    margins = g("Add", g("MatMul", g.x, coefficients.T), np.atleast_1d(g.estimator.intercept_), output=1)
    if len(coefficients) == 1:
        g.chosen(g("Cast", g("Squeeze", g("Greater", margins, 0.0), np.array([1])), to=7))
    else:
        g.label(margins)


def _weighted(g: Nodes, weights: Matrix) -> str:
    """The kernel of every row with every support vector, times weights."""
    model = g.estimator
    vectors = _dense(model.support_vectors_)
    match model.kernel:
        case "linear":  # the vectors and their weights are one matrix
            return g("MatMul", g.x, vectors.T @ weights)
        case "rbf":
            kernel = g("Exp", g("Mul", squared_distances(g, g.x, vectors), -float(model._gamma)))
        case "poly":
            kernel = g("Pow", _affine(g, vectors), float(model.degree))
        case "sigmoid":
            kernel = g("Tanh", _affine(g, vectors))
        case other:
            raise InvalidArgumentError(
                f"{type(model).__name__} with kernel={other!r} has no graph: fit with 'linear', 'poly', "
                "'rbf' or 'sigmoid'"
            )
    return g("MatMul", kernel, weights)


def _affine(g: Nodes, vectors: Matrix) -> str:
    model = g.estimator
    return g("Add", g("Mul", products(g, g.x, vectors), float(model._gamma)), float(model.coef0))


def _pairwise(model: Any, pairs: list[tuple[int, int]]) -> Matrix:
    """Weights of all support vectors, (vectors, pairs); zero for those of neither class of a pair."""
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
