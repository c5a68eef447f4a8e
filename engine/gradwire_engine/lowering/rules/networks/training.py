"""Training: one step of an optimizer, and the gradient of a part of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import GraphProto, NodeProto, helper

from gradwire_engine.lowering.registry import TRAINING, Node, Value, rule


def _root(x: Value) -> Value:
    """Compute the square root of an accumulator; derivative 0 where it is 0."""
    positive = x > 0
    return jnp.where(positive, lax.sqrt(jnp.where(positive, x, 1)), x)


def _regularized(node: Node, x: Value, gradient: Value) -> Value:
    """Add the gradient of the L2 penalty with the node's `norm_coefficient`."""
    return float(node.attr("norm_coefficient", 0.0)) * x + gradient


def _optimize(
    node: Node, tensors: Sequence[Value], kinds: int, step: Callable[..., tuple[Value, ...]]
) -> tuple[Value, ...]:
    """Apply `step` to each tensor with its gradient and state; inputs and outputs are grouped by kind."""
    count, rest = divmod(len(tensors), kinds)
    if rest or not count:
        raise node.fail(f"{len(tensors)} tensors are not {kinds} for each optimised one")
    results = [step(*tensors[index::count]) for index in range(count)]
    outputs = [part for group in zip(*results, strict=True) for part in group]
    # float32 factors must not widen the tensors they scale.
    kept = [tensors[index] for index in range(count)] + list(tensors[2 * count :])
    return tuple(output.astype(like.dtype) for output, like in zip(outputs, kept, strict=True))


@rule("Adagrad", domain=TRAINING)
def adagrad(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Value, ...]:
    """Adagrad: one step of Duchi et al. (2011)."""
    scale = rate / (1 + count * float(node.attr("decay_factor", 0.0)))
    epsilon = float(node.attr("epsilon", np.float32(1e-6)))

    def step(x: Value, gradient: Value, squares: Value) -> tuple[Value, Value]:
        gradient = _regularized(node, x, gradient)
        squares = squares + gradient * gradient
        return x - scale * gradient / (_root(squares) + epsilon), squares

    return _optimize(node, tensors, 3, step)


@rule("Adam", domain=TRAINING)
def adam(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Value, ...]:
    """Adam: one step of Kingma and Ba (2015)."""
    alpha = float(node.attr("alpha", np.float32(0.9)))
    beta = float(node.attr("beta", np.float32(0.999)))
    epsilon = float(node.attr("epsilon", np.float32(1e-6)))
    after = 1 - float(node.attr("norm_coefficient_post", 0.0))
    started = jnp.asarray(count) > 0
    number = jnp.where(started, count, 1).astype(jnp.float64)
    correction = jnp.where(started, lax.sqrt(1 - beta**number) / (1 - alpha**number), 1)
    scale = rate * correction

    def step(x: Value, gradient: Value, mean: Value, squares: Value) -> tuple[Value, Value, Value]:
        gradient = _regularized(node, x, gradient)
        mean = alpha * mean + (1 - alpha) * gradient
        squares = beta * squares + (1 - beta) * gradient * gradient
        return after * (x - scale * mean / (_root(squares) + epsilon)), mean, squares

    return _optimize(node, tensors, 4, step)


@rule("Momentum", domain=TRAINING)
def momentum(node: Node, rate: Value, count: Value, *tensors: Value) -> tuple[Value, ...]:
    """Momentum: one step of gradient descent with momentum, standard or Nesterov's."""
    alpha, beta = float(node.attr("alpha", 0.0)), float(node.attr("beta", 0.0))
    mode = node.attr("mode", "standard")
    if mode not in ("standard", "nesterov"):
        raise node.fail(f"mode {mode!r} is not standard or nesterov")
    weight = jnp.where(jnp.asarray(count) > 0, beta, 1)

    def step(x: Value, gradient: Value, velocity: Value) -> tuple[Value, Value]:
        gradient = _regularized(node, x, gradient)
        velocity = alpha * velocity + weight * gradient
        direction = velocity if mode == "standard" else gradient + alpha * velocity
        return x - rate * direction, velocity

    return _optimize(node, tensors, 3, step)


def _slice(nodes: Sequence[NodeProto], target: str, sources: Sequence[str]) -> list[NodeProto]:
    """Return the nodes, in order, that compute `target` from `sources`."""
    needed, kept = {target}, []
    for node in reversed(nodes):
        if not any(name in needed and name not in sources for name in node.output):
            continue
        kept.append(node)
        needed.update(name for name in node.input if name)
        if node.op_type == "Gradient" and node.domain == TRAINING:
            # It evaluates the nodes that lead to its own target again.
            needed.update(attribute.s.decode() for attribute in node.attribute if attribute.name == "y")
    return kept[::-1]


@rule("Gradient", domain=TRAINING)
def gradient(node: Node, *values: Value) -> tuple[Value, ...]:
    """Gradient: of the sum of tensor `y` with respect to each tensor of `xs`.

    `y` is evaluated again with the inputs in place of `xs` and `zs`; other tensors that it needs have
    their values in the enclosing graph.
    """
    xs, zs = list(node.attr("xs", ())), list(node.attr("zs", ()))
    target = node.attr("y")
    if not target or len(values) != len(xs) + len(zs):
        raise node.fail(f"needs y and {len(xs) + len(zs)} inputs, one for each name in xs and zs")
    part = _slice(node.scope.nodes, target, [*xs, *zs])
    if not part:
        raise node.fail(f"no node before it computes {target!r} from {', '.join(xs)}")
    body = GraphProto(
        node=part,
        input=[helper.make_empty_tensor_value_info(name) for name in (*xs, *zs)],
        output=[helper.make_empty_tensor_value_info(target)],
        name="differentiated",
    )

    def function(*points: Value) -> Value:
        (y,) = node.run(body, *points, *values[len(xs) :])
        return jnp.sum(y, dtype=y.dtype)

    points = [jnp.asarray(value) for value in values[: len(xs)]]
    return tuple(jax.grad(function, argnums=tuple(range(len(xs))))(*points))
