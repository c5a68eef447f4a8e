"""The engine as a backend of onnx's own test suite: every model is handled as a user's is.

Bytes are registered, compiled for the types of the given arrays, and run. Every input is an argument.
Where the engine says that it needs a static value (the shape of a Reshape), the harness does what
the message tells a user to do: it makes that input a constant of the graph and registers again,
integers first, then as few floating inputs as possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep

from gradwire_engine.errors import ValueNeeded
from gradwire_engine.graphs.graph import Graph, parse
from gradwire_engine.lowering import evaluate
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine.in_process import evaluate as evaluate_function

Values = Mapping[str, Any]


class EngineRep(BackendRep):
    """A model prepared by the engine, as the suite runs it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[Any, ...]:
        """Returns outputs in order: NumPy arrays, lists of them for sequences, None for an empty optional."""
        names = [item.name for item in self.model.graph.input]
        if len(names) != len(inputs):
            initialized = {item.name for item in self.model.graph.initializer}
            names = [name for name in names if name not in initialized]
        arrays = [np.asarray(value) if isinstance(value, np.generic) else value for value in inputs]
        given = dict(zip(names, arrays, strict=False))
        needed: ValueNeeded | None = None
        for constant in tensor_choices(given):
            try:
                return self._run(given, constant)
            except ValueNeeded as error:
                needed = needed or error
        assert needed is not None
        raise needed

    def _run(self, given: Values, constant: frozenset[str]) -> tuple[Any, ...]:
        data = with_constants(self.model, {name: given[name] for name in constant})
        values = {name: value for name, value in given.items() if name not in constant}
        kept = [item for item in self.model.graph.input if item.name in values]
        if _are_tensors(kept) and _are_tensors(self.model.graph.output):
            graph = register(data)
            function = FunctionSpec(graph.info.graph_id)
            outputs = evaluate_function(graph, function, values)
            return tuple(outputs[name] for name, _ in graph.info.signature.outputs)
        return _interpreted(parse(data), values)


def _interpreted(graph: Graph, values: Values) -> tuple[Any, ...]:
    """Evaluates a model whose inputs or outputs no kernel has: sequences, optionals, strings."""
    model = graph.proto()
    tensors = {name: value for name, value in values.items() if _is_tensor(value)}
    others = {name: value for name, value in values.items() if name not in tensors}
    texts: dict[int, Any] = {}

    def run(weights: Values, tensors: Values) -> list[Any]:
        outputs = evaluate(model, {**weights, **others, **tensors})
        texts.update((index, value) for index, value in enumerate(outputs) if _is_text(value))
        return [None if _is_text(value) else value for value in outputs]

    outputs = jax.jit(run)(graph.weights, tensors)
    return tuple(texts.get(index, _to_numpy(value)) for index, value in enumerate(outputs))


def tensor_choices(given: Values) -> Iterator[frozenset[str]]:
    """Yields sets of inputs to make constants, fewest first: texts, all discrete ones, some floating."""
    tensors = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    texts = frozenset(name for name, value in tensors.items() if _is_text(value))
    floats = [name for name, value in tensors.items() if _is_tensor(value) and is_floating(value.dtype)]
    discrete = frozenset(tensors) - set(floats)
    yield texts
    for size in range(len(floats) + 1):
        for subset in combinations(floats, size):
            if discrete | set(subset) != texts:
                yield discrete | set(subset)


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Returns whether a dtype is a floating or complex one, NumPy's or ml_dtypes'."""
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not _is_text(value)


def _are_tensors(items: Iterable[onnx.ValueInfoProto]) -> bool:
    types = [item.type for item in items]
    text = onnx.TensorProto.STRING
    return all(item.HasField("tensor_type") and item.tensor_type.elem_type != text for item in types)


def with_constants(model: onnx.ModelProto, constants: Values) -> bytes:
    """Returns the bytes of a model some of whose inputs are constants."""
    if not constants:
        return model.SerializeToString()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kept = [item for item in model.graph.input if item.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
    kept_tensors = [item for item in model.graph.initializer if item.name not in constants]
    del graph.initializer[:]
    graph.initializer.extend(kept_tensors)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return copy.SerializeToString()


def _to_numpy(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_numpy(item) for item in value]
    return value if value is None else np.asarray(value)


class EngineBackend(Backend):
    """The engine under the interface of onnx's `BackendTest`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> EngineRep:
        return EngineRep(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"
