"""The modules of `gradwire_wire.v1`, under the name of the wire's proto package."""

import pkgutil
import sys
from importlib import import_module

import gradwire_wire.v1

for _module in pkgutil.iter_modules(gradwire_wire.v1.__path__):
    sys.modules[f"{__name__}.{_module.name}"] = globals()[_module.name] = import_module(
        f"gradwire_wire.v1.{_module.name}"
    )
