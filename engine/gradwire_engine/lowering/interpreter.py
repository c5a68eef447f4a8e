"""Evaluates an ONNX model with the registered rules.

Called under JAX tracing it stages the whole graph; values that depend on no input stay NumPy, so
shape arithmetic folds away. Operators without a rule are interpreted from their function body:
the model's own functions first, then the body that the operator's specification gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, helper, numpy_helper

from gradwire_engine.errors import EngineError, InvalidGraph, LimitExceeded, ValueNeeded, one_line
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import straight_through
from gradwire_engine.lowering.domains import domain_of, opsets_of
from gradwire_engine.lowering.registry import FIX, STATIC_ELEMENTS, Node, Value, find_rule, is_static
from gradwire_engine.lowering.sparse import dense

_RULE_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
"""Errors that NumPy and JAX raise for operands that do not fit."""


@dataclass
class Notes:
    """What one evaluation finds out about the graph besides its outputs.

    Attributes:
        warnings: messages for the client, in order, without repeats.
        forward_only: nodes through which reverse mode is impossible, with the reason.
        reverse_only: nodes through which forward mode is impossible, with the reason.
        no_derivative: nodes that define no derivative at all, with the reason.
        nodes: number of nodes evaluated; bodies of functions and of unrolled loops count each time.
        apart: whether nothing will be asked of them but warnings and nodes.
    """

    warnings: dict[str, None] = field(default_factory=dict)
    forward_only: dict[str, str] = field(default_factory=dict)
    reverse_only: dict[str, str] = field(default_factory=dict)
    no_derivative: dict[str, str] = field(default_factory=dict)
    nodes: int = 0
    apart: bool = False


class _Environment:
    """Values by name; names that are not found are looked up in the enclosing graph's environment."""

    def __init__(self, outer: _Environment | None = None) -> None:
        self.values: dict[str, Value] = {}
        self.floats: dict[str, Value] = {}
        """Floats that equal quantised values, where rounding passes derivatives on."""
        self.outer = outer

    def floats_of(self, name: str) -> Value | None:
        """Return the float that equals a quantised value, None where none goes along."""
        if name in self.values or self.outer is None:
            return self.floats.get(name)
        return self.outer.floats_of(name)

    def find(self, name: str) -> Value:
        """Return the value of a name; raise `InvalidGraph` where no graph around defines it."""
        environment: _Environment | None = self
        while environment is not None:
            if name in environment.values:
                return environment.values[name]
            environment = environment.outer
        raise InvalidGraph(f"the value {name!r} is used before any node produces it")


def decode_attribute(attribute: AttributeProto, limits: Limits) -> Any:
    """Return an attribute as Python numbers, strings, NumPy arrays, or a subgraph.

    Raises:
        LimitExceeded: it is a sparse tensor too large to be made dense.
    """
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    if kind == AttributeProto.SPARSE_TENSOR:
        return dense(attribute.sparse_tensor, limits)
    if kind == AttributeProto.TENSORS:
        return [numpy_helper.to_array(tensor) for tensor in attribute.tensors]
    if kind == AttributeProto.STRING:
        return attribute.s.decode()
    if kind == AttributeProto.STRINGS:
        return [item.decode() for item in attribute.strings]
    if kind in (AttributeProto.INTS, AttributeProto.FLOATS):
        return list(helper.get_attribute_value(attribute))
    return helper.get_attribute_value(attribute)


@lru_cache(maxsize=512)
def _schema_body(domain: str, op: str, opset: int) -> FunctionProto | None:
    """Return the context-free function body of a standard operator, None where it has none."""
    if not onnx.defs.has(op, opset, domain):
        return None
    schema: Any = onnx.defs.get_schema(op, opset, domain)
    if not schema.has_function:
        return None
    versions = [version for version in schema.function_opset_versions if version <= opset]
    if not versions:
        return schema.function_body  # type: ignore[no-any-return]
    body = FunctionProto()
    body.ParseFromString(schema.get_function_with_opset_version(max(versions)))
    return body


def _type_of(value: Value) -> onnx.TypeProto:
    if isinstance(value, list):
        return helper.make_sequence_type_proto(_type_of(value[0])) if value else onnx.TypeProto()
    if value is None:
        return onnx.TypeProto()
    element = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_type_proto(element, list(value.shape))


class Scope:
    """The evaluation of one graph or function body.

    Attributes:
        opsets: version by domain.
        functions: the model's own functions by domain, name and overload.
        limits: bounds on nodes, loop trips and bytes of one array.
        notes: collects warnings and differentiability facts.
        environment: the values by name.
        attributes: those of the enclosing function's node, to which the body's nodes may refer.
        passes_rounding: whether rounding has the derivative of the identity.
        prefix: put before the names of nodes; names the path to the body.
        nodes: the nodes under evaluation; the Gradient operator evaluates some of them again.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        functions: Mapping[tuple[str, str, str], FunctionProto],
        limits: Limits,
        notes: Notes,
        environment: _Environment,
        attributes: Mapping[str, AttributeProto] | None = None,
        prefix: str = "",
        passes_rounding: bool = False,
    ) -> None:
        self.opsets = opsets
        self.functions = functions
        self.limits = limits
        self.notes = notes
        self.environment = environment
        self.attributes = attributes or {}
        self.prefix = prefix
        self.passes_rounding = passes_rounding
        self.nodes: Sequence[NodeProto] = ()

    def warn(self, message: str) -> None:
        """Add a warning to the notes, unless it is there already."""
        self.notes.warnings.setdefault(message)

    def run_subgraph(self, graph: GraphProto, inputs: Sequence[Value], name: str) -> list[Value]:
        """Evaluate a subgraph in an environment of its own inside this one.

        Args:
            graph: the subgraph; names it does not define are looked up in the enclosing graphs.
            inputs: a value for each of its inputs.
            name: name of the node that the subgraph belongs to; prefixes the names of the inner nodes.

        Returns:
            The subgraph's outputs.
        """
        return self._run_inside(graph, inputs, name, self.notes)

    def run_apart(self, graph: GraphProto, inputs: Sequence[Value], name: str) -> list[Value]:
        """Evaluate a subgraph like `run_subgraph`, but keep no notes of how its nodes are differentiated.

        For subgraphs that are not differentiated, or not by their nodes.
        """
        notes = Notes(self.notes.warnings, nodes=self.notes.nodes, apart=True)
        outputs = self._run_inside(graph, inputs, name, notes)
        self.notes.nodes = notes.nodes
        return outputs

    def _run_inside(self, graph: GraphProto, inputs: Sequence[Value], name: str, notes: Notes) -> list[Value]:
        inner = Scope(
            self.opsets,
            self.functions,
            self.limits,
            notes,
            _Environment(self.environment),
            self.attributes,
            f"{name}/",
            self.passes_rounding,
        )
        return inner.run(graph, dict(zip((item.name for item in graph.input), inputs, strict=True)))

    def run(self, graph: GraphProto, values: Mapping[str, Value]) -> list[Value]:
        """Evaluate a graph's nodes in order and return the graph's outputs.

        Args:
            graph: the graph.
            values: its inputs by name; an initializer that is given here is not decoded.
        """
        known = self.environment.values
        known.update(values)
        for tensor in graph.initializer:
            if tensor.name not in known:
                known[tensor.name] = numpy_helper.to_array(tensor)
        for sparse in graph.sparse_initializer:
            known[sparse.values.name] = dense(sparse, self.limits)
        self.nodes = graph.node
        for index, node in enumerate(graph.node):
            self.run_node(node, index)
        return [self.environment.find(item.name) for item in graph.output]

    def run_node(self, proto: NodeProto, index: int) -> None:
        """Evaluate one node, by its rule or its function body, and store its outputs.

        Args:
            proto: the node.
            index: its position in the graph, which names it where it has no name.

        Raises:
            InvalidGraph: the operator is unknown, or cannot be evaluated on its inputs.
            LimitExceeded: the number of nodes or the size of an output is over its limit.
            ValueNeeded: the rule needs a value that depends on an input of the graph.
        """
        name = self.prefix + (proto.name or f"#{index}")
        self._count(name, proto.op_type)
        inputs = [self.environment.find(item) if item else None for item in proto.input]
        attributes = self._attributes(proto)
        domain = domain_of(proto)
        opset = self.opsets.get(domain, 1)
        # A function of the model's own shadows an operator of the same name.
        local = self.functions.get((domain, proto.op_type, proto.overload))
        rule = None if local is not None else find_rule(domain, proto.op_type, opset)
        if rule is not None:
            if rule.derivative == "none" and not is_static(*inputs):
                self.notes.no_derivative.setdefault(name, proto.op_type)
            node = Node(
                proto.op_type,
                domain,
                name,
                opset,
                {key: decode_attribute(item, self.limits) for key, item in attributes.items()},
                proto.input,
                proto.output,
                self,
            )
            outputs = self._apply(rule.function, node, inputs)
            if self.passes_rounding and not is_static(*inputs):
                outputs = self._passed_through(rule.function, node, inputs, outputs)
        else:
            outputs = self._expand(proto, name, domain, opset, inputs, attributes, local)
        for output, value in zip(proto.output, outputs, strict=False):
            if output:
                self.environment.values[output] = value

    def _passed_through(
        self, function: Any, node: Node, inputs: list[Value], outputs: list[Value]
    ) -> list[Value]:
        """Return a node's outputs with the derivatives of a straight-through estimator.

        A quantised value is an integer, which carries no derivative: a float that equals it and has the
        derivative of what was rounded goes along under its name, up to where it is made a float again.
        """
        carried = [self.environment.floats_of(name) for name in node.inputs]
        floats = straight_through.floats_along(function, node, inputs, carried)
        self.environment.floats.update(zip(node.outputs, floats, strict=False))
        return straight_through.outputs(function, node, inputs, outputs, carried)

    def _count(self, name: str, op: str) -> None:
        """Count one more node and check the limit.

        The count exceeds the number of nodes in the model where functions are expanded and loops unrolled.
        """
        self.notes.nodes += 1
        if self.notes.nodes > self.limits.nodes:
            raise LimitExceeded(
                f"node {name} ({op}) is number {self.notes.nodes} to be evaluated, with functions expanded "
                f"and loops unrolled; the limit is {self.limits.nodes} nodes",
                "nodes",
                self.limits.nodes,
                self.notes.nodes,
            )

    def _attributes(self, proto: NodeProto) -> dict[str, AttributeProto]:
        """Return the node's attributes, with references to the enclosing function's attributes resolved."""
        attributes: dict[str, AttributeProto] = {}
        for attribute in proto.attribute:
            if attribute.ref_attr_name:
                given = self.attributes.get(attribute.ref_attr_name)
                if given is not None:
                    attributes[attribute.name] = given
            else:
                attributes[attribute.name] = attribute
        return attributes

    def _apply(self, function: Any, node: Node, inputs: list[Value]) -> list[Value]:
        """Call a rule, translate its errors, check the sizes of its outputs and fold constants."""
        try:
            outputs = _as_list(function(node, *inputs))
        except EngineError:
            raise
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
            jax.errors.TracerIntegerConversionError,
        ) as error:
            raise ValueNeeded(
                f"node {node.name} ({node.op}) needs the value of an array that depends on a graph input; "
                f"it must be a constant, or follow from shapes alone{FIX}"
            ) from error
        except MemoryError as error:
            raise LimitExceeded(
                f"node {node.name} ({node.op}) asks for more memory than there is: {one_line(error)}",
                "array_bytes",
                self.limits.array_bytes,
                self.limits.array_bytes + 1,
            ) from error
        except _RULE_ERRORS as error:
            shapes = ", ".join(_describe(value) for value in inputs)
            raise node.fail(f"cannot be evaluated on ({shapes}): {one_line(error)}") from error
        for value in outputs:
            self._budget(node, value)
        has_subgraph = any(isinstance(item, GraphProto) for item in node.attributes.values())
        if has_subgraph or not is_static(*inputs) or is_static(*outputs):
            return outputs
        # Known before evaluation but computed by JAX: compute it now if it is small, so that
        # what follows can use its value.
        arrays = [value for value in outputs if hasattr(value, "shape")]
        if len(arrays) != len(outputs) or sum(array.size for array in arrays) > STATIC_ELEMENTS:
            return outputs
        with jax.ensure_compile_time_eval():
            return [
                value if value is None else np.asarray(value) for value in _as_list(function(node, *inputs))
            ]

    def _budget(self, node: Node, value: Value) -> None:
        """Raise `LimitExceeded` if an output is over the limit for one array."""
        if isinstance(value, list):
            for item in value:
                self._budget(node, item)
        elif value is not None:
            size = int(value.size) * np.dtype(value.dtype).itemsize
            if size > self.limits.array_bytes:
                raise LimitExceeded(
                    f"node {node.name} ({node.op}) makes an array of shape {tuple(value.shape)}, "
                    f"{size} bytes; the limit for one array is {self.limits.array_bytes} bytes",
                    "array_bytes",
                    self.limits.array_bytes,
                    size,
                )

    def _expand(
        self,
        proto: NodeProto,
        name: str,
        domain: str,
        opset: int,
        inputs: list[Value],
        attributes: dict[str, AttributeProto],
        local: FunctionProto | None,
    ) -> list[Value]:
        """Interpret an operator from its function body, the model's own (`local`) or the standard one."""
        body = local if local is not None else _schema_body(domain, proto.op_type, opset)
        if body is None:
            body = _context_body(proto, domain, opset, inputs, attributes)
        if body is None:
            where = f"domain {domain!r}" if domain else "the ONNX operator set"
            raise InvalidGraph(
                f"node {name}: operator {proto.op_type} of {where} (opset {opset}) is not supported "
                "and has no function body"
            )
        given = {item.name: item for item in body.attribute_proto}
        if local is None:
            schema = onnx.defs.get_schema(proto.op_type, opset, domain)
            for key, attribute in schema.attributes.items():
                if attribute.default_value.type != AttributeProto.UNDEFINED:
                    given[key] = attribute.default_value
        given.update(attributes)
        opsets = opsets_of(body)
        scope = Scope(
            {**self.opsets, **opsets},
            self.functions,
            self.limits,
            self.notes,
            _Environment(),
            given,
            f"{name}/{proto.op_type}/",
            self.passes_rounding,
        )
        known = scope.environment.values
        known.update(dict.fromkeys(body.input))
        known.update(zip(body.input, inputs, strict=False))
        scope.nodes = body.node
        for index, node in enumerate(body.node):
            scope.run_node(node, index)
        return [scope.environment.find(output) for output in body.output[: len(proto.output)]]


def _context_body(
    proto: NodeProto,
    domain: str,
    opset: int,
    inputs: list[Value],
    attributes: dict[str, AttributeProto],
) -> FunctionProto | None:
    """Return the function body of an operator whose body depends on its inputs' types, or None."""
    if not onnx.defs.has(proto.op_type, opset, domain):
        return None
    schema: Any = onnx.defs.get_schema(proto.op_type, opset, domain)
    if not schema.has_context_dependent_function:
        return None
    node = NodeProto()
    node.CopyFrom(proto)
    del node.attribute[:]
    for key, attribute in attributes.items():
        copy = node.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = key
    types = [_type_of(value).SerializeToString() for value in inputs]
    versions = [item for item in schema.context_dependent_function_opset_versions if item <= opset]
    text = (
        schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), types
        )
        if versions
        else schema.get_context_dependent_function(node.SerializeToString(), types)
    )
    if not text:
        return None
    body = FunctionProto()
    body.ParseFromString(text)
    return body


def _as_list(outputs: Any) -> list[Value]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _describe(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"sequence of {len(value)}"
    return f"{value.dtype}{list(value.shape)}"


def evaluate(
    model: onnx.ModelProto,
    inputs: Mapping[str, Value],
    limits: Limits | None = None,
    notes: Notes | None = None,
    *,
    passes_rounding: bool = False,
) -> list[Value]:
    """Evaluate a model's outputs, under JAX tracing or eagerly.

    Args:
        model: a checked model.
        inputs: arrays by input name, of the declared shapes and dtypes; may also give initializers,
            which are then not decoded.
        limits: bounds on nodes, loop trips and bytes of one array; the defaults where None.
        notes: collects warnings and differentiability facts; it is changed.
        passes_rounding: whether rounding has the derivative of the identity.

    Returns:
        The outputs in the model's order: NumPy arrays where they depend on no traced input, else
        JAX arrays or tracers; a sequence is a list, an empty optional is None.

    Raises:
        InvalidGraph: an operator is unknown, or cannot be evaluated on its inputs.
        LimitExceeded: the number of nodes, or an intermediate array, is over its limit.
        ValueNeeded: an operator needs a value that depends on an input.
    """
    opsets = opsets_of(model)
    functions = {(item.domain, item.name, item.overload): item for item in model.functions}
    scope = Scope(
        opsets,
        functions,
        limits or Limits(),
        notes or Notes(),
        _Environment(),
        passes_rounding=passes_rounding,
    )
    return scope.run(model.graph, inputs)
