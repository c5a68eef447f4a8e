"""Complex arguments: elementwise functions and array functions.

Implementations follow the convention of `gradwire.frontends.numpy.functions`.
"""

from gradwire.frontends.numpy.functions.complex_numbers import array_functions, ufuncs

__all__ = ["array_functions", "ufuncs"]
