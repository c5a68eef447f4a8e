"""Registers the rules of a front-end: one function for each primitive or operator of its framework."""

from collections.abc import Callable, MutableMapping
from typing import TypeVar

Rule = TypeVar("Rule", bound=Callable[..., object])


def registrar(rules: MutableMapping[str, Rule], kind: str) -> Callable[..., Callable[[Rule], Rule]]:
    """Make the decorator `@rule("name", ...)` that adds functions to `rules`.

    Args:
        rules: the table to fill.
        kind: what the names are names of, for the error message.

    Returns:
        The decorator; it raises `ValueError` for a name that has a rule already.
    """

    def rule(*names: str) -> Callable[[Rule], Rule]:
        def register(function: Rule) -> Rule:
            for name in names:
                if name in rules:
                    raise ValueError(f"two rules for {kind} {name}")
                rules[name] = function
            return function

        return register

    return rule
