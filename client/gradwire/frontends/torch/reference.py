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
        source: the function or module itself, which `fn` calls.
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

    return Reference(name_of(source), _code_of(source), values, product, alone=True)


def recorded_reference(
    fn: Callable[..., Any], source: Any, point: Sequence[torch.Tensor], results: Sequence[torch.Tensor]
) -> Reference:
    """Return the run in which a function was recorded as the reference of its graph.

    The function is not run again: a run may have changed what it reads. So values are compared, at this point
    and once, and no products.

    Args:
        fn: takes a tensor for each argument.
        source: the function or module itself; or a tuple of it and what else `fn` reads.
        point: the arguments of the run.
        results: what it returned, then the new values of the tensors that it changed.
    """
    run = [([_hash(to_numpy(one)) for one in point], [np.array(to_numpy(one)) for one in results])]

    def values(arrays: Arrays) -> list[np.ndarray[Any, Any]]:
        for hashes, found in run:
            if list(map(_hash, arrays[: len(point)])) == hashes:
                return found
        raise RuntimeError("it ran when it was recorded, and is not run once more")

    subject = source[0] if isinstance(source, tuple) else source
    return Reference(name_of(subject), _code_of(subject), values, alone=True, release=run.clear)


def _code_of(subject: Any) -> object:
    return code_of(type(subject).forward if isinstance(subject, torch.nn.Module) else subject)


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
