"""Translates between wire messages and the engine's values."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.plan import Entry, Plan, PlanOptions, Problem, SparseLayout
from gradwire_engine.planning.transforms import FunctionSpec, Gradient, Hvp, Jvp, Transform, Vjp
from gradwire_engine.values import Arguments, ArrayType, GraphInfo, Named
from gradwire_server.compute.caches.store import Store
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.compute.worker import Point
from gradwire_wire.choices import ROUNDING_NAMES, GraphChoices
from gradwire_wire.kinds import (
    COLORINGS,
    KIND_NAMES,
    KINDS,
    MODE_NAMES,
    PLANNED_MODES,
    SPARSITY_NAMES,
)
from gradwire_wire.v1 import derivative_pb2, function_pb2, graph_pb2, tensor_pb2

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Inputs:
    """A request's inputs: their types, sorted by name, and their elements."""

    arguments: Arguments
    values: Mapping[str, Array | SharedValue]

    @property
    def nbytes(self) -> int:
        """Bytes of all inputs."""
        return sum(value.nbytes for _, value in self.arguments)

    def point(self) -> Point:
        """Name the inputs as a point, so that many calls can refer to them."""
        key = secrets.token_hex(8)
        return Point(key, {name: _shared(f"{key} {name}", value) for name, value in self.values.items()})


def _shared(key: str, value: Array | SharedValue) -> SharedValue:
    return value if isinstance(value, SharedValue) else SharedValue(key, value, nbytes=value.nbytes)


def data_type(name: str) -> tensor_pb2.DataType:
    """Return the wire's number for the engine's dtype name; unspecified where the wire has none."""
    try:
        return wire.data_type(wire.dtype_named(name))
    except wire.WireError:
        return tensor_pb2.DATA_TYPE_UNSPECIFIED


def tensor_type(name: str, tensor: tensor_pb2.Tensor) -> ArrayType:
    """Return the type that a tensor declares; raise `InvalidInput`, which names the field."""
    try:
        dtype = wire.numpy_dtype(tensor.dtype)
    except wire.WireError as error:
        raise InvalidInput(f"input {name!r}: {error}", f'inputs["{name}"]') from None
    return ArrayType(dtype.name, tuple(tensor.shape))


def graph_choices(request: graph_pb2.RegisterGraphRequest) -> GraphChoices:
    """Return what a registration makes of its model; raises `InvalidInput`, which names the field."""
    fixed = {}
    for name, tensor in request.fixed.items():
        field = f'fixed["{name}"]'
        if tensor.WhichOneof("content") == "tensor_id":
            raise InvalidInput(f"fixed: send the elements of {name!r} inline", field)
        try:
            fixed[name] = wire.from_tensor(tensor)
        except wire.WireError as error:
            raise InvalidInput(f"fixed: {name!r}: {error}", field) from None
    rounding = ROUNDING_NAMES.get(request.rounding)
    if rounding is None:
        raise InvalidInput(f"rounding {request.rounding} is not known", "rounding")
    return GraphChoices(fixed, tuple(request.inputs), tuple(request.outputs), rounding)


def argument_types(tensors: Mapping[str, tensor_pb2.Tensor]) -> Arguments:
    """Return the types of a request's inputs; their contents are ignored."""
    return tuple((name, tensor_type(name, tensors[name])) for name in sorted(tensors))


def inputs_from(tensors: Mapping[str, tensor_pb2.Tensor], store: Store) -> Inputs:
    """Read a request's inputs.

    Raises:
        InvalidInput: dtype, shape and bytes of an input do not fit one another.
        UnknownId: an array is not held here.
    """
    arguments, values = [], {}
    for name in sorted(tensors):
        tensor = tensors[name]
        arguments.append((name, tensor_type(name, tensor)))
        values[name] = _content(name, tensor, arguments[-1][1], store)
    return Inputs(tuple(arguments), values)


def _content(name: str, tensor: tensor_pb2.Tensor, declared: ArrayType, store: Store) -> Array | SharedValue:
    if not tensor.HasField("tensor_id"):
        try:
            return wire.from_tensor(tensor)
        except wire.WireError as error:
            raise InvalidInput(f"input {name!r}: {error}", f'inputs["{name}"]') from None
    held = store.tensor(tensor.tensor_id)
    if held.type != declared:
        raise InvalidInput(
            f"input {name!r} is declared as {declared}, but tensor {tensor.tensor_id} is {held.type}",
            f'inputs["{name}"]',
        )
    return held.elements


def function_from(message: function_pb2.Function, graph: RegisteredGraph) -> FunctionSpec:
    """Read the function a request is about; raise `InvalidInput` for a transform of no known kind.

    Args:
        message: the function.
        graph: the one that it names, whose own id has the tenant in it.
    """
    transforms = tuple(_transform(index, item) for index, item in enumerate(message.transforms))
    return FunctionSpec(graph.info.graph_id, transforms)


def _transform(index: int, message: function_pb2.Transform) -> Transform:
    kind = message.WhichOneof("kind")
    if kind == "gradient":
        gradient = message.gradient
        return Gradient(tuple(gradient.wrt), gradient.of, gradient.keep_values)
    if kind == "jvp":
        return Jvp(tuple(message.jvp.wrt), tuple(message.jvp.of), message.jvp.keep_values)
    if kind == "vjp":
        return Vjp(tuple(message.vjp.wrt), tuple(message.vjp.of), message.vjp.keep_values)
    if kind == "hvp":
        return Hvp(tuple(message.hvp.wrt), message.hvp.of, message.hvp.keep_values)
    raise InvalidInput(
        f"transform {index} is empty or of a kind this server does not know; "
        "it knows gradient, jvp, vjp and hvp",
        f"function.transforms[{index}]",
    )


def evaluation_from(
    request: function_pb2.EvaluateRequest, arguments: Arguments, graph: RegisteredGraph
) -> EvaluateSpec:
    """Read what an Evaluate request asks for of a graph."""
    return EvaluateSpec(
        function_from(request.function, graph), arguments, tuple(request.outputs), tuple(request.batched)
    )


def problem_from(
    request: derivative_pb2.DifferentiateRequest | derivative_pb2.PlanRequest,
    graph: RegisteredGraph,
    arguments: Arguments,
    block_memory_bytes: int,
    known: Mapping[str, str],
    pattern: str,
) -> Problem:
    """Read what a Differentiate or Plan request asks for.

    Args:
        request: the message.
        graph: the function's.
        arguments: types of its inputs.
        block_memory_bytes: memory of one block, unless the request asks for another.
        known: ids of the inputs that a sparsity pattern may depend on, by name.
        pattern: names a pattern of the client's own; "" without one.

    Raises:
        InvalidInput: a kind, mode or transform is not known.
    """
    if request.kind not in KIND_NAMES:
        raise InvalidInput("kind must be DERIVATIVE_KIND_JACOBIAN or DERIVATIVE_KIND_HESSIAN", "kind")
    options = request.options
    if options.mode not in MODE_NAMES:
        raise InvalidInput(f"mode {options.mode} is not known to this server", "options.mode")
    sparsity = SPARSITY_NAMES.get(options.sparsity)
    if sparsity is None:
        raise InvalidInput(f"sparsity {options.sparsity} is not known to this server", "options.sparsity")
    return Problem(
        function=function_from(request.function, graph),
        arguments=arguments,
        kind=KIND_NAMES[request.kind],
        wrt=tuple(request.wrt),
        of=tuple(request.of),
        options=PlanOptions(
            MODE_NAMES[options.mode],
            options.block_memory_bytes or block_memory_bytes,
            options.block_width,
            sparsity,
            options.triangle,
            pattern,
        ),
        known=() if sparsity == "dense" or pattern else tuple(sorted(known.items())),
        batched=tuple(request.batched),
    )


def graph_message(info: GraphInfo, graph_id: str) -> graph_pb2.Graph:
    """Describe a registered graph to clients, who call it `graph_id`."""
    return graph_pb2.Graph(
        graph_id=graph_id,
        inputs=[_value_info(item) for item in info.signature.inputs],
        outputs=[_value_info(item) for item in info.signature.outputs],
        forward_only=info.forward_only,
        forward_only_reason=info.forward_only_reason,
        warnings=info.warnings,
        node_count=info.node_count,
        weight_bytes=info.weight_bytes,
        opset=info.opset,
    )


def _value_info(named: Named) -> graph_pb2.ValueInfo:
    name, value = named
    return graph_pb2.ValueInfo(
        name=name,
        dtype=data_type(value.dtype),
        shape=[_dimension(extent) for extent in value.shape or ()],
        has_rank=value.shape is not None,
    )


def _dimension(extent: int | str | None) -> graph_pb2.Dimension:
    if isinstance(extent, int):
        return graph_pb2.Dimension(size=extent)
    return graph_pb2.Dimension(symbol=extent or "")


def plan_message(plan: Plan) -> derivative_pb2.Plan:
    """Describe a plan to clients."""
    return derivative_pb2.Plan(
        kind=KINDS[plan.problem.kind],
        mode=PLANNED_MODES[plan.mode],
        entries=[_entry(entry) for entry in plan.entries],
        blocks=len(plan.blocks),
        block_width=plan.block_width,
        seeds=plan.seeds,
        result_bytes=plan.result_bytes,
        block_memory_bytes=plan.block_memory_bytes,
        block_flops=int(min(plan.block_flops, 2.0**63)),
        plan_id=plan.plan_id,
        sparse=None if plan.sparse is None else _sparse(plan, plan.sparse),
    )


def _sparse(plan: Plan, layout: SparseLayout) -> derivative_pb2.SparsePlan:
    rows, columns = plan.joint_shape
    return derivative_pb2.SparsePlan(
        pattern_id=layout.pattern_id,
        nonzeros=layout.nonzeros,
        rows=rows,
        columns=columns,
        coloring=COLORINGS[layout.coloring],
        column_colors=layout.column_colors,
        row_colors=layout.row_colors,
        dtype=data_type(layout.dtype),
        dense_operators=layout.dense_primitives,
    )


def _entry(entry: Entry) -> derivative_pb2.Entry:
    return derivative_pb2.Entry(
        row=entry.row,
        row_shape=entry.row_shape,
        column=entry.column,
        column_shape=entry.column_shape,
        dtype=data_type(entry.dtype),
    )


def duration(seconds: float) -> Duration:
    """Make a duration message from seconds, cut to whole nanoseconds."""
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
