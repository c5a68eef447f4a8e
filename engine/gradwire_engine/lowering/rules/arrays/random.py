"""Random numbers: refused unless a seed makes them the same at every evaluation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from onnx import helper

from gradwire_engine.lowering.registry import Node, Value, rule


def _key(node: Node) -> Any:
    """Return JAX's random key for the attribute `seed`; raise `InvalidGraph` without one."""
    seed = node.attr("seed")
    if seed is None:
        raise node.fail("a derivative service needs deterministic graphs: give the node a seed attribute")
    return jax.random.key(int(np.float32(seed).view(np.uint32)))


def _dtype(node: Node, like: Any = np.float32) -> Any:
    """Return the dtype that the attribute names, `like` where it is not set."""
    code = node.attr("dtype")
    return like if code is None else helper.tensor_dtype_to_np_dtype(code)


def _normal(node: Node, shape: tuple[int, ...], dtype: Any) -> Value:
    mean, scale = float(node.attr("mean", 0.0)), float(node.attr("scale", 1.0))
    return jax.random.normal(_key(node), shape, dtype) * scale + mean


def _uniform(node: Node, shape: tuple[int, ...], dtype: Any) -> Value:
    low, high = float(node.attr("low", 0.0)), float(node.attr("high", 1.0))
    return jax.random.uniform(_key(node), shape, dtype, low, high)


def _draw(node: Node, shape: tuple[int, ...], dtype: Any) -> Value:
    draw = _normal if node.op.startswith("RandomNormal") else _uniform
    return draw(node, shape, dtype)


@rule("RandomNormal", "RandomUniform")
def random(node: Node) -> Value:
    """RandomNormal, RandomUniform: draws an array of the shape that the attribute gives."""
    return _draw(node, tuple(int(size) for size in node.attr("shape", ())), _dtype(node))


@rule("RandomNormalLike", "RandomUniformLike")
def random_like(node: Node, x: Value) -> Value:
    """RandomNormalLike, RandomUniformLike: draws an array of the shape of the input."""
    return _draw(node, x.shape, _dtype(node, x.dtype))


@rule("Bernoulli", since=15, derivative="none")
def bernoulli(node: Node, x: Value) -> Value:
    """Bernoulli: 1 with the probability that the input gives, else 0."""
    draws = jax.random.uniform(_key(node), x.shape, jnp.promote_types(x.dtype, jnp.float32))
    return (draws < x).astype(_dtype(node, x.dtype))


@rule("Multinomial", since=7, derivative="none")
def multinomial(node: Node, x: Value) -> Value:
    """Multinomial: classes drawn from unnormalised log-probabilities, (batch, sample_size)."""
    count = int(node.attr("sample_size", 1))
    drawn = jax.random.categorical(_key(node), jnp.asarray(x)[:, None], axis=-1, shape=(x.shape[0], count))
    return drawn.astype(_dtype(node, np.int32))
