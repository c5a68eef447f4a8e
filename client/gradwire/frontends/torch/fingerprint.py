"""Cache keys of functions: with equal keys, a function is recorded as the same graph.

A recorded graph may be used again only while nothing has changed that the function reads besides its
arguments: its code, variables it closes over, globals it names, its defaults and attributes, the attributes
of objects, the contents of their classes and of the classes these inherit from. Shape, dtype and
`requires_grad` of tensors are in the key; whether their values matter is known once a graph is recorded.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, MutableSet
from typing import Any

import numpy as np
import torch

from gradwire.frontends.closures import top_package, variables

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device, slice)
_LIBRARIES = frozenset({
    "torch", "numpy", "math", "builtins", "gradwire", "functools", "operator", "itertools", "scipy", "typing",
    "collections", "contextlib", "dataclasses", "abc", "enum", "types", "warnings", "os", "sys", "time",
})  # fmt: skip
_WITHOUT_NUMBERS = frozenset({"logging", "re", "threading", "_thread", "abc", "_abc", "typing"})
_DESCRIBING = frozenset({
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate__",
    "__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl", "__orig_bases__",
    "__parameters__", "__type_params__", "__annotations_cache__", "__annotate_func__", "__classdictcell__",
})  # fmt: skip
_DESCRIPTORS = (
    types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.MethodWrapperType,
)  # fmt: skip
_LIMIT = 20_000


class Fingerprint:
    """Computes the key of one function, collects the tensors it reads, and remembers what it can change.

    Args:
        slots: for tensors that are arguments, their position by `id`; the key holds the position in their
            place.
        remember: keep what `restore` needs.

    Attributes:
        anchors: objects whose identities are in the key; they must stay alive for it to stay unambiguous.
        tensors: the tensors that were found; the key holds their order, not their identity.
        observable: whether all changes of what the function reads can be detected.
    """

    def __init__(self, slots: Mapping[int, int] | None = None, *, remember: bool = False) -> None:
        self._slots = slots or {}
        self._remembers = remember
        self._seen: dict[int, int] = {}
        self._undo: list[Callable[[], None]] = []
        self._alive: list[Any] = []  # while it is there, its `id` is not used again
        self.anchors: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.observable = True

    def restore(self) -> None:
        """Give every object that was found the contents back that it had then."""
        for undo in self._undo:
            undo()

    def _remember(self, undo: Callable[..., Callable[[], None]], *args: Any) -> None:
        if self._remembers:
            self._undo.append(undo(*args))

    def visit(self, item: Any) -> Hashable:
        """Return the key of an object and everything reachable from it."""
        if isinstance(item, _PLAIN) and type(item).__module__ in ("builtins", "torch"):
            # The text tells -0.0 from 0.0, and is equal for two NaNs.
            return type(item), repr(item)
        if id(item) in self._slots:
            return "argument", self._slots[id(item)]
        if id(item) in self._seen:
            return "again", self._seen[id(item)]
        self._seen[id(item)] = len(self._seen)
        self._alive.append(item)
        if len(self._seen) > _LIMIT:
            self.observable = False
            return None
        return tuple(self._parts(item))

    def _identity(self, item: Any) -> int:
        self.anchors.append(item)
        return id(item)

    def _parts(self, item: Any) -> Iterator[Hashable]:
        if isinstance(item, type):
            yield from self._class(item)
            return
        if isinstance(item, types.FunctionType):
            yield from self._function(item)
            return
        if isinstance(item, types.ModuleType | types.BuiltinFunctionType | types.CodeType | np.ufunc):
            yield self._identity(item)
            return
        yield self.visit(type(item))
        if isinstance(item, _PLAIN):
            yield repr(item), self.visit(getattr(item, "__dict__", None))
        elif isinstance(item, torch.Tensor):
            yield tuple(item.shape), item.dtype, item.requires_grad, _strides(item)
            self.tensors.append(item)
            self._remember(_tensor_undo, item)
        elif isinstance(item, types.MethodType | functools.partial | property | staticmethod | classmethod):
            names = ("__func__", "__self__", "func", "args", "keywords", "fget", "fset")
            yield from (self.visit(getattr(item, name)) for name in names if hasattr(item, name))
        elif isinstance(item, functools.cached_property):
            yield self.visit(item.func)
        elif isinstance(item, weakref.ref):
            yield self.visit(item())
        elif isinstance(item, np.ndarray | np.generic):
            yield from self._array(item)
        elif type(item).__module__ in _WITHOUT_NUMBERS or isinstance(item, _DESCRIPTORS):
            yield self._identity(item)
        elif _of_library(item) and callable(item) and not isinstance(item, torch.nn.Module):
            yield self._identity(item)
            yield from (self.visit(one) for one in _held(item))
        else:
            yield from self._object(item)

    def _object(self, item: Any) -> Iterator[Hashable]:
        known = False
        if isinstance(item, Mapping):
            known = True
            yield from [(self.visit(key), self.visit(value)) for key, value in list(item.items())]
            if isinstance(item, MutableMapping):
                self._remember(_mapping_undo, item)
        elif isinstance(item, list | tuple | set | frozenset):
            known = True
            yield from [self.visit(one) for one in list(item)]
            if isinstance(item, list):
                self._remember(_list_undo, item)
            elif isinstance(item, MutableSet):
                self._remember(_set_undo, item)
        attributes = getattr(item, "__dict__", None)
        if isinstance(attributes, dict):
            known = True
            yield self.visit(attributes)
        for name in _slots(type(item)):
            known = True
            yield name, self.visit(getattr(item, name, None))
        self.observable &= known

    def _array(self, item: Any) -> Iterator[Hashable]:
        if item.dtype.hasobject:
            self.observable = False
            return
        data = np.ascontiguousarray(item)
        yield (
            item.shape,
            str(item.dtype),
            hashlib.blake2b(data.view(np.uint8).data if data.size else b"").digest(),
        )
        if isinstance(item, np.ndarray) and item.flags.writeable:
            self._remember(_array_undo, item)

    def _class(self, item: type) -> Iterator[Hashable]:
        yield self._identity(item)
        yield from self._contents(item)
        yield from (self.visit(base) for base in item.__bases__ if base is not object)

    def _contents(self, item: type) -> Iterator[Hashable]:
        named = [(name, value) for name, value in list(vars(item).items()) if name not in _DESCRIBING]
        if _is_library(item.__module__):
            # Replaced methods are seen, not what these read.
            yield tuple((name, self._identity(value)) for name, value in named)
            return
        for name, value in named:
            yield name, self.visit(value)
            self._remember(_attribute_undo, item, name, value)

    def _function(self, function: types.FunctionType) -> Iterator[Hashable]:
        # Two functions of the same code differ by what they close over alone.
        yield self._identity(function.__code__)
        for cell in function.__closure__ or ():
            self._remember(_cell_undo, cell)
        if _is_library(function.__globals__.get("__name__", "")):
            yield from (self.visit(one) for one in _held(function))
            return
        for name, value in list(variables(function, _LIBRARIES)):
            yield name, self.visit(value)
            if function.__globals__.get(name, self) is value:
                self._remember(_global_undo, function.__globals__, name, value)
        if function.__dict__:
            yield self.visit(function.__dict__)


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout == torch.strided else ()


def digest(tensor: torch.Tensor) -> bytes:
    """Return a hash of a tensor's values."""
    return _hash(tensor.detach().numpy(force=True))


def _hash(array: Any) -> bytes:
    data = np.ascontiguousarray(array).reshape(-1)
    return hashlib.blake2b(data.view(np.uint8).data if data.size else b"").digest()


def _held(function: Any) -> list[Any]:
    """Return what a library's function holds of the caller's: its closure, defaults and attributes."""
    held = [*(getattr(function, "__defaults__", None) or ())]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    attributes = getattr(function, "__dict__", None)
    return [*held, attributes] if attributes else held


def _slots(kind: type) -> list[str]:
    names: list[str] = []
    for one in kind.__mro__:
        slots = vars(one).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


@functools.cache
def _is_library(name: str) -> bool:
    """Whether a module is a library's: installed, not written by the caller."""
    if top_package(name) in _LIBRARIES:
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _of_library(item: Any) -> bool:
    return _is_library(str(getattr(item, "__module__", None) or ""))


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _list_undo(item: list[Any]) -> Callable[[], None]:
    before = list(item)

    def undo() -> None:
        if not _same(item, before):
            item[:] = before

    return undo


def _set_undo(item: MutableSet[Any]) -> Callable[[], None]:
    before = list(item)

    def undo() -> None:
        if not _same(list(item), before):
            item.clear()
            for one in before:
                item.add(one)

    return undo


def _mapping_undo(item: MutableMapping[Any, Any]) -> Callable[[], None]:
    before = dict(item)

    def undo() -> None:
        if not (_same(list(item), list(before)) and _same(list(item.values()), list(before.values()))):
            item.clear()
            item.update(before)

    return undo


def _array_undo(item: np.ndarray[Any, Any]) -> Callable[[], None]:
    before = item.copy()

    def undo() -> None:
        if item.tobytes() != before.tobytes():
            item[...] = before

    return undo


def _attribute_undo(item: type, name: str, value: Any) -> Callable[[], None]:
    def undo() -> None:
        if vars(item).get(name) is not value:
            setattr(item, name, value)

    return undo


def _global_undo(scope: dict[str, Any], name: str, value: Any) -> Callable[[], None]:
    def undo() -> None:
        if scope.get(name) is not value:
            scope[name] = value

    return undo


def _cell_undo(cell: types.CellType) -> Callable[[], None]:
    try:
        value = cell.cell_contents
    except ValueError:  # not assigned yet
        return lambda: None

    def undo() -> None:
        if cell.cell_contents is not value:
            cell.cell_contents = value

    return undo


def _tensor_undo(item: torch.Tensor) -> Callable[[], None]:
    follows, leaf = item.requires_grad, item.is_leaf
    gradient = item.grad if leaf else None

    def undo() -> None:
        if item.is_leaf and leaf:
            if item.requires_grad != follows:
                item.requires_grad_(follows)
            if item.grad is not gradient:
                item.grad = gradient

    return undo
