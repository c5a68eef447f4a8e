"""Exported functions against PyTorch itself: values, dtypes, shapes, and derivatives in both modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from gradwire.frontends.torch.capture import tensor_spec
from gradwire.frontends.torch.export import Exported, export
from gradwire.frontends.torch.tensors import to_numpy
from gradwire_engine.lowering.interpreter import evaluate

jax.config.update("jax_enable_x64", True)

Array = np.ndarray[Any, Any]


def exported(fn: Callable[..., Any], *tensors: torch.Tensor) -> Exported:
    """`fn` as a checked model."""
    one = export(fn, [tensor_spec(tensor) for tensor in tensors])
    onnx.checker.check_model(one.model, full_check=True)
    return one


def agree(
    fn: Callable[..., Any],
    *tensors: torch.Tensor,
    rtol: float = 1e-12,
    second: bool = True,
    finite: bool = False,
) -> None:
    """Hold value, vjp, jvp (and the vjp of the vjp) of an exported function to those of PyTorch.

    Cotangents and tangents are random, so that every element of every derivative counts. With `finite`,
    elements of derivatives that PyTorch does not have (infinite or NaN) do not count.
    """
    one = exported(fn, *tensors)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        _agree(fn, one, tensors, rtol, second, finite)


def _agree(
    fn: Callable[..., Any],
    one: Exported,
    tensors: Sequence[torch.Tensor],
    rtol: float,
    second: bool,
    finite: bool,
) -> None:
    reference = tuple(pytree.tree_leaves(fn(*tensors)))
    arrays = [to_numpy(tensor) for tensor in (*tensors, *one.closed_over)]
    names = [info.name for info in one.model.graph.input]
    floats = [i for i in range(len(tensors)) if tensors[i].is_floating_point()]

    def function(*given: Any) -> tuple[Any, ...]:
        inputs = dict(zip(names, arrays, strict=True)) | {
            names[i]: x for i, x in zip(floats, given, strict=True)
        }
        return tuple(evaluate(one.model, inputs))[: len(reference)]

    points = [jnp.asarray(arrays[i]) for i in floats]
    if any(expected.is_floating_point() for expected in reference):
        values = _derivatives(fn, tensors, floats, function, points, reference, rtol, second, finite)
    else:
        values = jax.jit(function)(*points)
    assert len(values) == len(reference)
    for actual, expected in zip(values, reference, strict=True):
        want = to_numpy(expected)
        assert (actual.dtype, actual.shape) == (want.dtype, want.shape)
        close(actual, want, rtol)


def _derivatives(
    fn: Callable[..., Any],
    tensors: Sequence[torch.Tensor],
    floats: Sequence[int],
    function: Callable[..., tuple[Any, ...]],
    points: Sequence[Any],
    reference: Sequence[torch.Tensor],
    rtol: float,
    second: bool,
    finite: bool,
) -> tuple[Any, ...]:
    """Check the derivatives, and give the values, which come from the same compilation."""
    generator = torch.Generator().manual_seed(7)
    smooth = [i for i, one in enumerate(reference) if one.is_floating_point()]
    cotangents = [_random(reference[i], generator) for i in smooth]
    tangents = [_random(tensors[i], generator) for i in floats]

    def chosen(*given: Any) -> tuple[Any, ...]:
        return tuple(function(*given)[i] for i in smooth)

    def pulled(*given: Any) -> tuple[Any, ...]:
        _, pull = jax.vjp(chosen, *given)
        return pull(tuple(jnp.asarray(to_numpy(one)) for one in cotangents))  # type: ignore[no-any-return]

    def pushed(*given: Any) -> Any:
        return jax.jvp(chosen, given, tuple(jnp.asarray(to_numpy(one)) for one in tangents))[1]

    def directional(*given: Any) -> Any:
        return sum((g * to_numpy(t)).sum() for g, t in zip(pulled(*given), tangents, strict=True))

    def everything(*given: Any) -> tuple[Any, ...]:
        bent = jax.grad(directional, argnums=tuple(range(len(given))))(*given) if second else None
        return function(*given), pulled(*given), pushed(*given), bent

    values, pullback, pushforward, curvature = jax.jit(everything)(*points)
    gradients, bent = _by_pytorch(fn, tensors, floats, smooth, cotangents, tangents, second)
    for got, want in zip(pullback, gradients, strict=True):
        close(got, want, rtol, finite)
    moved = [(np.asarray(y) * to_numpy(w)).sum() for y, w in zip(pushforward, cotangents, strict=True)]
    product = [(g * to_numpy(t)).sum() for g, t in zip(gradients, tangents, strict=True)]
    if np.isfinite(sum(product)) or not finite:
        np.testing.assert_allclose(sum(moved), sum(product), rtol=max(rtol, 1e-11), atol=max(rtol, 1e-11))
    for got, want in zip(curvature or (), bent, strict=True):
        close(got, want, rtol * 10, finite)
    return tuple(values)


def _by_pytorch(
    fn: Callable[..., Any],
    tensors: Sequence[torch.Tensor],
    floats: Sequence[int],
    smooth: Sequence[int],
    cotangents: Sequence[torch.Tensor],
    tangents: Sequence[torch.Tensor],
    second: bool,
) -> tuple[list[Array], list[Array]]:
    """The gradients of the outputs weighted by the cotangents, and those of their sum along the tangents."""
    leaves = list(tensors)
    for i in floats:
        leaves[i] = tensors[i].detach().clone().requires_grad_()
    followed = [leaves[i] for i in floats]
    outputs = tuple(pytree.tree_leaves(fn(*leaves)))
    weighted = [(outputs[i] * w).sum() for i, w in zip(smooth, cotangents, strict=True)]
    first = _grad(weighted, followed, second)
    along = [(g * t).sum() for g, t in zip(first, tangents, strict=True)]
    bent = _grad(along, followed, False) if second else []
    return [to_numpy(g) for g in first], [to_numpy(g) for g in bent]


def _grad(
    terms: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], create_graph: bool
) -> list[torch.Tensor]:
    """The gradient of a sum; zeros where PyTorch sees no connection."""
    total = torch.stack([term for term in terms if term.requires_grad] or [torch.zeros(())]).sum()
    if not total.requires_grad:
        return [torch.zeros_like(one) for one in inputs]
    found = torch.autograd.grad(total, inputs, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(one) if g is None else g for g, one in zip(found, inputs, strict=True)]


def close(actual: Any, expected: Array, rtol: float, finite: bool = False) -> None:
    """Equal to a relative tolerance, and to the same part of the largest element."""
    scale = float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected)))
    found = np.where(np.isfinite(expected) | (not finite), np.asarray(actual), expected)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * max(scale, 1e-3))


def _random(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)
