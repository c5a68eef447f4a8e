"""The gradients of a PyTorch tutorial, computed by a server and checked.

Run: python examples/torch_tutorial.py
"""

import torch
from torch.autograd import functional

import gradwire as gw
import gradwire.torch

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def accumulating() -> None:
    """`backward` adds to `.grad` until it is zeroed."""
    w = torch.rand(2, 2, requires_grad=True)
    total = gradwire.torch.remote(lambda w: w.sum())
    total(w).backward()
    assert w.grad is not None
    assert torch.equal(w.grad, torch.ones(2, 2))
    for times in (2, 3, 4):
        total(w).backward()
        assert torch.equal(w.grad, torch.full((2, 2), float(times)))
    print("after four backward passes .grad is\n", w.grad)
    w.grad.zero_()
    assert torch.equal(w.grad, torch.zeros(2, 2))


def not_accumulating() -> None:
    """`torch.autograd.grad` returns the gradient and does not change `.grad`."""
    w = torch.rand(2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(gradwire.torch.remote(lambda w: w.sum())(w), w)
    assert torch.equal(gradient, torch.ones(2, 2))
    assert w.grad is None
    print("torch.autograd.grad gives ones, and .grad is still", w.grad)


def rows_of_a_jacobian() -> None:
    """One-hot `grad_outputs` give the rows of the Jacobian, ones give their sum."""
    w1, x = torch.rand(3, 2), torch.rand(2, requires_grad=True)
    y = gradwire.torch.remote(lambda x: w1 @ x)(x)
    rows = [torch.autograd.grad(y, x, grad_outputs=row, retain_graph=True)[0] for row in torch.eye(3)]
    assert torch.allclose(torch.stack(rows), w1, rtol=1e-12)
    (summed,) = torch.autograd.grad(y, x, grad_outputs=torch.ones(3))
    assert torch.allclose(summed, w1.sum(0), rtol=1e-12)
    print("the Jacobian of w1 @ x, row by row, is w1\n", torch.stack(rows))


def second_derivatives() -> None:
    """With `create_graph`, a gradient can be differentiated again."""
    x = torch.rand(3, requires_grad=True)
    y = gradwire.torch.remote(lambda x: x.pow(3).sum())(x)
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.allclose(first, 3 * x**2, rtol=1e-12)
    assert torch.allclose(second, 6 * x, rtol=1e-12)
    print("the second derivative of x^3 at", x.detach().numpy(), "is", second.numpy())


def whole_derivatives() -> None:
    """`gradwire.torch` has the functions of `torch.autograd.functional`."""
    x = 0.5 + torch.rand(2, 2)
    jacobian = gradwire.torch.jacobian(torch.log, x)
    assert jacobian.shape == (2, 2, 2, 2)
    assert torch.allclose(jacobian, functional.jacobian(torch.log, x), rtol=1e-12)

    def roots(x: torch.Tensor) -> torch.Tensor:
        return x.sqrt().sum()

    hessian = gradwire.torch.hessian(roots, x)
    assert torch.allclose(hessian, functional.hessian(roots, x), rtol=1e-12)
    print("the Hessian of sum(sqrt(x)) has the diagonal", hessian.reshape(4, 4).diagonal().numpy())


if __name__ == "__main__":
    with gw.local(workers=2) as client, gradwire.torch.use(client):
        accumulating()
        not_accumulating()
        rows_of_a_jacobian()
        second_derivatives()
        whole_derivatives()
    print("all as in PyTorch")
