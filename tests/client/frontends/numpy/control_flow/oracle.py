"""Programs written once, for NumPy with our control flow and for JAX with its own, and their comparison."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx

import gradwire as gw
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec_of
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.lowering import evaluate
from gradwire_engine.planning.registration import register
from tests.client.frontends.numpy.oracle import flat

jax.config.update("jax_enable_x64", True)

OURS = SimpleNamespace(scan=gw.scan, fori=gw.fori, while_=gw.while_, cond=gw.cond, vmap=gw.vmap)
JAXS = SimpleNamespace(
    scan=jax.lax.scan,
    fori=jax.lax.fori_loop,
    while_=jax.lax.while_loop,
    cond=jax.lax.cond,
    vmap=jax.vmap,
)

Program = Callable[..., Any]
"""`(np, gw, *arrays)`: NumPy and our control flow, or jax.numpy and JAX's."""


def ours(program: Program) -> Callable[..., Any]:
    """A program as a function of NumPy arrays that can be traced: its results are a flat tuple."""
    return lambda *arrays: tuple(jax.tree.leaves(program(np, OURS, *arrays)))


def names(count: int) -> list[str]:
    """Of a program's inputs."""
    return [f"x{place}" for place in range(count)]


def traced(program: Program, *arrays: Any) -> onnx.ModelProto:
    """The program's model, once it passes the checker and each name in it is given once."""
    model = trace(ours(program), [spec_of(array) for array in arrays], names(len(arrays)))
    onnx.checker.check_model(model, full_check=True)
    given = list(given_names(model.graph))
    assert len(given) == len(set(given))
    return model


def given_names(graph: onnx.GraphProto) -> Any:
    """The names of all inputs, constants and results of a graph and the graphs in it."""
    yield from (item.name for item in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from given_names(attribute.g)


def registered(program: Program, *arrays: Any) -> Graph:
    """The program's graph as the engine takes it."""
    return register(traced(program, *arrays).SerializeToString())


def agree(program: Program, *arguments: Any, reverse: bool = True, rtol: float = 1e-11) -> onnx.ModelProto:
    """Hold values and derivatives of the traced program to JAX's of its own, and its local run to them too.

    Derivatives are a JVP, the Jacobian and, in reverse mode, a VJP, the Jacobian and a Hessian.
    """
    arrays = [np.asarray(argument) for argument in arguments]
    model = traced(program, *arrays)
    assert registered(program, *arrays).info.forward_only is not reverse
    lowered = function(model, len(arrays))

    def oracle(*given: Any) -> list[Any]:
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(program(jnp, JAXS, *given))]

    local = flat(ours(program)(*(array.copy() for array in arrays)))
    expected = [np.asarray(value) for value in jax.jit(oracle)(*arrays)]
    results = [np.asarray(value) for value in jax.jit(lowered)(*arrays)]
    declared = [
        tuple(side.dim_value for side in item.type.tensor_type.shape.dim) for item in model.graph.output
    ]
    assert declared == [value.shape for value in expected]
    for found in (local, results):
        assert [(v.shape, v.dtype) for v in found] == [(v.shape, v.dtype) for v in expected]
        for actual, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, want, rtol=rtol, atol=1e-12)
    _compare(derivatives(lowered, arrays, reverse), derivatives(oracle, arrays, reverse), rtol)
    return model


def flat_leaves(result: Any) -> list[Any]:
    """What a program returns, leaf by leaf."""
    return flat(jax.tree.leaves(result))


def function(model: onnx.ModelProto, count: int) -> Callable[..., list[Any]]:
    """A model as the engine evaluates it."""

    def run(*given: Any) -> list[Any]:
        return [jnp.asarray(value) for value in evaluate(model, dict(zip(names(count), given, strict=True)))]

    return run


def derivatives(fn: Callable[..., list[Any]], arrays: list[Any], reverse: bool) -> Any:
    """Derivatives of the floating outputs with respect to the floating inputs, in one compilation."""
    places = [place for place, array in enumerate(arrays) if array.dtype.kind == "f"]

    def floats(*given: Any) -> list[Any]:
        full = list(arrays)
        for place, array in zip(places, given, strict=True):
            full[place] = array
        return [value for value in fn(*full) if jnp.issubdtype(value.dtype, jnp.floating)]

    rng = np.random.default_rng(1)
    points = tuple(jnp.asarray(arrays[place]) for place in places)
    every = tuple(range(len(points)))
    tangents = tuple(jnp.asarray(rng.normal(size=p.shape), p.dtype) for p in points)

    @jax.jit
    def compute(points: Any, tangents: Any) -> Any:
        outputs, pushed = jax.jvp(floats, points, tangents)
        found = [pushed, jax.jacfwd(floats, every)(*points)]
        if reverse:
            weights = [jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape) for v in outputs]
            found += [jax.vjp(floats, *points)[1](weights), jax.jacrev(floats, every)(*points)]

            def scalar(*given: Any) -> Any:
                return sum(jnp.vdot(w, v) for w, v in zip(weights, floats(*given), strict=True))

            found.append(jax.hessian(scalar, every)(*points))
        return found

    return compute(points, tangents)


def _compare(actual: Any, expected: Any, rtol: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for found, want in leaves:
        scale = float(np.max(np.abs(want), initial=0))
        np.testing.assert_allclose(found, want, rtol=rtol, atol=rtol * max(1.0, scale))
