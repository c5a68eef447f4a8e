"""The rules, grouped by kind of operator; importing this package registers them all.

A rule evaluates the operators that its decorator names. It receives the `Node`, then one array for each
input in the specification's order, None for an optional one that is left out, and returns one array, or a
tuple of one for each output. Shapes and dtypes are the specification's; its docstring starts with the
operators and says only what the specification does not. It raises `node.fail(...)`, an `InvalidGraph`, for
inputs that the specification does not allow.
"""

from importlib import import_module as _import_module
from pkgutil import walk_packages as _walk_packages

for _module in _walk_packages(__path__, f"{__name__}."):
    _import_module(_module.name)
