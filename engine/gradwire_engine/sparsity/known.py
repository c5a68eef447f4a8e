"""Values of a program that are known before it runs: indices, masks and trip counts made of constants.

A value is computed when a rule asks for it, never before: most programs never ask. It is the one that the
compiled program has, on any device: elements that rounding may change are NaN (see rounding.py), and where a
choice would be made by such an element, or by the order of duplicate writes, the whole is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.sparsity import rounding
from gradwire_engine.sparsity.windows import scattered

Array = np.ndarray[Any, Any]

LARGEST = 1 << 27
"""Elements up to which a value is computed before the program runs."""

_DEEPEST = 64
"""Values that wait for one another before the last of them is computed, so that none recurses too deep."""

_CHEAP = 1 << 16
"""Elements up to which a value is computed without being asked for, when too many wait for it."""


class Known:
    """A value that is computed at its first use."""

    def __init__(self, compute: Callable[[], Array | None], depth: int = 0) -> None:
        """Keep the computation, and how many others wait for it in turn."""
        self._compute: Callable[[], Array | None] | None = compute
        self._depth = depth

    def at(self, step: int) -> Known:
        """Return an element along the first axis."""

        def element() -> Array | None:
            array = self.array
            return None if array is None else array[step]

        return Known(element, self.depth + 1)

    @property
    def depth(self) -> int:
        """How many values have to be computed in turn for this one."""
        return 0 if self._compute is None else self._depth

    @cached_property
    def array(self) -> Array | None:
        """The value; None where it turns out not to be known."""
        compute, self._compute = self._compute, None
        assert compute is not None
        return compute()


def known(value: Any) -> Known:
    """Return a value at hand as a known one."""
    return Known(lambda: np.asarray(value))


def fold(equation: Any, operands: Sequence[Known | None]) -> list[Known | None]:
    """Return an equation's results where they follow from known operands, None for each otherwise."""
    results = equation.outvars
    unknown: list[Known | None] = [None] * len(results)
    name = equation.primitive.name
    size = max((prod(getattr(result.aval, "shape", ())) for result in results), default=0)
    if name not in _EVALUATED or size > LARGEST:
        return unknown
    values = [operand for operand in operands if operand is not None]
    if len(values) < len(operands):
        return unknown

    def compute() -> list[Array] | None:
        arrays = [value.array for value in values]
        given = [array for array in arrays if array is not None]
        if len(given) < len(arrays):
            return None
        with np.errstate(all="ignore"):
            return _evaluated(equation, given)

    depth = 1 + max((value.depth for value in values), default=0)
    made = _results(compute, len(results), depth)
    if depth > _DEEPEST:
        if size > _CHEAP:
            return unknown
        for value in made:
            _ = value.array
    return list(made)


def _results(compute: Callable[[], list[Array] | None], count: int, depth: int) -> list[Known]:
    if count == 1:

        def single() -> Array | None:
            arrays = compute()
            return None if arrays is None else arrays[0]

        return [Known(single, depth)]
    whole = cache(compute)

    def result(k: int) -> Array | None:
        arrays = whole()
        return None if arrays is None else arrays[k]

    return [Known(partial(result, k), depth) for k in range(count)]


def _evaluated(equation: Any, arrays: list[Array]) -> list[Array] | None:
    name = equation.primitive.name
    if name in _MOVING:
        return [np.asarray(_MOVING[name](equation, *arrays))]
    if name in _PARTING:
        return [np.asarray(part) for part in _PARTING[name](equation, *arrays)]
    exact = rounding.is_exact_kind(_dtype(equation))
    if name in _ROUNDING and not exact:
        function, kept = _ROUNDING[name]
        first, second = np.broadcast_arrays(*arrays)
        return [kept(first, second, np.asarray(function(first, second)))]
    if name == "convert_element_type":
        converted = _converted(equation, *arrays)
        return None if converted is None else [converted]
    if name in _CHOOSING and not all(map(rounding.is_certain, arrays)):
        return None
    if name == "scatter" and _has_rivals(equation, *arrays[1:]):
        return None
    if name in _BY_NUMPY:
        return [np.asarray(_BY_NUMPY[name](*arrays)).astype(_dtype(equation), copy=False)]
    results = _bound(equation, arrays)
    if name in _SUMMING and not exact:
        summands = [array for array in arrays if array.dtype == results[0].dtype]
        magnitudes = _bound(equation, [np.abs(a) if a.dtype == results[0].dtype else a for a in arrays])
        return [rounding.summed(results[0], magnitudes[0], *summands)]
    return results


def _bound(equation: Any, arrays: Sequence[Array]) -> list[Array]:
    primitive = equation.primitive
    found = primitive.bind(*map(jnp.asarray, arrays), **equation.params)
    return [np.asarray(result) for result in (found if primitive.multiple_results else [found])]


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


def _converted(equation: Any, array: Array) -> Array | None:
    dtype = np.dtype(_dtype(equation))
    if rounding.is_exact_kind(dtype) and rounding.is_exact_kind(array.dtype):
        return array.astype(dtype, copy=False)
    if rounding.is_exact_kind(dtype) and not rounding.is_certain(array):
        return None
    # JAX says what becomes of values that the type does not hold.
    result = np.asarray(lax.convert_element_type(jnp.asarray(array), dtype))
    if rounding.is_exact_kind(dtype) or array.dtype.kind in "bc" or dtype.kind == "c":
        return result
    return rounding.converted(array, result)


def _has_rivals(equation: Any, indices: Array, updates: Array) -> bool:
    """Return whether a scatter writes two values to one element, in an order that is the device's own."""
    positions, valid = scattered(equation.params, equation.outvars[0].aval.shape, updates.shape).positions(
        indices, updates.shape
    )
    order = np.argsort(positions[valid], kind="stable")
    targets, values = positions[valid][order], updates[valid][order]
    return bool(np.any((targets[1:] == targets[:-1]) & (values[1:] != values[:-1])))


_ROUNDING: dict[str, tuple[Callable[..., Any], Callable[[Array, Array, Array], Array]]] = {
    "add": (np.add, rounding.added),
    "add_any": (np.add, rounding.added),
    "sub": (np.subtract, lambda first, second, result: rounding.added(first, -second, result)),
    "mul": (np.multiply, rounding.multiplied),
    "div": (np.divide, rounding.divided),
}
"""Arithmetic of two floating operands, and what keeps the results that are exact."""

_BY_NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
"""Functions that round nothing: of integers, or of any numbers."""

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

_SUMMING = frozenset({"square", "integer_pow", "cumsum", "reduce_sum", "scatter-add"})
"""Arithmetic of many operands, exact for whole numbers that are small."""

_CHOOSING = frozenset(
    {"lt", "le", "gt", "ge", "eq", "ne", "is_finite", "argmax", "argmin", "sort", "clamp", "rem"}
)
"""What makes choices by values, so that each of them must be certain."""

_EVALUATED = (
    frozenset([*_MOVING, *_PARTING, *_ROUNDING, *_BY_NUMPY, "convert_element_type"])
    | _SUMMING
    | _CHOOSING
    | {
        "and",
        "or",
        "xor",
        "not",
        "round",
        "pad",
        "gather",
        "dynamic_slice",
        "dynamic_update_slice",
        "scatter",
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
