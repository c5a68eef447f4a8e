"""The function that a graph was made from, kept to compare the two."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradwire_wire as wire

Values = Callable[[Sequence[wire.Array]], list[wire.Array]]
"""Maps one array for each input to one for each output."""

Product = Callable[[Sequence[wire.Array], Sequence[wire.Array]], Sequence[wire.Array | None]]
"""Maps the inputs, and a cotangent for each floating-point output, to one for each floating-point input.

None stands for an input that the framework has no derivative by.
"""


@dataclass(frozen=True)
class Reference:
    """A function that a graph was made from, with the graph's inputs and outputs in the graph's order.

    Attributes:
        name: its name, for messages.
        code: what it does, as something that can be compared: two functions of the same code that give the
            same graph need to be compared with it once.
        values: evaluates the function.
        product: multiplies cotangents by its Jacobian, by the framework's own differentiation; None where
            the framework has none.
        alone: whether it must not run while the caller goes on, since it puts the caller's objects back.
        release: forgets what the function holds; called when it has been compared, or never will be.
    """

    name: str
    code: object
    values: Values
    product: Product | None = None
    alone: bool = False
    release: Callable[[], None] = lambda: None


def name_of(function: Any) -> str:
    """Return the name of a function, or of the type of another callable."""
    return str(getattr(function, "__name__", type(function).__name__))


def code_of(function: Any) -> object:
    """Return what a callable does: its code object, or its type where it has none."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__wrapped__", function)
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", type(function))
