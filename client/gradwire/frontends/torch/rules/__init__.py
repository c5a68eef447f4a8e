"""Rules for ATen operators, one module for each family; importing the package registers them all.

A rule computes the operators that its decorator names, from PyTorch's own arguments. Its docstring says only
what PyTorch's documentation does not.
"""

from gradwire.frontends.torch.rules import (
    activations,
    complex_numbers,
    creation,
    elementwise,
    factorizations,
    indexing,
    linear_algebra,
    losses,
    networks,
    ordering,
    reductions,
    refusals,
    shaping,
    special_functions,
)

__all__ = [
    "activations",
    "complex_numbers",
    "creation",
    "elementwise",
    "factorizations",
    "indexing",
    "linear_algebra",
    "losses",
    "networks",
    "ordering",
    "reductions",
    "refusals",
    "shaping",
    "special_functions",
]
