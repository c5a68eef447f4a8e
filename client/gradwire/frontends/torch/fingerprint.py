"""What a function depends on besides its arguments, as a key: the same key, the same recorded graph.

A recorded graph may be used again only while nothing has changed that the function reads: variables it
closes over, globals it names, its defaults, the attributes of a module. Floating-point tensors are inputs of
the graph, so that only their shapes matter and they are not kept; of other tensors the contents do.
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


class Unknown(Exception):
    """The function reads something whose changes cannot be seen."""


class Fingerprint:
    """Keys of functions.

    Args:
        slots: tensors that stand for arguments, by identity: which they are is no part of the key.
    """

    def __init__(self, slots: Mapping[int, int] | None = None) -> None:
        self._slots = slots or {}
        self._seen: dict[int, int] = {}
        self.anchors: list[Any] = []
        """What must stay alive for the identities in the key to mean the same."""
        self.tensors: list[torch.Tensor] = []
        """The floating-point tensors that were found; the key tells them apart by their place here."""

    def of(self, item: Any) -> Hashable:
        """The key of anything.

        Raises:
            Unknown: it holds an object that cannot be looked into.
        """
        if isinstance(item, _PLAIN):
            # The text tells -0.0 from 0.0, and NaN is like itself.
            return type(item), repr(item)
        if id(item) in self._slots:
            return "argument", self._slots[id(item)]
        if id(item) in self._seen:
            return "again", self._seen[id(item)]
        self._seen[id(item)] = len(self._seen)
        if len(self._seen) > _LIMIT:
            raise Unknown
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
                raise Unknown
            yield item.shape, str(item.dtype), item.tobytes()
        elif isinstance(item, type | types.ModuleType | types.BuiltinFunctionType) or _of_library(item):
            yield self._identity(item)
        elif hasattr(item, "__dict__"):
            yield self.of(vars(item))
        else:
            raise Unknown

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
