"""PyTorch functions as the references of their graphs: run eagerly, with the user's objects put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from gradwire.frontends.torch.fingerprint import Fingerprint
from gradwire.graphs.reference import Reference, code_of, name_of

Arrays = Sequence[np.ndarray[Any, Any]]


def reference_of(fn: Callable[..., Any], source: Callable[..., Any]) -> Reference:
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

    code = code_of(type(source).forward if isinstance(source, torch.nn.Module) else source)
    return Reference(name_of(source), code, values, product)


@contextmanager
def _unchanged(fn: Callable[..., Any]) -> Iterator[None]:
    memory = Fingerprint(remember=True)
    memory.visit(fn)
    try:
        yield
    finally:
        memory.restore()
