"""The domains of ONNX operators, and the opset versions that models import of them."""

from __future__ import annotations

from onnx import FunctionProto, ModelProto, NodeProto, OperatorSetIdProto


def domain_of(item: NodeProto | FunctionProto | OperatorSetIdProto) -> str:
    """Return the domain of a node, function or import; "" for both spellings of ONNX's own."""
    return "" if item.domain == "ai.onnx" else item.domain


def opsets_of(owner: ModelProto | FunctionProto) -> dict[str, int]:
    """Return the opset versions that a model or function imports, by domain."""
    return {domain_of(item): item.version for item in owner.opset_import}
