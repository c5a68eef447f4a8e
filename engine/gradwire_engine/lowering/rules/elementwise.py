"""Elementwise operators."""

from __future__ import annotations

from gradwire_engine.lowering.registry import Node, Value, namespace, rule


@rule("Add", since=7)
def add(node: Node, a: Value, b: Value) -> Value:
    return namespace(a, b).add(a, b)
