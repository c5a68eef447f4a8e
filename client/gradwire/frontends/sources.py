"""Loads models from what users pass to `client.function`: Python functions, ONNX models, files, text.

A front-end registers a converter for its framework's objects under the name of the framework's top-level
package. Its module, and so the framework, is imported only when such an object is seen:

    converters["torch"] = export_torch      # (source, specs, names) -> BoundModel or onnx.ModelProto
"""

import hashlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import onnx
import onnx.helper
from google.protobuf.message import DecodeError

from gradwire.errors import GradwireError, GraphWarning, InvalidArgumentError
from gradwire.frontends.closures import top_package
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.files.reading import (
    exported_model,
    read,
    value_of,
    with_numbers_alone,
    with_types_that_follow,
)
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Signature
from gradwire.graphs.spec import ArraySpec, spec_of
from gradwire.graphs.trees import flatten, is_array_like, unflatten
from gradwire.tracebacks import shortened

Source = Callable[..., Any] | BoundModel | onnx.ModelProto | bytes | str | os.PathLike[str]
"""A Python function over NumPy, an ONNX model (object, bytes, path or text), or a framework's object."""

Converter = Callable[[Any, Sequence[ArraySpec], Sequence[str] | None], BoundModel | onnx.ModelProto]

converters: dict[str, Converter] = {}
"""Converters by the top-level package ("torch", "jax") of a source's type or of the function itself."""

_FRAMEWORKS = {
    "equinox": "gradwire.jax",
    "jax": "gradwire.jax",
    "jaxlib": "gradwire.jax",
    "sklearn": "gradwire.sklearn",
    "torch": "gradwire.torch",
}
"""Modules that register converters, by the top-level package of what they convert."""


def load(
    source: Source, specs: Sequence[Any], names: Sequence[str] | None = None, *, whole: bool = False
) -> Model:
    """Load a model from any source.

    Args:
        source: a Python function, an ONNX model, its bytes, text or path, or a framework's object.
        specs: the arguments of a Python function or a framework's object, or arrays, nested as they are.
        names: names of its inputs; by default those of the specs or the function's parameters.
        whole: whether a model keeps what its outputs of numbers do not need.

    Raises:
        InvalidArgumentError: the source is no model, or specs are missing or superfluous.
        OSError: a file cannot be read.
        TraceError: a function cannot be traced.
    """
    source = exported_model(source) or source
    arrays = tuple(map(specs_like, specs))
    try:
        model = _load(source, arrays, names, whole)
    except Exception as error:
        error.__traceback__ = shortened(error)
        raise
    if not callable(source):
        return model
    # The inputs come in the order of the model's own trees: JAX's has the entries of dicts sorted.
    known = model.structure
    trees = [flatten(one)[0] for one in arrays] if known is None else [tree for _, tree in known.arguments]
    inputs = [value.name for value in model.signature.inputs]

    def again(shapes: Sequence[ArraySpec]) -> Model:
        leaves = iter(shapes)
        return load(source, [unflatten(tree, leaves) for tree in trees], names=inputs)

    return replace(model, again=again)


def specs_like(argument: Any) -> Any:
    """Return the spec of an array, or specs nested as arrays are; specs stay as they are."""
    tree, leaves = flatten(argument, is_array_like)
    return unflatten(tree, [one if isinstance(one, ArraySpec) else spec_of(one) for one in leaves])


def _load(source: Source, arrays: Sequence[ArraySpec], names: Sequence[str] | None, whole: bool) -> Model:
    convert = _converter(source)
    symbolic = any(leaf.symbolic for one in arrays for leaf in flatten(one)[1])
    if convert is not None:
        if symbolic:
            raise InvalidArgumentError(
                "sizes by name are for NumPy functions: give the specs of another framework's function their "
                "numbers, as in gw.spec(100)"
            )
        return from_proto(convert(source, arrays, names))
    if callable(source):
        if not arrays:
            raise InvalidArgumentError(
                "a Python function needs the shapes of its inputs: client.function(fn, gw.spec((2, 3)), ...)"
            )
        return from_proto(_traced(source, arrays, names))
    if arrays or names is not None:
        raise InvalidArgumentError(
            "a model says its own inputs: leave out the specs and names, or pass a Python function"
        )
    return from_proto(_read(source, whole))


def _converter(source: Any) -> Converter | None:
    modules = [kind.__module__ for kind in type(source).__mro__]
    if callable(source):
        modules.append(getattr(source, "__module__", None) or "")
    return next((found for root in map(top_package, modules) if (found := _registered(root))), None)


def _registered(root: str) -> Converter | None:
    if root not in converters and root in _FRAMEWORKS:
        import_module(_FRAMEWORKS[root])
    return converters.get(root)


def _traced(
    source: Callable[..., Any], specs: Sequence[ArraySpec], names: Sequence[str] | None
) -> BoundModel | onnx.ModelProto:
    """Traces a function with NumPy, or converts it with JAX or PyTorch if these refuse the traced arrays."""
    # Here: those who bring a model need no tracer.
    from gradwire.frontends.numpy import trace_function

    try:
        return trace_function(source, specs, names).bound
    except Exception as error:
        if any(leaf.symbolic for one in specs for leaf in flatten(one)[1]):
            raise
        root = "jax" if _raised_by_jax(error) else "torch" if _raised_by_torch(error) else ""
        convert = _registered(root)
        if convert is None:
            raise
        return convert(source, specs, names)


def _raised_by_jax(error: Exception) -> bool:
    """Return whether JAX raised an error: its message names JAX, or a frame of JAX is in the traceback."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    folder = os.path.dirname(jax.__file__ or "") + os.sep
    frames = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    texts = (str(error), *getattr(error, "__notes__", ()))
    return any("JAX" in text for text in texts) or any(name.startswith(folder) for name in frames)


def _raised_by_torch(error: Exception) -> bool:
    """Return whether PyTorch raised an error because it was given a traced array."""
    return "torch" in sys.modules and isinstance(error, TypeError) and "Tensor" in str(error)


def _read(source: Any, whole: bool) -> BoundModel | onnx.ModelProto:
    if isinstance(source, BoundModel):
        return source
    model, left_out = (read(source), ()) if whole else with_numbers_alone(read(source))
    for name in left_out:
        warnings.warn(f"output {name!r} is left out: it is no array of numbers", GraphWarning, stacklevel=2)
    return with_types_that_follow(model)


def from_proto(model: BoundModel | onnx.ModelProto) -> Model:
    """Serialize a model deterministically, without metadata about its origin.

    Raises:
        GradwireError: the model is too large to be serialized.
    """
    given = model if isinstance(model, BoundModel) else BoundModel(model)
    clean = onnx.ModelProto()
    clean.CopyFrom(given.proto)
    _strip(clean)
    try:
        data = clean.SerializeToString(deterministic=True)
    except (ValueError, DecodeError) as error:
        raise GradwireError(f"the model cannot be serialized ({error}); models end at 2 GiB") from None
    whole = signature_of(clean)
    shown = Signature(tuple(value for value in whole.inputs if value.name not in given.bound), whole.outputs)
    graph_id = hashlib.sha256(data).hexdigest()
    return Model(data, graph_id, shown, given.bound, reference=given.reference, structure=given.structure)


def _strip(model: onnx.ModelProto) -> None:
    # Exporters leave source paths and stack traces here. They are private, and would give the same graph
    # another id on every machine.
    _forget(model)
    _strip_graph(model.graph)
    for function in model.functions:
        _forget(function)
        _strip_nodes(function.node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    _forget(graph)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            _forget(value)
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _forget(node)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip_graph(attribute.g)
            for graph in attribute.graphs:
                _strip_graph(graph)


def _forget(message: Any) -> None:
    message.ClearField("doc_string")
    message.ClearField("metadata_props")


def signature_of(model: onnx.ModelProto) -> Signature:
    """Return the inputs without an initializer, and the outputs, of a model's graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(value_of(info) for info in model.graph.input if info.name not in constants)
    return Signature(inputs, tuple(value_of(info) for info in model.graph.output))
