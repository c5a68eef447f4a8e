"""Converted functions against JAX itself: values, dtypes, shapes and Jacobians by the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from gradwire.frontends.jax import convert_function
from gradwire_engine.planning.plan import Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine.in_process import argument_types, assemble, evaluate

jax.config.update("jax_enable_x64", True)


def agree(
    fn: Callable[..., Any], *arguments: Any, rtol: float = 1e-12, atol: float = 1e-13
) -> onnx.ModelProto:
    """Hold a converted function's values, shapes and dtypes to those that calling it gives."""
    converted = convert_function(fn, arguments)
    onnx.checker.check_model(converted.model, full_check=True)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
    graph = register(converted.model.SerializeToString())
    inputs = dict(zip(converted.inputs, leaves, strict=True))
    actual = evaluate(graph, FunctionSpec(graph.info.graph_id), inputs)
    result = jax.jit(fn)(*arguments)
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
    assert converted.structure == jax.tree.structure(result)
    assert len(actual) == len(expected)
    declared = [
        onnx.helper.tensor_dtype_to_np_dtype(o.type.tensor_type.elem_type)
        for o in converted.model.graph.output
    ]
    for (name, got), want, dtype in zip(actual.items(), expected, declared, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        assert dtype == want.dtype, name
        rounding = 8 * float(np.finfo(want.dtype).eps) if want.dtype == np.float32 else 0.0
        np.testing.assert_allclose(
            got.astype(np.float64),
            want.astype(np.float64),
            rtol=max(rtol, rounding),
            atol=max(atol, rounding),
            err_msg=name,
        )
    return converted.model


def floating(row: tuple[str, Callable[..., Any], tuple[Any, ...]]) -> bool:
    """Whether a row of the table has a floating input and a floating output to differentiate."""
    _, fn, arguments = row
    outputs = jax.tree.leaves(jax.eval_shape(fn, *arguments))
    inputs = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
    return all(any(leaf.dtype.kind == "f" for leaf in leaves) for leaves in (inputs, outputs))


def jacobians_agree(
    fn: Callable[..., Any], *arguments: Any, rtol: float = 1e-10, atol: float = 1e-12
) -> None:
    """Hold the engine's Jacobian of every floating output with respect to every floating input to JAX's."""
    converted = convert_function(fn, arguments)
    graph = register(converted.model.SerializeToString())
    inputs = dict(zip(converted.inputs, [np.asarray(a) for a in jax.tree.leaves(arguments)], strict=True))
    function = FunctionSpec(graph.info.graph_id)
    plan = make_plan(graph, Problem(function, argument_types(inputs), "jacobian"))
    actual = assemble(graph, plan, inputs)
    expected = _jacobians(fn, arguments)
    assert len(actual) == len(expected)
    for got, want in zip(actual, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def _jacobians(fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, tuple(arguments)))
    places = [i for i, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]

    def floats(*given: Any) -> list[Any]:
        outputs = jax.tree.leaves(fn(*jax.tree.unflatten(tree, given)))
        return [leaf for leaf in outputs if leaf.dtype.kind == "f"]

    rows = jax.jit(jax.jacfwd(floats, argnums=tuple(places)))(*leaves)
    return [np.asarray(block) for row in rows for block in row]
