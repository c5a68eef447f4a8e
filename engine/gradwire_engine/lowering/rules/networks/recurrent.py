"""Recurrent layers: RNN, GRU and LSTM as scans over time, which every mode differentiates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.registry import Node, Value, rule

Activation = Callable[[Value], Value]
Step = Callable[[Any, Value], tuple[Any, Value]]

_dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _elu(x: Value, alpha: float) -> Value:
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    line = alpha * x + beta
    return jnp.where(line <= 0, 0, jnp.where(line >= 1, 1, line))


_ACTIVATIONS: dict[str, tuple[Callable[..., Value], tuple[float, ...]]] = {
    "affine": (lambda x, alpha, beta: alpha * x + beta, (1.0, 0.0)),
    "elu": (_elu, (1.0,)),
    "hardsigmoid": (_hard_sigmoid, (float(np.float32(0.2)), 0.5)),
    "leakyrelu": (lambda x, alpha: jnp.where(x >= 0, x, alpha * x), (float(np.float32(0.01)),)),
    "relu": (lambda x: jnp.where(x > 0, x, 0), ()),
    "scaledtanh": (lambda x, alpha, beta: alpha * smooth.tanh(beta * x), (1.0, 1.0)),
    "sigmoid": (smooth.logistic, ()),
    "softplus": (smooth.softplus, ()),
    "softsign": (lambda x: x / (1 + x * lax.sign(x)), ()),
    "tanh": (smooth.tanh, ()),
    "thresholdedrelu": (lambda x, alpha: jnp.where(x > alpha, x, 0), (1.0,)),
}
"""Function and default alpha (and beta) of each activation, by lower-case name."""


def _activations(node: Node, defaults: tuple[str, ...], directions: int) -> list[list[Activation]]:
    """Return the activations per direction; each takes the next alpha and beta if it has such parameters."""
    names = node.attr("activations") or defaults * directions
    if len(names) != len(defaults) * directions:
        raise node.fail(f"needs {len(defaults) * directions} activations, not {len(names)}")
    alphas, betas = iter(node.attr("activation_alpha", ())), iter(node.attr("activation_beta", ()))
    chosen: list[Activation] = []
    for name in names:
        if name.lower() not in _ACTIVATIONS:
            raise node.fail(f"activation {name!r} is not one of {', '.join(sorted(_ACTIVATIONS))}")
        function, parameters = _ACTIVATIONS[name.lower()]
        given = [next(source, default) for source, default in zip((alphas, betas), parameters, strict=False)]
        chosen.append(partial(_apply, function, tuple(float(item) for item in given)))
    width = len(defaults)
    return [chosen[start : start + width] for start in range(0, len(chosen), width)]


def _apply(function: Callable[..., Value], parameters: tuple[float, ...], x: Value) -> Value:
    return function(x, *parameters)


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer.

    Attributes:
        projected: (time, batch, gates), inputs times their weights plus the input bias.
        recurrent: (hidden, gates), transposed recurrent weights.
        recurrent_bias: (gates,), zeros where there is none.
        peepholes: (3, hidden) weights of the LSTM's cell state, or None.
        activations: the functions of the gates.
    """

    projected: Value
    recurrent: Value
    recurrent_bias: Value
    peepholes: Value | None
    activations: list[Activation]


class _Layer:
    """A recurrent node with its inputs arranged time first, one direction at a time."""

    def __init__(
        self,
        node: Node,
        defaults: tuple[str, ...],
        x: Value,
        w: Value,
        r: Value,
        bias: Value | None,
        lengths: Value | None,
        peepholes: Value | None = None,
    ) -> None:
        self.node = node
        self.batch_first = bool(node.attr("layout", 0))
        x = jnp.swapaxes(x, 0, 1) if self.batch_first else jnp.asarray(x)
        direction = node.attr("direction", "forward")
        if direction not in ("forward", "foward", "reverse", "bidirectional"):
            raise node.fail(f"direction {direction!r} is not forward, reverse or bidirectional")
        self.reversed = [direction == "reverse"] if direction != "bidirectional" else [False, True]
        if w.shape[0] != len(self.reversed):
            raise node.fail(
                f"direction {direction!r} needs weights for {len(self.reversed)}, not {w.shape[0]}"
            )
        self.hidden = r.shape[2]
        self.time, self.batch = x.shape[0], x.shape[1]
        self.dtype = x.dtype
        clip = node.attr("clip")
        self.clip: Activation = (lambda v: v) if clip is None else partial(_clipped, float(clip))
        self.alive = None
        if lengths is not None:
            self.alive = np.arange(self.time)[:, None] < jnp.asarray(lengths)
        self.directions = []
        for index, functions in enumerate(_activations(node, defaults, len(self.reversed))):
            gates = w.shape[1]
            parts = jnp.zeros((2, gates), x.dtype) if bias is None else bias[index].reshape(2, gates)
            self.directions.append(
                _Direction(
                    _dot(x, w[index].T) + parts[0],
                    jnp.asarray(r[index]).T,
                    parts[1],
                    None if peepholes is None else peepholes[index].reshape(3, self.hidden),
                    functions,
                )
            )

    def initial(self, state: Value | None, index: int) -> Value:
        """Return the initial state of a direction, (batch, hidden); zeros where none is given."""
        if state is None:
            return jnp.zeros((self.batch, self.hidden), self.dtype)
        return jnp.asarray(state[:, index] if self.batch_first else state[index])

    def run(self, make_step: Callable[[_Direction], Step], *states: Value | None) -> list[Value]:
        """Scan every direction.

        Returns:
            The outputs over time, then each final state, in the layout that the node asks for.
        """
        starts = [
            tuple(self.initial(state, index) for state in states) for index in range(len(self.reversed))
        ]
        if len(self.directions) == 2 and _alike(*(part.activations for part in self.directions)):
            finals, histories = self._side_by_side(make_step, starts)
        else:
            finals, histories = [], []
            for index, direction in enumerate(self.directions):
                end, history = _scanned(make_step, direction, starts[index], self.alive, self.reversed[index])
                histories.append(history)
                finals.append(end)
        y = jnp.stack(histories, axis=2 if self.batch_first else 1)
        if self.batch_first:
            # (time, batch, directions, hidden) -> batch first.
            y = jnp.swapaxes(y, 0, 1)
        axis = 1 if self.batch_first else 0
        return [y, *(jnp.stack(parts, axis=axis) for parts in zip(*finals, strict=True))]

    def _side_by_side(
        self, make_step: Callable[[_Direction], Step], starts: Sequence[tuple[Value, ...]]
    ) -> tuple[list[tuple[Value, ...]], list[Value]]:
        """Scan both directions in one loop, which is compiled once."""
        activations = self.directions[0].activations
        arrays = [
            (
                flip(part.projected),
                part.recurrent,
                part.recurrent_bias,
                part.peepholes,
                start,
                flip(self.alive),
            )
            for part, start, flip in zip(self.directions, starts, (_same, _flipped), strict=True)
        ]

        def run(
            projected: Value, recurrent: Value, bias: Value, peepholes: Value, start: Any, alive: Value
        ) -> Any:
            part = _Direction(projected, recurrent, bias, peepholes, activations)
            return _scanned(make_step, part, start, alive, False)

        stacked = jax.tree.map(lambda *both: jnp.stack(both), *arrays)
        ends, histories = jax.vmap(run)(*stacked)
        finals = [tuple(end[index] for end in ends) for index in range(2)]
        return finals, [histories[0], _flipped(histories[1])]


def _same(x: Value) -> Value:
    return x


def _flipped(x: Value) -> Value:
    return None if x is None else jnp.flip(x, 0)


def _alike(one: Sequence[Activation], other: Sequence[Activation]) -> bool:
    """Return whether two directions have the same functions with the same parameters."""
    return all(
        isinstance(a, partial) and isinstance(b, partial) and a.args == b.args
        for a, b in zip(one, other, strict=True)
    )


def _scanned(
    make_step: Callable[[_Direction], Step],
    direction: _Direction,
    start: tuple[Value, ...],
    alive: Value | None,
    backwards: bool,
) -> Any:
    """Return the final states and the outputs over time."""
    step = make_step(direction)
    if alive is None:
        return lax.scan(step, start, direction.projected, reverse=backwards)
    return lax.scan(partial(_held, step), start, (direction.projected, alive), reverse=backwards)


def _clipped(bound: float, x: Value) -> Value:
    return jnp.where(x > bound, bound, jnp.where(x < -bound, -bound, x))


def _held(step: Step, state: Any, inputs: tuple[Value, Value]) -> tuple[Any, Value]:
    """Evaluate a step in which finished sequences keep their state and output zeros."""
    projected, alive = inputs
    new, output = step(state, projected)
    alive = alive[:, None]
    kept = tuple(jnp.where(alive, after, before) for after, before in zip(new, state, strict=True))
    return kept, jnp.where(alive, output, 0)


@rule("RNN")
def rnn(
    node: Node,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial_h: Value | None = None,
) -> tuple[Value, ...]:
    """RNN: h = f(x W' + h R' + b).

    Args:
        node: the node.
        x: (time, batch, features), or batch first with `layout` 1, as all states and outputs then are.
        w: (directions, hidden, features) input weights.
        r: (directions, hidden, hidden) recurrent weights.
        bias: (directions, 2 * hidden), those of the inputs first.
        lengths: (batch,) length of each sequence; past it states stay and outputs are 0.
        initial_h: (directions, batch, hidden); zeros where None.

    Returns:
        The outputs over time, (time, directions, batch, hidden), and the final h.
    """
    layer = _Layer(node, ("Tanh",), x, w, r, bias, lengths)

    def make_step(part: _Direction) -> Step:
        (f,) = part.activations

        def step(state: Any, projected: Value) -> tuple[Any, Value]:
            h = f(layer.clip(projected + _dot(state[0], part.recurrent) + part.recurrent_bias))
            return (h,), h

        return step

    return tuple(layer.run(make_step, initial_h))


@rule("GRU")
def gru(
    node: Node,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial_h: Value | None = None,
) -> tuple[Value, ...]:
    """GRU: gated recurrent unit (Cho et al., 2014), reset before or after the recurrent product.

    Args:
        node: the node.
        x: (time, batch, features), or batch first with `layout` 1, as all states and outputs then are.
        w: (directions, 3 * hidden, features) input weights.
        r: (directions, 3 * hidden, hidden) recurrent weights.
        bias: (directions, 6 * hidden), those of the inputs first.
        lengths: (batch,) length of each sequence; past it states stay and outputs are 0.
        initial_h: (directions, batch, hidden); zeros where None.

    Returns:
        The outputs over time, (time, directions, batch, hidden), and the final h.
    """
    layer = _Layer(node, ("Sigmoid", "Tanh"), x, w, r, bias, lengths)
    reset_after = bool(node.attr("linear_before_reset", 0))
    n = layer.hidden

    def make_step(part: _Direction) -> Step:
        f, g = part.activations
        gate_weights, new_weights = part.recurrent[:, : 2 * n], part.recurrent[:, 2 * n :]
        gate_bias, new_bias = part.recurrent_bias[: 2 * n], part.recurrent_bias[2 * n :]

        def step(state: Any, projected: Value) -> tuple[Any, Value]:
            (h,) = state
            gates = f(layer.clip(projected[:, : 2 * n] + _dot(h, gate_weights) + gate_bias))
            update, reset = gates[:, :n], gates[:, n:]
            if reset_after:
                past = reset * (_dot(h, new_weights) + new_bias)
            else:
                past = _dot(reset * h, new_weights) + new_bias
            h = (1 - update) * g(layer.clip(projected[:, 2 * n :] + past)) + update * h
            return (h,), h

        return step

    return tuple(layer.run(make_step, initial_h))


@rule("LSTM")
def lstm(
    node: Node,
    x: Value,
    w: Value,
    r: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    initial_h: Value | None = None,
    initial_c: Value | None = None,
    peepholes: Value | None = None,
) -> tuple[Value, ...]:
    """LSTM: long short-term memory (Hochreiter and Schmidhuber, 1997), with peepholes (Gers et al., 2002).

    Args:
        node: the node.
        x: (time, batch, features), or batch first with `layout` 1, as all states and outputs then are.
        w: (directions, 4 * hidden, features) input weights.
        r: (directions, 4 * hidden, hidden) recurrent weights.
        bias: (directions, 8 * hidden), those of the inputs first.
        lengths: (batch,) length of each sequence; past it states stay and outputs are 0.
        initial_h: (directions, batch, hidden); zeros where None.
        initial_c: initial cell state, likewise.
        peepholes: (directions, 3 * hidden) weights of the cell state, or None.

    Returns:
        The outputs over time, (time, directions, batch, hidden), and the final h and c.
    """
    layer = _Layer(node, ("Sigmoid", "Tanh", "Tanh"), x, w, r, bias, lengths, peepholes)
    coupled = bool(node.attr("input_forget", 0))

    def make_step(part: _Direction) -> Step:
        f, g, h_of = part.activations

        def step(state: Any, projected: Value) -> tuple[Any, Value]:
            h, c = state
            gates = projected + _dot(h, part.recurrent) + part.recurrent_bias
            i, o, forget, new = jnp.split(gates, 4, axis=1)
            if part.peepholes is not None:
                i, forget = i + part.peepholes[0] * c, forget + part.peepholes[2] * c
            enter = f(layer.clip(i))
            keep = 1 - enter if coupled else f(layer.clip(forget))
            c = keep * c + enter * g(layer.clip(new))
            if part.peepholes is not None:
                o = o + part.peepholes[1] * c
            h = f(layer.clip(o)) * h_of(c)
            return (h, c), h

        return step

    return tuple(layer.run(make_step, initial_h, initial_c))
