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

from gradwire import aio, special
from gradwire.accumulator import Accumulator
from gradwire.aio import GraphInfo, Retry
from gradwire.callbacks import Callbacks
from gradwire.client import Client, Stream, connect
from gradwire.errors import (
    CancelledError,
    DeadlineError,
    GradwireError,
    GraphWarning,
    InternalError,
    InvalidArgumentError,
    LimitError,
    NotDifferentiableError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    ServerError,
    TraceError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from gradwire.function import Function
from gradwire.local import LocalClient, local
from gradwire.pictures import Picture, graph, spy
from gradwire.pipeline import Pipeline
from gradwire.results import Accumulated, Block, Entry, Info, Piece, Plan, Progress, Summary
from gradwire.signature import Signature, Value
from gradwire.spec import ArraySpec, spec, spec_of
from gradwire.tracing import asarray, cond, fori, full, ones, scan, vmap, while_, zeros
from gradwire.uploads import Uploaded

__version__ = _version("gradwire")

__all__ = [
    "Accumulated",
    "Accumulator",
    "ArraySpec",
    "Block",
    "Callbacks",
    "CancelledError",
    "Client",
    "DeadlineError",
    "Entry",
    "Function",
    "GradwireError",
    "GraphInfo",
    "GraphWarning",
    "Info",
    "InternalError",
    "InvalidArgumentError",
    "LimitError",
    "LocalClient",
    "NotDifferentiableError",
    "NotFoundError",
    "PermissionDeniedError",
    "Picture",
    "Piece",
    "Pipeline",
    "Plan",
    "PreconditionError",
    "Progress",
    "Retry",
    "ServerError",
    "Signature",
    "Stream",
    "Summary",
    "TraceError",
    "UnauthenticatedError",
    "UnavailableError",
    "Uploaded",
    "Value",
    "Violation",
    "__version__",
    "aio",
    "asarray",
    "cond",
    "connect",
    "fori",
    "full",
    "graph",
    "local",
    "ones",
    "scan",
    "spec",
    "spec_of",
    "special",
    "spy",
    "vmap",
    "while_",
    "zeros",
]
