"""Sparse derivatives have the same bits on any number of workers, and after workers were killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse

import gradwire as gw
from gradwire.frontends.sources import load
from gradwire_engine.planning.plan import PlanOptions, Problem
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.sparse_plan import plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec
from tests.conftest import wait_until_serving
from tests.engine import in_process
from tests.server import processes

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

Array = np.ndarray[Any, Any]


def band(x: Any) -> Any:
    return np.sin(x[3:]) * x[2:-1] + x[1:-2] ** 2 * np.exp(x[:-3])


def frame(x: Any) -> Any:
    return np.concatenate([np.sum(np.exp(x), keepdims=True), np.sin(x[1:]) * x[:1]])


def chain(x: Any) -> Any:
    return np.sum(np.exp(x[2:] * x[1:-1]) * x[:-2])


def _edges(count: int) -> tuple[Array, Array]:
    """A random mesh: points on a grid, each joined with some of those near it."""
    draw = np.random.default_rng(0)
    side = int(count**0.5)
    near = np.array([1, 2, side - 1, side, side + 1, 2 * side])
    starts = np.repeat(np.arange(count), 4)
    ends = starts + draw.choice(near, len(starts))
    pairs = np.unique(np.stack([starts, ends])[:, ends < count], axis=1)
    return pairs[0], pairs[1]


COUNT = 4_900
STARTS, ENDS = _edges(COUNT)


def mesh(x: Any) -> Any:
    d = x[STARTS] - x[ENDS]
    for _ in range(12):
        d = d + 0.1 * np.sin(d)
    return np.sum(np.exp(d))


CASES = {
    "column": (band, 400, "jacobian", {"mode": "forward", "block_width": 1}),
    "row": (band, 400, "jacobian", {"mode": "reverse", "block_width": 1}),
    "bidirectional": (frame, 60, "jacobian", {"block_width": 1}),
    "star": (chain, 300, "hessian", {"block_width": 1}),
    "acyclic": (mesh, COUNT, "hessian", {}),
}


def _point(size: int) -> Array:
    return np.random.default_rng(1).random(size)


def _computed(client: gw.Client, name: str) -> tuple[scipy.sparse.csr_array, Any]:
    function, size, kind, options = CASES[name]
    f = client.function(function, gw.spec(size))
    matrix, info = getattr(f, kind)(_point(size), sparse=True, return_info=True, **options)
    assert info.plan.sparse.coloring == name
    assert (info.plan.blocks > 1) == (name != "acyclic")
    return matrix, info


def _alone(name: str) -> scipy.sparse.csr_array:
    """The derivative by the engine in this process, block by block: as one worker computes it."""
    function, size, kind, options = CASES[name]
    graph = register(load(function, [gw.spec(size)]).embedded().SerializeToString())
    inputs = {graph.info.signature.inputs[0][0]: _point(size)}
    problem = Problem(
        FunctionSpec(graph.info.graph_id),
        in_process.argument_types(inputs),
        kind,
        options=PlanOptions(sparsity="sparse", **options),
    )
    planned = plan_derivative(graph, problem)
    structure = planned.structure
    assert structure is not None
    parts = [
        values for _, (values,) in in_process.blocks(graph, planned.plan, {**inputs, **structure.inputs})
    ]
    return scipy.sparse.coo_array(
        (np.concatenate(parts), (structure.rows, structure.columns)), planned.plan.joint_shape
    ).tocsr()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of four workers, which compute whatever is asked for."""
    from gradwire_server.process import embedded

    cache = tmp_path_factory.mktemp("cache")
    # A lost worker is found by the work that it was given, and by nothing else.
    quiet = {"spare_workers": 0, "heartbeat_seconds": 0.0}
    handle = embedded.start(workers=4, fast_path_flops=0.0, cache_dir=cache, log_level="error", **quiet)
    try:
        wait_until_serving(handle.address)
        yield handle
    finally:
        handle.stop()


@pytest.mark.parametrize("name", CASES)
def test_one_two_and_four_workers_give_the_same_bits_killed_in_between_or_not(
    server: EmbeddedServer, four: EmbeddedServer, name: str
) -> None:
    with gw.connect(server.address) as two, gw.connect(four.address) as client:
        expected, _ = _computed(client, name)
        for matrix in (_computed(two, name)[0], _alone(name)):
            np.testing.assert_array_equal(matrix.indices, expected.indices)
            assert matrix.data.tobytes() == expected.data.tobytes()
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(_computed(client, name)))
        # All stand still while blocks are handed out, and one dies with what it was given.
        standing = processes.workers(four.process_id)
        for process in standing:
            process.suspend()
        asking.start()
        time.sleep(1)
        standing[0].kill()
        for process in standing[1:]:
            process.resume()
        asking.join(120)
        # A single block may have gone to another; they take turns, and the next find the lost one.
        while not found[-1][1].summary.blocks_rerun:
            assert len(found) < 2 * len(standing)
            found.append(_computed(client, name))
        for matrix, _ in found:
            assert matrix.data.tobytes() == expected.data.tobytes()


def test_colors_for_substitution_are_told_and_drawn(server: EmbeddedServer) -> None:
    with gw.connect(server.address) as client:
        prepared = client.function(mesh, gw.spec(COUNT)).prepare_hessian()
    assert "(acyclic coloring)" in str(prepared.plan.sparse)
    colors = prepared.column_colors
    assert colors is not None and prepared.row_colors is None
    assert set(colors) == set(range(prepared.colors))
    beside = prepared.pattern.rows != prepared.pattern.columns
    assert (colors[prepared.pattern.rows] != colors[prepared.pattern.columns])[beside].all()
    title = gw.spy(prepared).get_title()
    assert f"{prepared.colors} column colors" in title
