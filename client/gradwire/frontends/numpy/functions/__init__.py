"""NumPy's array functions for traced arrays, one module for each family.

Importing the package fills the table of :mod:`gradwire.frontends.numpy.dispatch`.
"""

from gradwire.frontends.numpy.functions import (
    applying,
    complex_functions,
    counting,
    creation,
    fourier,
    in_place,
    joining,
    least_squares,
    linalg,
    nan_statistics,
    norms,
    polynomials,
    products,
    reductions,
    refused,
    scans,
    selection,
    shaping,
    sorting,
    statistics,
)

__all__ = [
    "applying",
    "complex_functions",
    "counting",
    "creation",
    "fourier",
    "in_place",
    "joining",
    "least_squares",
    "linalg",
    "nan_statistics",
    "norms",
    "polynomials",
    "products",
    "reductions",
    "refused",
    "scans",
    "selection",
    "shaping",
    "sorting",
    "statistics",
]
