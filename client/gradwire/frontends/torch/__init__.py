"""The PyTorch front-end: records functions of tensors as graphs, and differentiates them on a server.

`gradwire.torch` is its public name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from gradwire.frontends.sources import converters
from gradwire.frontends.torch.default import use
from gradwire.frontends.torch.export import convert
from gradwire.frontends.torch.functional import hessian, hvp, jacobian, jvp, vhp, vjp
from gradwire.frontends.torch.modules import function
from gradwire.frontends.torch.remote import RemoteModule, remote
from gradwire.graphs.spec import ArraySpec

__all__ = [
    "RemoteModule",
    "function",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "model",
    "remote",
    "use",
    "vhp",
    "vjp",
]

converters["torch"] = convert


def model(fn: Callable[..., Any], *specs: ArraySpec) -> onnx.ModelProto:
    """Convert a function of tensors to an ONNX model, for `client.function` and other tools.

    Parameters and other tensors that it closes over become constants of the model.

        f = client.function(gradwire.torch.model(lambda x: torch.special.gammaln(x), gw.spec(3)))

    Raises:
        TraceError: the function does something that has no place in a graph.
    """
    return convert(fn, specs, None).embedded()
