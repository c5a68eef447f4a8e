"""NumPy's array functions for traced arrays, a module for each family.

Importing the package fills the tables of `gradwire.frontends.numpy.dispatch` and `complex_dispatch`.

An implementation has the name and the parameters of the NumPy function that its decorator names, receives
that function's own arguments, of which at least one is a traced array (`implements_complex`: a complex one),
and returns what NumPy returns, with traced arrays for arrays. What it computes is in NumPy's documentation;
its docstring says only what that does not. It raises NumPy's errors for shapes and axes, and `TraceError` for
what a graph cannot hold.
"""

from gradwire.frontends.numpy.functions import (
    complex_numbers,
    fourier,
    linear_algebra,
    manipulation,
    polynomials,
    refused,
    statistics,
)

__all__ = [
    "complex_numbers", "fourier", "linear_algebra", "manipulation", "polynomials", "refused", "statistics",
]  # fmt: skip
