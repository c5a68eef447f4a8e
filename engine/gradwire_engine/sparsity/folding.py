"""Evaluates equations of values that are known up to rounding, before the program runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.sparsity import rounding
from gradwire_engine.sparsity.rounding import Rounded
from gradwire_engine.sparsity.windows import scattered

Array = np.ndarray[Any, Any]
Values = list[Rounded]


def evaluated(equation: Any, values: Values) -> Values | None:
    """Evaluate an equation of one of `EVALUATED`; None where rounding or the device decides."""
    name = equation.primitive.name
    arrays = [value.array for value in values]
    if name in _MOVING or name in _PARTING:
        return _moved(equation, values, _by_numpy)
    if name == "convert_element_type":
        return _converted(equation, values[0])
    if name in _COMPARING:
        answer = rounding.compared(_COMPARING[name], *values)
        return None if answer is None else [Rounded(answer)]
    if not rounding.is_exact_kind(equation.outvars[0].aval.dtype):
        if name in _ROUNDING:
            return [_ROUNDING[name](*values)]
        if name in _SUMMING:
            return [_summed(equation, values)]
        if name in _SELECTING and (name != "scatter" or not _has_rivals(equation, *arrays[1:])):
            return _moved(equation, values, _bound)
    if any(value.slack is not None for value in values):
        return None
    if name == "scatter" and _has_rivals(equation, *arrays[1:]):
        return None
    return [Rounded(result) for result in _bound(equation, arrays)]


Apply = Callable[[Any, Sequence[Array]], list[Array]]


def _moved(equation: Any, values: Values, apply: Apply) -> Values:
    """Move values about, and their slacks likewise."""
    results = apply(equation, [value.array for value in values])
    if all(value.slack is None for value in values):
        return [Rounded(result) for result in results]
    kinds = [rounding.is_exact_kind(value.array.dtype) for value in values]
    slacks = apply(
        equation,
        [
            value.array if exact else value.distance.astype(value.array.dtype)
            for value, exact in zip(values, kinds, strict=True)
        ],
    )
    return [rounding.rounded(result, np.abs(slack)) for result, slack in zip(results, slacks, strict=True)]


def _by_numpy(equation: Any, arrays: Sequence[Array]) -> list[Array]:
    name = equation.primitive.name
    if name in _MOVING:
        return [np.asarray(_MOVING[name](equation, *arrays))]
    return [np.asarray(part) for part in _PARTING[name](equation, *arrays)]


def _bound(equation: Any, arrays: Sequence[Array]) -> list[Array]:
    primitive = equation.primitive
    found = primitive.bind(*map(jnp.asarray, arrays), **equation.params)
    return [np.asarray(result) for result in (found if primitive.multiple_results else [found])]


def _converted(equation: Any, value: Rounded) -> Values | None:
    """Convert; JAX says what becomes of values that the type does not hold."""
    dtype = np.dtype(_dtype(equation))

    def convert(array: Array) -> Array:
        return np.asarray(lax.convert_element_type(jnp.asarray(array), dtype))

    array = value.array
    if rounding.is_exact_kind(dtype):
        if rounding.is_exact_kind(array.dtype):
            return [Rounded(array.astype(dtype, copy=False))]
        if value.slack is None:
            return [Rounded(convert(array))]
        if array.dtype.kind == "c":
            return None
        above, below = convert(array + value.distance), convert(array - value.distance)
        return [Rounded(above)] if np.array_equal(above, below) else None
    result = convert(array)
    if rounding.is_exact_kind(array.dtype):
        exact = _outlasts(result, array)
        return [rounding.rounded(result, np.where(exact, 0, 2 * np.abs(result)))]
    if array.dtype.kind == "c" or dtype.kind == "c":
        return [Rounded(result)] if value.slack is None else None
    return [rounding.converted(value, result)]


def _outlasts(result: Array, array: Array) -> Array:
    """Return where whole numbers outlast a conversion to floats."""
    return np.asarray(result.real.astype(float) == array.astype(float))


def _summed(equation: Any, values: Values) -> Rounded:
    dtype = np.dtype(_dtype(equation))
    summands = [value for value in values if value.array.dtype == dtype]

    def applied(change: Callable[[Rounded], Array]) -> Array:
        given = [
            change(value).astype(dtype) if value.array.dtype == dtype else value.array for value in values
        ]
        return _bound(equation, given)[0]

    result, magnitude = applied(lambda value: value.array), applied(lambda value: np.abs(value.array))
    spread: Any = 0.0
    if any(value.slack is not None for value in summands):
        spread = np.abs(applied(lambda value: value.distance))
        if equation.primitive.name in ("square", "integer_pow"):
            spread = np.where(spread == 0, 0, np.inf)
    count = max(sum(value.array.size for value in summands), abs(equation.params.get("y", 1)))
    return rounding.summed(result, np.abs(magnitude), spread, count, all(map(rounding.is_whole, summands)))


def _has_rivals(equation: Any, indices: Array, updates: Array) -> bool:
    """Return whether a scatter writes two values to one element, in an order that is the device's own."""
    shape = equation.outvars[0].aval.shape
    windows = scattered(equation.params, shape, updates.shape)
    positions, valid = windows.positions(indices, updates.shape)
    order = np.argsort(positions[valid], kind="stable")
    targets, written = positions[valid][order], updates[valid][order]
    return bool(np.any((targets[1:] == targets[:-1]) & (written[1:] != written[:-1])))


def _dtype(equation: Any) -> Any:
    return equation.outvars[0].aval.dtype


def _iota(equation: Any) -> Array:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    line = np.arange(shape[axis], dtype=_dtype(equation))
    return np.broadcast_to(line.reshape([-1 if axis == k else 1 for k in range(len(shape))]), shape)


def broadcast(params: dict[str, Any], array: Array) -> Array:
    """Do what `broadcast_in_dim` does, without a copy."""
    shape = [1] * len(params["shape"])
    for axis, place in enumerate(params["broadcast_dimensions"]):
        shape[place] = array.shape[axis]
    return np.broadcast_to(array.reshape(shape), params["shape"])


def sliced(params: dict[str, Any], array: Array) -> Array:
    """Do what `slice` does, without a copy."""
    strides = params["strides"] or (1,) * array.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return array[tuple(slice(*bound) for bound in bounds)]


def reshaped(equation: Any, array: Array) -> Array:
    """Do what `reshape` does, which may permute the axes before."""
    dimensions = equation.params.get("dimensions") if equation.primitive.name == "reshape" else None
    ordered = array if dimensions is None else array.transpose(dimensions)
    return ordered.reshape(equation.outvars[0].aval.shape)


def split(params: dict[str, Any], array: Array) -> list[Array]:
    """Do what `split` does, without a copy."""
    return np.split(array, np.cumsum(params["sizes"])[:-1], params["axis"])


def _select(equation: Any, which: Array, *cases: Array) -> Array:
    if which.dtype == bool and len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.asarray(lax.select_n(jnp.asarray(which), *map(jnp.asarray, cases)))


_MOVING: dict[str, Callable[..., Any]] = {
    "iota": _iota,
    "broadcast_in_dim": lambda equation, array, *_: broadcast(equation.params, array),
    "reshape": lambda equation, array, *_: reshaped(equation, array),
    "squeeze": reshaped,
    "expand_dims": reshaped,
    "slice": lambda equation, array: sliced(equation.params, array),
    "transpose": lambda equation, array: array.transpose(equation.params["permutation"]),
    "rev": lambda equation, array: np.flip(array, equation.params["dimensions"]),
    "concatenate": lambda equation, *arrays: np.concatenate(arrays, equation.params["dimension"]),
    "stack": lambda equation, *arrays: np.stack(arrays, equation.params["axis"]),
    "tile": lambda equation, array: np.tile(array, equation.params["reps"]),
    "select_n": _select,
    "copy": lambda equation, array: array,
    "copy_p": lambda equation, array: array,
    "stop_gradient": lambda equation, array: array,
}
"""What moves elements about, by NumPy and mostly without a copy."""

_PARTING: dict[str, Callable[..., Any]] = {
    "split": lambda equation, array: split(equation.params, array),
    "unstack": lambda equation, array: np.moveaxis(array, equation.params["axis"], 0),
}

_ROUNDING: dict[str, Callable[..., Rounded]] = {
    "add": rounding.added,
    "add_any": rounding.added,
    "sub": lambda first, second: rounding.added(first, Rounded(-second.array, second.slack)),
    "mul": rounding.multiplied,
    "div": rounding.divided,
    "max": rounding.extreme(np.maximum),
    "min": rounding.extreme(np.minimum),
    "neg": lambda value: Rounded(-value.array, value.slack),
    "abs": lambda value: Rounded(np.abs(value.array), value.slack),
    "sign": rounding.stepped(np.sign),
    "floor": rounding.stepped(np.floor),
    "ceil": rounding.stepped(np.ceil),
}
"""Functions of floating operands."""

_COMPARING: dict[str, Callable[..., Any]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}

_SUMMING = frozenset({"square", "integer_pow", "cumsum", "reduce_sum", "scatter-add"})
"""Arithmetic of many floating operands."""

_SELECTING = frozenset({"pad", "gather", "dynamic_slice", "dynamic_update_slice", "scatter"})
"""What moves elements about, by JAX."""

EVALUATED = (
    frozenset([*_MOVING, *_PARTING, *_ROUNDING, *_COMPARING, "convert_element_type"])
    | _SUMMING
    | _SELECTING
    | {
        "and",
        "or",
        "xor",
        "not",
        "rem",
        "round",
        "clamp",
        "is_finite",
        "argmax",
        "argmin",
        "sort",
        "reduce_max",
        "reduce_min",
        "reduce_and",
        "reduce_or",
        "population_count",
        "shift_left",
        "shift_right_logical",
        "shift_right_arithmetic",
    }
)
"""Primitives that are cheap to evaluate before the program runs."""
