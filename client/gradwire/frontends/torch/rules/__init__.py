"""Rules for ATen operators, one module for each family; importing the package registers them all."""

from gradwire.frontends.torch.rules import (
    creation,
    elementwise,
    indexing,
    linear_algebra,
    networks,
    reductions,
    refusals,
    shaping,
)

__all__ = [
    "creation",
    "elementwise",
    "indexing",
    "linear_algebra",
    "networks",
    "reductions",
    "refusals",
    "shaping",
]
