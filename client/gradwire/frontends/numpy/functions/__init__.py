"""NumPy's array functions for traced arrays, a module for each family.

Importing the package fills the tables of `gradwire.frontends.numpy.dispatch` and `complex_dispatch`.
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
