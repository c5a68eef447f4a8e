"""Finds writes that nobody sees through another view: they need not reach the memory that they are made to.

Recurrent cells write to parts of a matrix of gates; carried through to the matrix, each write would copy it.
"""

from __future__ import annotations

from typing import Any

from gradwire.frontends.torch.recording.operators import operator
from gradwire.frontends.torch.recording.program import Content, Node, Program, Var

_MOST = 64
"""Views of one memory that are looked at; with more, writes are carried through."""


def local_writes(program: Program) -> set[Node]:
    """Return in-place nodes after which only their own variable, or disjoint ones, is read."""
    parts = {
        var: id(node.result)
        for node in program.nodes
        if isinstance(node.result, list)
        for var in node.result
        if isinstance(var, Var)
    }
    later: dict[Content, set[Var]] = {}
    for var in program.outputs:
        later.setdefault(var.content, set()).add(var)
    found: set[Node] = set()
    for node in reversed(program.nodes):
        if not isinstance(node.op, str) and operator(node.op).in_place:
            target = node.args[0]
            read = later.get(target.content, set())
            if (
                not target.content.given
                and len(read) <= _MOST
                and all(_apart(one, target, parts) for one in read)
            ):
                found.add(node)
        else:
            for var in _vars(node.result):
                later.get(var.content, set()).discard(var)
        for var in _vars((node.args, list(node.kwargs.values()))):
            later.setdefault(var.content, set()).add(var)
    return found


def _apart(one: Var, target: Var, parts: dict[Var, int]) -> bool:
    return one is target or (one in parts and parts[one] == parts.get(target))


def _vars(item: Any) -> list[Var]:
    if isinstance(item, Var):
        return [item]
    return [var for one in item for var in _vars(one)] if isinstance(item, list | tuple) else []
