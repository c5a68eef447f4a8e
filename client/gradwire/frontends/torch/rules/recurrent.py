"""Rules for recurrent layers: ONNX has an operator for each kind, of one layer in one or both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.torch.lowering import Array, Call, rule

_KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn_tanh": ("RNN", (0,)),
    "rnn_relu": ("RNN", (0,)),
}
"""The ONNX operator, and the places of its gates among PyTorch's."""


@rule(*_KINDS)
def recurrent(
    call: Call,
    x: Array,
    states: Any,
    weights: Sequence[Array],
    biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """Emit one node a layer; dropout between them is off."""
    op, gates = _KINDS[call.op]
    starts = list(states) if call.op == "lstm" else [states]
    directions = 2 if bidirectional else 1
    attributes: dict[str, Any] = {"direction": "bidirectional" if bidirectional else "forward"}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    if call.op == "rnn_relu":
        attributes["activations"] = ["Relu"] * directions
    each = 4 if biases else 2
    if batch_first:
        x = np.swapaxes(x, 0, 1)
    ends: list[list[Array]] = [[] for _ in starts]
    for layer in range(layers):
        first = layer * directions
        own = [weights[(first + one) * each : (first + one + 1) * each] for one in range(directions)]
        w, r, *b = (np.stack([_reordered(group[place], gates) for group in own]) for place in range(each))
        time, batch, hidden = x.shape[0], x.shape[1], r.shape[2]
        given = [x, w, r, np.concatenate(b, axis=1) if b else None, None]
        given += [state[first : first + directions] for state in starts]
        shapes = [(time, directions, batch, hidden), *[(directions, batch, hidden)] * len(starts)]
        history, *finals = call.graph.emit(
            op,
            [None if item is None else call.value(item) for item in given],
            [(shape, call.dtype) for shape in shapes],
            hidden_size=hidden,
            **attributes,
        )
        x = np.swapaxes(wrap(history), 1, 2).reshape(time, batch, directions * hidden)
        for end, final in zip(ends, finals, strict=True):
            end.append(wrap(final))
    results = [np.swapaxes(x, 0, 1) if batch_first else x, *map(np.concatenate, ends)]
    return tuple(wrap(call.value(item)) for item in results)  # memory of their own


def _reordered(x: Array, gates: Sequence[int]) -> Any:
    """Put the gates, which are blocks along the first axis, in another order."""
    size = x.shape[0] // len(gates)
    return np.concatenate([x[place * size : (place + 1) * size] for place in gates])
