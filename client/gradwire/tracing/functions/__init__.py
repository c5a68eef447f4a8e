"""NumPy's array functions for traced arrays, one module for each family.

Importing the package fills the table of :mod:`gradwire.tracing.dispatch`.
"""

from gradwire.tracing.functions import (
    complex_functions,
    creation,
    fourier,
    joining,
    least_squares,
    linalg,
    norms,
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
    "complex_functions",
    "creation",
    "fourier",
    "joining",
    "least_squares",
    "linalg",
    "norms",
    "products",
    "reductions",
    "refused",
    "scans",
    "selection",
    "shaping",
    "sorting",
    "statistics",
]
