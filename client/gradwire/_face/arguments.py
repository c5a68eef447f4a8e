"""Binds the arguments of a call to inputs: one array each, of the input's dtype."""

from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire._face.options import OPTION_NAMES
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, Signature, Value, select
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import flatten, is_array_like, unflatten


def bind(inputs: Sequence[Value], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, wire.Array]:
    """Return one array for each input, in the inputs' order.

    Args:
        inputs: the inputs of the function.
        args: values in order, or a single tuple or mapping of them.
        named: values by name.

    Raises:
        InvalidArgumentError: an input is missing, unknown, given twice or of a dtype that does not convert
            without loss of kind (float64 to float32 does, float to int and complex to float do not), or an
            element does not fit the input's dtype (300 for uint8, 1e300 for float32).
    """
    values = given_values(inputs, args, named)
    missing = [str(value) for value in inputs if value.name not in values]
    if missing:
        raise InvalidArgumentError(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing)}")
    return {value.name: convert(value, values[value.name]) for value in inputs}


def given_values(inputs: Sequence[Value], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values by name, unconverted; refuse those that are unknown or given twice."""
    values = _positional(inputs, args)
    for name, value in named.items():
        if name in values:
            raise InvalidArgumentError(f"input {name!r} is given twice, by position and by name")
        values[name] = value
    known = [value.name for value in inputs]
    for name in values:
        if name not in known:
            raise InvalidArgumentError(_unknown(name, known, OPTION_NAMES if name in named else frozenset()))
    return values


# What other packages call the choice of inputs.
_WRT = {"argnum", "argnums", "argnames", "inputs", "wrt_argnums"}


def _unknown(name: str, inputs: Sequence[str], options: Set[str]) -> str:
    """Return what is wrong with the name of an argument, which may be a misspelt option."""
    listed = f"the inputs are: {', '.join(inputs) or 'none'}"
    if not options:
        return f"there is no input {name!r}; {_near(name, inputs)}{listed}"
    if name in options:
        return f"there is no input {name!r}, and the option {name}= is one of other calls; {listed}"
    what = f"there is no input {name!r}, nor an option of that name; "
    if name in _WRT:
        return f"{what}wrt= chooses the inputs to differentiate with respect to; {listed}"
    return f"{what}{_near(name, [*inputs, *sorted(options)])}{listed}"


def _near(name: str, known: Sequence[str]) -> str:
    return "".join(f"did you mean {near!r}? " for near in get_close_matches(name, known, n=1))


def check_extents(inputs: Sequence[Value], arrays: Mapping[str, wire.Array]) -> None:
    """Check that each size that has a name is one number, from 1 on, wherever the name is used.

    Raises:
        InvalidArgumentError: it is not.
    """
    known: dict[str, tuple[int, str]] = {}
    for value in inputs:
        shape = arrays[value.name].shape
        if value.shape is None or len(shape) < len(value.shape):  # the server says what is wrong
            continue
        for name, size in zip(value.shape[::-1], shape[::-1], strict=False):
            if not isinstance(name, str):
                continue
            other, where = known.setdefault(name, (size, value.name))
            if other != size:
                raise InvalidArgumentError(
                    f"the size {name} is {other} in input {where!r} and {size} in input {value.name!r}"
                )
            if not size:
                raise InvalidArgumentError(
                    f"the size {name} of input {value.name!r} is 0: a function that is traced for sizes by "
                    "name takes them from 1 on"
                )


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
    """Convert `given` to an array of the input's dtype, without a copy where it is one already."""
    array = np.asarray(given)
    dtype = value.dtype
    if dtype is None or array.dtype == dtype:
        return array
    integers = _integers(array, given) if dtype.kind in "iu" else None
    if integers is not None:
        return _as_integers(value, integers, dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind") or array.dtype.kind == "c" != dtype.kind:
        raise InvalidArgumentError(
            f"input {value} cannot be given as {array.dtype}: convert it with "
            f".astype({dtype.name!r}) if that is what you mean"
        )
    with np.errstate(over="ignore"):  # found below
        converted = array.astype(dtype)
    if not np.can_cast(array.dtype, dtype, "safe"):
        lost = np.isinf(converted) & np.isfinite(array)
        if lost.any():
            raise _too_large(value, array[lost].flat[0])
    return converted


def _integers(array: wire.Array, given: Any) -> wire.Array | None:
    """Return what was given as integers; None if something else is in it.

    Lists of whole numbers need care: NumPy makes floats of empty ones and of those that neither int64 nor
    uint64 holds, or objects.
    """
    if array.dtype.kind in "iu":
        return array
    if isinstance(given, np.ndarray) and array.dtype != object:
        return None
    exact = np.array(given, object)
    return exact if all(isinstance(one, int) and not isinstance(one, bool) for one in exact.flat) else None


def _as_integers(value: Value, array: wire.Array, dtype: np.dtype[Any]) -> wire.Array:
    if array.size and not np.can_cast(array.dtype, dtype, "safe"):
        range_ = np.iinfo(dtype)
        for extreme in (array.min(), array.max()):
            if not range_.min <= int(extreme) <= range_.max:
                raise _too_large(value, extreme)
    return array.astype(dtype)


def _too_large(value: Value, element: Any) -> InvalidArgumentError:
    assert value.dtype is not None
    why = "it would be infinite there"
    if value.dtype.kind in "iu":
        range_ = np.iinfo(value.dtype)
        why = f"{value.dtype.name} goes from {range_.min} to {range_.max}"
    return InvalidArgumentError(f"input {value} cannot hold {element}: {why}")


def vectors(word: str, given: Any, targets: Sequence[Value], single: bool) -> dict[str, wire.Array]:
    """Convert the tangents or cotangents of a product.

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
    """Return the names of the inputs that carry a leading batch axis."""
    if selection is None:
        return ()
    as_any_type = [Value(value.name, None, value.shape) for value in signature.inputs]
    return select(as_any_type, selection, "input", "batched")


def abstract(given: Any) -> Any:
    """Replace a spec by an array that takes no memory; return anything else as it is."""
    if isinstance(given, ArraySpec):
        if given.symbolic:
            raise InvalidArgumentError(
                f"a plan is for numbers: give the spec of shape {given.shape} its sizes, as in gw.spec(100)"
            )
        return np.broadcast_to(np.zeros((), given.dtype), given.shape)
    tree, leaves = flatten(given, is_array_like)
    return given if tree.is_leaf else unflatten(tree, map(abstract, leaves))


def fixed_type(value: Value) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype of an input.

    Raises:
        InvalidArgumentError: an extent is open.
    """
    shape = tuple(extent for extent in value.shape or () if isinstance(extent, int))
    if value.shape is None or value.dtype is None or len(shape) != len(value.shape):
        raise InvalidArgumentError(f"the shape of input {value} is open: pass an array or gw.spec(...)")
    return shape, value.dtype
