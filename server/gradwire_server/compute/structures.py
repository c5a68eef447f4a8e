"""Structures of sparse derivatives as the server holds them: coordinates for clients, arrays for workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradwire_engine.planning.plan import Plan
from gradwire_engine.planning.structure import Structure
from gradwire_server.compute.shared_values import SharedValue


@dataclass(frozen=True, eq=False)
class SharedStructure:
    """A structure whose arrays workers read.

    Attributes:
        pattern_id: names the pattern.
        rows, columns: the coordinates of the values, in their order, int32.
        inputs: what kernels take beside the point, by name.
        nbytes: bytes of all arrays.
    """

    pattern_id: str
    rows: SharedValue
    columns: SharedValue
    inputs: Mapping[str, SharedValue]
    nbytes: int


@dataclass(frozen=True, eq=False)
class HeldPlan:
    """A plan, and the structure if it is of a sparse derivative."""

    plan: Plan
    structure: SharedStructure | None


def shared(plan: Plan, structure: Structure | None) -> HeldPlan:
    """Hold a plan and its structure; the arrays outlast requests, so that workers keep them placed."""
    if structure is None:
        return HeldPlan(plan, None)

    def value(name: str, array: object, nbytes: int) -> SharedValue:
        return SharedValue(f"{plan.plan_id} {name}", array, nbytes=nbytes, lasting=True)

    return HeldPlan(
        plan,
        SharedStructure(
            structure.pattern_id,
            value("rows", structure.rows, structure.rows.nbytes),
            value("columns", structure.columns, structure.columns.nbytes),
            {name: value(name, array, array.nbytes) for name, array in structure.inputs.items()},
            structure.nbytes,
        ),
    )
