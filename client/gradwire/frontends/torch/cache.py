"""Caches of recorded functions, and of the remote functions made from them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cachetools import LRUCache

from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire.errors import TraceError
from gradwire.frontends.torch.autograd import RemoteFunction
from gradwire.frontends.torch.capture import TensorSpec, is_plain, name_of
from gradwire.frontends.torch.export import Exported, export
from gradwire.frontends.torch.fingerprint import Fingerprint, digest
from gradwire.graphs.constants import BoundModel

_CAPACITY = 256
_VARIANTS = 8
_lock = threading.Lock()
_recordings: LRUCache[Hashable, tuple[_Recording, ...]] = LRUCache(_CAPACITY)
_remote_functions: weakref.WeakKeyDictionary[
    Client, LRUCache[tuple[int, Verify | None], tuple[BoundModel, RemoteFunction]]
]
_remote_functions = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Recording:
    """A recorded function without the tensors it closes over, which may be others in the next call.

    Attributes:
        exported: the function, with no closed-over tensors.
        sources: for each closed-over tensor, its position among those that a fingerprint finds, or the tensor
            itself where the fingerprint does not find it.
        constants: tensors whose values are a part of the graph, given in the same way, and hashes of them.
        anchors: objects whose identities are in the key, kept alive so that the key stays unambiguous.
    """

    exported: Exported
    sources: tuple[int | torch.Tensor, ...]
    constants: tuple[tuple[int | torch.Tensor, bytes], ...]
    anchors: list[Any]

    def holds(self, found: Sequence[torch.Tensor]) -> bool:
        """Whether the tensors that are constants of the graph have the values that they had."""
        return all(
            digest(found[one] if isinstance(one, int) else one) == known for one, known in self.constants
        )

    def with_tensors(self, found: Sequence[torch.Tensor]) -> Exported:
        """Return the function with the closed-over tensors of a new call."""
        tensors = (found[source] if isinstance(source, int) else source for source in self.sources)
        return replace(self.exported, closed_over=tuple(tensors))


def cached_export(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    *,
    point: Sequence[torch.Tensor] | None,
    state: Any = None,
    slots: Mapping[int, int] | None = None,
    changes: bool = True,
) -> Exported:
    """Export `fn` to a model; record it again only where something that it reads has changed.

    Args:
        fn: takes one tensor for each spec.
        specs: shape, dtype and `requires_grad` of each argument.
        point: the arguments, if they have values.
        state: what the key is computed from, where `fn` is a wrapper that is made anew for each call.
        slots: for tensors in `state` that are arguments, their position by `id`; the key then leaves them
            out.
        changes: whether the caller makes the changes to tensors that are outputs of the model.

    Raises:
        TraceError: `fn` does something that has no place in a graph.
    """
    read = fn if state is None else state
    finder = Fingerprint(slots)
    key: Hashable = (
        finder.visit(read),
        tuple(specs),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
    )
    if not all(map(is_plain, finder.tensors)):
        raise TraceError(
            f"{name_of(fn)} closes over a tensor that torch.func transforms: pass it in as an argument"
        )
    if not finder.observable:
        return export(fn, specs, point=point, state=read)
    with _lock:
        several = _recordings.get(key, ())
    found = next((one for one in several if one.holds(finder.tensors)), None)
    if found is not None:
        return found.with_tensors(finder.tensors)
    made = export(fn, specs, point=point, state=read)
    if not made.repeatable or (made.changed and not changes) or _has_effects(finder, read, slots, key):
        return made
    place = {id(tensor): i for i, tensor in enumerate(finder.tensors)}
    recording = _Recording(
        replace(made, closed_over=(), originals={}, constants=(), ran=False),
        tuple(place.get(id(tensor), tensor) for tensor in made.closed_over),
        tuple((place.get(id(tensor), tensor), digest(tensor)) for tensor in made.constants),
        finder.anchors,
    )
    with _lock:
        _recordings[key] = (recording, *several[: _VARIANTS - 1])
    return made


def _has_effects(finder: Fingerprint, read: Any, slots: Mapping[int, int] | None, key: Any) -> bool:
    """Whether the function that was recorded has changed an object that it reads, or put tensors into one."""
    after = Fingerprint(slots)
    if after.visit(read) != key[0] or len(after.tensors) != len(finder.tensors):
        return True
    return any(one is not other for one, other in zip(after.tensors, finder.tensors, strict=True))


def remote_function(client: Client, exported: Exported, verify: Verify | None) -> RemoteFunction:
    """Return the function on a client's server, the same object for the same model."""
    bound = exported.bound
    with _lock:
        known = _remote_functions.setdefault(client, LRUCache(_CAPACITY))
        key = id(bound), verify
        if key not in known:
            function = client.function(bound, verify=verify)
            known[key] = bound, RemoteFunction(function, exported.connected)
        return known[key][1]
