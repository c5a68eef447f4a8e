"""The engine's lowering as a backend of onnx's own test suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import jax
import numpy as np
import onnx
from gradwire_engine.errors import ValueNeeded
from gradwire_engine.lowering import evaluate
from onnx.backend.base import Backend, BackendRep

jax.config.update("jax_enable_x64", True)


class EngineRep(BackendRep):
    """A model prepared for evaluation: float inputs are traced, the rest are constants.

    A float input whose value decides the shape of a result (the scales of Resize) becomes a
    constant too, and only those that have to.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        names = [item.name for item in self.model.graph.input]
        initialized = {item.name for item in self.model.graph.initializer}
        if len(names) != len(inputs):
            names = [name for name in names if name not in initialized]
        given = dict(zip(names, inputs, strict=False))
        floats = [
            name
            for name, value in given.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "fc"
        ]
        chosen = [subset for size in range(len(floats) + 1) for subset in combinations(floats, size)]
        for constant in chosen[:-1]:
            try:
                return self._traced(given, set(floats) - set(constant))
            except ValueNeeded:
                continue
        return self._traced(given, ())

    def _traced(self, given: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
        traced = {name: given[name] for name in names}
        constants = {name: value for name, value in given.items() if name not in traced}

        def run(traced: dict[str, Any]) -> list[Any]:
            return evaluate(self.model, {**constants, **traced})

        return tuple(_to_numpy(value) for value in jax.jit(run)(traced))


def _to_numpy(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_numpy(item) for item in value]
    return value if value is None else np.asarray(value)


class EngineBackend(Backend):
    """What onnx's ``BackendTest`` drives."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> EngineRep:
        return EngineRep(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"
