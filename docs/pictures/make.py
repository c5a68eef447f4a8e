"""Draws the pictures of docs/pictures.md into this folder: python docs/pictures/make.py

Nothing is evaluated, so no server is started.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

import gradwire as gw

matplotlib.use("Agg")
HERE = Path(__file__).parent


def network(x, target):
    """Compute two layers and a loss."""
    rng = np.random.default_rng(0)
    hidden = np.tanh(x @ rng.normal(size=(20, 50)) + 1)
    logits = hidden @ rng.normal(size=(50, 4))
    return {"loss": np.sum((logits - target) ** 2), "logits": logits}


def relax(x):
    """Run ten steps of a loop."""
    return gw.fori(0, 10, lambda i, c: c + 0.1 * np.sin(c) * (x - c), x)


def grid(side):
    """Return the pattern of a five-point stencil on a square grid."""
    cells = np.arange(side * side).reshape(side, side)
    pattern = np.eye(side * side, dtype=bool)
    for one, other in ((cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])):
        pattern[one.ravel(), other.ravel()] = pattern[other.ravel(), one.ravel()] = True
    return pattern


if __name__ == "__main__":
    with gw.connect("127.0.0.1:1") as client:  # never called
        f = client.function(network, gw.spec((8, 20)), gw.spec((8, 4)))
        gw.graph(f.gradient(of="loss")).save(HERE / "network.svg")
        gw.graph(client.function(relax, gw.spec(3))).save(HERE / "loop.svg")
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    gw.spy(grid(6), ax=axes[0])
    gw.spy(grid(40), ax=axes[1])
    figure.savefig(HERE / "stencil.png", dpi=80)
