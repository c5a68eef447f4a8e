"""The graph under construction: a list of nodes, the constants they use, and the model they become."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from gradwire.tracing.refusals import refuse

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]
Shape = tuple[int, ...]

OPSET = 21
"""Version of the standard operator set in traced models."""

IR_VERSION = 10
"""Version of the ONNX file format in traced models."""

SCI = "gradwire.sci"
"""Domain of the operators that ONNX lacks."""

SCI_VERSION = 1

_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)
_INTERNAL = re.compile(r"_[tc]\d+(_\d+)?")
_UNIFORM_ELEMENTS = 64
_MODEL_BYTES = (1 << 31) - (1 << 20)

active: ContextVar[Graph | None] = ContextVar("gradwire_active_trace", default=None)
"""The graph of the trace that is running in this context, if any."""


class Value:
    """The result of a node, an input or a constant: its name, shape and dtype. Never changes."""

    __slots__ = ("dtype", "graph", "name", "shape")

    def __init__(self, graph: Graph, name: str, shape: Shape, dtype: DType) -> None:
        self.graph = graph
        self.name = name
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size


class _Node(NamedTuple):
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class _Constant(NamedTuple):
    dtype: DType
    shape: Shape
    data: bytes


def element_type(dtype: DType) -> int:
    """ONNX's number for a dtype.

    Raises:
        TraceError: the dtype is complex, long double, text or object.
    """
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise refuse(
            f"an array of dtype {dtype}",
            "graphs hold float16/32/64, integers and bool: convert it, or split real and imaginary parts",
        )
    return int(helper.np_dtype_to_tensor_dtype(dtype))


class Graph:
    """Nodes in the order in which they were traced, and deduplicated constants."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._inputs: list[Value] = []
        self._constants: dict[str, _Constant] = {}
        self._by_content: dict[Any, Value] = {}

    def input(self, name: str, shape: Shape, dtype: DType) -> Value:
        """A new input of the graph.

        Raises:
            ValueError: the name is taken.
        """
        if any(other.name == name for other in self._inputs) or _INTERNAL.fullmatch(name):
            raise ValueError(f"input name {name!r} is taken; give each input a name of its own")
        value = Value(self, name, shape, dtype)
        self._inputs.append(value)
        return value

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        results: Sequence[tuple[Shape, DType]],
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """Append a node; ``results`` gives the shape and dtype of each of its outputs."""
        for value in inputs:
            if value is not None and value.graph is not self:
                raise refuse(
                    "an array of an earlier trace",
                    "it was kept in a global or a closure: compute it inside the function, or return it",
                )
        count = len(self._nodes)
        names = tuple(f"_t{count}" if not index else f"_t{count}_{index}" for index in range(len(results)))
        self._nodes.append(
            _Node(op, domain, tuple("" if v is None else v.name for v in inputs), names, attributes)
        )
        return [Value(self, name, shape, dtype) for name, (shape, dtype) in zip(names, results, strict=True)]

    def one(
        self,
        op: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        dtype: DType,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Append a node with one output."""
        return self.emit(op, inputs, [(shape, dtype)], domain, **attributes)[0]

    def constant(self, array: Array) -> Value:
        """A constant; equal ones (bits, shape and dtype) are stored once, uniform ones as one element."""
        array = np.asarray(array)
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        element_type(array.dtype)
        data = array.tobytes()
        digest = data if len(data) <= 256 else hashlib.sha256(data).digest()
        key = (array.dtype.char, array.shape, digest)
        known = self._by_content.get(key)
        if known is None:
            first = data[: array.itemsize]
            if array.size > _UNIFORM_ELEMENTS and data == first * array.size:
                known = self.filled(array.shape, array.dtype, first)
            else:
                known = Value(self, f"_c{len(self._constants)}", array.shape, array.dtype)
                self._constants[known.name] = _Constant(array.dtype, array.shape, data)
            self._by_content[key] = known
        return known

    def filled(self, shape: Shape, dtype: DType, element: bytes) -> Value:
        """An array of one repeated element, given by its bytes."""
        tensor = onnx.TensorProto(data_type=element_type(dtype), dims=[1], raw_data=element)
        return self.one("ConstantOfShape", [self.ints(shape)], shape, dtype, value=tensor)

    def scalar(self, number: Any, dtype: DType) -> Value:
        """A zero-dimensional constant.

        Raises:
            OverflowError: a Python integer does not fit the dtype.
        """
        # The text tells -0.0 from 0.0, and 1 from True.
        key = (dtype.char, type(number), repr(number))
        known = self._by_content.get(key)
        if known is None:
            known = self._by_content[key] = self.constant(np.asarray(number, dtype))
        return known

    def known_scalar(self, value: Value) -> Any:
        """The number that a zero-dimensional constant holds, None for any other value."""
        constant = self._constants.get(value.name)
        if constant is None or constant.shape:
            return None
        return np.frombuffer(constant.data, constant.dtype)[0].item()

    def ints(self, numbers: Sequence[int]) -> Value:
        """A one-dimensional int64 constant: a shape, axes, starts."""
        key = tuple(numbers)
        known = self._by_content.get(key)
        if known is None:
            known = self._by_content[key] = self.constant(np.array(key, np.int64))
        return known

    def model(self, outputs: Mapping[str, Value], name: str) -> onnx.ModelProto:
        """The model that computes ``outputs``; nodes that none of them needs are left out.

        Raises:
            TraceError: the constants do not fit in one model.
        """
        nodes, final = self._live(outputs)
        used = {item for node in nodes for item in node.inputs}
        used.update(value.name for value in outputs.values())
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="gradwire")
        model.opset_import.add(domain="", version=OPSET)
        if any(node.domain == SCI for node in nodes):
            model.opset_import.add(domain=SCI, version=SCI_VERSION)
        graph = model.graph
        graph.name = name
        for value in self._inputs:
            graph.input.append(_value_info(value.name, value))
        for label, value in outputs.items():
            graph.output.append(_value_info(label, value))
        size = sum(len(item.data) for key, item in self._constants.items() if key in used)
        if size > _MODEL_BYTES:
            raise refuse(
                f"a function with {size} bytes of constants",
                "pass the large arrays as inputs of the function",
            )
        for key, constant in self._constants.items():
            if key in used:
                graph.initializer.add(
                    name=key,
                    data_type=element_type(constant.dtype),
                    dims=constant.shape,
                    raw_data=constant.data,
                )
        for index, node in enumerate(nodes):
            proto = graph.node.add(
                op_type=node.op,
                domain=node.domain,
                name=f"{node.op}_{index}",
                input=[final.get(item, item) for item in node.inputs],
                output=[final.get(item, item) for item in node.outputs],
            )
            for key, content in node.attributes.items():
                proto.attribute.append(helper.make_attribute(key, content))
        produced = {item for node in nodes for item in node.outputs}
        for label, value in outputs.items():
            if value.name not in produced or final[value.name] != label:
                graph.node.add(
                    op_type="Identity",
                    name=f"Identity_{label}",
                    input=[final.get(value.name, value.name)],
                    output=[label],
                )
        return model

    def _live(self, outputs: Mapping[str, Value]) -> tuple[list[_Node], dict[str, str]]:
        """The nodes that the outputs need, and the final names of the values that are outputs."""
        wanted = {value.name for value in outputs.values()}
        live: list[_Node] = []
        for node in reversed(self._nodes):
            if not wanted.isdisjoint(node.outputs):
                live.append(node)
                wanted.update(node.inputs)
        live.reverse()
        produced = {item for node in live for item in node.outputs}
        final: dict[str, str] = {}
        for label, value in outputs.items():
            if value.name in produced:
                final.setdefault(value.name, label)
        return live, final


def _value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type(value.dtype), value.shape)
