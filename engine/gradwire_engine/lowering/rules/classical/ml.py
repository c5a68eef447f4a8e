"""Classical machine learning: features, encoders, linear models and support vector machines.

Scores are returned as float32, as the operators declare; they are computed in the input's precision.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.arrays import take
from gradwire_engine.lowering.registry import ML, Node, Value, is_static, rule
from gradwire_engine.lowering.rules.classical.scores import (
    floating,
    labels_of,
    pick_labels,
    post_transform,
    two_classes,
)

_EXACT = lax.Precision.HIGHEST


def _floats(node: Node, name: str, dtype: Any) -> np.ndarray[Any, Any]:
    """Return a FLOATS attribute as an array of `dtype`, empty where it is not set."""
    return np.asarray(node.attr(name, ()), np.float32).astype(dtype)


@rule("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(node: Node, x: Value, indices: Value) -> Value:
    """ArrayFeatureExtractor: selects elements of the last axis; a vector gives a matrix of one row."""
    flat = indices.reshape(-1)
    if is_static(flat) and flat.size and (flat.min() < 0 or flat.max() >= x.shape[-1]):
        raise node.fail(f"an index lies outside the {x.shape[-1]} features")
    if is_static(x) and np.asarray(x).dtype == object and not is_static(flat):
        raise node.fail(
            "picks strings by computed indices, and strings have no numeric value: use integer labels, or "
            "drop the label output"
        )
    rows = x if x.ndim > 1 else x[None]
    return np.take(rows, flat, -1) if is_static(rows, flat) else take(jnp.asarray(rows), flat, rows.ndim - 1)


@rule("Binarizer", domain=ML)
def binarizer(node: Node, x: Value) -> Value:
    """Binarizer: 1 above the threshold, else 0; its derivative is 0."""
    return (jnp.asarray(x) > float(node.attr("threshold", 0.0))).astype(x.dtype)


@rule("FeatureVectorizer", domain=ML)
def feature_vectorizer(node: Node, *inputs: Value) -> Value:
    """FeatureVectorizer: joins inputs side by side, each cut or zero-padded to its declared width."""
    columns = []
    widths = node.attr("inputdimensions") or [x.shape[-1] for x in inputs]
    for x, width in zip(inputs, widths, strict=True):
        rows = jnp.asarray(x, jnp.float32)
        rows = rows[None] if rows.ndim == 1 else rows
        columns.append(lax.pad(rows, np.float32(0), [(0, 0, 0), (0, int(width) - rows.shape[1], 0)]))
    return jnp.concatenate(columns, axis=1)


@rule("Imputer", domain=ML)
def imputer(node: Node, x: Value) -> Value:
    """Imputer: replaces missing values; the derivative is 0 through what was replaced."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        fill, missing = node.attr("imputed_value_floats"), node.attr("replaced_value_float", 0.0)
    else:
        fill, missing = node.attr("imputed_value_int64s"), node.attr("replaced_value_int64", 0)
    if not fill:
        raise node.fail(f"has no values to impute into an input of {x.dtype}")
    absent = jnp.isnan(x) if missing != missing else jnp.asarray(x) == missing
    return jnp.where(absent, np.asarray(fill, x.dtype), x)


@rule("Normalizer", domain=ML)
def normalizer(node: Node, x: Value) -> Value:
    """Normalizer: divides rows by their largest element, 1- or 2-norm; rows of norm zero stay as they are."""
    values = floating(x)
    match node.attr("norm", "MAX"):
        case "MAX":
            total = jnp.max(values, axis=-1, keepdims=True)
        case "L1":
            total = jnp.sum(values * lax.sign(values), axis=-1, keepdims=True)
        case "L2":
            total = jnp.sum(values * values, axis=-1, keepdims=True)
        case other:
            raise node.fail(f"norm {other!r} is not MAX, L1 or L2")
    proper = total != 0
    safe = jnp.where(proper, total, 1)
    divisor = lax.sqrt(safe) if node.attr("norm", "MAX") == "L2" else safe
    return jnp.where(proper, values / divisor, values).astype(jnp.float32)


@rule("Scaler", domain=ML)
def scaler(node: Node, x: Value) -> Value:
    """Scaler: subtracts `offset`, then multiplies by `scale`; either may be left out."""
    values = floating(x)
    offset, scale = _floats(node, "offset", values.dtype), _floats(node, "scale", values.dtype)
    values = values - offset if offset.size else values
    return (values * scale if scale.size else values).astype(jnp.float32)


@rule("OneHotEncoder", domain=ML)
def one_hot_encoder(node: Node, x: Value) -> Value:
    """OneHotEncoder: appends an axis with 1 at the category; unknown categories give zeros."""
    categories = node.attr("cats_int64s")
    if categories is None:
        raise node.fail("string categories are not supported: give cats_int64s")
    known = is_static(x) and np.isin(np.asarray(x).astype(np.int64), categories).all()
    if not node.attr("zeros", 1) and not known:
        raise node.fail("zeros=0 asks to fail on unknown categories, which only constants allow")
    return (jnp.asarray(x)[..., None].astype(jnp.int64) == np.asarray(categories)).astype(jnp.float32)


def _codes(node: Node, kind: str) -> np.ndarray[Any, Any] | None:
    """Return the keys or values of a LabelEncoder, whichever attribute holds them."""
    for suffix, dtype in (("floats", np.float32), ("int64s", np.int64), ("strings", object)):
        if node.attr(f"{kind}_{suffix}"):
            return np.asarray(node.attr(f"{kind}_{suffix}"), dtype)
    tensor = node.attr(f"{kind}_tensor")
    return None if tensor is None else np.asarray(tensor)


def _default_code(node: Node, values: np.ndarray[Any, Any]) -> Any:
    """Return the value of a LabelEncoder for unknown keys."""
    if node.attr("default_tensor") is not None:
        return node.attr("default_tensor").reshape(-1)[0]
    if values.dtype.kind == "f":
        return node.attr("default_float", -0.0)
    if values.dtype.kind == "O":
        return node.attr("default_string", "_Unused")
    return node.attr("default_int64", -1)


@rule("LabelEncoder", domain=ML, since=2)
def label_encoder(node: Node, x: Value) -> Value:
    """LabelEncoder: maps keys to values; strings must be constants, numbers may be traced (derivative 0)."""
    keys, values = _codes(node, "keys"), _codes(node, "values")
    if keys is None or values is None or len(keys) != len(values):
        raise node.fail("needs as many keys as values")
    default = _default_code(node, values)
    if "O" in (keys.dtype.kind, values.dtype.kind):
        table = dict(zip(keys.tolist(), values.tolist(), strict=True))
        found = [table.get(key, default) for key in node.static(x, "a string").reshape(-1).tolist()]
        return np.array(found, values.dtype).reshape(x.shape)
    # The last of equal keys is used. NaN can be a key.
    last = np.sort(len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1])
    order = last[np.argsort(keys[last])]
    keys, values = keys[order], values[order]
    place = jnp.clip(jnp.searchsorted(keys, x), 0, len(keys) - 1)
    nearest = jnp.asarray(keys)[place]
    same = (nearest == x) | ((nearest != nearest) & (x != x))
    return jnp.where(same, jnp.asarray(values)[place], jnp.asarray(default, values.dtype))


def _linear(node: Node, x: Value, targets: int) -> Value:
    """Multiply x by the coefficients of each target and add the intercepts."""
    coefficients = _floats(node, "coefficients", x.dtype).reshape(targets, -1)
    if coefficients.shape[1] != x.shape[-1]:
        raise node.fail(f"{coefficients.shape[1]} coefficients do not fit {x.shape[-1]} features")
    scores = jnp.matmul(jnp.atleast_2d(x), coefficients.T, precision=_EXACT)
    intercepts = _floats(node, "intercepts", x.dtype)
    return scores + intercepts if intercepts.size else scores


@rule("LinearRegressor", domain=ML)
def linear_regressor(node: Node, x: Value) -> Value:
    """LinearRegressor: affine functions of the features, one for each target."""
    scores = _linear(node, floating(x), int(node.attr("targets", 1)))
    return post_transform(node, scores).astype(jnp.float32)


@rule("LinearClassifier", domain=ML)
def linear_classifier(node: Node, x: Value) -> tuple[Value, Value]:
    """LinearClassifier: labels and scores; with two labels a single score is the margin of the second."""
    values = floating(x)
    classes = len(node.attr("classlabels_ints") or node.attr("classlabels_strings") or ())
    scores = _linear(node, values, len(node.attr("coefficients", ())) // values.shape[-1])
    labels = labels_of(node, "classlabels_ints")
    if scores.shape[1] == 1 and classes == 2:
        best = (scores[:, 0] > 0).astype(jnp.int32)
        scores = two_classes(node, scores, complement=False)
    elif scores.shape[1] == 1:
        best = (scores[:, 0] > 0).astype(jnp.int32)
        labels = None if labels is None else np.array([0, labels[0]])
        scores = post_transform(node, scores)
    else:
        best = jnp.argmax(scores, axis=1)
        scores = post_transform(node, scores)
    return pick_labels(node, labels, best), scores.astype(jnp.float32)


def _kernel(node: Node, x: Value, vectors: np.ndarray[Any, Any]) -> Value:
    """Evaluate the kernel of every row with every support vector, (rows, vectors)."""
    gamma, offset, degree = (*(float(item) for item in node.attr("kernel_params") or ()), 0.0, 0.0, 0.0)[:3]
    dots = jnp.matmul(x, vectors.T, precision=_EXACT)
    match node.attr("kernel_type", "LINEAR"):
        case "LINEAR":
            return dots
        case "POLY":
            return lax.integer_pow(gamma * dots + offset, int(degree))
        case "SIGMOID":
            return smooth.tanh(gamma * dots + offset)
        case "RBF":
            difference = x[:, None] - vectors
            return jnp.exp(-gamma * jnp.sum(difference * difference, axis=-1))
        case other:
            raise node.fail(f"kernel_type {other!r} is not LINEAR, POLY, SIGMOID or RBF")


@rule("SVMRegressor", domain=ML)
def svm_regressor(node: Node, x: Value) -> Value:
    """SVMRegressor: a weighted sum of kernels; with `one_class`, the side of the boundary (derivative 0)."""
    values = jnp.atleast_2d(floating(x))
    weights = _floats(node, "coefficients", values.dtype)
    supports = int(node.attr("n_supports", 0))
    if supports:
        values = _kernel(node, values, _floats(node, "support_vectors", values.dtype).reshape(supports, -1))
    score = jnp.matmul(values, weights[:, None], precision=_EXACT) + _floats(node, "rho", values.dtype)[0]
    if node.attr("one_class", 0):
        score = jnp.where(score > 0, 1, -1)
    return post_transform(node, score.astype(values.dtype)).astype(jnp.float32)


def _couple(node: Node, margins: Value, classes: int) -> Value:
    """Compute class probabilities from pairwise margins (Wu, Lin and Weng, 2004, second method).

    libsvm iterates and stops at a tolerance; here the linear system of the minimum is solved, which
    is differentiable. With three or more classes the third digit may differ from libsvm's.
    """
    a, b = _floats(node, "prob_a", margins.dtype), _floats(node, "prob_b", margins.dtype)
    first, second = np.triu_indices(classes, 1)
    pair = jnp.clip(smooth.logistic(-(margins * a + b)), 1e-7, 1 - 1e-7)
    r = jnp.zeros((margins.shape[0], classes, classes), margins.dtype)
    r = r.at[:, first, second].set(pair).at[:, second, first].set(1 - pair)
    q = -jnp.swapaxes(r, 1, 2) * r + jnp.sum(r * r, axis=1)[:, :, None] * np.eye(classes)
    system = jnp.pad(q, ((0, 0), (0, 1), (0, 1)), constant_values=1).at[:, -1, -1].set(0)
    right = np.eye(classes + 1, dtype=margins.dtype)[-1]
    solved = jnp.linalg.solve(system, jnp.broadcast_to(right, system.shape[:2])[..., None])
    return solved[:, :classes, 0]


@rule("SVMClassifier", domain=ML)
def svm_classifier(node: Node, x: Value) -> tuple[Value, Value]:
    """SVMClassifier: labels by a vote of pairs of classes, and the margins or coupled probabilities."""
    values = jnp.atleast_2d(floating(x))
    counts = [int(count) for count in node.attr("vectors_per_class") or ()]
    labels = labels_of(node, "classlabels_ints")
    classes = max(len(node.attr("classlabels_ints") or node.attr("classlabels_strings") or ()), 1)
    coefficients, rho = _floats(node, "coefficients", values.dtype), _floats(node, "rho", values.dtype)
    if not counts:
        scores = jnp.matmul(values, coefficients.reshape(classes, -1).T, precision=_EXACT) + rho[0]
        best, likely = jnp.argmax(scores, axis=1), False
        top = jnp.max(scores, axis=1)
    else:
        scores = _margins(node, values, coefficients, rho, counts)
        votes = _votes(scores, len(counts))
        best, top = jnp.argmax(votes, axis=1), jnp.max(votes, axis=1)
        likely = bool(node.attr("prob_a"))
        if likely:
            scores = _couple(node, scores, len(counts))
    positive = bool(np.all(coefficients >= 0))
    if classes == 2 and rho.size == 1 and not likely and positive:
        best = jnp.where(top >= 0.5, 1, best)
    elif classes == 1:
        best = (top > 0).astype(jnp.int32)
        labels = np.array([0, 1])
    if scores.shape[1] == 1 and classes == 2:
        scores = two_classes(node, scores, complement=False)
    else:
        scores = post_transform(node, scores)
    return pick_labels(node, labels, best), scores.astype(jnp.float32)


def _margins(
    node: Node,
    x: Value,
    coefficients: np.ndarray[Any, Any],
    rho: np.ndarray[Any, Any],
    counts: list[int],
) -> Value:
    """Compute the decision function of each pair of classes, (batch, pairs).

    The kernels are multiplied once by a weight matrix over all pairs.
    """
    total, classes = sum(counts), len(counts)
    kernels = _kernel(node, x, _floats(node, "support_vectors", x.dtype).reshape(total, -1))
    rows = coefficients.reshape(classes - 1, total)
    ends = np.cumsum([0, *counts])
    weights = np.zeros((total, len(rho)), rows.dtype)
    for pair, (i, j) in enumerate(zip(*np.triu_indices(classes, 1), strict=True)):
        weights[ends[i] : ends[i + 1], pair] = rows[j - 1, ends[i] : ends[i + 1]]
        weights[ends[j] : ends[j + 1], pair] = rows[i, ends[j] : ends[j + 1]]
    return jnp.matmul(kernels, weights, precision=_EXACT) + rho


def _votes(margins: Value, classes: int) -> Value:
    """Count for each class the pairs in which it wins, (batch, classes)."""
    first, second = np.triu_indices(classes, 1)
    to_first, to_second = np.eye(classes)[first], np.eye(classes)[second]
    won = (margins > 0).astype(jnp.float32)
    return won @ to_first.astype(np.float32) + (1 - won) @ to_second.astype(np.float32)
