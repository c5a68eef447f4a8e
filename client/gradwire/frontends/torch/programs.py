"""Which server is used, and recorded functions kept for when they are called again."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradwire._sync.client import Client
from gradwire.frontends.default_client import DefaultClient
from gradwire.frontends.torch.calls import Program
from gradwire.frontends.torch.capture import TensorSpec
from gradwire.frontends.torch.export import Exported, export
from gradwire.frontends.torch.fingerprint import Fingerprint, Unknown
from gradwire.graphs.constants import BoundModel

_KEPT = 256
_lock = threading.Lock()
_exports: OrderedDict[Hashable, _Kept] = OrderedDict()
_programs: weakref.WeakKeyDictionary[Client, OrderedDict[int, tuple[BoundModel, Program]]] = (
    weakref.WeakKeyDictionary()
)
_default = DefaultClient("gradwire.torch")


def use(client: Client | None) -> AbstractContextManager[None]:
    """Let every function of `gradwire.torch` that is not told otherwise use a client.

    As a statement it holds from now on, as a context manager until the end of the block:

        gradwire.torch.use(client)
        with gradwire.torch.use(client): ...
    """
    return _default.use(client)


def client_or_default(client: Client | None) -> Client:
    """The client to use.

    Raises:
        GradwireError: there is none.
    """
    return _default.or_given(client)


@dataclass(frozen=True)
class _Kept:
    """A recorded function without the tensors it closes over, which may be others in the next call.

    Attributes:
        sources: where each of them stands among those that a fingerprint finds, or itself.
        anchors: what must stay alive for the key to mean the same.
    """

    one: Exported
    sources: tuple[int | torch.Tensor, ...]
    anchors: list[Any]

    def with_tensors(self, found: Sequence[torch.Tensor]) -> Exported:
        tensors = (found[source] if isinstance(source, int) else source for source in self.sources)
        return replace(self.one, closed_over=tuple(tensors))


def exported(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    names: Sequence[str] | None = None,
    *,
    state: Any = None,
    slots: Mapping[int, int] | None = None,
) -> Exported:
    """`fn` as a model, recorded again only where something it reads has changed.

    Args:
        fn: takes one tensor for each spec.
        specs: of the tensors.
        names: of the model's inputs.
        state: what `fn` depends on, where that is not to be found in `fn` itself.
        slots: tensors within `state` that are arguments, by identity.
    """
    finder = Fingerprint(slots)
    try:
        key: Hashable = (finder.of(fn if state is None else state), tuple(specs), tuple(names or ()))
    except Unknown:
        return export(fn, specs, names)
    with _lock:
        found = _exports.get(key)
        if found is not None:
            _exports.move_to_end(key)
            return found.with_tensors(finder.tensors)
    made = export(fn, specs, names)
    place = {id(tensor): i for i, tensor in enumerate(finder.tensors)}
    sources = tuple(place.get(id(tensor), tensor) for tensor in made.closed_over)
    with _lock:
        _exports[key] = _Kept(replace(made, closed_over=()), sources, finder.anchors)
        while len(_exports) > _KEPT:
            _exports.popitem(last=False)
    return made


def program_of(client: Client, one: Exported) -> Program:
    """The function on a server, the same one for the same model."""
    with _lock:
        known = _programs.setdefault(client, OrderedDict())
        found = known.get(id(one.bound))
        if found is None:
            found = known[id(one.bound)] = one.bound, Program(client.function(one.bound), one.connected)
            while len(known) > _KEPT:
                known.popitem(last=False)
        return found[1]


def spec_of(tensor: torch.Tensor, requires_grad: bool | None = None) -> TensorSpec:
    """The spec of a tensor; autograd follows floating-point ones unless said otherwise."""
    follows = tensor.is_floating_point() if requires_grad is None else requires_grad
    return TensorSpec(tuple(tensor.shape), tensor.dtype, follows)
