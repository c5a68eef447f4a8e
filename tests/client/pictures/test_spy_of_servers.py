"""Of a function and of a prepared derivative, the server's pattern is drawn in the server's colors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

import gradwire as gw
from gradwire.pictures.pattern import pattern_of
from gradwire.pictures.seeds import by_both, by_side

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def remote(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as client:
        yield client


def chain(x: Any) -> Any:
    return x[1:] - x[:-1] ** 2


def frame(x: Any) -> Any:
    return np.concatenate([np.sum(x**2, keepdims=True), x[1:] ** 2 * x[:1]])


def energy(x: Any) -> Any:
    return np.sum((x[1:] - x[:-1] ** 2) ** 2)


def image_of(ax: Any) -> Any:
    return np.asarray(ax.get_images()[0].get_array())


def painted(image: Any) -> Any:
    return (image != 1).any(axis=2)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_cells_have_the_color_of_their_seed(remote: gw.Client, mode: Any) -> None:
    prepared = remote.function(chain, gw.spec(9)).prepare_jacobian(mode=mode)
    ax = gw.spy(prepared)
    image, dense = image_of(ax), prepared.pattern.boolean().toarray()
    np.testing.assert_array_equal(painted(image), dense)
    side = "column" if mode == "forward" else "row"
    colors = getattr(prepared, f"{side}_colors")
    paints: dict[int, set[Any]] = {}
    for i, j in np.argwhere(dense):
        paints.setdefault(colors[j if mode == "forward" else i], set()).add(tuple(image[i, j]))
    assert [len(one) for one in paints.values()] == [1, 1] and len(set.union(*paints.values())) == 2
    assert f"2 {side} colors for {len(colors)} {side}s" in ax.get_title()


def test_a_frame_is_drawn_in_the_colors_of_both_sides(remote: gw.Client) -> None:
    prepared = remote.function(frame, gw.spec(40)).prepare_jacobian()
    ax = gw.spy(prepared)
    image = image_of(ax)
    np.testing.assert_array_equal(painted(image), prepared.pattern.boolean().toarray())
    assert len({tuple(one) for one in image[painted(image)]}) == prepared.colors
    assert "column color" in ax.get_title() and "row color" in ax.get_title()


def test_a_function_and_its_hessian_are_drawn_without_a_point(remote: gw.Client) -> None:
    f = remote.function(energy, gw.spec(30))
    title = gw.spy(f, kind="hessian").get_title()
    assert "30 × 30, 88 nonzeros" in title and "3 column colors for 30 columns" in title
    assert "29 × 30, 58 nonzeros" in gw.spy(remote.function(chain, gw.spec(30))).get_title()


def test_a_pattern_and_coordinates_are_drawn_too(remote: gw.Client) -> None:
    pattern = remote.function(chain, gw.spec(9)).sparsity()
    np.testing.assert_array_equal(painted(image_of(gw.spy(pattern))), pattern.boolean().toarray())
    parts = gw.Coordinates(np.array([1, 0]), np.array([0, 2]), np.ones(2), (2, 3))
    np.testing.assert_array_equal(painted(image_of(gw.spy(parts, None))), parts.toarray() != 0)


def test_what_is_not_waited_for_or_not_meant_is_refused(server: EmbeddedServer) -> None:
    async def run() -> None:
        async with gw.aio.connect(server.address) as client:
            f = client.function(chain, gw.spec(9))
            with pytest.raises(TypeError, match=r"await f\.prepare_jacobian\(\)"):
                gw.spy(f)
            prepared = await f.prepare_jacobian()
            assert "8 × 9" in gw.spy(prepared).get_title()

    asyncio.run(run())
    with pytest.raises(ValueError, match="kind='hessian': it is"):
        gw.spy(np.eye(3), kind="hessian")


def test_neutral_columns_take_the_color_of_the_mirror_image_or_of_the_row() -> None:
    arrow = np.eye(4)
    arrow[0] = arrow[:, 0] = 1
    star = by_side(pattern_of(arrow), "column", np.array([0, 1, 1, 1]))
    assert star.members == (1, 3)
    neutral = by_side(pattern_of(arrow - np.eye(4)), "column", np.array([0, -1, -1, -1]))
    assert set(neutral.entries) == {0} and neutral.members == (1,)
    both = by_both(pattern_of(arrow), np.array([0, 1, 1, 1]), np.array([0, -1, -1, -1]))
    table = np.full((4, 4), -1)
    table[arrow != 0] = both.entries
    np.testing.assert_array_equal(table[0], [0, 2, 2, 2])
    np.testing.assert_array_equal(table[1:, 0], [0, 0, 0])
    assert both.sides == ("column", "column", "row") and both.members == (1, 3, 1)
