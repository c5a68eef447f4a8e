"""Gradients over the wire: Jacobians, Hessians and products of them, computed by a server's workers.

    import numpy as np
    import gradwire as gw

    with gw.local(workers=2) as client:  # or gw.connect("host:50051")
        f = client.function(lambda x: np.log(x), gw.spec((2, 2)))
        J = f.jacobian(np.ones((2, 2)))  # 2 x 2 x 2 x 2
        H = client.hessian(lambda x: np.sum(np.sqrt(x)), np.ones((2, 2)))

`gradwire.aio` has the same as coroutines.
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

# Names are imported on first use, from the modules that __init__.pyi states.
_load, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

_FRAMEWORKS = ("jax", "sklearn", "torch")


def __getattr__(name: str) -> object:
    if name in _FRAMEWORKS:  # these import the framework, and are therefore not loaded by themselves
        raise AttributeError(f"gradwire.{name} is imported by itself: import gradwire.{name}", name=name)
    return _load(name)


__version__ = _version("gradwire")
