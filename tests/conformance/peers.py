"""Other evaluators of ONNX graphs as backends of the suite; each is measured where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from tests.conformance.onnx_backend import EngineBackend

Run = Callable[[dict[str, Any]], Sequence[Any]]
"""A function of inputs by name that returns outputs in order."""


class _Rep(BackendRep):
    def __init__(self, model: onnx.ModelProto, run: Run) -> None:
        self.model = model
        self.call = run

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        names = [item.name for item in self.model.graph.input]
        if len(names) != len(inputs):
            initialized = {item.name for item in self.model.graph.initializer}
            names = [name for name in names if name not in initialized]
        return tuple(self.call(dict(zip(names, inputs, strict=False))))


def _backend(load: Callable[[onnx.ModelProto], Run]) -> type[Backend]:
    class Peer(Backend):
        @classmethod
        def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
            return True

        @classmethod
        def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> _Rep:
            return _Rep(model, load(model))

        @classmethod
        def supports_device(cls, device: str) -> bool:
            return device == "CPU"

    return Peer


def _reference(model: onnx.ModelProto) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feeds: evaluator.run(None, feeds)


def _onnxruntime(model: onnx.ModelProto) -> Run:
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def _onnx2torch(model: onnx.ModelProto) -> Run:
    torch, convert = import_module("torch"), import_module("onnx2torch").convert
    module = convert(model)

    def run(feeds: dict[str, Any]) -> Sequence[Any]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(np.asarray(value)) for value in feeds.values()))
        return [item.numpy() for item in (outputs if isinstance(outputs, list | tuple) else [outputs])]

    return run


def _jaxonnxruntime(model: onnx.ModelProto) -> Run:
    backend = import_module("jaxonnxruntime").Backend
    prepared = backend.prepare(model)
    return lambda feeds: [np.asarray(item) for item in prepared.run(list(feeds.values()))]


BACKENDS: dict[str, tuple[str, Callable[[], type[Backend]]]] = {
    "gradwire": ("gradwire_engine", lambda: EngineBackend),
    "onnx.reference": ("onnx", lambda: _backend(_reference)),
    "onnxruntime": ("onnxruntime", lambda: _backend(_onnxruntime)),
    "onnx2torch": ("onnx2torch", lambda: _backend(_onnx2torch)),
    "jaxonnxruntime": ("jaxonnxruntime", lambda: _backend(_jaxonnxruntime)),
}
"""By name: the module that has to be installed, and a function that creates the backend."""


def installed() -> list[str]:
    """Returns the evaluators that are installed here."""
    return [name for name, (module, _) in BACKENDS.items() if find_spec(module) is not None]


def backend(name: str) -> type[Backend]:
    """Returns an evaluator as a backend of the suite."""
    return BACKENDS[name][1]()
