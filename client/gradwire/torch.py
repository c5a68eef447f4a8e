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

from gradwire.frontends.torch import RemoteModule, hessian, hvp, jacobian, jvp, model, remote, use, vhp, vjp

__all__ = [
    "RemoteModule",
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
