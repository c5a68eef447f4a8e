"""A client whose functions are evaluated by the engine in this process, and which counts evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from gradwire.frontends.sources import load
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.signature import FunctionSpec, Signature, Transform
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning import transforms
from gradwire_engine.planning.kernels import EvaluateSpec, compile_kernel
from gradwire_engine.planning.registration import register
from gradwire_engine.values import ArrayType


class EngineClient:
    """The part of a client that `gradwire.jax.remote` uses."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        """The kinds of transforms and the batched inputs of each evaluation."""

    def function(self, source: BoundModel | onnx.ModelProto, verify: str | None = None) -> EngineFunction:
        model = load(source, ())
        spec = FunctionSpec(model.graph_id, model.signature)
        constants = {name: constant.array for name, constant in model.bound.items()}
        return EngineFunction(self, register(model.data), spec, constants)


class EngineFunction:
    """The part of a function on the service that `gradwire.jax.remote` uses."""

    def __init__(
        self, client: EngineClient, graph: Graph, spec: FunctionSpec, constants: Mapping[str, Any]
    ) -> None:
        self._client, self._graph, self._spec, self._constants = client, graph, spec, constants

    @property
    def signature(self) -> Signature:
        return self._spec.signature

    def as_jvp(self, wrt: Sequence[str], of: Sequence[str]) -> EngineFunction:
        return self._then("jvp", wrt, of)

    def as_vjp(self, wrt: Sequence[str], of: Sequence[str]) -> EngineFunction:
        return self._then("vjp", wrt, of)

    def _then(self, kind: str, wrt: Sequence[str], of: Sequence[str]) -> EngineFunction:
        spec = self._spec.then(Transform(kind, tuple(wrt), tuple(of)))
        return EngineFunction(self._client, self._graph, spec, self._constants)

    def value(self, inputs: Mapping[str, Any], /, *, batched: Sequence[str] | None = None) -> Any:
        leading = tuple(batched or ())
        steps = tuple(
            {"jvp": transforms.Jvp, "vjp": transforms.Vjp}[step.kind](step.wrt, step.of)
            for step in self._spec.transforms
        )
        function = transforms.FunctionSpec(self._graph.info.graph_id, steps)
        arrays = {name: np.asarray(array) for name, array in {**inputs, **self._constants}.items()}
        arguments = tuple((name, ArrayType(array.dtype.name, array.shape)) for name, array in arrays.items())
        kernel = compile_kernel(self._graph, EvaluateSpec(function, arguments, (), leading))
        self._client.calls.append((" ".join(step.kind for step in self._spec.transforms) or "value", leading))
        outputs = kernel.run(self._graph.weights, arrays)
        return tuple(outputs) if len(outputs) != 1 else outputs[0]
