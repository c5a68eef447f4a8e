"""Writes docs/operators.md from the registry of rules and the results of onnx's suite.

python -m tests.conformance.operators              runs the suite against the engine, then writes the page
python -m tests.conformance.operators --measured   writes it from the results of the last run
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto

from gradwire_engine.lowering import all_rules
from gradwire_engine.lowering.registry import Rule
from tests.conformance import measure, suite
from tests.conformance.lifted import qualified
from tests.conformance.measure import Result
from tests.conformance.points import DISCRETE

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"

INTRODUCTION = """# Operators

Written by `make conformance`; do not edit.

Every operator that has a lowering rule, and below them those that are evaluated from the function body
in their specification. *Opset* is the version from which each rule reads the operator; a model older than
the first is converted upwards. *Derivative* is "both modes" (forward and reverse, of any order), "forward"
(no reverse mode), "none" (asking for one is refused) or "-" where nothing floating goes in or comes out.
*Types* are the inputs' element types in the tests of the operator alone that pass. *Tests* counts the
models of onnx's backend suite that use the operator: passed / all. An operator without tests there has its
own under `tests/engine/lowering`.

| operator | domain | opset | derivative | types | tests |
|---|---|---|---|---|---:|
"""

BODIES = """
## From their function bodies

| operator | domain | types | tests |
|---|---|---|---:|
"""

DERIVATIVES = {"any": "both modes", "forward": "forward", "none": "none"}


@dataclass(frozen=True)
class Row:
    """One line of the page: the columns that the registry gives."""

    op: str
    domain: str
    opsets: str
    derivative: str

    def __str__(self) -> str:
        return f"| {self.op} | {self.domain or 'ai.onnx'} | {self.opsets} | {self.derivative} |"


def rows() -> list[Row]:
    """Returns the lines from the registry, in the order of the page."""
    rules: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in all_rules():
        rules[rule.domain, rule.op].append(rule)
    found = []
    for (domain, op), versions in sorted(rules.items()):
        newest = max(versions, key=lambda rule: rule.since)
        derivative = "-" if qualified(domain, op) in DISCRETE else DERIVATIVES[newest.derivative]
        found.append(
            Row(op, domain, ", ".join(str(rule.since) for rule in sorted(versions, key=_since)), derivative)
        )
    return found


def _since(rule: Rule) -> int:
    return rule.since


@cache
def _uses() -> dict[str, tuple[frozenset[str], frozenset[int]]]:
    """Returns for each test the operators of its model, and the element types of its inputs.

    The types are only those of models of one node.
    """
    found = {}
    for test in suite.tests():
        model = test.model
        graphs: list[GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
        ops = frozenset(qualified(node.domain, node.op_type) for graph in graphs for node in _nodes(graph))
        alone = len(model.graph.node) == 1
        found[test.name] = ops, frozenset(suite.element_types(model.graph.input) if alone else ())
    return found


def _nodes(graph: GraphProto | onnx.FunctionProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _evidence(op: str, results: Iterable[Result]) -> str:
    """Returns the last two columns for an operator."""
    passed = total = 0
    types: set[int] = set()
    for result in results:
        ops, inputs = _uses()[result.name]
        if op in ops:
            total += 1
            passed += result.passed
            types |= inputs if result.passed else frozenset()
    names = sorted(TensorProto.DataType.Name(kind).lower() for kind in types if kind)
    return f" {', '.join(names)} | {f'{passed} / {total}' if total else ''} |"


def write(results: list[Result]) -> None:
    """Writes the page from the registry and the engine's results."""
    lines = [f"{row}{_evidence(qualified(row.domain, row.op), results)}" for row in rows()]
    ruled = {qualified(row.domain, row.op) for row in rows()}
    passed = {op for result in results if result.passed for op in _uses()[result.name][0]}
    bodies = []
    for name in sorted(passed - ruled):
        domain, _, op = name.rpartition(":")
        schemas = [item for item in onnx.defs.get_all_schemas_with_history() if item.name == op]
        if any(item.domain == domain for item in schemas):
            bodies.append(f"| {op} | {domain or 'ai.onnx'} |{_evidence(name, results)}")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(INTRODUCTION + "\n".join(lines) + "\n" + BODIES + "\n".join(bodies) + "\n")


if __name__ == "__main__":
    write(measure.last("gradwire") if "--measured" in sys.argv else measure.measure("gradwire"))
