"""Rules for ATen operators, one module for each family; importing the package registers them all.

A rule computes the ATen operators that its decorator names. It receives the `Call`, then PyTorch's own
arguments in the order of the operator's schema: a tensor as a traced array, or as a NumPy array where it is a
constant of integers or bools, everything else as it is. It returns one array for each result, of the shape
and dtype that PyTorch's result has (`call.shape`, `call.dtype`), or `call.unavailable(...)` in place of one.
What it computes is in PyTorch's documentation; its docstring says only what that does not. It raises
`call.refuse(...)` for what a graph cannot hold. In-place variants need no rule of their own.
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
    recurrent,
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
    "recurrent",
    "reductions",
    "refusals",
    "shaping",
    "special_functions",
]
