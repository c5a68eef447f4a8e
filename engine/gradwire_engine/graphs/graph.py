"""Parses untrusted bytes to a checked graph: model, weights and signature.

A graph's id is the SHA-256 of the bytes it was registered as. Large constants are taken out of the model and
become arguments of everything that is compiled from it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import frexp, isfinite, prod
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from gradwire_engine.errors import InvalidGraph, LimitExceeded, one_line
from gradwire_engine.graphs.checks import (
    bodies_of,
    functions_of,
    read_bytes,
    read_text,
    refuse_excess,
    refuse_external_data,
    refuse_undecodable,
    tensors_in,
)
from gradwire_engine.graphs.choices import apply
from gradwire_engine.graphs.nodes import graphs_in, nodes_in
from gradwire_engine.graphs.repairs import checked, keep_numbers, tidy
from gradwire_engine.graphs.steps import warnings_of
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import find_rule
from gradwire_engine.lowering.domains import domain_of, opsets_of
from gradwire_engine.values import STRAIGHT_THROUGH, Choices, GraphInfo, Signature, TensorType

PINNED_OPSET = 21
"""Models too old for a rule are converted up to this opset; newer ones are read at their own."""

INLINE_FLOATS = 64
"""Floating constants of at most this many elements stay in the model, where XLA can fold them."""

INLINE_INTEGERS = 1 << 14
"""Integer constants of at most this many elements stay in the model: shapes, axes, small index tables."""


@dataclass(frozen=True)
class Graph:
    """A checked graph, ready to be lowered in any process.

    Attributes:
        info: identity, signature and warnings.
        model: the serialized model without its weights, at an opset that the rules read.
        weights: the large constants, by name.
    """

    info: GraphInfo
    model: bytes
    weights: dict[str, np.ndarray[Any, Any]]

    def proto(self) -> ModelProto:
        """Return the model as a message."""
        model = ModelProto()
        model.ParseFromString(self.model)
        return model


def fingerprint(data: bytes, choices: Choices | None = None) -> str:
    """Return the id of the graph registered as `data`; other choices make another graph."""
    digest = hashlib.sha256(data)
    if choices:
        choices.update(digest)
    return digest.hexdigest()


def parse(
    data: bytes,
    *,
    text: bool = False,
    limits: Limits | None = None,
    choices: Choices | None = None,
    graph_id: str = "",
    numbers_alone: bool = False,
) -> Graph:
    """Read, check and normalise a graph.

    Args:
        data: a serialized `ModelProto`, or UTF-8 text in ONNX's textual form if `text`.
        text: whether it is text.
        limits: bounds on its size.
        choices: its constants, inputs, outputs and rounding; the model's own where None.
        graph_id: the id to give it; its fingerprint by default.
        numbers_alone: whether to leave out outputs that are no arrays of numbers, with a warning.

    Raises:
        InvalidGraph: it is not a model, fails the checker's full check (types and shapes included),
            keeps data outside of itself, or uses an operator that is not supported.
        InvalidInput: a choice does not fit it.
        LimitExceeded: it is over a limit.
    """
    limits = limits or Limits()
    if len(data) > limits.graph_bytes:
        raise LimitExceeded(
            f"the graph has {len(data)} bytes; the limit is {limits.graph_bytes}",
            "graph_bytes",
            limits.graph_bytes,
            len(data),
        )
    model = read_text(data) if text else read_bytes(data)
    model.ClearField("training_info")
    refuse_external_data(model)
    refuse_excess(model, limits)
    refuse_undecodable(model)
    tidy(model, limits)
    warnings: tuple[str, ...] = ()
    chosen = choices or Choices()
    if chosen:
        apply(model, chosen)
    if numbers_alone:
        warnings = keep_numbers(model)
    checked(model, by_structure=bool(chosen.fixed))
    model = _with_rules(model)
    signature = _signature(model)
    straight_through = chosen.rounding == STRAIGHT_THROUGH
    warnings += (*_rounded_constants(model), *warnings_of(model, straight_through=straight_through))
    weights = _take_weights(model)
    info = GraphInfo(
        graph_id=graph_id or fingerprint(data, chosen),
        signature=signature,
        forward_only=False,
        forward_only_reason="",
        warnings=warnings,
        node_count=sum(1 for owner in bodies_of(model) for _ in nodes_in(owner)),
        weight_bytes=sum(array.nbytes for array in weights.values()),
        opset=opsets_of(model).get("", 0),
        straight_through=straight_through,
        own_derivatives=any(
            node.op_type == "CustomDerivative" for owner in bodies_of(model) for node in nodes_in(owner)
        ),
    )
    return Graph(info, model.SerializeToString(), weights)


def _unsupported(model: ModelProto) -> tuple[NodeProto, int] | None:
    """Find the first node that has neither a rule nor a function body, and its opset."""
    local = functions_of(model)
    imported = opsets_of(model)
    for owner in bodies_of(model):
        opsets = imported if isinstance(owner, GraphProto) else {**imported, **opsets_of(owner)}
        for node in nodes_in(owner):
            domain = domain_of(node)
            opset = opsets.get(domain, 1)
            if (domain, node.op_type, node.overload) in local or find_rule(domain, node.op_type, opset):
                continue
            if onnx.defs.has(node.op_type, opset, domain):
                schema = onnx.defs.get_schema(node.op_type, opset, domain)
                if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
                    continue
            return node, opset
    return None


def _with_rules(model: ModelProto) -> ModelProto:
    """Return the model at an opset at which every operator can be evaluated."""
    missing = _unsupported(model)
    if missing is None:
        return model
    if opsets_of(model).get("", PINNED_OPSET) < PINNED_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, PINNED_OPSET)
        except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
            raise InvalidGraph(
                f"the model is of opset {opsets_of(model).get('')} and cannot be converted to "
                f"{PINNED_OPSET}: {one_line(error)}"
            ) from None
        missing = _unsupported(model)
        if missing is None:
            return model
    node, opset = missing
    where = f"domain {node.domain!r}" if node.domain else "ONNX"
    raise InvalidGraph(
        f"node {node.name or '(unnamed)'}: operator {node.op_type} of {where} (opset {opset}) "
        f"is not supported{_advice(node)}"
    )


def _advice(node: NodeProto) -> str:
    if node.domain.startswith("com.microsoft"):
        return (
            ": onnxruntime's optimizer writes it; export without the optimizer, or take the model as it was "
            "before"
        )
    return ""


def _tensor_type(info: onnx.ValueInfoProto) -> TensorType:
    if not info.type.HasField("tensor_type"):
        return TensorType("", None)
    tensor = info.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        raise InvalidGraph(f"{info.name!r} has no element type") from None
    if tensor.elem_type == TensorProto.STRING:
        dtype = "string"
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor.shape.dim
    )
    return TensorType(dtype, shape)


def _signature(model: ModelProto) -> Signature:
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {sparse.values.name for sparse in graph.sparse_initializer}
    inputs = tuple((item.name, _tensor_type(item)) for item in graph.input if item.name not in constants)
    outputs = tuple((item.name, _output_type(item)) for item in graph.output)
    if len({name for name, _ in outputs}) != len(outputs):
        raise InvalidGraph("an output is listed twice: " + ", ".join(name for name, _ in outputs))
    return Signature(inputs, outputs)


def _output_type(info: onnx.ValueInfoProto) -> TensorType:
    if info.type.HasField("tensor_type") and not info.type.tensor_type.elem_type:
        return TensorType("", None)
    return _tensor_type(info)


def _rounded_constants(model: ModelProto) -> Iterator[str]:
    """Yield warnings for float64 constants that were rounded to float32: 0.1 stored as 0.10000000149."""
    for tensor in tensors_in(model):
        # Single numbers are a program's literals; arrays may have been float32 with good reason.
        if tensor.data_type != TensorProto.DOUBLE or prod(tensor.dims) != 1:
            continue
        for value in np.ravel(numpy_helper.to_array(tensor)).tolist():
            if _is_rounded(value):
                yield (
                    f"constant {tensor.name or '(unnamed)'} is {value!r} in float64, which is "
                    f"{np.float32(value)!s} rounded to float32: the exporter lost digits; "
                    "derivatives are off by about 1e-8"
                )
                break


def _is_rounded(value: float) -> bool:
    """Return whether a double is a float32 that stands for some shorter decimal number."""
    if not isfinite(value) or abs(value) >= float(np.finfo(np.float32).max):
        return False
    single = np.float32(value)
    # Fractions of few binary digits, powers of two among them, are exact in both.
    few_bits = (frexp(value)[0] * 2**16).is_integer()
    # 3e+07 is shorter than 30000000.0, and the same number.
    rounded = float(single) == value != float(str(single))
    return rounded and not few_bits and len(repr(value)) >= len(str(single)) + 5


def _take_weights(model: ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Move large constants out of the model, in place.

    Names are unique within a graph and what encloses it, so a constant of a subgraph is found in the
    enclosing scope under its own name; where two branches share a name, theirs stay inside. So do those
    of functions, which see no scope but their own.
    """
    weights: dict[str, np.ndarray[Any, Any]] = {}
    graphs = [graph for graph in graphs_in(model.graph) if isinstance(graph, GraphProto)]
    names: Counter[str] = Counter()
    for graph in graphs:
        # An initializer that is listed as an input too, to give its default, is one value.
        names.update({item.name for item in graph.input} | {tensor.name for tensor in graph.initializer})
        names.update(output for node in graph.node for output in node.output)
    shared = {name for name, count in names.items() if count > 1}
    for graph in graphs:
        kept = []
        for tensor in graph.initializer:
            if _is_large(tensor) and tensor.name not in shared:
                weights[tensor.name] = numpy_helper.to_array(tensor)
            else:
                kept.append(tensor)
        if len(kept) != len(graph.initializer):
            copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
            del graph.initializer[:]
            graph.initializer.extend(copies)
        large = [
            index
            for index, node in enumerate(graph.node)
            if node.op_type == "Constant"
            and len(node.attribute) == 1
            and node.attribute[0].HasField("t")
            and _is_large(node.attribute[0].t)
            and node.output[0] not in shared
        ]
        for index in reversed(large):
            node = graph.node[index]
            weights[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            del graph.node[index]
    return weights


def _is_large(tensor: TensorProto) -> bool:
    size = int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1
    floating = tensor.data_type in (
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
    )
    return tensor.data_type != TensorProto.STRING and size > (INLINE_FLOATS if floating else INLINE_INTEGERS)
