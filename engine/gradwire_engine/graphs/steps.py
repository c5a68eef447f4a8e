"""Finds outputs whose derivatives are zero everywhere, since every path to them goes through a step.

A step is an operator that is piecewise constant, or that gives integers or booleans. The search is made on
the ONNX graph, so that it needs no shapes. It errs to one side: an operator that it does not know is taken to
pass derivatives on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from gradwire_engine.graphs.checks import FunctionKey, bodies_of, functions_of
from gradwire_engine.graphs.nodes import nodes_in
from gradwire_engine.lowering.domains import domain_of
from gradwire_engine.lowering.rules.control_flow.subgraphs import reads

_ROUNDED = frozenset({"Round", "Floor", "Ceil", "QuantizeLinear", "DequantizeLinear"})
"""Steps that a straight-through estimator passes; DequantizeLinear is none itself."""

_STEPS = frozenset(
    {
        *("Round", "Floor", "Ceil", "Sign", "QuantizeLinear", "DynamicQuantizeLinear", "Binarizer"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"),
        *("Not", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"),
        *("ArgMax", "ArgMin", "Hardmax", "OneHot", "NonZero", "NonMaxSuppression"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
        *("Shape", "Size", "Range", "EyeLike", "ConstantOfShape", "RandomNormalLike", "RandomUniformLike"),
    }
)

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)  # float8 and float4 have no derivatives: conversions to them round.

_SHOWN = 3

Flow = tuple[bool, bool]
"""Whether a value depends on a floating input, and whether a derivative may pass on the way."""


@dataclass
class _Walk:
    """One pass over a graph.

    Attributes:
        functions: the model's own.
        straight_through: whether rounding passes derivatives on.
        steps: nodes at which a derivative ended, in order.
    """

    functions: Mapping[FunctionKey, FunctionProto]
    straight_through: bool
    steps: dict[str, None] = field(default_factory=dict)

    def run(self, body: GraphProto | FunctionProto, flows: dict[str, Flow]) -> None:
        """Add the flows of what the nodes give."""
        for index, node in enumerate(body.node):
            given = [flows[name] for name in reads(node) if name in flows]
            depends, passes = any(one for one, _ in given), any(one for _, one in given)
            if not depends:
                continue
            outputs = self._outputs(node, flows, passes)
            if passes and not any(outputs):
                self.steps.setdefault(f"{node.name or f'#{index}'} ({node.op_type})")
            flows.update({name: (True, one) for name, one in zip(node.output, outputs, strict=True) if name})

    def _outputs(self, node: NodeProto, flows: Mapping[str, Flow], passes: bool) -> list[bool]:
        local = self.functions.get((domain_of(node), node.op_type, node.overload))
        if local is not None:
            inner = {
                name: flows[given]
                for name, given in zip(local.input, node.input, strict=False)
                if given in flows
            }
            self.run(local, inner)
            flags = [inner.get(name, (False, False))[1] for name in local.output]
            return flags[: len(node.output)] + [True] * (len(node.output) - len(flags))
        if not passes or self._is_step(node):
            return [False] * len(node.output)
        if node.op_type == "Where" and not domain_of(node):
            return [any(flows.get(name, (False, False))[1] for name in node.input[1:])]
        return [True] * len(node.output)

    def _is_step(self, node: NodeProto) -> bool:
        if self.straight_through and node.op_type in _ROUNDED:
            return False
        if node.op_type == "Cast":
            return any(item.name == "to" and item.i not in _FLOATS for item in node.attribute)
        return node.op_type in _STEPS and domain_of(node) in ("", "ai.onnx.ml")


def warnings_of(model: ModelProto, *, straight_through: bool) -> Iterator[str]:
    """Yield warnings about derivatives that are zero everywhere."""
    yield from _trees(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    floating = [
        value.name
        for value in model.graph.input
        if value.name not in constants and value.type.tensor_type.elem_type in _FLOATS
    ]
    walk = _Walk(functions_of(model), straight_through)
    flows = dict.fromkeys(floating, (True, True))
    walk.run(model.graph, flows)
    flat = [
        value.name
        for value in model.graph.output
        if flows.get(value.name) == (True, False) and value.type.tensor_type.elem_type in _FLOATS
    ]
    if flat:
        yield _explained(flat, walk.steps)


def _explained(outputs: list[str], steps: Iterable[str]) -> str:
    names = list(steps)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    advice = (
        '; rounding="straight_through" gives it the derivative of the identity'
        if any(f"({op})" in name for op in _ROUNDED for name in names)
        else ""
    )
    return (
        f"every derivative of {', '.join(map(repr, outputs))} is exactly 0: each path from an input goes "
        f"through a step, at node {shown}{advice}"
    )


def _trees(model: ModelProto) -> Iterator[str]:
    """Yield warnings for ensembles of trees, which are piecewise constant."""
    for owner in bodies_of(model):
        for node in nodes_in(owner):
            if node.op_type.startswith("TreeEnsemble"):
                yield (
                    f"node {node.name or '(unnamed)'} ({node.op_type}): trees are piecewise constant; the "
                    "derivative is zero wherever it exists"
                )
