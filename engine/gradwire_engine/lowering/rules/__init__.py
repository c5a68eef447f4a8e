"""The rules, grouped by kind of operator; importing this package registers them all."""

from importlib import import_module as _import_module
from pkgutil import walk_packages as _walk_packages

for _module in _walk_packages(__path__, f"{__name__}."):
    _import_module(_module.name)
