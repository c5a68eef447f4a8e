"""Checks a pattern that a client gave, by one product of the derivative with a random vector.

The sparse matrix times the vector is added up from the blocks, the product itself is evaluated beside them.
An entry that the pattern lacks makes them differ, whatever value it has been added to; that no such entry
shows for a random vector has probability zero.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning import derivatives
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.plan import HESSIAN, Plan
from gradwire_engine.planning.transforms import FunctionSpec, Hvp, Jvp, Transform, Vjp
from gradwire_engine.values import ArrayType, Block, dtype_of
from gradwire_server.compute.shared_values import RegisteredGraph, SharedStructure
from gradwire_server.compute.worker import Computed
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.evaluate import Answer, Evaluator
from gradwire_server.rpc.translate import Inputs

Array = np.ndarray[Any, Any]

_TOLERANCE = 64.0
"""Times three quarters of the digits: a difference may be so much of the magnitudes that were added up."""


class PatternCheck:
    """The check of one derivative's pattern; `add` takes its blocks, `finish` compares."""

    def __init__(
        self, plan: Plan, structure: SharedStructure, product: asyncio.Task[Answer], left: bool
    ) -> None:
        """Begin with no blocks; `left`: the vector stands to the left of the matrix."""
        self._plan, self._structure, self._product, self._left = plan, structure, product, left
        rows, columns = plan.joint_shape
        self._vector = _random(plan.plan_id, rows if left else columns)
        self._sum = np.zeros(columns if left else rows)
        self._magnitude = np.zeros(columns if left else rows)

    async def add(self, block: Block, computed: Computed) -> None:
        """Add a block's part of the product."""
        rows, columns = await self._structure.rows.value(), await self._structure.columns.value()
        await asyncio.to_thread(self._add, block, computed.arrays[0], rows, columns)

    def _add(self, block: Block, values: Array, rows: Array, columns: Array) -> None:
        part = slice(block.first_value, block.last_value)
        to, by = (columns[part], rows[part]) if self._left else (rows[part], columns[part])
        self._count(to, by, values)
        if self._plan.problem.options.triangle:
            mirrored = to != by
            self._count(by[mirrored], to[mirrored], values[mirrored])

    def _count(self, to: Array, by: Array, values: Array) -> None:
        terms = values.astype(np.float64) * self._vector[by]
        self._sum += np.bincount(to, terms, len(self._sum))
        self._magnitude += np.bincount(to, np.abs(terms), len(self._sum))

    async def finish(self) -> bool:
        """Compare both products; return whether all of both could be: what is not finite cannot.

        Raises:
            InvalidInput: they differ: the pattern lacks entries.
        """
        answer = await self._product
        product = np.concatenate([np.asarray(array, np.float64).reshape(-1) for array in answer.arrays])
        with np.errstate(all="ignore"):
            unit = max(_unit(entry.dtype) for entry in self._plan.entries)
            allowed = _TOLERANCE * unit**0.75 * (self._magnitude + np.abs(product)) + 1e-300
            off = np.abs(product - self._sum) > allowed
        if off.any():
            side = "column" if self._left else "row"
            first = int(np.flatnonzero(off)[0])
            raise InvalidInput(
                "the pattern given lacks entries: a product with a random vector differs in "
                f"{int(off.sum())} {side}s, {side} {first} first; add entries, or have the server find them",
                "options.pattern",
            )
        return bool(np.isfinite(product).all() and np.isfinite(self._sum).all())

    def close(self) -> None:
        """Stop the product if it is still under way."""
        self._product.cancel()


def _unit(dtype: str) -> float:
    return float(ml_dtypes.finfo(dtype_of(dtype)).eps)  # type: ignore[no-untyped-call]


async def pattern_check(
    backend: Backend,
    evaluator: Evaluator,
    graph: RegisteredGraph,
    plan: Plan,
    structure: SharedStructure,
    inputs: Inputs,
) -> PatternCheck:
    """Start the product that a pattern is checked with.

    Args:
        backend, evaluator: the server's parts.
        graph: the function's.
        plan, structure: of the derivative.
        inputs: the point.
    """
    left = plan.mode == derivatives.REVERSE
    if plan.problem.kind == HESSIAN:
        transform: Transform = Hvp(plan.wrt, plan.of[0])
    else:
        transform = Vjp(plan.wrt, plan.of) if left else Jvp(plan.wrt, plan.of)
    own = plan.problem.function
    function = FunctionSpec(own.graph_id, (*own.transforms, transform))
    signature = await backend.kernels.signature(graph, function)
    across = len(plan.wrt)
    types = [
        ArrayType(entry.dtype, entry.row_shape) if left else ArrayType(entry.dtype, entry.column_shape)
        for entry in (plan.entries[::across] if left else plan.entries[:across])
    ]
    names = [name for name, _ in signature.inputs[len(signature.inputs) - len(types) :]]
    given = dict(zip(names, _parts(plan, types, left, _dtypes_of(signature.inputs, names)), strict=True))
    arguments = tuple(
        sorted(
            (
                *inputs.arguments,
                *((name, ArrayType(array.dtype.name, array.shape)) for name, array in given.items()),
            )
        )
    )
    spec = EvaluateSpec(function, arguments)
    whole = replace(inputs, arguments=arguments, values={**inputs.values, **given})
    task = asyncio.ensure_future(evaluator.outputs(graph, spec, whole))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return PatternCheck(plan, structure, task, left)


def _dtypes_of(inputs: Sequence[tuple[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the dtypes of named inputs."""
    types = dict(inputs)
    return [types[name].dtype for name in names]


def _parts(plan: Plan, types: Sequence[ArrayType], left: bool, dtypes: Sequence[str]) -> list[Array]:
    """Cut the random vector to arrays of the types of tangents or cotangents."""
    rows, columns = plan.joint_shape
    vector = _random(plan.plan_id, rows if left else columns)
    parts, start = [], 0
    for value, dtype in zip(types, dtypes, strict=True):
        parts.append(vector[start : start + value.size].reshape(value.shape).astype(dtype_of(dtype)))
        start += value.size
    return parts


def _random(plan_id: str, size: int) -> Array:
    """Draw a vector of numbers in [1, 2) with random signs, always the same for a plan.

    They are whole multiples of 1/8: float16 holds them too.
    """
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(plan_id.encode()).digest()[:8], "little"))
    vector: Array = (1 + draw.integers(0, 8, size) / 8) * draw.choice([-1.0, 1.0], size)
    return vector
