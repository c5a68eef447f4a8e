"""Cache keys of functions: with equal keys, a function is recorded as the same graph.

A recorded graph may be used again only while nothing has changed that the function reads besides its
arguments: variables it closes over, globals it names, its defaults, the attributes of a module.
Floating-point tensors are inputs of the graph: their shape, dtype and `requires_grad` are in the key. Of
other tensors the contents are (by identity and version).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from gradwire.frontends.closures import top_package, variables

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device, slice)
_LIBRARIES = frozenset(
    {"torch", "numpy", "math", "builtins", "gradwire", "functools", "operator", "itertools"}
)
_LIMIT = 20_000
_ARRAY_BYTES = 1 << 16


class Unobservable(Exception):
    """The function reads an object whose changes cannot be detected."""


class Fingerprint:
    """Computes the key of one function, and collects the tensors it reads.

    Args:
        slots: for tensors that are arguments, their position by `id`; the key holds the position in their
            place.

    Attributes:
        anchors: objects whose identities are in the key; they must stay alive for it to stay unambiguous.
        tensors: the floating-point tensors that were found; the key holds their order, not their identity.
    """

    def __init__(self, slots: Mapping[int, int] | None = None) -> None:
        self._slots = slots or {}
        self._seen: dict[int, int] = {}
        self.anchors: list[Any] = []
        self.tensors: list[torch.Tensor] = []

    def of(self, item: Any) -> Hashable:
        """Return the key of an object and everything reachable from it.

        Raises:
            Unobservable: changes of an object cannot be detected, or there are too many objects.
        """
        if isinstance(item, _PLAIN):
            # The text tells -0.0 from 0.0, and is equal for two NaNs.
            return type(item), repr(item)
        if id(item) in self._slots:
            return "argument", self._slots[id(item)]
        if id(item) in self._seen:
            return "again", self._seen[id(item)]
        self._seen[id(item)] = len(self._seen)
        if len(self._seen) > _LIMIT:
            raise Unobservable
        return tuple(self._parts(item))

    def _parts(self, item: Any) -> Iterator[Hashable]:
        yield self._identity(type(item))
        if isinstance(item, torch.Tensor):
            yield tuple(item.shape), item.dtype, item.requires_grad
            if item.is_floating_point():
                self.tensors.append(item)
            else:
                yield self._identity(item), item._version
        elif isinstance(item, types.FunctionType) and not _of_library(item):
            yield from self._function(item)
        elif isinstance(item, types.MethodType | functools.partial):
            for name in ("__func__", "__self__", "func", "args", "keywords"):
                if hasattr(item, name):
                    yield self.of(getattr(item, name))
        elif isinstance(item, Mapping):
            yield from ((self.of(key), self.of(value)) for key, value in item.items())
        elif isinstance(item, list | tuple | set | frozenset):
            yield from map(self.of, item)
        elif isinstance(item, np.ndarray | np.generic):
            if item.nbytes > _ARRAY_BYTES or item.dtype.hasobject:
                raise Unobservable
            yield item.shape, str(item.dtype), item.tobytes()
        elif isinstance(item, type | types.ModuleType | types.BuiltinFunctionType) or _of_library(item):
            yield self._identity(item)
        elif hasattr(item, "__dict__"):
            yield self.of(vars(item))
        else:
            raise Unobservable

    def _identity(self, item: Any) -> int:
        self.anchors.append(item)
        return id(item)

    def _function(self, function: types.FunctionType) -> Iterator[Hashable]:
        # Two functions of the same code differ by what they close over alone.
        yield self._identity(function.__code__)
        yield from ((name, self.of(value)) for name, value in variables(function, _LIBRARIES))


def _of_library(item: Any) -> bool:
    if isinstance(item, torch.nn.Module):
        return False
    name = item.__name__ if isinstance(item, types.ModuleType) else getattr(item, "__module__", None)
    return top_package(str(name or "")) in _LIBRARIES and (
        callable(item) or isinstance(item, types.ModuleType)
    )
