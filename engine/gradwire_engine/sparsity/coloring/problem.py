"""What is to be colored: a pattern, what is known of its matrix, and from which side it is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gradwire_engine.sparsity.pattern import SparsityPattern


class Structure(Enum):
    """What is known of the matrix beside its pattern."""

    NONSYMMETRIC = "nonsymmetric"
    SYMMETRIC = "symmetric"


class Partition(Enum):
    """What is grouped: columns (products with tangents), rows (with cotangents), or some of both."""

    COLUMN = "column"
    ROW = "row"
    BIDIRECTIONAL = "bidirectional"


@dataclass(frozen=True, eq=False)
class ColoringProblem:
    """A pattern to color.

    Attributes:
        pattern: where the matrix may be non-zero.
        structure: symmetric lets one of an entry and its mirror image give both. The columns of a symmetric
            matrix are its rows: its partition is by columns.
        partition: what is grouped.
        substitution: entries of a symmetric matrix may be found by subtracting others, which takes fewer
            colors and costs accuracy.

    Raises:
        ValueError: the pattern is not symmetric, or the choices contradict each other.
    """

    pattern: SparsityPattern
    structure: Structure = Structure.NONSYMMETRIC
    partition: Partition = Partition.COLUMN
    substitution: bool = False

    def __post_init__(self) -> None:
        symmetric = self.structure is Structure.SYMMETRIC
        if symmetric and self.partition is not Partition.COLUMN:
            raise ValueError(f"a symmetric matrix is colored by columns, not by {self.partition.value}")
        if self.substitution and not symmetric:
            raise ValueError("substitution needs a symmetric matrix")
        if symmetric and not self.pattern.is_symmetric:
            raise ValueError("the pattern is not symmetric: an entry has no mirror image")
