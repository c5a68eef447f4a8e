"""Containers are taken apart and put together again, and told from each other by name."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.trees import flatten, is_array_like, leaves_like, unflatten

Pair = namedtuple("Pair", "w b")


@dataclasses.dataclass
class Body:
    mass: Any
    place: Any


NESTED = {
    "a leaf": 1,
    "a tuple": (1, 2),
    "a list": [1, [2, 3]],
    "a dict": {"b": 1, "a": (2, {"c": 3})},
    "a named tuple": Pair(1, [2, Pair(3, 4)]),
    "a dataclass": Body(1, {"x": Body(2, 3)}),
    "nothing in a tuple": (1, ()),
}


@pytest.mark.parametrize("name", NESTED)
def test_what_is_taken_apart_is_put_together(name: str) -> None:
    item = NESTED[name]
    tree, leaves = flatten(item)
    assert leaves == sorted(leaves)
    assert len(tree) == len(leaves) == len(tree.paths())
    assert unflatten(tree, leaves) == item
    assert leaves_like(tree, item, "x") == leaves


def test_leaves_have_paths() -> None:
    tree, _ = flatten({"p": Pair(1, [2, 3]), "x": 4})
    assert tree.paths() == ["p.w", "p.b.0", "p.b.1", "x"]
    assert tree.paths("f") == ["f.p.w", "f.p.b.0", "f.p.b.1", "f.x"]


def test_dicts_are_compared_by_their_keys_and_may_be_in_the_order_of_these() -> None:
    tree, _ = flatten({"w": 1, "b": 2})
    assert leaves_like(tree, OrderedDict(b=20, w=10), "p") == [10, 20]
    assert flatten({"w": 1, "b": 2}, by_key=True)[1] == [2, 1]


@pytest.mark.parametrize("item", [3.0, {"w": 1}, {"w": 1, "c": 2}, (1, 2), {"w": 1, "b": [2]}])
def test_other_containers_are_refused_by_path(item: Any) -> None:
    tree, _ = flatten({"w": 1, "b": {"x": 2}})
    with pytest.raises(InvalidArgumentError, match=r"^p(\.b)? should be dict of "):
        leaves_like(tree, item, "p")


def test_keys_must_be_text() -> None:
    with pytest.raises(InvalidArgumentError, match="text keys"):
        flatten({1: 2})


def test_tuples_of_numbers_are_arrays() -> None:
    assert is_array_like([1.0, 2])
    assert is_array_like(((1, 2), (3, 4)))
    assert not is_array_like([np.ones(2), np.ones(2)])
    assert not is_array_like(Pair(1, 2))
    assert not is_array_like(3.0)
