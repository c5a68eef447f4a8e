"""Converts JAX functions to graphs, and lets JAX programs call functions of the service.

What users import is `gradwire.jax`.
"""

from gradwire.frontends.jax.calling import Remote, function, remote, use
from gradwire.frontends.jax.conversion import Converted, convert, convert_function
from gradwire.frontends.jax.derivatives import hessian, jacobian
from gradwire.frontends.jax.wrapping import JaxFunction, wrap

__all__ = [
    "Converted",
    "JaxFunction",
    "Remote",
    "convert",
    "convert_function",
    "function",
    "hessian",
    "jacobian",
    "remote",
    "use",
    "wrap",
]
