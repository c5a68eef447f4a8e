"""`torch.autograd.functional` computed on a server, with the same arguments, results and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import functional as _functional

from gradwire._face.options import FoundSparsity, found_sparsity
from gradwire._face.verification import Verify
from gradwire._sync.client import Client
from gradwire.errors import TraceError
from gradwire.frontends.torch.capture import recording
from gradwire.frontends.torch.derivative_call import DerivativeCall, packed

reference: Any = _functional  # its functions have no types
TensorOrTuple = torch.Tensor | tuple[torch.Tensor, ...]


def jacobian(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
    *,
    sparse: FoundSparsity = False,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Any:
    """Compute the Jacobian, with the signature of `torch.autograd.functional.jacobian`.

    Args:
        func: takes floating-point tensors and returns a tensor or a tuple of them.
        inputs: the point, a tensor or a tuple of them.
        create_graph: let local autograd differentiate the result further.
        strict: raise where an output does not depend on an input, instead of returning zeros.
        vectorize: accepted for compatibility; the server always computes blocks.
        strategy: "reverse-mode" lets the server choose the mode, "forward-mode" asks for forward mode.
        sparse: True gives `torch.sparse_csr` matrices of shape (output.numel(), input.numel()), computed by
            colors of columns or rows that share no entry; "auto" does so where it takes less work.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        A tensor of shape output.shape + input.shape in the dtype of the input; a tuple of them where either
        the outputs or the inputs are a tuple, and a tuple of tuples where both are.

    Raises:
        RuntimeError: an input is not floating-point, options exclude each other, or `strict` finds an output
            that does not depend on an input.
        TypeError: `inputs` or the results are not tensors or tuples of them.
        NotImplementedError: a combination of options that PyTorch does not support either, or a sparse
            derivative that is to be differentiated further.
        GradwireError: there is neither a client nor a default, or the server refuses or fails.
        TraceError: `func` does something that has no place in a graph.
    """
    forward = _forward("jacobian", strategy, create_graph, strict, vectorize)
    _check_sparse("jacobian", sparse, create_graph)
    if recording():
        return reference.jacobian(func, inputs, create_graph, strict, vectorize, strategy)
    call = DerivativeCall.of("jacobian", func, inputs, create_graph, client, verify)
    if strict:
        # An output depends on an input exactly if its sum does, which is one row in place of many.
        sums = _summed(func)
        call.check(lambda fakes: reference.jacobian(sums, fakes, create_graph, strict=True))
    rows = call.differentiable_rows() if create_graph else call.streamed_rows(forward, sparse)
    return packed([packed(row, call.inputs_are_tuple) for row in rows], call.outputs_are_tuple)


def hessian(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
    *,
    sparse: FoundSparsity = False,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Any:
    """Compute the Hessian, with the signature of `torch.autograd.functional.hessian`.

    Args:
        func: takes floating-point tensors and returns a tensor of one element.
        inputs: the point, a tensor or a tuple of them.
        create_graph: as for `jacobian`.
        strict: as for `jacobian`.
        vectorize: as for `jacobian`.
        outer_jacobian_strategy: checked as the `strategy` of `jacobian`; the server chooses the mode.
        sparse: as for `jacobian`.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        A tensor of shape input.shape + input.shape, or a tuple of tuples of tensors where the inputs are a
        tuple.

    Raises:
        RuntimeError: the function returns a tuple or more than one element; and as for `jacobian`.
    """
    _forward("hessian", outer_jacobian_strategy, create_graph, strict, vectorize)
    _check_sparse("hessian", sparse, create_graph)
    if recording():
        return reference.hessian(func, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)
    call = DerivativeCall.of("hessian", func, inputs, create_graph, client, verify)
    call.check_one_element("hessian")
    if strict:
        call.check(lambda fakes: reference.vhp(func, fakes, _ones_like(fakes), create_graph, strict=True))
    rows = call.differentiable_hessian() if create_graph else call.streamed_hessian(sparse)
    return packed([packed(row, call.inputs_are_tuple) for row in rows], call.inputs_are_tuple)


def vjp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
    verify: Verify | None = None,
) -> tuple[Any, Any]:
    """Compute the function's value and `v` times its Jacobian.

    Args:
        func: takes floating-point tensors and returns a tensor or a tuple of them.
        inputs: the point, a tensor or a tuple of them.
        v: the cotangent, of the outputs' shapes; None for a function of one element.
        create_graph: as for `jacobian`.
        strict: as for `jacobian`.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        `(func_output, vjp)`; the product has the shapes of the inputs.

    Raises:
        RuntimeError: `v` is missing or has other shapes than the outputs; and as for `jacobian`.
    """
    if recording():
        return reference.vjp(func, inputs, v, create_graph, strict)  # type: ignore[no-any-return]
    call = DerivativeCall.of("vjp", func, inputs, create_graph, client, verify)
    vectors = call.vectors("vjp", v, call.output_likes(), call.outputs_are_tuple, create_graph)
    if strict:
        call.check(lambda fakes: reference.vjp(func, fakes, _shaped_like(v), create_graph, strict=True))
    of = call.connected_outputs()
    values, products = call.run("vjp", of, [vectors[i] for i in of])
    return call.finish(values, products)


def jvp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
    verify: Verify | None = None,
) -> tuple[Any, Any]:
    """Compute the function's value and its Jacobian times `v`.

    Args:
        func: takes floating-point tensors and returns a tensor or a tuple of them.
        inputs: the point, a tensor or a tuple of them.
        v: the tangent, of the inputs' shapes; None where the input has one element.
        create_graph: as for `jacobian`.
        strict: as for `jacobian`.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        `(func_output, jvp)`; the product has the shapes of the outputs.

    Raises:
        RuntimeError: `v` is missing or has other shapes than the inputs; and as for `jacobian`.
    """
    if recording():
        return reference.jvp(func, inputs, v, create_graph, strict)  # type: ignore[no-any-return]
    call = DerivativeCall.of("jvp", func, inputs, create_graph, client, verify)
    vectors = call.vectors("jvp", v, call.tensors, call.inputs_are_tuple, create_graph)
    if strict:
        call.check(lambda fakes: reference.jvp(func, fakes, _shaped_like(v), create_graph, strict=True))
    of = call.connected_outputs()
    values, products = call.run("jvp", of, [vectors[i] for i in call.wrt])
    found = dict(zip(of, products, strict=True))
    full = [found[i] if i in found else torch.zeros_like(value) for i, value in enumerate(values)]
    return packed(values, call.outputs_are_tuple), packed(full, call.outputs_are_tuple)


def hvp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
    verify: Verify | None = None,
) -> tuple[Any, Any]:
    """Compute the value of a function of one element and its Hessian times `v`.

    Args:
        func: takes floating-point tensors and returns a tensor of one element.
        inputs: the point, a tensor or a tuple of them.
        v: the tangent, of the inputs' shapes; None where the input has one element.
        create_graph: as for `jacobian`.
        strict: as for `jacobian`.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        `(func_output, hvp)`; the product has the shapes of the inputs.

    Raises:
        RuntimeError: the function returns a tuple or more than one element, or `v` is missing or has other
            shapes than the inputs; and as for `jacobian`.
    """
    return _hessian_product("hvp", func, inputs, v, create_graph, strict, client, verify)


def vhp(
    func: Callable[..., Any],
    inputs: TensorOrTuple,
    v: TensorOrTuple | None = None,
    create_graph: bool = False,
    strict: bool = False,
    *,
    client: Client | None = None,
    verify: Verify | None = None,
) -> tuple[Any, Any]:
    """Compute the value of a function of one element and `v` times its Hessian.

    A Hessian is symmetric, so this is `hvp` under another name.

    Args:
        func: takes floating-point tensors and returns a tensor of one element.
        inputs: the point, a tensor or a tuple of them.
        v: the cotangent, of the inputs' shapes; None where the input has one element.
        create_graph: as for `jacobian`.
        strict: as for `jacobian`.
        client: the client to use; by default the one given to `use`.
        verify: when the graph is compared with the function, as for `client.function`.

    Returns:
        `(func_output, vhp)`; the product has the shapes of the inputs.

    Raises:
        RuntimeError: as for `hvp`.
    """
    return _hessian_product("vhp", func, inputs, v, create_graph, strict, client, verify)


def _hessian_product(
    name: str,
    func: Any,
    inputs: Any,
    v: Any,
    create_graph: bool,
    strict: bool,
    client: Client | None,
    verify: Verify | None,
) -> tuple[Any, Any]:
    if recording():
        return getattr(reference, name)(func, inputs, v, create_graph, strict)  # type: ignore[no-any-return]
    call = DerivativeCall.of(name, func, inputs, create_graph, client, verify)
    call.check_one_element(name)
    vectors = call.vectors(name, v, call.tensors, call.inputs_are_tuple, create_graph)
    if strict:
        product = getattr(reference, name)
        call.check(lambda fakes: product(func, fakes, _shaped_like(v), create_graph, strict=True))
    values, products = call.run("hvp", call.connected_outputs(), [vectors[i] for i in call.wrt])
    return call.finish(values, products)


def _forward(name: str, strategy: str, create_graph: bool, strict: bool, vectorize: bool) -> bool:
    """Return whether forward mode is asked for; raise for the combinations that PyTorch does not support."""
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(f"{name}: the strategy is 'forward-mode' or 'reverse-mode', not {strategy!r}")
    forward = strategy == "forward-mode"
    if strict and vectorize:
        raise RuntimeError(f"{name}: strict=True and vectorize=True do not go together; leave one out")
    if forward and create_graph:
        raise NotImplementedError(f"{name}: create_graph=True needs the strategy 'reverse-mode'")
    if forward and not vectorize:
        raise NotImplementedError(f"{name}: the strategy 'forward-mode' needs vectorize=True")
    return forward


def _check_sparse(name: str, sparse: FoundSparsity, create_graph: bool) -> None:
    if not found_sparsity(sparse):
        return
    if create_graph:
        raise NotImplementedError(f"{name}: create_graph=True gives dense derivatives: leave out sparse=")
    if recording():
        raise TraceError(f"{name}(sparse=True) has no place inside a function that becomes a graph")


def _summed(func: Callable[..., Any]) -> Callable[..., Any]:
    def sums(*inputs: torch.Tensor) -> Any:
        outputs = func(*inputs)
        if isinstance(outputs, tuple):
            return tuple(output.sum() for output in outputs)
        return outputs.sum()

    return sums


def _ones_like(fakes: Any) -> Any:
    return tuple(map(torch.ones_like, fakes)) if isinstance(fakes, tuple) else torch.ones_like(fakes)


def _shaped_like(v: Any) -> Any:
    """Return tensors of the shapes of `v`; the fake mode that is active gives them no values."""
    if v is None:
        return None
    if isinstance(v, tuple):
        return tuple(_shaped_like(one) for one in v)
    return torch.empty(tuple(v.shape), dtype=v.dtype)
