"""Rules of linear primitives, one module a family; importing the package registers them."""

from gradwire_engine.sparsity.rules import (
    control_flow,
    convolutions,
    elementwise,
    indexing,
    linear_algebra,
    products,
    reductions,
    structure,
)

__all__ = [
    "control_flow",
    "convolutions",
    "elementwise",
    "indexing",
    "linear_algebra",
    "products",
    "reductions",
    "structure",
]
