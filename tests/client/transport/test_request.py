"""What travels within a request, and what is referred to by id."""

from __future__ import annotations

import numpy as np
import pytest

import gradwire_wire as wire
from gradwire.transport.request import tensor_ids
from gradwire.transport.sightings import Sightings

rng = np.random.default_rng(0)
LARGE = 40_000
"""Elements of a float64 array that is too large to travel with every request."""


async def test_a_large_array_travels_in_its_first_request_and_has_an_id_in_later_ones() -> None:
    sightings, x = Sightings(), rng.standard_normal(LARGE)
    assert await tensor_ids({"x": x}, sightings) == {}
    for again in (x, x.copy(), x):
        assert await tensor_ids({"x": again}, sightings) == {"x": wire.tensor_id(x)}
    assert await tensor_ids({"x": x + 1}, sightings) == {}


async def test_a_small_array_never_has_an_id() -> None:
    sightings = Sightings()
    for _ in range(3):
        assert await tensor_ids({"x": np.ones(100)}, sightings) == {}


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
async def test_indices_and_masks_have_an_id_from_the_first_request_on(dtype: str) -> None:
    index = np.ones(8 * LARGE, dtype)
    assert await tensor_ids({"i": index}, Sightings()) == {"i": wire.tensor_id(index)}


async def test_a_request_holds_new_arrays_as_long_as_there_is_room() -> None:
    arrays = {name: rng.standard_normal(3 * LARGE) for name in "abc"}
    ids = await tensor_ids(arrays, Sightings())
    assert ids == {"c": wire.tensor_id(arrays["c"])}
    huge = rng.standard_normal(10 * LARGE)
    assert await tensor_ids({"x": huge}, Sightings()) == {"x": wire.tensor_id(huge)}


async def test_an_array_that_differs_in_one_element_alone_is_never_taken_for_another() -> None:
    sightings, x = Sightings(), rng.standard_normal(LARGE)
    await tensor_ids({"x": x}, sightings)
    for place in rng.integers(0, LARGE, 20):
        other = x.copy()
        other[place] += 1
        assert await tensor_ids({"x": other}, sightings) in ({}, {"x": wire.tensor_id(other)})


async def test_shapes_dtypes_and_layouts_are_told_apart() -> None:
    sightings, x = Sightings(), np.zeros((200, 200))
    for array in (x, x.reshape(100, 400), x.astype("float32").repeat(2, axis=0)):
        assert await tensor_ids({"x": array}, sightings) == {}
    assert await tensor_ids({"x": np.asfortranarray(x)}, sightings) == {"x": wire.tensor_id(x)}
