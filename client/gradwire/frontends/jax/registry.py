"""The registry of rules: one function for each primitive of JAX, found by the primitive's name.

    @rule("neg")
    def neg(call, x):
        return ops.unary("Neg", x)

A rule takes the call and its inputs, which are values of the graph, and returns its output, or a sequence of
outputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

from gradwire.errors import TraceError
from gradwire.frontends.jax.dtypes import KINDS, is_float
from gradwire.frontends.registering import registrar
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import DType, GraphValue, Shape
from gradwire.graphs.refusals import OWN_DIRECTORY, package_directory

Rule = Callable[..., Any]

rules: dict[str, Rule] = {}
"""Rules by the primitive's name."""

complex_rules: dict[str, Rule] = {}
"""Rules for equations in which an array is complex; they take and return pairs in place of complex arrays."""


class Type(NamedTuple):
    """Shape and dtype of a result."""

    shape: Shape
    dtype: DType


class Pair(NamedTuple):
    """A complex array: its real and its imaginary part, of one shape and dtype."""

    real: GraphValue
    imag: GraphValue


Value = GraphValue | Pair


def parts_of(value: Value) -> tuple[GraphValue, ...]:
    """Return the one or two real arrays that hold a value."""
    return tuple(value) if isinstance(value, Pair) else (value,)


class Inline(Protocol):
    """Converts a jaxpr's equations into nodes of the present body."""

    def __call__(self, closed: Any, inputs: Sequence[Any], *, order: int | None = ...) -> list[Any]:
        """Take and return values; `order` is that of the call unless another is given."""


def type_only(shape: Sequence[int], dtype: Any) -> Any:
    """Return what JAX traces a function with in place of an array."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


class JaxGraph(GraphBuilder):
    """A graph made from a jaxpr.

    Attributes:
        still: names of values that have no derivative by any input, because of a stop_gradient.
        pushed: names of values in a derivative rule that depend on its tangents or cotangents.
    """

    def __init__(self) -> None:
        super().__init__(folding=True, kinds=KINDS)
        self.still: set[str] = set()
        self.pushed: set[str] = set()

    def moves(self, value: Value) -> bool:
        """Return whether a value may have a derivative by an input."""
        if isinstance(value, Pair):
            return self.moves(value.real) or self.moves(value.imag)
        return is_float(value.dtype) and value.name not in self.still and self.known(value) is None

    def stop(self, values: Iterable[Value]) -> None:
        """Note that values have no derivative."""
        self.still.update(part.name for value in values for part in parts_of(value))

    def push(self, values: Iterable[Value]) -> None:
        """Note that values depend on the tangents or cotangents of a derivative rule."""
        self.pushed.update(part.name for value in values for part in parts_of(value))

    def depends_on_tangents(self, value: Value) -> bool:
        """Return whether a value in a derivative rule depends on its tangents or cotangents."""
        return any(part.name in self.pushed for part in parts_of(value))


@dataclass(frozen=True)
class Call:
    """One equation of a jaxpr, as its rule sees it.

    Attributes:
        graph: the graph under construction.
        primitive: of the equation.
        params: the primitive's parameters.
        results: shape and dtype of each output.
        source: the user's line that made the equation, or "".
        inline: converts an inner jaxpr.
        order: how many derivative rules it is in, each for a function in the one before; None where it is not
            differentiated.
    """

    graph: JaxGraph
    primitive: Any
    params: dict[str, Any]
    results: tuple[Type, ...]
    source: str
    inline: Inline
    order: int | None = 0

    @property
    def name(self) -> str:
        """The primitive's name."""
        return str(self.primitive.name)

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.results[0].shape

    @property
    def dtype(self) -> DType:
        """Dtype of the first output."""
        return self.results[0].dtype

    def fail(self, message: str) -> TraceError:
        """Return an error that names the primitive and the user's line, for the rule to raise."""
        return TraceError(f"jax.lax primitive {self.name!r}{self.at}: {message}")

    @property
    def at(self) -> str:
        """Where in the user's code this is, as " (file.py:12 in f)", or ""."""
        return f" ({self.source})" if self.source else ""


rule = registrar(rules, "primitive")
"""Registers a function as the rule of one or more primitives."""

complex_rule = registrar(complex_rules, "primitive of complex arrays")
"""Registers a function as the rule of primitives where one of their arrays is complex."""

_JAX = package_directory(jax)
_PASSED_OVER = (_JAX, OWN_DIRECTORY, "<frozen ")


def origin(jaxpr: Any) -> tuple[str, str]:
    """Name and source file of the function that a jaxpr was traced from; "" where unknown."""
    information = getattr(getattr(jaxpr, "jaxpr", jaxpr), "debug_info", None)
    name, _, place = str(getattr(information, "func_src_info", "")).partition(" at ")
    return name, place.rpartition(":")[0]


def is_of_jax(filename: str) -> bool:
    """Return whether a source file belongs to JAX itself."""
    return filename.startswith(_JAX)


def user_line(source_info: Any) -> str:
    """Return the innermost user's line that made an equation, as "file.py:12 in f"; "" where none is known.

    Lines of JAX and of this package are not the user's.
    """
    frames = getattr(getattr(source_info, "traceback", None), "frames", ())
    for frame in frames:
        if not frame.file_name.startswith(_PASSED_OVER):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num} in {frame.function_name}"
    return ""
