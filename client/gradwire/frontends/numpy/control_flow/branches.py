"""Applies one of two functions by a condition, with ONNX's If."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.control_flow.structure import (
    Kind,
    Leaf,
    Structure,
    as_value,
    fits,
    flatten,
    is_number,
    kind_of,
    own,
    where,
)
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import Body


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """Return `true_fn(*operands) if pred else false_fn(*operands)`, as `jax.lax.cond` does.

    Only the branch taken is evaluated (under `gradwire.vmap`, both are evaluated where the condition differs
    between slices). There are derivatives of any order, in both modes.

    Args:
        pred: a traced bool scalar, or a plain bool, for a choice made in Python.
        true_fn, false_fn: take the operands; return the same structure, shapes and dtypes.
        operands: arrays or numbers, or nested tuples, lists and dicts of them. Values that the functions
            capture need not be among them.

    Raises:
        TraceError: `pred` is no bool scalar, or the branches return different structures, shapes or dtypes;
            the message names them.
    """
    taken = []
    for place, operand in enumerate(operands):
        leaves, structure = flatten("gw.cond", f"operands[{place}]", operand)
        taken.append((leaves, structure))

    def run(branch: Callable[..., Any]) -> Any:
        return branch(*(structure.pack([own(leaf) for leaf in leaves]) for leaves, structure in taken))

    if not isinstance(pred, TracedArray):
        return run(true_fn if _known(pred) else false_fn)
    if kind_of(pred) != Kind((), ops.BOOL):
        raise _no_condition(str(kind_of(pred)))
    return _chosen(pred, lambda: run(true_fn), lambda: run(false_fn))


def _known(pred: Any) -> bool:
    array = np.asarray(pred)
    if array.shape or array.dtype != ops.BOOL:
        raise _no_condition(str(kind_of(array)) if array.dtype.kind in "fiub" else type(pred).__name__)
    return bool(array)


def _no_condition(found: str) -> TraceError:
    return TraceError(
        f"gw.cond: pred is {found}{where()}, not a bool scalar; compare (x > 0), reduce several with np.any "
        "or np.all, and use np.where to choose element by element"
    )


def _chosen(pred: TracedArray, true_branch: Callable[[], Any], false_branch: Callable[[], Any]) -> Any:
    graph = pred.graph
    condition = pred.value
    blocks, results, structures = [], [], []
    for branch, name in ((true_branch, "true_fn"), (false_branch, "false_fn")):
        with graph.nested() as body:
            leaves, structure = flatten("gw.cond", f"what {name} returns", branch())
        blocks.append(body)
        results.append(leaves)
        structures.append(structure)
    if structures[0] != structures[1]:
        raise TraceError(
            f"gw.cond: true_fn returns {structures[0]} and false_fn {structures[1]}{where()}; return the "
            "same structure from both"
        )
    kinds = _agreed(structures[0], results[0], results[1])
    for body, leaves in zip(blocks, results, strict=True):
        _close(graph, body, leaves, kinds)
    if not kinds:
        return structures[0].pack([])
    types = [(kind.shape, kind.dtype) for kind in kinds]
    values = graph.emit("If", [condition], types, then_branch=blocks[0], else_branch=blocks[1])
    return structures[0].pack([wrap(value) for value in values])


def _close(graph: GraphBuilder, body: Body, leaves: Sequence[Leaf], kinds: Sequence[Kind]) -> None:
    with graph.at(body):
        graph.returns([as_value(graph, leaf, kind) for leaf, kind in zip(leaves, kinds, strict=True)])


def _agreed(structure: Structure, left: Sequence[Leaf], right: Sequence[Leaf]) -> list[Kind]:
    """Return the common shapes and dtypes of both branches' results; Python numbers are weak."""
    kinds = []
    for path, a, b in zip(structure.paths("the result"), left, right, strict=True):
        kind = kind_of(b if is_number(a) and not is_number(b) else a)
        if not (fits(a, kind) and fits(b, kind)):
            raise TraceError(
                f"gw.cond: {path} is {kind_of(a)} from true_fn and {kind_of(b)} from false_fn{where()}; "
                "return the same shape and dtype from both (np.zeros_like, .astype)"
            )
        kinds.append(kind)
    return kinds
