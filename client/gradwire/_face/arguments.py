"""Binds the arguments of a call to inputs: one array each, of the input's dtype."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, Signature, Value, select
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import flatten, is_array_like, unflatten


def bind(inputs: Sequence[Value], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, wire.Array]:
    """Returns one array for each input, in the inputs' order.

    Args:
        inputs: the inputs of the function.
        args: values in order, or a single tuple or mapping of them.
        named: values by name.

    Raises:
        InvalidArgumentError: an input is missing, unknown, given twice or of a dtype that does not convert
            without loss of kind (float64 to float32 does, float to int and complex to float do not).
    """
    values = given_values(inputs, args, named)
    missing = [str(value) for value in inputs if value.name not in values]
    if missing:
        raise InvalidArgumentError(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing)}")
    return {value.name: convert(value, values[value.name]) for value in inputs}


def given_values(inputs: Sequence[Value], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given values by name, unconverted; refuses those that are unknown or given twice."""
    values = _positional(inputs, args)
    for name, value in named.items():
        if name in values:
            raise InvalidArgumentError(f"input {name!r} is given twice, by position and by name")
        values[name] = value
    known = [value.name for value in inputs]
    for name in values:
        if name not in known:
            raise InvalidArgumentError(
                f"there is no input {name!r}; the inputs are: {', '.join(known) or 'none'}"
            )
    return values


def _positional(inputs: Sequence[Value], args: tuple[Any, ...]) -> dict[str, Any]:
    if len(args) == 1:
        if isinstance(args[0], Mapping):
            return dict(args[0])
        if isinstance(args[0], tuple) and _is_tuple_of_inputs(inputs, args[0]):
            args = args[0]
    if len(args) > len(inputs):
        raise InvalidArgumentError(
            f"{len(args)} arguments given, but the function has {len(inputs)} "
            f"input{'s' * (len(inputs) != 1)}: {', '.join(map(str, inputs)) or 'none'}"
        )
    return {value.name: arg for value, arg in zip(inputs, args, strict=False)}


def _is_tuple_of_inputs(inputs: Sequence[Value], given: tuple[Any, ...]) -> bool:
    if len(inputs) != 1:
        return True
    # One input: (x,) means x, unless the input itself has a leading axis that the tuple stands for.
    shape = inputs[0].shape
    return len(given) == 1 and shape is not None and np.ndim(given[0]) == len(shape)


def convert(value: Value, given: Any) -> wire.Array:
    """Converts `given` to an array of the input's dtype, without a copy where it is one already."""
    array = np.asarray(given)
    dtype = value.dtype
    if dtype is None or array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind") or array.dtype.kind == "c" != dtype.kind:
        raise InvalidArgumentError(
            f"input {value} cannot be given as {array.dtype}: convert it with "
            f".astype({dtype.name!r}) if that is what you mean"
        )
    return array.astype(dtype)


def vectors(word: str, given: Any, targets: Sequence[Value], single: bool) -> dict[str, wire.Array]:
    """Converts the tangents or cotangents of a product.

    Args:
        word: "tangent" or "cotangent", for messages.
        given: an array, or a tuple or list of them.
        targets: the inputs of the transformed function that take them.
        single: a plain array may be given when there is one target.

    Returns:
        One array for each target, by name.

    Raises:
        InvalidArgumentError: there are more or fewer than targets, or a dtype does not convert.
    """
    if single and len(targets) == 1 and not (isinstance(given, tuple) and len(given) == 1):
        return {targets[0].name: convert(targets[0], given)}
    if not isinstance(given, tuple | list):
        raise InvalidArgumentError(
            f"{word}s: one for each of {', '.join(t.name for t in targets)} is needed; pass a tuple of them"
        )
    if len(given) != len(targets):
        raise InvalidArgumentError(
            f"{len(given)} {word}s given, but {len(targets)} are needed: {', '.join(map(str, targets))}"
        )
    return {target.name: convert(target, one) for target, one in zip(targets, given, strict=True)}


def batched_names(signature: Signature, selection: Selection) -> tuple[str, ...]:
    """Returns the names of the inputs that carry a leading batch axis."""
    if selection is None:
        return ()
    as_any_type = [Value(value.name, None, value.shape) for value in signature.inputs]
    return select(as_any_type, selection, "input", "batched")


def abstract(given: Any) -> Any:
    """Replaces a spec by an array that takes no memory; returns anything else as it is."""
    if isinstance(given, ArraySpec):
        return np.broadcast_to(np.empty((), given.dtype), given.shape)
    tree, leaves = flatten(given, is_array_like)
    return given if tree.is_leaf else unflatten(tree, map(abstract, leaves))


def fixed_type(value: Value) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Returns the shape and dtype of an input.

    Raises:
        InvalidArgumentError: an extent is open.
    """
    shape = tuple(extent for extent in value.shape or () if isinstance(extent, int))
    if value.shape is None or value.dtype is None or len(shape) != len(value.shape):
        raise InvalidArgumentError(f"the shape of input {value} is open: pass an array or gw.spec(...)")
    return shape, value.dtype
