"""Records recurrent layers as one operator each, where PyTorch writes out every step.

Their steps are recorded as well, and stay where the function uses them: derivatives taken inside it do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from gradwire.frontends.torch.recording.program import Composite, Content, Node, Program, Var

if TYPE_CHECKING:
    from gradwire.frontends.torch.recording.recorder import Recorder

_C: Any = torch._C
_any_torch: Any = torch
FUNCTIONS = (_any_torch.lstm, _any_torch.gru, _any_torch.rnn_tanh, _any_torch.rnn_relu)
"""PyTorch's functions of whole layers."""


def recorded(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function of layers and record it, so that one operator may stand for what it did."""
    if kwargs or not _is_one_operator(func, args):
        return func(*args, **kwargs)
    given = recorder.operands(args)
    begin = len(recorder.program.nodes)
    results = func(*args)
    made = [recorder.found(one) for one in results]
    if None not in made:
        found = [one for one in made if one is not None]
        nodes = _instead(func.__name__, given, found)
        recorder.program.composites.append(Composite(begin, len(recorder.program.nodes), found, nodes))
    return results


def _instead(name: str, given: tuple[Any, ...], results: list[Var]) -> list[Node]:
    """Return the operator; its results are stopped where the steps stopped the derivative, as in no_grad."""
    if not any(var.content.active for var in _leaves(given, Var)):
        return [Node(name, given, {}, results)]
    own = [var if var.content.active else replace(var, content=Content(var.content.reads)) for var in results]
    pairs = zip(own, results, strict=True)
    return [
        Node(name, given, {}, own),
        *(Node("stop_gradient", (one,), {}, var) for one, var in pairs if one is not var),
    ]


def _is_one_operator(func: Any, args: tuple[Any, ...]) -> bool:
    tensors = list(_leaves(args, torch.Tensor))
    if len(args) != 9 or any(map(_C._functorch.is_functorch_wrapped_tensor, tensors)):
        return False
    x, states, weights, biases, layers, dropout, training, bidirectional, _ = args
    if not isinstance(x, torch.Tensor) or not isinstance(weights, list | tuple):
        return False  # packed sequences have another signature
    projected = len(weights) != layers * (1 + bidirectional) * (4 if biases else 2)
    dtypes = {one.dtype for one in tensors}
    return (
        x.ndim == 3
        and x.numel() > 0
        and isinstance(states, list | tuple) == (func is FUNCTIONS[0])
        and not projected
        and not (dropout and training)
        and dtypes <= {torch.float64} | {torch.float32}
        and len(dtypes) == 1
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
    )


def fold(program: Program) -> None:
    """Put operators of layers in the place of their steps, where nothing else uses a step."""
    nodes = program.nodes
    for composite in reversed(program.composites):
        inside, outside = nodes[composite.begin : composite.end], set(program.outputs)
        for node in (*nodes[: composite.begin], *nodes[composite.end :]):
            outside.update(_leaves((node.args, list(node.kwargs.values()), node.result), Var))
        results = composite.results
        steps = {var for node in inside for var in _leaves(node.result, Var)}.difference(results)
        memories = {id(var.content) for var in results}
        if steps.isdisjoint(outside) and len(memories) == len(results):
            nodes[composite.begin : composite.end] = composite.nodes
    program.composites.clear()


def _leaves(item: Any, kind: Any) -> Iterator[Any]:
    if isinstance(item, kind):
        yield item
    elif isinstance(item, list | tuple):
        for one in item:
            yield from _leaves(one, kind)
