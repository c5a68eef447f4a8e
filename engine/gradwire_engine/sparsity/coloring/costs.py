"""What a color costs."""

from __future__ import annotations

from dataclasses import dataclass

from gradwire_engine.sparsity.coloring.results import BidirectionalColoring, Coloring, RowColoring


@dataclass(frozen=True)
class Costs:
    """The cost of one product, in any unit.

    Attributes:
        jvp: of the matrix with a tangent: a column color. For a Hessian, a Hessian-vector product.
        vjp: of a cotangent with the matrix: a row color.
        entry: of an entry that follows by substitution.
    """

    jvp: float = 1.0
    vjp: float = 1.0
    entry: float = 0.0

    def of(self, coloring: Coloring) -> float:
        """Return what all colors of a coloring cost together."""
        match coloring:
            case RowColoring():
                return self.vjp * coloring.count
            case BidirectionalColoring():
                return self.jvp * coloring.column_count + self.vjp * coloring.row_count
        return self.jvp * coloring.count
