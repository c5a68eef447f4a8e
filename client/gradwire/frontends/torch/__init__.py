"""PyTorch programs differentiated by a server.

    import gradwire as gw
    import gradwire.torch

    with gw.local() as client, gradwire.torch.use(client):
        J = gradwire.torch.jacobian(torch.log, x)  # the signature of torch.autograd.functional.jacobian
        f = gradwire.torch.remote(model)  # forward and backward passes run on the server
        f(x).sum().backward()

Functions are recorded as graphs: they may do what does not depend on the values of tensors. `torch.float64`
stays exact, Python numbers included. A module can be passed to `client.function` as it is, and any function
of tensors through `model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from gradwire.frontends.sources import converters
from gradwire.frontends.torch.export import convert
from gradwire.frontends.torch.functional import hessian, hvp, jacobian, jvp, vhp, vjp
from gradwire.frontends.torch.programs import use
from gradwire.frontends.torch.remote import RemoteModule, remote
from gradwire.graphs.spec import ArraySpec

__all__ = ["RemoteModule", "hessian", "hvp", "jacobian", "jvp", "model", "remote", "use", "vhp", "vjp"]

converters["torch"] = convert


def model(fn: Callable[..., Any], *specs: ArraySpec) -> onnx.ModelProto:
    """The graph of a function of tensors, as `client.function` and other tools take it.

    Parameters and other tensors that it closes over become constants in it.

        f = client.function(gradwire.torch.model(lambda x: torch.special.gammaln(x), gw.spec(3)))
    """
    return convert(fn, specs, None).embedded()
