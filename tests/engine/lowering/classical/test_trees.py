"""Tree ensembles against trees evaluated by hand, in both encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import gradient_of, run

ML = "ai.onnx.ml"
rng = np.random.default_rng(6)
MODES = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}

# Two trees: x0 ? 0.5 -> (x1 ? -1 -> a, b), c; and a single leaf d.
NODES: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0, 3],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0],
    "nodes_featureids": [0, 1, 0, 0, 0, 0],
    "nodes_values": [0.5, -1.0, 0.0, 0.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 2, 0, 0, 0, 0],
    "nodes_falsenodeids": [4, 3, 0, 0, 0, 0],
}
X = np.array([[0.5, -1.0], [0.5, 2.0], [1.0, -1.0], [np.nan, 0.0], [0.0, np.nan]])


def _names(mode: str) -> list[str]:
    return [mode, mode, "LEAF", "LEAF", "LEAF", "LEAF"]


def _walk(mode: str, missing: bool = False) -> np.ndarray:
    """The leaf (2, 3 or 4) that each row of X reaches in the first tree."""

    def holds(value: float, split: float) -> bool:
        return missing if np.isnan(value) and missing else bool(MODES[mode](value, split))

    return np.array([(2 if holds(row[1], -1.0) else 3) if holds(row[0], 0.5) else 4 for row in X])


def _run(op: str, x: np.ndarray = X, version: int = 3, **options: Any) -> Any:
    return run(op, x, domain=ML, domain_opset=version, **options)


TARGETS: dict[str, Any] = {
    "target_treeids": [0, 0, 0, 0, 3],
    "target_nodeids": [2, 3, 4, 4, 0],
    "target_ids": [0, 1, 0, 1, 1],
    "target_weights": [1.0, 2.0, 3.0, 4.0, 5.0],
    "n_targets": 2,
}
VOTES = {2: [1.0, np.nan], 3: [np.nan, 2.0], 4: [3.0, 4.0]}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("missing", [False, True])
def test_every_branch_mode_walks_to_the_right_leaf(mode: str, missing: bool) -> None:
    y = _run(
        "TreeEnsembleRegressor",
        nodes_modes=_names(mode),
        nodes_missing_value_tracks_true=[int(missing)] * 6,
        **NODES,
        **TARGETS,
    )
    expected = np.nan_to_num([VOTES[leaf] for leaf in _walk(mode, missing)]) + np.array([0, 5])
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == np.float32


@pytest.mark.parametrize(
    ("aggregate", "combine"),
    [
        ("SUM", lambda votes: np.nansum(votes, 0)),
        ("AVERAGE", lambda votes: np.nansum(votes, 0) / 2),
        ("MIN", lambda votes: np.nan_to_num(np.fmin(*votes))),
        ("MAX", lambda votes: np.nan_to_num(np.fmax(*votes))),
    ],
)
def test_aggregates_combine_only_the_trees_that_vote(aggregate: str, combine: Any) -> None:
    y = _run(
        "TreeEnsembleRegressor",
        nodes_modes=_names("BRANCH_LEQ"),
        aggregate_function=aggregate,
        base_values=[10.0, 20.0],
        **NODES,
        **TARGETS,
    )
    expected = [
        combine(np.array([VOTES[leaf], [np.nan, 5.0]])) + np.array([10, 20]) for leaf in _walk("BRANCH_LEQ")
    ]
    np.testing.assert_array_equal(y, expected)


def test_the_derivative_of_a_tree_is_zero_in_both_modes() -> None:
    options = {"nodes_modes": _names("BRANCH_LEQ"), **NODES, **TARGETS}
    for jacobian in gradient_of("TreeEnsembleRegressor", X[:2] + 0.1, domain=ML, **options):
        np.testing.assert_array_equal(jacobian, 0)


def test_double_thresholds_are_compared_in_double() -> None:
    split = 0.1
    nodes = {key: value for key, value in NODES.items() if key != "nodes_values"}
    y = _run(
        "TreeEnsembleRegressor",
        np.array([[split, -1.0], [np.nextafter(split, 1), -1.0]]),
        nodes_modes=_names("BRANCH_LEQ"),
        nodes_values_as_tensor=_tensor(np.array([split, -1.0, 0, 0, 0, 0])),
        **nodes,
        **TARGETS,
    )
    np.testing.assert_array_equal(y, [[1, 5], [3, 9]])


CLASSES: dict[str, Any] = {
    "class_treeids": [0, 0, 0],
    "class_nodeids": [2, 3, 4],
    "class_weights": [0.5, 2.0, 1.0],
}


def test_classifier_sums_votes_and_labels_the_largest() -> None:
    labels, scores = _run(
        "TreeEnsembleClassifier",
        nodes_modes=_names("BRANCH_LEQ"),
        class_ids=[0, 1, 2],
        classlabels_int64s=[7, 8, 9],
        outputs=2,
        **NODES,
        **CLASSES,
    )
    votes = {2: [0.5, 0, 0], 3: [0, 2, 0], 4: [0, 0, 1]}
    leaves = _walk("BRANCH_LEQ")
    np.testing.assert_array_equal(scores, [votes[leaf] for leaf in leaves])
    np.testing.assert_array_equal(labels, leaves + 5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_single_voted_class_is_a_probability_or_a_margin_by_its_weights(sign: int) -> None:
    weights = [0.25, sign * 0.75, 0.625]
    labels, scores = _run(
        "TreeEnsembleClassifier",
        nodes_modes=_names("BRANCH_LEQ"),
        class_ids=[1, 1, 1],
        classlabels_int64s=[0, 1],
        post_transform="NONE" if sign > 0 else "LOGISTIC",
        outputs=2,
        **NODES,
        **{**CLASSES, "class_weights": weights},
    )
    score = np.array([weights[leaf - 2] for leaf in _walk("BRANCH_LEQ")])
    both = np.stack([1 - score, score], 1) if sign > 0 else expit(np.stack([-score, score], 1))
    np.testing.assert_allclose(scores, both, rtol=1e-6)
    np.testing.assert_array_equal(labels, score > (0.5 if sign > 0 else 0))


def _tensor(values: np.ndarray) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(values)


def _ensemble(**changes: Any) -> dict[str, Any]:
    """Two nodes and three leaves: member of {1, 3}? leaf 0 : (x1 < 2 ? leaf 1 : leaf 2)."""
    return {
        "tree_roots": [0],
        "n_targets": 2,
        "nodes_featureids": [0, 1],
        "nodes_splits": _tensor(np.array([0.0, 2.0])),
        "nodes_modes": _tensor(np.array([6, 1], np.uint8)),
        "membership_values": _tensor(np.array([1.0, 3.0, np.nan])),
        "nodes_truenodeids": [0, 1],
        "nodes_trueleafs": [1, 1],
        "nodes_falsenodeids": [1, 2],
        "nodes_falseleafs": [0, 1],
        "leaf_targetids": [0, 1, 0],
        "leaf_weights": _tensor(np.array([10.0, 20.0, 30.0])),
        **changes,
    }


def test_set_membership_and_comparison_mix_in_one_tree() -> None:
    x = np.array([[1.0, 0.0], [3.0, 9.0], [2.0, 1.0], [2.0, 2.0]])
    y = _run("TreeEnsemble", x, version=5, **_ensemble())
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, [[10, 0], [10, 0], [0, 20], [30, 0]])


def test_a_tree_that_leads_back_to_its_root_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="lead back"):
        _run(
            "TreeEnsemble",
            np.zeros((1, 2)),
            version=5,
            **_ensemble(nodes_falsenodeids=[1, 0], nodes_falseleafs=[0, 0]),
        )


def test_missing_membership_values_are_refused() -> None:
    with pytest.raises(InvalidGraph, match="0 sets for 1"):
        _run("TreeEnsemble", np.zeros((1, 2)), version=5, **_ensemble(membership_values=_tensor(np.zeros(0))))
