"""Modules as functions of a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire._sync.function import Function
from gradwire.errors import TraceError
from gradwire.frontends.torch.default import client_or_default
from gradwire.frontends.torch.export import convert, convert_with_parameters
from gradwire.graphs.spec import ArraySpec


def function(
    module: Callable[..., Any],
    *specs: ArraySpec,
    params: bool = False,
    seed: int | None = None,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Function:
    """Make a module or function of tensors a function of the client, as `client.function` does.

    With `params=True` the parameters of a module are inputs under their names, after its arguments, so that
    everything that a function has can be asked for by them: gradients, products, plans, an accumulator, one
    gradient a sample.

        f = gradwire.torch.function(module, gw.spec((8, 3)), params=True)
        f.grad({"input": x, **{name: p.numpy() for name, p in module.state_dict().items()}}, wrt="weight")

    Args:
        module: the module or function.
        specs: its arguments.
        params: make parameters inputs; otherwise they are constants.
        seed: let the module draw random numbers, as dropout does in training: what it draws after
            `torch.manual_seed(seed)` is a part of the graph, the same in every call and derivative. Make the
            function again with another seed for other numbers.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the module, as for `client.function`.

    Raises:
        GradwireError: there is neither a client nor a default.
        TraceError: the module does something that has no place in a graph, or has no parameters.
    """
    server = client_or_default(client)
    if not params:
        return server.function(convert(module, specs, None, seed), verify=verify)
    if not isinstance(module, torch.nn.Module):
        raise TraceError("params=True is for modules: a function has no parameters, pass them as arguments")
    return server.function(convert_with_parameters(module, specs, seed), verify=verify)
