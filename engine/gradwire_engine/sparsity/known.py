"""Values of a program that are known before it runs: indices, masks and trip counts made of constants.

A value is computed when a rule asks for it, never before: most programs never ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

Array = np.ndarray[Any, Any]

LARGEST = 1 << 27
"""Elements up to which a value is computed before the program runs."""


class Known:
    """A value that is computed at its first use."""

    def __init__(self, compute: Callable[[], Array]) -> None:
        """Keep the computation."""
        self._compute: Callable[[], Array] | None = compute

    @cached_property
    def array(self) -> Array:
        """The value."""
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
    if len(results) != 1 or any(operand is None for operand in operands):
        return unknown
    name = equation.primitive.name
    aval = results[0].aval
    if name not in _EVALUATED or prod(getattr(aval, "shape", ())) > LARGEST:
        return unknown
    values = [operand for operand in operands if operand is not None]

    def compute() -> Array:
        arrays = [value.array for value in values]
        if name in _BY_NUMPY:
            return np.asarray(_BY_NUMPY[name](equation, *arrays))
        bound = equation.primitive.bind(*map(jnp.asarray, arrays), **equation.params)
        return np.asarray(bound)

    return [Known(compute)]


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


def _select(equation: Any, which: Array, *cases: Array) -> Array:
    if which.dtype == bool and len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.asarray(lax.select_n(jnp.asarray(which), *map(jnp.asarray, cases)))


def _elementwise(function: Callable[..., Any]) -> Callable[..., Array]:
    def apply(equation: Any, *arrays: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays)).astype(_dtype(equation), copy=False)

    return apply


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "convert_element_type": lambda array: array,
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}

_BY_NUMPY: dict[str, Callable[..., Any]] = {
    "iota": _iota,
    "broadcast_in_dim": lambda equation, array, *_: broadcast(equation.params, array),
    "reshape": lambda equation, array, *_: array.reshape(equation.outvars[0].aval.shape),
    "squeeze": lambda equation, array: array.reshape(equation.outvars[0].aval.shape),
    "expand_dims": lambda equation, array: array.reshape(equation.outvars[0].aval.shape),
    "slice": lambda equation, array: sliced(equation.params, array),
    "transpose": lambda equation, array: array.transpose(equation.params["permutation"]),
    "rev": lambda equation, array: np.flip(array, equation.params["dimensions"]),
    "concatenate": lambda equation, *arrays: np.concatenate(arrays, equation.params["dimension"]),
    "select_n": _select,
    "copy": lambda equation, array: array,
    "copy_p": lambda equation, array: array,
    "stop_gradient": lambda equation, array: array,
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
}

_EVALUATED = frozenset(_BY_NUMPY) | {
    "and",
    "or",
    "xor",
    "not",
    "div",
    "rem",
    "floor",
    "ceil",
    "round",
    "is_finite",
    "integer_pow",
    "clamp",
    "pad",
    "gather",
    "dynamic_slice",
    "dynamic_update_slice",
    "scatter",
    "scatter-add",
    "cumsum",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_and",
    "reduce_or",
    "argmax",
    "argmin",
    "population_count",
    "shift_left",
    "shift_right_logical",
    "shift_right_arithmetic",
    "square",
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tanh",
    "pow",
    "argsort",
}
"""Primitives that are cheap to evaluate before the program runs."""
