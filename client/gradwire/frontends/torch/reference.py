"""PyTorch functions as the references of their graphs: run eagerly, with the user's objects put back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from gradwire.frontends.torch.fingerprint import Fingerprint
from gradwire.frontends.torch.tensors import to_numpy
from gradwire.graphs.reference import Reference, code_of, name_of

Arrays = Sequence[np.ndarray[Any, Any]]


def reference_of(fn: Callable[..., Any], source: Any) -> Reference:
    """Return a function or module as a reference, with autograd's products.

    What it changes besides its results (buffers, tensors that it closes over, attributes) is put back.

    Args:
        fn: takes a tensor for each input.
        source: the function or module itself, which `fn` calls; or a tuple of it and what else `fn` reads.
    """

    def values(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        with _unchanged(source), torch.no_grad():
            leaves = pytree.tree_leaves(fn(*(torch.tensor(array) for array in arrays)))
            return [np.array(leaf.detach().numpy(force=True)) for leaf in leaves]

    def product(arrays: Arrays, cotangents: Arrays) -> list[np.ndarray[Any, Any]]:
        tensors = [torch.tensor(array) for array in arrays]
        varied = [tensor.requires_grad_() for tensor in tensors if tensor.is_floating_point()]
        with _unchanged(source), torch.enable_grad():
            # Copies are no leaves, so that the function may write to them.
            leaves = pytree.tree_leaves(fn(*(tensor.clone() for tensor in tensors)))
            floating = [leaf for leaf in leaves if leaf.is_floating_point()]
            pairs = [
                (leaf, torch.tensor(one))
                for leaf, one in zip(floating, cotangents, strict=True)
                if leaf.requires_grad
            ]
            if not pairs:
                return [np.zeros_like(tensor.numpy(force=True)) for tensor in varied]
            outputs, seeds = zip(*pairs, strict=True)
            found = torch.autograd.grad(outputs, varied, seeds, allow_unused=True, materialize_grads=True)
            return [np.array(one.numpy(force=True)) for one in found]

    subject = source[0] if isinstance(source, tuple) else source
    code = code_of(type(subject).forward if isinstance(subject, torch.nn.Module) else subject)
    return Reference(name_of(subject), code, values, product, alone=True)


class _Run:
    """The results of the run in which a function was recorded, given once, to whom asks for that point.

    Args:
        point: the arguments.
        results: what the model's outputs have to be there.
    """

    def __init__(self, point: Sequence[torch.Tensor], results: list[np.ndarray[Any, Any]]) -> None:
        self._point = [_hash(to_numpy(tensor)) for tensor in point]
        self._results: list[np.ndarray[Any, Any]] | None = results

    def at(self, arrays: Arrays) -> list[np.ndarray[Any, Any]] | None:
        """Return the results, if they are of this point and nobody has asked before."""
        results, self._results = self._results, None
        if results is None or list(map(_hash, arrays)) != self._point:
            return None
        return results


def recorded_reference(
    fn: Callable[..., Any],
    source: Any,
    point: Sequence[torch.Tensor],
    results: Sequence[torch.Tensor],
    pure: bool,
) -> Reference:
    """Return a function that was recorded while it ran as the reference of its graph.

    Args:
        fn: takes a tensor for each argument.
        source: what it reads, which is put back after another run.
        point: the arguments of the run.
        results: what it returned, then the new values of the tensors that it changed.
        pure: whether another run would give the same and change nothing; only then its products are compared.
    """
    run = _Run(point, [np.array(to_numpy(one)) for one in results])
    count, again = len(point), [reference_of(fn, source)]
    name, code = again[0].name, again[0].code

    def function() -> Reference:
        if not again or not pure:
            raise RuntimeError("it ran when it was recorded, and is not run once more")
        return again[0]

    def values(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        found = run.at(arrays[:count])
        return function().values(arrays[:count]) if found is None else found

    def product(arrays: Arrays, cotangents: Arrays) -> list[np.ndarray[Any, Any] | None]:
        multiply = function().product
        assert multiply is not None
        closed_over = sum(np.asarray(array).dtype.kind == "f" for array in arrays[count:])
        return [*multiply(arrays[:count], cotangents), *[None] * closed_over]

    return Reference(name, code, values, product if pure else None, alone=True, release=again.clear)


def _hash(array: np.ndarray[Any, Any]) -> bytes:
    data = np.ascontiguousarray(array).reshape(-1)
    return hashlib.blake2b(data.view(np.uint8).data if data.size else b"").digest()


@contextmanager
def _unchanged(fn: Any) -> Iterator[None]:
    """Put back what a run changes: attributes and containers, and the values of tensors."""
    memory = Fingerprint(remember=True)
    memory.visit(fn)
    kept = [(tensor, tensor.data, tensor._version, tensor.detach().clone()) for tensor in memory.tensors]
    try:
        yield
    finally:
        memory.restore()
        for tensor, data, version, values in kept:
            if tensor.data_ptr() != data.data_ptr():
                tensor.data = data
            if tensor._version != version:
                data.copy_(values)
