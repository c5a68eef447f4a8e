"""What is remote inside a function that is recorded is computed as a part of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.autograd import functional

import gradwire as gw
import gradwire.torch as remote

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

f64 = torch.float64
local: Any = functional  # its functions have no types
X = 0.3 + torch.rand(3, dtype=f64, generator=torch.Generator().manual_seed(0))
V = 0.3 + torch.rand(3, dtype=f64, generator=torch.Generator().manual_seed(1))

NESTED: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "jacobian": lambda face, x: face.jacobian(torch.sin, x, create_graph=True).sum(0) * x,
    "jacobian without a graph": lambda face, x: face.jacobian(torch.sin, x).sum(0) * x,
    "hessian": lambda face, x: face.hessian(lambda z: (z**3).sum(), x, create_graph=True).sum(0),
    "vjp": lambda face, x: face.vjp(torch.exp, x, V, create_graph=True)[1] * x,
    "jvp": lambda face, x: face.jvp(torch.exp, x, V, create_graph=True)[1] * x,
    "hvp": lambda face, x: face.hvp(lambda z: (z**4).sum(), x, V, create_graph=True)[1],
    "vhp": lambda face, x: face.vhp(lambda z: (z**4).sum(), x, V, create_graph=True)[1],
    "twice": lambda face, x: face.jacobian(
        lambda z: face.jacobian(torch.sin, z, create_graph=True).sum(0), x, create_graph=True
    ).sum(0),
}


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("case", NESTED)
def test_a_derivative_inside_a_function_is_what_pytorch_makes_of_it(case: str) -> None:
    fn = NESTED[case]
    found = remote.jacobian(lambda x: fn(remote, x), X)
    expected = local.jacobian(lambda x: fn(local, x), X)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("client")
def test_a_remote_function_inside_another_is_a_part_of_it() -> None:
    inner = remote.remote(lambda x: x.sin())
    layer = remote.remote(torch.nn.Linear(3, 3, dtype=f64))

    def fn(x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = layer(inner(x)) * x
        return y

    expected = local.jacobian(lambda x: layer.module(x.sin()) * x, X)
    torch.testing.assert_close(remote.jacobian(fn, X), expected.detach(), rtol=1e-12, atol=1e-12)


def test_a_function_on_a_server_is_refused_inside_another(client: gw.Client) -> None:
    f = remote.remote(client.function(torch.nn.Linear(3, 3, dtype=f64), gw.spec(3)))
    with pytest.raises(gw.TraceError, match="inside a function that is recorded"):
        remote.jacobian(lambda x: f(x), X)


PROGRAM = """
import sys, threading, torch, gradwire as gw, gradwire.torch as gt
with gw.connect(sys.argv[1]) as client, gt.use(client):
    x = torch.ones(2, dtype=torch.float64)
    nested = gt.jacobian(lambda x: gt.jacobian(torch.sin, x, create_graph=True).sum(0), x)
    torch.testing.assert_close(nested, -torch.sin(x).diag())

    def starts_a_thread(x):
        found = []
        thread = threading.Thread(target=lambda: found.append(gt.jacobian(torch.sin, torch.ones_like(x))))
        thread.start()
        thread.join()
        return x * 2
    torch.testing.assert_close(gt.jacobian(starts_a_thread, x), 2 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(gt.jacobian(torch.sin, x), torch.cos(x).diag())
print("done")
"""


def test_no_nesting_stops_the_process(server: EmbeddedServer) -> None:
    """In a process of its own: a deadlock would take the tests with it."""
    run = [sys.executable, "-c", PROGRAM, server.address]
    result = subprocess.run(run, capture_output=True, text=True, timeout=90, check=False)
    assert result.stdout.strip() == "done", result.stderr
