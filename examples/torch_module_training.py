"""Train a network whose forward and backward passes run on a server, and compare with local training.

Run: python examples/torch_module_training.py
"""

import copy
import time
from collections.abc import Iterator

import torch
from torch import nn

import gradwire as gw
import gradwire.torch

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

STEPS = 60


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of noisy points on a curve."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.rand(64, 1, generator=generator) * 6 - 3
        yield x, torch.sin(2 * x) + 0.05 * torch.randn(64, 1, generator=generator)


def train(model: nn.Module) -> list[float]:
    """Return the loss at each step; the code is the same for local and remote models."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    losses = []
    for x, y in batches():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    here = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.BatchNorm1d(32), nn.Linear(32, 1))
    there = copy.deepcopy(here)
    expected = train(here)
    with gw.local(workers=2) as client, gradwire.torch.use(client):
        started = time.perf_counter()
        losses = train(gradwire.torch.remote(there))
        print(f"{STEPS} steps in {time.perf_counter() - started:.1f} s, the first of which compile")
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} (trained locally: {expected[-1]:.4f})")
        assert losses[-1] < 0.5 * losses[0]
        torch.testing.assert_close(losses, expected, rtol=1e-8, atol=0)
        for mine, own in zip(there.state_dict().values(), here.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, own, rtol=1e-6, atol=1e-8)

        # The Hessian of the loss with respect to the weights of the last layer.
        x, y = next(batches())
        weight = there[3].weight.detach()
        features = here[:3](x).detach()

        def loss_of(weight: torch.Tensor) -> torch.Tensor:
            """Return the mean squared error as a function of the last layer's weights."""
            return nn.functional.mse_loss(features @ weight.T, y)

        curvature = gradwire.torch.hessian(loss_of, weight).reshape(32, 32)
        torch.testing.assert_close(curvature, 2 * features.T @ features / len(x), rtol=1e-10, atol=1e-12)
        print(f"largest curvature of the last layer: {torch.linalg.eigvalsh(curvature)[-1]:.4f}")
    print("remote and local training agree")
