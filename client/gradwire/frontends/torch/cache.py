"""Caches of recorded functions, and of the remote functions made from them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cachetools import LRUCache

from gradwire._sync.client import Client
from gradwire.frontends.torch.autograd import RemoteFunction
from gradwire.frontends.torch.capture import TensorSpec
from gradwire.frontends.torch.export import Exported, export
from gradwire.frontends.torch.fingerprint import Fingerprint, Unobservable
from gradwire.graphs.constants import BoundModel

_CAPACITY = 256
_lock = threading.Lock()
_recordings: LRUCache[Hashable, _Recording] = LRUCache(_CAPACITY)
_remote_functions: weakref.WeakKeyDictionary[Client, LRUCache[int, tuple[BoundModel, RemoteFunction]]]
_remote_functions = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Recording:
    """A recorded function without the tensors it closes over, which may be others in the next call.

    Attributes:
        exported: the function, with no closed-over tensors.
        sources: for each closed-over tensor, its position among those that a fingerprint finds, or the tensor
            itself where the fingerprint does not find it.
        anchors: objects whose identities are in the key, kept alive so that the key stays unambiguous.
    """

    exported: Exported
    sources: tuple[int | torch.Tensor, ...]
    anchors: list[Any]

    def with_tensors(self, found: Sequence[torch.Tensor]) -> Exported:
        """Return the function with the closed-over tensors of a new call."""
        tensors = (found[source] if isinstance(source, int) else source for source in self.sources)
        return replace(self.exported, closed_over=tuple(tensors))


def cached_export(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    names: Sequence[str] | None = None,
    *,
    state: Any = None,
    slots: Mapping[int, int] | None = None,
) -> Exported:
    """Export `fn` to a model; record it again only where something that it reads has changed.

    Args:
        fn: takes one tensor for each spec.
        specs: shape, dtype and `requires_grad` of each argument.
        names: names of the model's inputs; by default those of the function's parameters.
        state: what the key is computed from, where `fn` is a wrapper that is made anew for each call.
        slots: for tensors in `state` that are arguments, their position by `id`; the key then leaves them
            out.

    Raises:
        TraceError: `fn` does something that has no place in a graph.
    """
    finder = Fingerprint(slots)
    try:
        key: Hashable = (finder.of(fn if state is None else state), tuple(specs), tuple(names or ()))
    except Unobservable:
        return export(fn, specs, names)
    with _lock:
        found = _recordings.get(key)
    if found is not None:
        return found.with_tensors(finder.tensors)
    made = export(fn, specs, names)
    place = {id(tensor): i for i, tensor in enumerate(finder.tensors)}
    sources = tuple(place.get(id(tensor), tensor) for tensor in made.closed_over)
    with _lock:
        _recordings[key] = _Recording(replace(made, closed_over=()), sources, finder.anchors)
    return made


def remote_function(client: Client, exported: Exported) -> RemoteFunction:
    """Return the function on a client's server, the same object for the same model."""
    bound = exported.bound
    with _lock:
        known = _remote_functions.setdefault(client, LRUCache(_CAPACITY))
        if id(bound) not in known:
            known[id(bound)] = bound, RemoteFunction(client.function(bound), exported.connected)
        return known[id(bound)][1]
