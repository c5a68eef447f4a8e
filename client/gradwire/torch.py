"""Differentiates PyTorch functions and modules on a server.

    import gradwire as gw
    import gradwire.torch

    with gw.local() as client, gradwire.torch.use(client):
        J = gradwire.torch.jacobian(torch.log, x)  # the signature of torch.autograd.functional.jacobian
        f = gradwire.torch.remote(model)  # forward and backward passes run on the server
        f(x).sum().backward()

Functions are recorded as graphs: their Python code may branch on shapes and settings, not on the values of
tensors. Computation in `torch.float64` keeps full precision, Python numbers included. A module can be passed
to `client.function` directly, and any function of tensors through `model`.
"""

from gradwire.frontends.torch import (
    RemoteModule,
    function,
    hessian,
    hvp,
    jacobian,
    jvp,
    model,
    remote,
    use,
    vhp,
    vjp,
)

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
