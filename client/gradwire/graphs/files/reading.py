"""Reads ONNX models from objects, bytes, text and files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.helper
import onnx.parser
import onnx.shape_inference
from google.protobuf import text_format
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.files.inference import corrected, types_of
from gradwire.graphs.files.pruning import keep
from gradwire.graphs.signature import Shape, Value

_TEXT_SUFFIXES = {".txt", ".onnxtxt", ".onnxtext"}
_FORMATS = {
    ".json": "json",
    ".onnxjson": "json",
    ".textproto": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
}
"""Formats of `onnx.save`, by suffix; any other file is taken for the binary one."""
_LFS = b"version https://git-lfs"


def read(source: Any) -> onnx.ModelProto:
    """Read a model, with weights in other files, from an `onnx.ModelProto`, its bytes, its text or a path.

    The objects of exporters are taken as well: PyTorch's `ONNXProgram` and models of `onnx_ir`.

    Raises:
        InvalidArgumentError: the source is no model, or its weights are missing.
        OSError: a file cannot be read.
    """
    exported = exported_model(source)
    if exported is not None:
        return _whole(exported)
    if isinstance(source, onnx.ModelProto):
        return _whole(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _whole(_parse_bytes(bytes(source), "the given bytes"))
    if isinstance(source, str) and (source.lstrip().startswith("<") or "\n" in source):
        return _parse_text(source, "the ONNX text")
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source))
    raise InvalidArgumentError(
        f"cannot make a function of {type(source).__name__}: pass a function over NumPy arrays, "
        "an ONNX model, its bytes, its text, or the path of a .onnx file"
    )


def exported_model(source: Any) -> onnx.ModelProto | None:
    """Return the model in an exporter's object, None for anything else."""
    if type(source).__module__.partition(".")[0] == "onnx_ir":
        from onnx_ir import serde

        return serde.serialize_model(source)
    # torch.onnx.ONNXProgram, known without importing PyTorch.
    found = getattr(source, "model_proto", None) if type(source).__name__ == "ONNXProgram" else None
    return found if isinstance(found, onnx.ModelProto) else None


def _read_file(path: Path) -> onnx.ModelProto:
    data = path.read_bytes()
    if path.suffix in _TEXT_SUFFIXES or data.lstrip().startswith(b"<"):
        try:
            return _parse_text(data.decode("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{path}: the ONNX text is not UTF-8: {error}") from None
    form = _FORMATS.get(path.suffix)
    model = _parse_bytes(data, str(path)) if form is None else _parse_form(data, form, str(path))
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidArgumentError(
            f"{path}: its weights cannot be loaded: {error}; keep the files that the exporter wrote together"
        ) from None
    return model


def _whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model; raise `InvalidArgumentError` if weights are in other files."""
    for tensor in model.graph.initializer:
        if onnx.external_data_helper.uses_external_data(tensor):
            where = onnx.external_data_helper.ExternalDataInfo(tensor).location
            raise InvalidArgumentError(
                f"the values of {tensor.name!r} are in another file ({where}): pass the path of the model in "
                "place of its contents, or load them with onnx.load_external_data_for_model"
            )
    return model


def _parse_bytes(data: bytes, name: str) -> onnx.ModelProto:
    if data.startswith(_LFS):
        raise InvalidArgumentError(
            f"{name}: a pointer of Git LFS, not the model itself: git lfs pull brings it"
        )
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise InvalidArgumentError(
            f"{name}: not an ONNX model (the protobuf cannot be read: it is of another kind, or cut short)"
        ) from None
    if not model.HasField("graph"):
        raise InvalidArgumentError(f"{name}: not an ONNX model (it has no graph)")
    return model


def _parse_form(data: bytes, form: str, name: str) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data, format=form)
    except (ParseError, text_format.ParseError, UnicodeDecodeError, ValueError) as error:
        raise InvalidArgumentError(f"{name}: not an ONNX model in the format {form}: {error}") from None
    if not model.HasField("graph"):
        raise InvalidArgumentError(f"{name}: not an ONNX model (it has no graph)")
    return model


def _parse_text(text: str, name: str) -> onnx.ModelProto:
    try:
        return onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise InvalidArgumentError(f"{name} cannot be read: {_reason(error)}") from None


def _reason(error: onnx.parser.ParseError) -> str:
    reason = error.args[0] if error.args else ""
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def with_numbers_alone(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Remove outputs that are not numeric tensors, with the nodes and inputs that only they need.

    Exported classifiers have text labels, and a ZipMap that turns their probabilities into dictionaries. The
    labels are removed, and the ZipMap is replaced by its input.

    Returns:
        The changed copy, or the model itself if there is nothing to change; and the names of the outputs that
        were removed.

    Raises:
        InvalidArgumentError: no output is a numeric tensor.
    """
    zipped = {name for node in model.graph.node if _is_zip(node) for name in node.output}
    left_out = tuple(
        value.name for value in model.graph.output if value.name not in zipped and not _is_numeric(value)
    )
    if not (zipped or left_out):
        return model, ()
    if len(left_out) == len(model.graph.output):
        names = ", ".join(f"{value.name!r} is {_kind(value)}" for value in model.graph.output)
        raise InvalidArgumentError(
            f"no output of the model is an array of numbers: {names}; choose arrays inside the graph with "
            "outputs=, or export the model with tensors as outputs"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for node in graph.node:
        if _is_zip(node):
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    kept = [value for value in graph.output if value.name not in left_out]
    del graph.output[:]
    needed = keep(graph, [value.name for value in kept])
    inputs = [value for value in graph.input if _is_numeric(value) or value.name in needed]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.output.extend(_with_numbers(value) for value in kept)
    return changed, left_out


def _is_zip(node: onnx.NodeProto) -> bool:
    return node.op_type == "ZipMap" and node.domain == "ai.onnx.ml"


def _is_numeric(value: onnx.ValueInfoProto) -> bool:
    return not _kind(value)


def _kind(value: onnx.ValueInfoProto) -> str:
    """Return what a value is if it is no numeric tensor, else ""."""
    kind = value.type.WhichOneof("value")
    if kind is None or kind == "tensor_type":
        return "text" if value.type.tensor_type.elem_type == onnx.TensorProto.STRING else ""
    names = {"sequence_type": "a sequence", "map_type": "a dictionary", "optional_type": "an optional"}
    return names.get(kind, "a sparse tensor")


def _with_numbers(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """Return an output; one that was dictionaries of floats is an array of them."""
    if _is_numeric(value):
        return value
    return onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, None)


def with_types_that_follow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model, or a copy in which outputs have the types that follow where they declare others."""
    if not model.graph.output:
        return model
    types = types_of(model)
    outputs = [corrected(value, types.get(value.name)) for value in model.graph.output]
    if all(new is old for new, old in zip(outputs, model.graph.output, strict=True)):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.extend(outputs)
    return changed


def value_of(info: onnx.ValueInfoProto) -> Value:
    """Return an input or output as a signature has it."""
    if not info.type.HasField("tensor_type"):
        return Value(info.name, None, None)
    tensor = info.type.tensor_type
    return Value(info.name, _dtype(tensor.elem_type), _shape(tensor))


def _dtype(element_type: int) -> np.dtype[Any] | None:
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))
        wire.data_type(dtype)
    except (KeyError, wire.WireError):  # strings, 8-bit floats, undefined: not supported by the wire
        return None
    return dtype


def _shape(tensor: onnx.TypeProto.Tensor) -> Shape:
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or None
        for dim in tensor.shape.dim
    )
