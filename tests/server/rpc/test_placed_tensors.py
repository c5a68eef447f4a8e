"""Uploaded arrays stay where they are computed with, from one request to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType
from gradwire_server.compute.fast_path import FastPath
from gradwire_server.compute.shared_values import GraphSource, InlineSource, SharedValue
from gradwire_server.compute.workbench import Delivery, KernelSource, Workbench
from gradwire_server.settings import Settings

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
f (double[2] x, double[2] a) => (double[2] y) { y = Mul(x, a) }"""


class Counted:
    """A source that counts how often it is fetched."""

    def __init__(self, key: str, value: Any, lasting: bool) -> None:
        self.key, self.lasting, self._value = key, lasting, value
        self.fetched = 0

    def get(self) -> Any:
        self.fetched += 1
        return self._value


class Bench:
    """A workbench with one graph, y = x a, evaluated over sources."""

    def __init__(self, cache_bytes: int = 1 << 30) -> None:
        self.workbench = Workbench(Limits(), cache_bytes)
        data = onnx.parser.parse_model(TEXT).SerializeToString()
        info, model, weights = self.workbench.register(InlineSource("graph", data), False)
        self.graph = GraphSource(info, InlineSource("model", model), InlineSource("weights", weights))
        two = ArrayType("float64", (2,))
        self.spec = EvaluateSpec(FunctionSpec(info.graph_id), (("x", two), ("a", two)))
        self.compiled = self.workbench.compile(self.graph, self.spec)

    def evaluate(self, a: Counted) -> np.ndarray[Any, Any]:
        executable = InlineSource("kernel", self.compiled.executable)
        kernel = KernelSource("kernel", self.graph, self.spec, self.compiled.facts, executable)
        inputs = {"x": np.array([1.0, 2.0]), "a": a}
        return self.workbench.evaluate(Delivery(kernel), kernel.key, inputs).arrays[0]


def test_a_worker_fetches_an_uploaded_array_once() -> None:
    bench, source = Bench(), Counted("id", np.array([3.0, 5.0]), lasting=True)
    for _ in range(3):
        np.testing.assert_array_equal(bench.evaluate(source), [3, 10])
    assert source.fetched == 1


def test_what_one_request_brought_is_not_kept_for_another() -> None:
    bench = Bench()
    for value in (3.0, 4.0):
        source = Counted("same key", np.full(2, value), lasting=False)
        np.testing.assert_array_equal(bench.evaluate(source), [value, 2 * value])
        assert source.fetched == 1


def test_a_worker_keeps_as_many_bytes_of_arrays_as_it_may() -> None:
    bench = Bench(cache_bytes=320)  # of which an eighth is for arrays
    sources = [Counted(str(number), np.full(2, number), lasting=True) for number in (1.0, 2.0, 3.0)]
    for source in (*sources, sources[2], sources[0]):
        bench.evaluate(source)
    assert [source.fetched for source in sources] == [2, 1, 1]


async def test_the_fast_path_places_an_uploaded_array_once() -> None:
    fast_path = FastPath(Settings())
    shared = SharedValue("id", np.ones(3), nbytes=24, lasting=True)
    assert fast_path.tensor("id") is None
    first = await fast_path.inputs({"a": shared, "b": np.zeros(1)})
    second = await fast_path.inputs({"c": shared})
    assert first["a"] is second["c"] is fast_path.tensor("id")
    np.testing.assert_array_equal(first["a"], np.ones(3))
    passing = SharedValue("other", np.ones(3), nbytes=24)
    assert isinstance((await fast_path.inputs({"a": passing}))["a"], np.ndarray)
    assert fast_path.tensor("other") is None
    fast_path.close()


async def test_what_a_shared_value_says_of_itself_reaches_the_worker() -> None:
    assert (await SharedValue("id", b"", lasting=True).inline()).lasting
    assert not (await SharedValue("id", b"").inline()).lasting
