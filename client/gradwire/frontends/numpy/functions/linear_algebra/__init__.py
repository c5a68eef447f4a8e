"""Products, of sparse matrices too, decompositions, least squares and norms.

Implementations follow the convention of `gradwire.frontends.numpy.functions`.
"""

from gradwire.frontends.numpy.functions.linear_algebra import (
    decompositions,
    least_squares,
    norms,
    products,
    sparse_products,
)

__all__ = ["decompositions", "least_squares", "norms", "products", "sparse_products"]
