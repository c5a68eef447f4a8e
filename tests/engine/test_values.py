"""Blocks in a row."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gradwire_engine.values import Block, Blocks

SOME = [Block(k, k % 3, 5 * k, 5 * k + 5, k, k + 1) for k in range(3000)]


def test_blocks_are_a_sequence_of_what_they_were_made_of() -> None:
    blocks = Blocks(SOME)
    assert list(blocks) == SOME and len(blocks) == 3000
    assert blocks[7] == SOME[7] and blocks[-1] == SOME[-1] and list(blocks[2:4]) == SOME[2:4]
    assert isinstance(blocks[7].start, int)
    with pytest.raises(IndexError):
        blocks[3000]
    assert blocks == Blocks(iter(SOME)) and blocks != Blocks(SOME[1:]) and Blocks() == Blocks([])
    assert not Blocks() and list(Blocks()) == []


def test_blocks_are_chosen_with_their_own_numbers() -> None:
    mask = np.zeros(3000, bool)
    mask[[4, 2999]] = True
    chosen = Blocks(SOME).chosen(mask)
    assert list(chosen) == [SOME[4], SOME[2999]]
    assert chosen.arrays == (1, 2) and Blocks().arrays == ()


def test_a_million_blocks_travel_as_one_array() -> None:
    blocks = Blocks(SOME)
    data = pickle.dumps(blocks, protocol=5)
    assert pickle.loads(data) == blocks
    assert len(data) < 50 * len(SOME)
