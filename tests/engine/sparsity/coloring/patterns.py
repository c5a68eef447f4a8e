"""Patterns of many shapes: the known ones of the literature, and families to draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradwire_engine.sparsity.pattern import SparsityPattern


def of_dense(mask: Any) -> SparsityPattern:
    mask = np.asarray(mask, bool)
    rows, columns = np.nonzero(mask)
    return SparsityPattern.of_coordinates(rows, columns, (mask.shape[0], mask.shape[1]))


def joined(pairs: list[tuple[Any, Any]], n: int) -> SparsityPattern:
    """The square pattern of all pairs of row and column indices, each broadcast."""
    both = [np.broadcast_arrays(row, column) for row, column in pairs]
    rows, columns = (np.concatenate([np.ravel(pair[side]) for pair in both]) for side in (0, 1))
    return SparsityPattern.of_coordinates(rows, columns, (n, n))


def banded(n: int, below: int, above: int) -> SparsityPattern:
    each = np.arange(n)
    inside = [(each + shift)[(each + shift >= 0) & (each + shift < n)] for shift in range(-below, above + 1)]
    return joined(
        [(inside[shift + below] - shift, inside[shift + below]) for shift in range(-below, above + 1)], n
    )


def arrow(n: int) -> SparsityPattern:
    """A full first row and column, and the diagonal."""
    each = np.arange(n)
    return joined([(each, each), (0, each), (each, 0)], n)


def frame(n: int) -> SparsityPattern:
    """Full first and last rows and columns, and the diagonal."""
    each = np.arange(n)
    return joined([(each, each), (0, each), (each, 0), (n - 1, each), (each, n - 1)], n)


def torus(height: int, width: int, species: int = 1) -> SparsityPattern:
    """The five-point stencil on a torus; species meet in their own cell (two: the Brusselator's Jacobian)."""
    cells = height * width
    each = np.arange(cells)
    y, x = each // width, each % width
    near = [each, y * width + (x + 1) % width, y * width + (x - 1) % width]
    near += [(y + 1) % height * width + x, (y - 1) % height * width + x]
    pairs = [(each + s * cells, other + s * cells) for s in range(species) for other in near]
    pairs += [(each + s * cells, each + t * cells) for s in range(species) for t in range(species)]
    return joined(pairs, cells * species)


def grid(height: int, width: int) -> SparsityPattern:
    """The five-point stencil on a rectangle."""
    line = [banded(extent, 1, 1).dense() for extent in (height, width)]
    return of_dense(
        np.kron(line[0], np.eye(width, dtype=bool)) | np.kron(np.eye(height, dtype=bool), line[1])
    )


def random(generator: np.random.Generator, rows: int, columns: int, density: float) -> SparsityPattern:
    return of_dense(generator.random((rows, columns)) < density)


def blocks(generator: np.random.Generator, count: int, extent: int) -> SparsityPattern:
    """Dense blocks on the diagonal, of random extents."""
    mask = np.zeros((count * extent, count * extent), bool)
    at = 0
    for size in generator.integers(1, extent + 1, count):
        mask[at : at + size, at : at + size] = True
        at += size
    return of_dense(mask)


def dense_rows(generator: np.random.Generator, rows: int, columns: int, density: float) -> SparsityPattern:
    """A random pattern with some full rows and columns."""
    mask = generator.random((rows, columns)) < density
    mask[generator.integers(0, rows, 2)] = True
    mask[:, generator.integers(0, columns, 1)] = True
    return of_dense(mask)


def power_grid(generator: np.random.Generator, n: int) -> SparsityPattern:
    """A tree whose busy nodes grow busier, and some rings: few nodes have many neighbors."""
    mask = np.eye(n, dtype=bool)
    ends = [0]
    for node in range(1, n):
        other = int(generator.choice(ends))
        mask[node, other] = True
        ends += [node, other]
    for one, other in generator.integers(0, n, (n // 5, 2)):
        mask[one, other] = True
    return of_dense(mask | mask.T)


def symmetric(pattern: SparsityPattern, diagonal: Any = True) -> SparsityPattern:
    """The union of the leading square with its mirror image, with a diagonal where said."""
    n = min(pattern.shape)
    mask = pattern.dense()[:n, :n]
    mask = mask | mask.T
    np.fill_diagonal(mask, diagonal)
    return of_dense(mask)


def bipartite(pattern: SparsityPattern) -> SparsityPattern:
    """The symmetric pattern [[0, A], [A', 0]]: no diagonal."""
    mask = pattern.dense()
    rows, columns = mask.shape
    return of_dense(
        np.block([[np.zeros((rows, rows), bool), mask], [mask.T, np.zeros((columns, columns), bool)]])
    )


@st.composite
def any_pattern(draw: st.DrawFn) -> SparsityPattern:
    """Draw a pattern of one of the families."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    density = draw(st.sampled_from([0.05, 0.15, 0.5]))
    family = draw(
        st.sampled_from(["random", "band", "arrow", "block", "dense rows", "mesh", "torus", "power grid"])
    )
    match family:
        case "random":
            return random(generator, rows, columns, density)
        case "band":
            return banded(rows, min(columns, rows) // 4, columns % 3)
        case "arrow":
            return arrow(rows)
        case "block":
            return blocks(generator, 1 + rows // 4, 1 + columns // 4)
        case "dense rows":
            return dense_rows(generator, rows, columns, density)
        case "mesh":
            return grid(1 + rows // 4, 1 + columns // 4)
        case "torus":
            return torus(1 + rows // 4, 1 + columns // 4, 1 + rows % 2)
    return power_grid(generator, rows)
