"""Which blocks the serving process computes itself, and what they share."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from gradwire_engine.jaxprs.cost import Cost
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import Block
from gradwire_server.compute.fast_path import BlockInputs, FastPath
from gradwire_server.compute.shared_values import SharedValue
from gradwire_server.compute.worker import Computed, Executable, KernelFacts
from gradwire_server.settings import Settings


def executable(flops: float, trial: float) -> Executable:
    facts = KernelFacts("device", Cost(flops, 1, True), (), 0.1, trial)
    return Executable(EvaluateSpec(FunctionSpec("graph"), ()), facts, SharedValue("kernel", b""))


@pytest.mark.parametrize(
    ("flops", "trial", "here"),
    [(1e6, 1.0, True), (1e8, 1e-3, True), (1e8, 1.0, False)],
    ids=["few operations", "short when tried", "neither"],
)
def test_a_block_is_computed_here_if_a_worker_would_take_longer(
    flops: float, trial: float, here: bool
) -> None:
    assert FastPath(Settings()).pays(executable(flops, trial), 1_000_000) == here


class Waiting:
    """A kernel that runs until it is told to end."""

    inline = False

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def run(self, inputs: Any, block: Block | None = None) -> Computed:
        self.may_end.wait(10)
        return Computed((), 0.0)


async def test_blocks_go_to_workers_while_many_are_under_way_here() -> None:
    fast_path, kernel, cheap = FastPath(Settings()), Waiting(), executable(1e6, 1e-3)
    blocks: list[Any] = []
    while fast_path.pays(cheap, 1_000_000):
        blocks.append(fast_path.start(kernel, BlockInputs({}), Block(0, 0, 0, 1)))  # type: ignore[arg-type]
        assert len(blocks) < 100
    assert len(blocks) > 1
    tiny = replace(cheap.facts, cost=Cost(10.0, 1, True))
    assert fast_path.pays(replace(cheap, facts=tiny), 80), "a tiny kernel waits for nothing long"
    kernel.may_end.set()
    for block in blocks:
        await block
    assert fast_path.pays(cheap, 1_000_000)
    fast_path.close()


def test_blocks_of_a_request_share_the_arrays_that_the_first_placed() -> None:
    inputs = BlockInputs({"x": np.ones(3)})
    assert isinstance(inputs.placed()["x"], jax.Array)
    assert inputs.placed()["x"] is inputs.placed()["x"]
