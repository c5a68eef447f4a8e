"""What travels to a worker: a kernel and a point once, and again only if the worker has dropped them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType
from gradwire_server.compute import workbench
from gradwire_server.compute.remote_worker import RemoteWorker
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue, ValueSource
from gradwire_server.compute.workbench import Delivery, Workbench
from gradwire_server.compute.worker import (
    BatchRequest,
    CompileRequest,
    EvaluateRequest,
    Executable,
    LoadableKernel,
    Point,
    RegisterRequest,
)

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
f (double[2] x, double[2] a) => (double[2] y) { y = Mul(x, a) }"""
PAIR = ArrayType("float64", (2,))


class LocalLink:
    """A link to a workbench in this process, which notes what is delivered."""

    name = "local"

    def __init__(self) -> None:
        self.workbench = Workbench(Limits(), 1 << 30)
        self.delivered: list[tuple[bool, bool]] = []

    async def source(self, value: SharedValue) -> ValueSource:
        return await value.inline()

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if arguments and isinstance(delivery := arguments[0], Delivery):
            self.delivered.append((delivery.kernel is not None, delivery.point is not None))
        return method(self.workbench, *arguments)

    async def register(self, data: ValueSource, request: RegisterRequest) -> RegisteredGraph:
        info, model, weights = self.workbench.register(data, request.text)
        return RegisteredGraph(info, SharedValue("model", model), SharedValue("weights", weights))

    def kill(self) -> None:
        pass


class Setup:
    """A worker over a local link, and a kernel for it: y = x a."""

    def __init__(self) -> None:
        self.link = LocalLink()
        self.worker = RemoteWorker(self.link)

    async def kernel(self, name: str) -> LoadableKernel:
        graph = await self.worker.register(RegisterRequest(SharedValue("graph", TEXT.encode()), True))
        spec = EvaluateSpec(FunctionSpec(graph.info.graph_id), (("x", PAIR), ("a", PAIR)))
        made = await self.worker.compile(CompileRequest(graph, spec))
        return LoadableKernel(graph, Executable(spec, made.facts, SharedValue(name, made.executable)))

    async def batch(self, kernel: LoadableKernel, point: str) -> np.ndarray[Any, Any]:
        inputs = {"a": SharedValue(f"{point} a", np.array([2.0, 3.0]))}
        request = BatchRequest(kernel, Point(point, inputs), {"x": np.array([1.0, 2.0])})
        return (await self.worker.batch(request)).arrays[0]


async def test_a_kernel_and_a_point_travel_with_the_first_call_alone() -> None:
    setup = Setup()
    kernel = await setup.kernel("k")
    for point in ("p", "p", "q", "p"):
        np.testing.assert_array_equal(await setup.batch(kernel, point), [2, 6])
    assert setup.link.delivered == [(True, True), (False, False), (False, True), (False, False)]


async def test_what_a_worker_has_dropped_travels_again() -> None:
    setup = Setup()
    kernel = await setup.kernel("k")
    await setup.batch(kernel, "p")
    setup.link.workbench = Workbench(Limits(), 1 << 30)
    np.testing.assert_array_equal(await setup.batch(kernel, "p"), [2, 6])
    assert setup.link.delivered[1:] == [(False, False), (True, True)]


async def test_a_point_beyond_those_that_a_worker_keeps_is_delivered_without_asking() -> None:
    setup = Setup()
    kernel = await setup.kernel("k")
    points = [str(number) for number in range(workbench.POINTS + 1)]
    for point in (*points, points[0]):
        await setup.batch(kernel, point)
    assert setup.link.delivered[1:] == [(False, True)] * (workbench.POINTS + 1)


async def test_a_delivery_that_fails_is_made_again_with_the_next_call() -> None:
    setup = Setup()
    kernel = await setup.kernel("k")
    setup.link.workbench = Workbench(Limits(), 1 << 30)
    broken = Executable(kernel.executable.spec, kernel.executable.facts, SharedValue("k", b"no kernel"))
    inputs = {"x": np.ones(2), "a": np.ones(2)}
    with pytest.raises(pickle.UnpicklingError):
        await setup.worker.evaluate(EvaluateRequest(LoadableKernel(kernel.graph, broken), inputs))
    computed = await setup.worker.evaluate(EvaluateRequest(kernel, inputs))
    np.testing.assert_array_equal(computed.arrays[0], [1, 1])
    assert setup.link.delivered == [(True, False), (False, False), (True, False)]
