"""Products, decompositions, least squares and norms.

Implementations follow the convention of `gradwire.frontends.numpy.functions`.
"""

from gradwire.frontends.numpy.functions.linear_algebra import decompositions, least_squares, norms, products

__all__ = ["decompositions", "least_squares", "norms", "products"]
