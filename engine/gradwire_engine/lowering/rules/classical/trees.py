"""Tree ensembles: evaluates all trees for all rows at once, by gathers.

Predictions are piecewise constant, so their derivative is 0 wherever it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.registry import ML, Node, Value, rule
from gradwire_engine.lowering.rules.classical.scores import (
    POST_TRANSFORMS,
    floating,
    labels_of,
    pick_labels,
    post_transform,
    two_classes,
)

Array = np.ndarray[Any, Any]

_MODES = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
)
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(frozen=True)
class Forest:
    """The trees of an ensemble as arrays over all their nodes; a leaf is its own successor.

    Attributes:
        roots: (trees,) int32, node at which each tree starts.
        feature: (nodes,) int32, the feature compared.
        split: (nodes,), the value it is compared with.
        mode: (nodes,), the comparison as an index into `_MODES`; -1 at leaves.
        missing: (nodes,) bool, whether a missing value counts as true.
        yes: (nodes,) int32, next node where the comparison holds.
        no: (nodes,) int32, next node where it does not.
        votes: (nodes, targets), what a leaf adds; NaN where it does not vote.
        members: (nodes, most members) for set membership, filled with NaN; None without any.
    """

    roots: Array
    feature: Array
    split: Array
    mode: Array
    missing: Array
    yes: Array
    no: Array
    votes: Array
    members: Array | None = None

    def depth(self) -> int:
        """Return the number of steps from any root to the farthest leaf.

        Raises:
            ValueError: the branches form a cycle.
        """
        frontier = np.unique(self.roots)
        for steps in range(len(self.mode) + 1):
            frontier = frontier[self.mode[frontier] >= 0]
            if not frontier.size:
                return steps
            frontier = np.unique(np.concatenate([self.yes[frontier], self.no[frontier]]))
        raise ValueError("the branches of a tree lead back to its root")

    def leaves(self, x: Value) -> Value:
        """Return the leaf that each row reaches in each tree, (rows, trees)."""
        # The path depends on comparisons only, whose derivative is 0.
        x = lax.stop_gradient(x)
        feature, split, yes, no = map(jnp.asarray, (self.feature, self.split, self.yes, self.no))

        def step(_: int, place: Value) -> Value:
            value = jnp.take_along_axis(x, feature[place], axis=1)
            return jnp.where(self._holds(place, value, split[place]), yes[place], no[place])

        start = jnp.broadcast_to(jnp.asarray(self.roots), (x.shape[0], len(self.roots)))
        return lax.fori_loop(0, self.depth(), step, start)

    def _holds(self, place: Value, value: Value, split: Value) -> Value:
        """Evaluate the comparison of the node that each row is at in each tree."""
        tests: dict[int, Callable[[], Value]] = {
            0: lambda: value <= split,
            1: lambda: value < split,
            2: lambda: value >= split,
            3: lambda: value > split,
            4: lambda: value == split,
            5: lambda: value != split,
            6: lambda: jnp.any(value[..., None] == jnp.asarray(self.members)[place], axis=-1),
        }
        present = [int(mode) for mode in np.unique(self.mode) if mode >= 0]
        if not present:
            return jnp.zeros(place.shape, bool)
        holds = tests[present[0]]()
        for mode in present[1:]:
            holds = jnp.where(jnp.asarray(self.mode)[place] == mode, tests[mode](), holds)
        if self.missing.any():
            holds = holds | (jnp.isnan(value) & jnp.asarray(self.missing)[place])
        return holds

    def predict(self, x: Value, aggregate: str, base: Array | None = None) -> Value:
        """Combine the votes of all trees for each target.

        Args:
            x: (rows, features) floating array.
            aggregate: "AVERAGE", "SUM", "MIN" or "MAX".
            base: (targets,) values added at the end, or None.

        Returns:
            (rows, targets) array in the dtype of the votes.
        """
        votes = jnp.asarray(self.votes)[self.leaves(x)]
        cast = ~jnp.isnan(votes)
        if aggregate in ("MIN", "MAX"):
            worst = np.inf if aggregate == "MIN" else -np.inf
            reduce = jnp.min if aggregate == "MIN" else jnp.max
            best = reduce(jnp.where(cast, votes, worst), axis=1)
            total = jnp.where(jnp.any(cast, axis=1), best, 0)
        else:
            total = jnp.sum(jnp.where(cast, votes, 0), axis=1)
            total = total / len(self.roots) if aggregate == "AVERAGE" else total
        return total if base is None else total + base


def _numbers(node: Node, name: str) -> Array | None:
    """Return a float attribute or its `_as_tensor` variant, None where neither is set."""
    tensor = node.attr(f"{name}_as_tensor")
    if tensor is not None:
        return np.asarray(tensor)
    values = node.attr(name)
    return None if not values else np.asarray(values, np.float32)


def _integers(node: Node, name: str) -> Array:
    """Return an INTS attribute as int64, empty where it is not set."""
    return np.asarray(node.attr(name, ()), np.int64)


def _classic(node: Node, prefix: str, targets: int, dtype: Any) -> Forest:
    """Build the forest of a TreeEnsembleRegressor or Classifier, whose nodes are named by (tree, number).

    `prefix` is that of the attributes of votes: "target" or "class".
    """
    trees, numbers = _integers(node, "nodes_treeids"), _integers(node, "nodes_nodeids")
    place = {key: index for index, key in enumerate(zip(trees.tolist(), numbers.tolist(), strict=True))}

    def find(tree: Sequence[int], number: Sequence[int]) -> Array:
        return np.array([place[key] for key in zip(tree, number, strict=True)], np.int32)

    names = node.attr("nodes_modes", ())
    mode = np.array([-1 if name == "LEAF" else _MODES.index(name) for name in names])
    inner = np.flatnonzero(mode >= 0)
    yes, no = np.arange(len(mode), dtype=np.int32), np.arange(len(mode), dtype=np.int32)
    for branch, name in ((yes, "nodes_truenodeids"), (no, "nodes_falsenodeids")):
        branch[inner] = find(trees[inner].tolist(), _integers(node, name)[inner].tolist())
    first = np.unique(trees, return_index=True)[1]
    votes = np.full((len(mode), targets), np.nan, dtype)
    leaf = find(_integers(node, f"{prefix}_treeids").tolist(), _integers(node, f"{prefix}_nodeids").tolist())
    weights = _numbers(node, f"{prefix}_weights")
    target = _integers(node, f"{prefix}_ids")
    votes[leaf, target] = 0
    np.add.at(votes, (leaf, target), 0 if weights is None else weights)
    missing = _integers(node, "nodes_missing_value_tracks_true")
    return Forest(
        np.sort(first).astype(np.int32),
        _integers(node, "nodes_featureids").astype(np.int32),
        np.asarray(_numbers(node, "nodes_values")),
        mode,
        missing.astype(bool) if missing.size else np.zeros(len(mode), bool),
        yes,
        no,
        votes,
    )


def _widest(x: Value, *arrays: Array | None) -> Any:
    """Return the dtype to add votes in: at least the input's and the weights'."""
    return np.result_type(x.dtype, np.float32, *(array.dtype for array in arrays if array is not None))


def _aggregate(node: Node, name: Any) -> str:
    """Return the name of an aggregate function given by name or number."""
    name = _AGGREGATES[name] if isinstance(name, int) and 0 <= name < len(_AGGREGATES) else name
    if name not in _AGGREGATES:
        raise node.fail(f"aggregate_function {name!r} is not one of {', '.join(_AGGREGATES)}")
    return str(name)


@rule("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(node: Node, x: Value) -> Value:
    """TreeEnsembleRegressor: aggregated votes of the trees, as float32."""
    values, base = floating(x), _numbers(node, "base_values")
    dtype = _widest(values, _numbers(node, "target_weights"), base)
    forest = _classic(node, "target", int(node.attr("n_targets", 1)), dtype)
    scores = forest.predict(values, _aggregate(node, node.attr("aggregate_function", "SUM")), base)
    return post_transform(node, scores).astype(jnp.float32)


@rule("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(node: Node, x: Value) -> tuple[Value, Value]:
    """TreeEnsembleClassifier: labels and scores; a score shared by two classes is the second's.

    That score is a probability if no weight is negative, else a margin.
    """
    values, base = floating(x), _numbers(node, "base_values")
    weights = _numbers(node, "class_weights")
    labels = labels_of(node, "classlabels_int64s")
    classes = len(node.attr("classlabels_int64s") or node.attr("classlabels_strings") or ())
    voted = np.unique(_integers(node, "class_ids"))
    dtype = _widest(values, weights, base)
    forest = _classic(node, "class", max(classes, int(voted.max(initial=0)) + 1), dtype)
    binary = classes == 2 and len(voted) == 1
    if not binary:
        scores = forest.predict(values, "SUM", base)
        best = jnp.argmax(scores, axis=1)
        return pick_labels(node, labels, best), post_transform(node, scores).astype(jnp.float32)
    score = forest.predict(values, "SUM")[:, voted]
    score = score if base is None else score + base[-1]
    probable = weights is not None and bool(np.all(weights >= 0))
    best = (score[:, 0] > (0.5 if probable else 0)).astype(jnp.int32)
    scores = two_classes(node, score, complement=probable)
    return pick_labels(node, labels, best), scores.astype(jnp.float32)


def _members(modes: Array, values: Array | None) -> Array | None:
    """Return the table of members of each set-membership node, None without any.

    The attribute lists the sets in the order of their nodes, each ended by a NaN.
    """
    nodes = np.flatnonzero(modes == _MODES.index("BRANCH_MEMBER"))
    if not nodes.size:
        return None
    flat = np.zeros(0) if values is None else np.asarray(values)
    ends = np.flatnonzero(np.isnan(flat))
    if len(ends) != len(nodes):
        raise ValueError(f"membership_values holds {len(ends)} sets for {len(nodes)} BRANCH_MEMBER nodes")
    starts = np.concatenate([[0], ends[:-1] + 1])
    table = np.full((len(modes), max(1, int((ends - starts).max()))), np.nan, flat.dtype)
    for row, start, end in zip(nodes, starts, ends, strict=True):
        table[row, : end - start] = flat[start:end]
    return table


@rule("TreeEnsemble", domain=ML, since=5)
def tree_ensemble(node: Node, x: Value) -> Value:
    """TreeEnsemble: ensembles whose leaves have arrays of their own; output in the input's dtype."""
    x = floating(x)
    inner = len(_integers(node, "nodes_featureids"))
    leaf_targets, leaf_weights = _integers(node, "leaf_targetids"), np.asarray(node.attr("leaf_weights"))
    itself = np.arange(inner, inner + len(leaf_targets))

    def branch(name: str, leaf: str) -> Array:
        places = _integers(node, name) + inner * _integers(node, leaf)
        return np.concatenate([places, itself]).astype(np.int32)

    def extended(values: Array, fill: float) -> Array:
        return np.concatenate([values, np.full(len(itself), fill, values.dtype)])

    modes = extended(np.asarray(node.attr("nodes_modes")).astype(np.int64), -1)
    votes = np.full((len(modes), int(node.attr("n_targets", 1))), np.nan, leaf_weights.dtype)
    votes[itself, leaf_targets] = leaf_weights
    missing = _integers(node, "nodes_missing_value_tracks_true")
    forest = Forest(
        _integers(node, "tree_roots").astype(np.int32),
        extended(_integers(node, "nodes_featureids"), 0).astype(np.int32),
        extended(np.asarray(node.attr("nodes_splits")), 0),
        modes,
        extended(missing.astype(bool) if missing.size else np.zeros(inner, bool), False),
        branch("nodes_truenodeids", "nodes_trueleafs"),
        branch("nodes_falsenodeids", "nodes_falseleafs"),
        votes,
        _members(modes, node.attr("membership_values")),
    )
    scores = forest.predict(x, _aggregate(node, int(node.attr("aggregate_function", 1))))
    return post_transform(node, scores, POST_TRANSFORMS[int(node.attr("post_transform", 0))]).astype(x.dtype)
