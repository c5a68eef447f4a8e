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
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

__version__ = _version("gradwire")
