"""Names, dtypes and shapes of a function's inputs and outputs, before and after transforms.

The rules are those that `function.proto` documents. They are applied on the client so that wrong names are
found before anything is sent, and so that the size of a result is known in advance.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeGuard

import numpy as np

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError
from gradwire.tables import html_table
from gradwire_wire.v1 import function_pb2, graph_pb2

Shape = tuple[int | str | None, ...] | None
Selection = str | int | Sequence[str | int] | None
"""Inputs or outputs by name or position: one, several, or None for every floating-point one."""


@dataclass(frozen=True, slots=True)
class Value:
    """The name and type of one input or output.

    Attributes:
        name: the name of the input or output.
        dtype: None for an unknown or non-numeric type.
        shape: an int for a fixed extent, a name for a symbolic one and None for any; None for any rank.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: Shape

    @property
    def floating(self) -> bool:
        """Whether its dtype is floating-point: others have no derivative."""
        return self.dtype is not None and wire.is_float(self.dtype)

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether an array of this shape fits its rank and fixed extents."""
        return self.shape is None or (
            len(self.shape) == len(shape)
            and all(own == one for own, one in zip(self.shape, shape, strict=True) if isinstance(own, int))
        )

    @property
    def type_name(self) -> str:
        """Dtype and shape, as "float64[3, N]"."""
        extents = "..." if self.shape is None else ", ".join("?" if e is None else str(e) for e in self.shape)
        return f"{self.dtype.name if self.dtype is not None else '?'}[{extents}]"

    def __str__(self) -> str:
        return f"{self.name}: {self.type_name}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a function, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, values)) for values in (self.inputs, self.outputs))
        return f"({inputs}) -> ({outputs})"

    def _repr_html_(self) -> str:
        return self.html("signature")

    def html(self, title: str, notes: Iterable[str] = ()) -> str:
        """Return the table of inputs and outputs that a notebook shows."""
        rows = [
            (role, value.name, value.type_name)
            for role, values in (("input", self.inputs), ("output", self.outputs))
            for value in values
        ]
        return html_table(title, ("", "name", "type"), rows, notes)

    def result_bytes(self, shapes: Mapping[str, Sequence[int]]) -> int | None:
        """Return the bytes of all outputs for inputs of these shapes; None if an extent is unknown."""
        extents: dict[str, int] = {}
        for value in self.inputs:
            if value.shape is not None and value.name in shapes:
                for symbol, size in zip(value.shape, shapes[value.name], strict=False):
                    if isinstance(symbol, str):  # of two extents that broadcast, one may be 1
                        extents[symbol] = max(size, extents.get(symbol, size))
        total = 0
        for value in self.outputs:
            if value.shape is None or value.dtype is None:
                return None
            sizes = [extents.get(e) if isinstance(e, str) else e for e in value.shape]
            if any(size is None for size in sizes):
                return None
            total += prod(size for size in sizes if size is not None) * value.dtype.itemsize
        return total


def signature_of(graph: graph_pb2.Graph) -> Signature:
    """Return the signature of a graph as the server describes it."""
    return Signature(tuple(map(_described, graph.inputs)), tuple(map(_described, graph.outputs)))


def _described(info: graph_pb2.ValueInfo) -> Value:
    extents = tuple(one.size if one.HasField("size") else one.symbol or None for one in info.shape)
    return Value(info.name, wire.numpy_dtype(info.dtype), extents if info.has_rank else None)


def select(values: Sequence[Value], selection: Selection, role: str, word: str) -> tuple[str, ...]:
    """Return the names that a `wrt=` or `of=` argument selects.

    Args:
        values: the inputs or outputs to select from.
        selection: names or positions; None for every floating-point value.
        role: "input" or "output", for messages.
        word: the argument's name, for messages.

    Raises:
        InvalidArgumentError: a name or position does not exist, is given twice or is not floating-point, or
            nothing is selected.
    """
    wanted = normalized(selection, word)
    if wanted is None:
        chosen = [value for value in values if value.floating]
        if not chosen:
            raise InvalidArgumentError(f"the function has no floating-point {role} to differentiate")
        return tuple(value.name for value in chosen)
    chosen = [_find(values, one, role, word) for one in (wanted if isinstance(wanted, tuple) else (wanted,))]
    for value in chosen:
        if value.dtype is not None and not value.floating:
            raise InvalidArgumentError(
                f"{role} {value.name!r} is {value.dtype.name}: only floating-point {role}s have derivatives; "
                f"leave it out of {word}"
            )
    names = tuple(value.name for value in chosen)
    if len(set(names)) != len(names):
        raise InvalidArgumentError(f"{word} names an {role} twice: {', '.join(names)}")
    if not names:
        raise InvalidArgumentError(f"{word} is empty: leave it out, or name at least one {role}")
    return names


def is_single(selection: Selection) -> TypeGuard[str | int]:
    """Whether a selection is one name or position by itself, whose result is not wrapped in a tuple."""
    return isinstance(selection, str) or (
        hasattr(selection, "__index__") and not (isinstance(selection, np.ndarray) and selection.ndim)
    )


def normalized(selection: Selection, word: str) -> str | int | tuple[str | int, ...] | None:
    """Return a selection of names and positions of type `str` and `int`, which can be compared and hashed.

    Raises:
        InvalidArgumentError: there is something else in it, such as the bools of a mask.
    """
    if selection is None:
        return None
    if is_single(selection) or not isinstance(selection, Iterable):
        return _normalized(selection, word)
    return tuple(_normalized(one, word) for one in selection)


def _normalized(one: Any, word: str) -> str | int:
    if isinstance(one, str):
        return str(one)
    if isinstance(one, bool | np.bool_):
        raise InvalidArgumentError(
            f"{word} takes names and positions, not {bool(one)}: instead of a mask, list the chosen ones, "
            f"as in {word}=[0, 2]"
        )
    try:
        return operator.index(one)
    except TypeError:
        raise InvalidArgumentError(f"{word} takes names and positions, not {one!r}") from None


def _find(values: Sequence[Value], one: str | int, role: str, word: str) -> Value:
    if isinstance(one, int):
        if -len(values) <= one < len(values):
            return values[one]
    else:
        for value in values:
            if value.name == one:
                return value
    known = ", ".join(value.name for value in values) or "none"
    raise InvalidArgumentError(f"{word}: there is no {role} {one!r}; there are: {known}")


def select_scalar(values: Sequence[Value], selection: str | int | None) -> str:
    """Return the name of the one output that a gradient or Hessian is of.

    Raises:
        InvalidArgumentError: several outputs are selected, or the output has more than one element.
    """
    names = select(values, selection, "output", "of")
    if len(names) != 1:
        raise InvalidArgumentError(
            f"the function has {len(names)} floating-point outputs ({', '.join(names)}): "
            "say which one to differentiate with of="
        )
    chosen = next(value for value in values if value.name == names[0])
    if chosen.shape is not None and any(isinstance(e, int) and e != 1 for e in chosen.shape):
        raise InvalidArgumentError(
            f"output {chosen} has more than one element: a gradient or Hessian is of one number; "
            "reduce it in the function, or ask for a Jacobian or vjp"
        )
    return names[0]


@dataclass(frozen=True, slots=True)
class Transform:
    """A transform of a function into another.

    Attributes:
        kind: "gradient", "jvp", "vjp" or "hvp".
        wrt: names of the inputs to differentiate with respect to.
        of: names of the outputs to differentiate; one for "gradient" and "hvp".
        keep_values: whether the function's own outputs follow the derivatives.
    """

    kind: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    keep_values: bool = False

    def proto(self) -> function_pb2.Transform:
        """Return the transform as a message."""
        wrt, of, keep = self.wrt, self.of, self.keep_values
        if self.kind == "gradient":
            gradient = function_pb2.GradientTransform(wrt=wrt, of=of[0], keep_values=keep)
            return function_pb2.Transform(gradient=gradient)
        if self.kind == "hvp":
            hvp = function_pb2.HvpTransform(wrt=wrt, of=of[0], keep_values=keep)
            return function_pb2.Transform(hvp=hvp)
        if self.kind == "jvp":
            jvp = function_pb2.JvpTransform(wrt=wrt, of=of, keep_values=keep)
            return function_pb2.Transform(jvp=jvp)
        vjp = function_pb2.VjpTransform(wrt=wrt, of=of, keep_values=keep)
        return function_pb2.Transform(vjp=vjp)

    def apply(self, signature: Signature) -> Signature:
        """Return the signature of the transformed function, given that of the original."""
        inputs = {value.name: value for value in signature.inputs}
        outputs = {value.name: value for value in signature.outputs}
        wrt, of = [inputs[name] for name in self.wrt], [outputs[name] for name in self.of]
        rule = _RULES[self.kind]
        seeds = _derived(rule.seed, of if rule.seeds_outputs else wrt, set(inputs)) if rule.seed else ()
        results = _derived(
            rule.result, of if rule.maps_outputs else wrt, set(outputs) if self.keep_values else set()
        )
        kept = signature.outputs if self.keep_values else ()
        return Signature(signature.inputs + seeds, results + kept)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a transform adds to a signature.

    Attributes:
        seed: suffix of the new inputs' names, "" for no new inputs.
        seeds_outputs: whether there is a new input for each output in `of`, instead of each input in `wrt`.
        result: suffix of the results' names.
        maps_outputs: whether there is a result for each output in `of`, instead of each input in `wrt`.
    """

    seed: str
    seeds_outputs: bool
    result: str
    maps_outputs: bool


_RULES = {
    "gradient": _Rule(seed="", seeds_outputs=False, result="gradient", maps_outputs=False),
    "jvp": _Rule(seed="tangent", seeds_outputs=False, result="tangent", maps_outputs=True),
    "vjp": _Rule(seed="cotangent", seeds_outputs=True, result="cotangent", maps_outputs=False),
    "hvp": _Rule(seed="tangent", seeds_outputs=False, result="hvp", maps_outputs=False),
}


def _derived(suffix: str, values: Iterable[Value], taken: set[str]) -> tuple[Value, ...]:
    return tuple(Value(_fresh(f"{value.name}.{suffix}", taken), value.dtype, value.shape) for value in values)


def _fresh(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}.{count}"
    taken.add(candidate)
    return candidate


@dataclass(frozen=True)
class FunctionSpec:
    """A function: a graph's id, the transforms applied to it, and the resulting signature."""

    graph_id: str
    signature: Signature
    transforms: tuple[Transform, ...] = ()
    proto: function_pb2.Function = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        message = function_pb2.Function(
            graph_id=self.graph_id, transforms=[transform.proto() for transform in self.transforms]
        )
        object.__setattr__(self, "proto", message)

    def then(self, transform: Transform) -> "FunctionSpec":
        """Return this function with one more transform applied."""
        return FunctionSpec(self.graph_id, transform.apply(self.signature), (*self.transforms, transform))
