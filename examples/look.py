"""Inspect a derivative: its printed plan, the graph of its function, and the sparsity of a Jacobian.

Run: python examples/look.py
"""

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np

import gradwire as gw

matplotlib.use("Agg")  # no window: pictures go to files


def reaction(u, diffusion):
    """Return rates of two species on a ring of cells; each depends on itself and its neighbors."""
    spread = np.roll(u, 1, axis=1) + np.roll(u, -1, axis=1) - 2 * u
    rate = u[0] * u[1] ** 2
    return diffusion * spread + np.stack([0.04 * (1 - u[0]) - rate, rate - 0.1 * u[1]])


def main(client: gw.Client, folder: Path) -> None:
    """Print the plan, draw the graph and the sparsity to `folder`, and show who computed what."""
    f = client.function(reaction, gw.spec((2, 16)), gw.spec(()))
    print(f.plan(wrt="u"), end="\n\n")

    picture = gw.graph(f)
    saved = picture.save(folder / "graph.svg")  # or .png; a notebook displays `picture`
    words = {text.text for text in ElementTree.parse(saved).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314  (drawn just now)
    assert {"u", "float64[2, 16]", "diffusion", "Mul"} <= words
    print(f"{picture!r} in {saved.name}, {saved.stat().st_size:,} bytes")

    u = np.random.default_rng(0).uniform(0.2, 0.8, size=(2, 16))
    jacobian, info = f.jacobian(u, 0.1, wrt="u", return_info=True)  # (2, 16, 2, 16)
    ax = gw.spy(jacobian)  # flattened to 32 by 32
    ax.figure.savefig(folder / "sparsity.png")
    title = ax.get_title().replace("\n", "; ")
    assert "32 × 32, 128 nonzeros" in title, title
    print(title, end="\n\n")

    print(info)


if __name__ == "__main__":
    with gw.local(workers=2) as client, tempfile.TemporaryDirectory() as folder:
        main(client, Path(folder))
