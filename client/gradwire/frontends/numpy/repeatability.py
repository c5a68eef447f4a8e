"""Checks that a function gives the same graph every time: a graph would freeze random numbers and clocks.

There are two checks, and neither is complete. The state of every random generator that the function can
reach (through its variables, those of the functions it calls, and the global generators) must not change
while it is traced; this check has no false alarms. Tracing the function again must give the same graph; this
finds other sources of change, unless two draws happen to be equal.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import random
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gradwire.errors import TraceError
from gradwire.frontends.closures import top_package, variables
from gradwire.graphs.constants import BoundModel

_ADVICE = (
    "which would freeze them in the graph; draw the samples outside and pass them in as an input "
    "(a generator made inside from a fixed seed is a constant, and may stay)"
)
_LIBRARIES = frozenset({"numpy", "scipy", "gradwire", "builtins", "jax", "torch"})
_REACH, _LONG = 10_000, 1000
_SHOWN = 3

States = list[tuple[Any, bytes]]


def random_states(fn: Callable[..., Any]) -> States:
    """Return the random generators that a function can reach, with their pickled states."""
    return [(generator, _state(generator)) for generator in (random, np.random, *_generators(fn))]


def check_unmoved(name: str, before: States) -> None:
    """Check that no generator has changed its state.

    Args:
        name: the function's name, for the message.
        before: generators and their states, from `random_states`.

    Raises:
        TraceError: a generator was used.
    """
    for generator, state in before:
        if _state(generator) != state:
            source = _described(generator)
            raise TraceError(f"{name} drew random numbers{source} while it was traced, {_ADVICE}")


def check_same(name: str, first: BoundModel, second: BoundModel) -> None:
    """Check that two traces of a function gave the same graph.

    Raises:
        TraceError: they differ; the message names the first constant that does.
    """
    difference = _difference(first, second)
    if difference:
        raise TraceError(
            f"{name} gave two graphs when it was traced twice: {difference}. It depends on random numbers, "
            f"on the time or on other state that changes from call to call, {_ADVICE}"
        )


def _state(generator: Any) -> bytes:
    if isinstance(generator, np.random.Generator):
        state: Any = generator.bit_generator.state
    elif isinstance(generator, np.random.RandomState) or generator is np.random:
        state = generator.get_state(legacy=False)
    else:
        state = generator.getstate()
    return pickle.dumps(state)


def _described(generator: Any) -> str:
    if isinstance(generator, types.ModuleType):
        return f" from {'np.random' if generator is np.random else 'random'}"
    return f" from a {type(generator).__name__}"


def _generators(fn: Callable[..., Any]) -> Iterator[Any]:
    """Find generators in closures, globals, defaults and attributes, also of called functions."""
    waiting: list[Any] = [fn]
    seen: dict[int, Any] = {}
    while waiting and len(seen) < _REACH:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, np.random.Generator | np.random.RandomState | random.Random):
            yield item
        else:
            waiting.extend(_within(item))


def _within(item: Any) -> Iterable[Any]:
    if isinstance(item, types.FunctionType):
        return () if _root(item) in _LIBRARIES else (value for _, value in variables(item, _LIBRARIES))
    if isinstance(item, types.MethodType):
        return (item.__self__, item.__func__)
    if isinstance(item, functools.partial):
        return (item.func, *item.args, *item.keywords.values())
    if isinstance(item, list | tuple | set):
        return item if len(item) <= _LONG else ()
    if isinstance(item, dict):
        return item.values() if len(item) <= _LONG else ()
    if isinstance(item, type | types.ModuleType | np.ndarray) or _root(type(item)) in _LIBRARIES:
        return ()
    try:
        attributes = object.__getattribute__(item, "__dict__")  # runs nothing of the user's
    except AttributeError:
        attributes = {}
    return (*attributes.values(), inspect.getattr_static(type(item), "__call__", None))


def _root(item: Any) -> str:
    return top_package(str(getattr(item, "__module__", "") or ""))


def _difference(first: BoundModel, second: BoundModel) -> str:
    """Describe the first difference between two models; "" if there is none."""
    for one, other in zip(first.proto.graph.initializer, second.proto.graph.initializer, strict=False):
        if one.raw_data != other.raw_data or one.dims != other.dims or one.data_type != other.data_type:
            return f"a constant is {_shown(one)} in the first and {_shown(other)} in the second"
    for (name, large), (_, again) in zip(first.bound.items(), second.bound.items(), strict=False):
        if large.tensor_id != again.tensor_id:
            return f"{name}, {large.array.dtype}{list(large.array.shape)}, has other elements in the second"
    if first.proto != second.proto or list(first.bound) != list(second.bound):
        return "their operations differ"
    return ""


def _shown(tensor: onnx.TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    if not array.ndim:
        return f"{array[()]!r}"
    elements = ", ".join(f"{element:.6g}" for element in array.ravel()[:_SHOWN].astype(float))
    more = ", ..." if array.size > _SHOWN else ""
    return f"{array.dtype}{list(array.shape)} [{elements}{more}]"
