"""Reads ONNX models from objects, bytes, text and files."""

import os
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.helper
import onnx.parser
import onnx.shape_inference
from google.protobuf.message import DecodeError

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.pruning import keep

_TEXT_SUFFIXES = {".txt", ".onnxtxt"}
_LFS = b"version https://git-lfs"


def read(source: Any) -> onnx.ModelProto:
    """Read a model, with weights in other files, from an `onnx.ModelProto`, its bytes, its text or a path.

    Raises:
        InvalidArgumentError: the source is no model, or its weights are missing.
        OSError: a file cannot be read.
    """
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


def _read_file(path: Path) -> onnx.ModelProto:
    data = path.read_bytes()
    if path.suffix in _TEXT_SUFFIXES or data.lstrip().startswith(b"<"):
        try:
            return _parse_text(data.decode("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{path}: the ONNX text is not UTF-8: {error}") from None
    model = _parse_bytes(data, str(path))
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
    """Remove outputs that are not numeric tensors, with the nodes that only they need.

    Exported classifiers have text labels, and a ZipMap that turns their probabilities into dictionaries. The
    labels are removed, and the ZipMap is replaced by its input.

    Returns:
        The changed copy, or the model itself if there is nothing to change or if it has no numeric output;
        and the names of the outputs that were removed.
    """
    zips = [node for node in model.graph.node if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml"]
    left_out = tuple(
        value.name
        for value in model.graph.output
        if not (value.name in {name for node in zips for name in node.output} or _is_numeric(value))
    )
    if not (zips or left_out) or len(left_out) == len(model.graph.output):
        return model, ()
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for node in graph.node:
        if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml":
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    kept = [value for value in graph.output if value.name not in left_out]
    del graph.output[:]
    keep(graph, [value.name for value in kept])
    graph.output.extend(_typed(changed, kept))
    return changed, left_out


def _is_numeric(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is None or (
        kind == "tensor_type" and value.type.tensor_type.elem_type != onnx.TensorProto.STRING
    )


def _typed(model: onnx.ModelProto, outputs: list[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    """Return outputs, with inferred types for those that became numeric."""
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    return [value if _is_numeric(value) else inferred.get(value.name, value) for value in outputs]
