"""Builds ONNX graphs: nodes, bodies of loops and branches, constants, and the model made of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from gradwire.graphs.constants import MODEL_BYTES, BoundModel, Constant, bits, is_large, name_for, snapshot
from gradwire.graphs.folding import FOLDED, fold
from gradwire.graphs.nodes import Body, DType, GraphValue, Node, Shape, element_type, uses, value_info, write
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import any_symbolic, at_least, is_symbolic, vector

Array = np.ndarray[Any, Any]

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

active: ContextVar[GraphBuilder | None] = ContextVar("gradwire_active_trace", default=None)
"""The builder of the trace that is running in this context, if any."""


class _Constant(NamedTuple):
    dtype: DType
    shape: Shape
    data: bytes


class GraphBuilder:
    """Collects nodes in the order in which they are traced, and deduplicates constants.

    Args:
        folding: compute nodes whose inputs are integer constants at once (see `folding`). For front-ends in
            which constants are values of the graph from the start; where they are NumPy arrays until they
            meet a value, NumPy has computed with them already.
        kinds: kinds of dtypes that arrays may have; "V" is that of bfloat16 and others of ml_dtypes.

    Attributes:
        root: the body of the function itself.
        body: the body that nodes are appended to.
        kinds: as given.
    """

    def __init__(self, *, folding: bool = False, kinds: str = "fiub") -> None:
        self.root = Body(self, None)
        self.body = self.root
        self.kinds = kinds
        self._folding = folding
        self._emitted = 0
        self._constants: dict[str, _Constant] = {}
        self._filled: dict[str, Array] = {}
        self._referenced: dict[str, tuple[GraphValue, Constant]] = {}
        self._by_content: dict[Any, GraphValue] = {}
        self._by_place: dict[Any, str] = {}
        self._measured: dict[str, tuple[GraphValue, int]] = {}
        self._least: dict[str, int] = {}

    def input(self, name: str, shape: Shape, dtype: DType) -> GraphValue:
        """Add an input to the graph.

        Raises:
            ValueError: the name is taken.
        """
        if any(other.name == name for other in self.root.inputs) or _INTERNAL.fullmatch(name):
            raise ValueError(f"input name {name!r} is taken; give each input a name of its own")
        value = GraphValue(self.root, name, shape, dtype)
        self.root.inputs.append(value)
        for axis, extent in enumerate(shape):
            if is_symbolic(extent):
                self.measure(extent, value, axis)
        return value

    def measure(self, size: int, value: GraphValue, axis: int) -> None:
        """Remember an axis from which a size can be read; the first of a size counts."""
        self._measured.setdefault(str(size), (value, axis))

    def extent(self, name: str) -> GraphValue:
        """Return the size of a name as an int64 value of one element."""
        value, axis = self._measured[name]
        if value.body is not self.root:
            return self._shape(value, axis)
        key = ("extent", name)
        if key not in self._by_content:
            with self.at(self.root):
                self._by_content[key] = self._shape(value, axis)
        return self._by_content[key]

    def require(self, size: int) -> None:
        """Demand that a size is not negative where the graph is evaluated: sizes of slices are not clipped.

        Raises:
            TraceError: it depends on several names in a way that no least value of each of them ensures.
        """
        if is_symbolic(size):
            name, least = at_least(size)
            self._least[name] = max(least, self._least.get(name, 1))

    def _shape(self, value: GraphValue, axis: int) -> GraphValue:
        return self.one("Shape", [value], (1,), _INT64, start=axis, end=axis + 1)

    @contextmanager
    def at(self, body: Body) -> Iterator[None]:
        """Append nodes to a body that is still open."""
        before, self.body = self.body, body
        try:
            yield
        finally:
            self.body = before

    @contextmanager
    def nested(self) -> Iterator[Body]:
        """Append nodes to a new body, for an attribute of a node that is emitted afterwards."""
        body = Body(self, self.body)
        with self.at(body):
            yield body

    def argument(self, shape: Shape, dtype: DType) -> GraphValue:
        """Add an input to the present body."""
        value = GraphValue(self.body, f"_t{self._count()}", shape, dtype)
        self.body.inputs.append(value)
        return value

    def returns(self, values: Sequence[GraphValue]) -> None:
        """End the present body with its results; nodes that no result needs are dropped.

        Each result is the output of a node in the body, under a name of its own, as ONNX demands.
        """
        body = self.body
        made = {name for node in body.nodes for name in node.outputs}
        for value in values:
            self.check(value)
            if value.name not in made:
                value = self.one("Identity", [value], value.shape, value.dtype)
            made.discard(value.name)
            body.outputs.append(value)
        body.nodes = _needed(body.nodes, {value.name for value in body.outputs})

    def check(self, value: GraphValue) -> None:
        """Check that a value can be used in the present body.

        Raises:
            TraceError: it is of another trace, or of a body that has ended.
        """
        if value.graph is not self:
            raise refuse(
                "an array of an earlier trace",
                "it was kept in a global or a closure: compute it inside the function, or return it",
            )
        if value.body is not self.root and not self.body.sees(value.body):
            raise refuse(
                "an array that was made in a function given to gw.scan, gw.cond or another of their kind, "
                "outside of that function",
                "return it from that function and use the result",
            )

    def _count(self) -> int:
        """Return the next number for names, which are unique in a graph and its bodies."""
        self._emitted += 1
        return self._emitted - 1

    def emit(
        self,
        op: str,
        inputs: Sequence[GraphValue | None],
        results: Sequence[tuple[Shape, DType]],
        domain: str = "",
        **attributes: Any,
    ) -> list[GraphValue]:
        """Append a node and return its outputs.

        Args:
            op: the operator.
            inputs: its inputs; None for an optional one that is left out.
            results: shape and dtype of each output.
            domain: the operator's domain.
            **attributes: values that `onnx.helper.make_attribute` takes, or a `Body`.

        Raises:
            TraceError: an input cannot be used in the present body.
        """
        for value in inputs:
            if value is not None:
                self.check(value)
        count, body = self._count(), self.body
        names = tuple(f"_t{count}" if not index else f"_t{count}_{index}" for index in range(len(results)))
        bodies = [item for item in attributes.values() if isinstance(item, Body)]
        captured = frozenset[str]().union(*(body.reads() for body in bodies))
        body.nodes.append(
            Node(op, domain, tuple("" if v is None else v.name for v in inputs), names, attributes, captured)
        )
        return [
            GraphValue(body, name, shape, dtype) for name, (shape, dtype) in zip(names, results, strict=True)
        ]

    def one(
        self,
        op: str,
        inputs: Sequence[GraphValue | None],
        shape: Shape,
        dtype: DType,
        domain: str = "",
        **attributes: Any,
    ) -> GraphValue:
        """Append a node with one output, of this shape and dtype; `emit` says what the others are.

        Where constants are folded (see `folding`), the output may be a constant instead.
        """
        if self._folding and op in FOLDED and not domain:
            known = self._all_known(inputs)
            result = None if known is None else fold(op, known, shape, dtype, attributes)
            if result is not None:
                return self.constant(result)
        return self.emit(op, inputs, [(shape, dtype)], domain, **attributes)[0]

    def constant(self, array: Array) -> GraphValue:
        """Return a constant; equal ones (bits, shape and dtype) are stored once, uniform ones as one element.

        A large one becomes an input of the model, which is given a copy of the array as it is now.
        """
        array = np.asarray(array)
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        element_type(array.dtype, self.kinds)
        if is_large(array):
            return self._large(array)
        data = array.tobytes()
        digest = data if len(data) <= 256 else hashlib.sha256(data).digest()
        key = (array.dtype.num, array.shape, digest)
        known = self._by_content.get(key)
        if known is None:
            first = data[: array.itemsize]
            if array.size > _UNIFORM_ELEMENTS and data == first * array.size:
                known = self.filled(array.shape, array.dtype, first)
            else:
                known = GraphValue(self.root, f"_c{len(self._constants)}", array.shape, array.dtype)
                self._constants[known.name] = _Constant(array.dtype, array.shape, data)
            self._by_content[key] = known
        return known

    def _large(self, array: Array) -> GraphValue:
        elements = bits(array)
        first = elements.flat[0]
        if elements.flat[-1] == first and (elements == first).all():
            return self.filled(array.shape, array.dtype, first.tobytes())
        # Seen before, as it is or transposed: comparing takes a fraction of the time of hashing.
        for view in (array, array.T):
            seen = self._referenced.get(self._by_place.get(_place(view), ""))
            if seen is not None and (bits(seen[1].array) == bits(view)).all():
                return seen[0] if view is array else self._transposed(seen[0])
        constant = snapshot(array)
        known = self._by_content.get(constant.tensor_id)
        if known is None:
            name = name_for(len(self._referenced), [value.name for value in self.root.inputs])
            known = GraphValue(self.root, name, array.shape, array.dtype)
            self._by_content[constant.tensor_id] = known
            self._referenced[name] = known, constant
        self._by_place[_place(array)] = known.name
        return known

    def _transposed(self, value: GraphValue) -> GraphValue:
        key = ("transposed", value.name)
        if key not in self._by_content:
            axes = list(range(value.ndim))[::-1]
            with self.at(self.root):
                turned = self.one("Transpose", [value], value.shape[::-1], value.dtype, perm=axes)
            self._by_content[key] = turned
        return self._by_content[key]

    def filled(self, shape: Shape, dtype: DType, element: bytes) -> GraphValue:
        """Return an array of one repeated element, given by its bytes."""
        tensor = onnx.TensorProto(data_type=element_type(dtype, self.kinds), dims=[1], raw_data=element)
        # Among the function's own nodes, like other constants, so that every body can use it.
        with self.at(self.root):
            value = self.one("ConstantOfShape", [self.ints(shape)], shape, dtype, value=tensor)
        self._filled[value.name] = np.broadcast_to(np.frombuffer(element, dtype), shape)
        return value

    def scalar(self, number: Any, dtype: DType) -> GraphValue:
        """Return a zero-dimensional constant.

        Raises:
            OverflowError: a Python integer does not fit the dtype.
        """
        # The text tells -0.0 from 0.0, and 1 from True.
        key = (dtype.num, type(number), repr(number))
        known = self._by_content.get(key)
        if known is None:
            known = self._by_content[key] = self.constant(np.asarray(number, dtype))
        return known

    def known(self, value: GraphValue) -> Array | None:
        """Return the elements of a constant; None for any other value, and for constants by reference."""
        constant = self._constants.get(value.name)
        if constant is None:
            return self._filled.get(value.name)
        return np.ndarray(constant.shape, constant.dtype, constant.data)

    def _all_known(self, values: Sequence[GraphValue | None]) -> list[Array] | None:
        """Return the elements of all values if they are constants, else None."""
        found = []
        for value in values:
            elements = None if value is None else self.known(value)
            if elements is None:
                return None
            found.append(elements)
        return found

    def known_scalar(self, value: GraphValue) -> Any:
        """Return the number in a zero-dimensional constant; None for any other value."""
        known = None if value.shape else self.known(value)
        return None if known is None else known.item()

    def ints(self, numbers: Sequence[int]) -> GraphValue:
        """Return one-dimensional int64 numbers: a shape, axes, starts; a constant if no size is in them."""
        key = tuple(numbers)
        if any_symbolic(key):
            return vector(self, key)
        known = self._by_content.get(key)
        if known is None:
            known = self._by_content[key] = self.constant(np.array(key, np.int64))
        return known

    def model(self, outputs: Mapping[str, GraphValue], name: str) -> BoundModel:
        """Return the model that computes `outputs`; nodes that none of them needs are dropped.

        Its inputs are the function's, then those for the large constants.

        Raises:
            TraceError: the constants do not fit in one model.
        """
        nodes = _needed(self.root.nodes, {value.name for value in outputs.values()})
        produced = {item for node in nodes for item in node.outputs}
        final: dict[str, str] = {}
        for label, value in outputs.items():
            if value.name in produced:
                final.setdefault(value.name, label)
        used = {item for node in nodes for item in (*node.inputs, *node.captured)}
        used.update(value.name for value in outputs.values())
        checks = self._checks(used, final)
        model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="gradwire")
        model.opset_import.add(domain="", version=OPSET)
        if uses(nodes, SCI):
            model.opset_import.add(domain=SCI, version=SCI_VERSION)
        graph = model.graph
        graph.name = name
        for value in self.root.inputs:
            graph.input.append(value_info(value.name, value))
        bound: dict[str, Constant] = {}
        for key, (value, held) in self._referenced.items():
            if key in used:
                graph.input.append(value_info(key, value))
                bound[key] = held
        for label, value in outputs.items():
            graph.output.append(value_info(label, value))
        size = sum(len(item.data) for key, item in self._constants.items() if key in used)
        if size > MODEL_BYTES:
            raise refuse(
                f"a function with {size} bytes of constants",
                "pass the large arrays as inputs of the function",
            )
        for key, constant in self._constants.items():
            if key in used:
                graph.initializer.add(
                    name=key,
                    data_type=element_type(constant.dtype, self.kinds),
                    dims=constant.shape,
                    raw_data=constant.data,
                )
        graph.node.extend(checks)
        write(graph, nodes, final)
        for label, value in outputs.items():
            if value.name not in produced or final[value.name] != label:
                graph.node.add(
                    op_type="Identity",
                    name=f"Identity_{label}",
                    input=[final.get(value.name, value.name)],
                    output=[label],
                )
        return BoundModel(model, bound)

    def _checks(self, used: set[str], final: dict[str, str]) -> list[onnx.NodeProto]:
        """Return nodes that fail where a size is too small, and let everything read their results.

        An input is reshaped to its own shape, in which such an extent is another number. What they read is
        added to `used`, and their results to `final`.
        """
        checks: list[onnx.NodeProto] = []
        for value in self.root.inputs:
            least = [self._least.get(str(extent), 0) if is_symbolic(extent) else 0 for extent in value.shape]
            least = [bound if bound > 1 else 0 for bound in least]
            if value.name not in used or not any(least):
                continue
            bounds = self.ints(least).name
            used.add(bounds)
            said = ", ".join(f"{one} >= {low}" for one, low in zip(value.shape, least, strict=True) if low)
            shape, more, size, extents, checked = (f"{value.name}:{index}" for index in range(5))
            checks += [
                helper.make_node("Shape", [value.name], [shape]),
                helper.make_node("Sub", [shape, bounds], [more]),
                helper.make_node("Abs", [more], [size]),
                helper.make_node("Add", [size, bounds], [extents]),
                helper.make_node("Reshape", [value.name, extents], [checked], f"{value.name}: {said}"),
            ]
            final[value.name] = checked
        return checks


def _place(array: Array) -> Any:
    """Identify the memory of an array: address, shape, strides, dtype."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.char


def _needed(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    """Return the nodes that the wanted names need; add the names that they read to `wanted`."""
    needed: list[Node] = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            needed.append(node)
            wanted.update(node.inputs)
            wanted.update(node.captured)
    needed.reverse()
    return needed
