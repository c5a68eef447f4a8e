"""The PyTorch front-end: records functions of tensors as graphs, and differentiates them on a server.

`gradwire.torch` is its public name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch

from gradwire._sync.client import Client
from gradwire._sync.function import Function
from gradwire.errors import TraceError
from gradwire.frontends.sources import converters
from gradwire.frontends.torch.default import client_or_default, use
from gradwire.frontends.torch.export import convert, convert_with_parameters
from gradwire.frontends.torch.functional import hessian, hvp, jacobian, jvp, vhp, vjp
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


def function(
    module: Callable[..., Any], *specs: ArraySpec, params: bool = False, client: Client | None = None
) -> Function:
    """Makes a module or function of tensors a function of the client, as `client.function` does.

    With `params=True` the parameters of a module are inputs under their names, after its arguments, so that
    everything that a function has can be asked for by them: gradients, products, plans, an accumulator, one
    gradient a sample.

        f = gradwire.torch.function(module, gw.spec((8, 3)), params=True)
        f.grad({"input": x, **{name: p.numpy() for name, p in module.state_dict().items()}}, wrt="weight")

    Args:
        module: the module or function.
        specs: its arguments.
        params: make parameters inputs; otherwise they are constants.
        client: the client to use; by default the one given to `use`.

    Raises:
        GradwireError: there is neither a client nor a default.
        TraceError: the module does something that has no place in a graph, or has no parameters.
    """
    server = client_or_default(client)
    if not params:
        return server.function(convert(module, specs, None))
    if not isinstance(module, torch.nn.Module):
        raise TraceError("params=True is for modules: a function has no parameters, pass them as arguments")
    return server.function(convert_with_parameters(module, specs))


def model(fn: Callable[..., Any], *specs: ArraySpec) -> onnx.ModelProto:
    """Converts a function of tensors to an ONNX model, for `client.function` and other tools.

    Parameters and other tensors that it closes over become constants of the model.

        f = client.function(gradwire.torch.model(lambda x: torch.special.gammaln(x), gw.spec(3)))

    Raises:
        TraceError: the function does something that has no place in a graph.
    """
    return convert(fn, specs, None).embedded()
