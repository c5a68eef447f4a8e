"""Rules for JAX's primitives, a module for each family; importing this package registers them all.

A rule computes the primitives that its decorator names. It receives the `Call`, whose `params` are those of
the primitive, then one `Value` for each operand, and returns one `Value`, or one for each of several results,
of the shapes and dtypes in `call.results`. What it computes is in the documentation of `jax.lax`; its
docstring says only what that does not. It raises `call.fail(...)` for what a graph cannot hold.
"""

from importlib import import_module
from pkgutil import walk_packages

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
