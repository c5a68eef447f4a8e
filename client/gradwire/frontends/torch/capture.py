"""Records a PyTorch function as a program of ATen operators, while it runs in a thread of its own.

Derivatives taken inside it are recorded too.
"""

from __future__ import annotations

import contextvars
import random
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from gradwire.errors import GraphWarning, TraceError
from gradwire.frontends.torch.fingerprint import Fingerprint
from gradwire.frontends.torch.recording.observer import Observer
from gradwire.frontends.torch.recording.program import Program
from gradwire.frontends.torch.recording.recorder import Recorder
from gradwire.frontends.torch.recording.recurrent import fold
from gradwire.frontends.torch.recording.settings import plain_operators

_C: Any = torch._C
_dual: Any = torch.autograd.forward_ad
_here = threading.local()


def recording() -> Recorder | None:
    """Return what records a function in this thread: what is remote within it is computed by PyTorch.

    Its operators, derivatives taken in it included, become part of the graph.
    """
    found: Recorder | None = getattr(_here, "recorder", None)
    return found


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor argument, and whether autograd follows it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool


def tensor_spec(tensor: torch.Tensor, requires_grad: bool | None = None) -> TensorSpec:
    """Return the spec of a tensor; by default, autograd follows it if it is floating-point."""
    follows = tensor.is_floating_point() if requires_grad is None else requires_grad
    return TensorSpec(tuple(tensor.shape), tensor.dtype, follows)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is itself and not a wrapper that `torch.func` or a batch of gradients puts around."""
    if _C._functorch.is_functorch_wrapped_tensor(tensor) or _C._functorch.is_legacy_batchedtensor(tensor):
        return False
    return bool(_dual._current_level < 0 or _dual.unpack_dual(tensor).tangent is None)


def as_written(fn: Any) -> Any:
    """Return the function or module that `torch.compile` was given."""
    inner = getattr(fn, "_orig_mod", None) or getattr(fn, "_torchdynamo_orig_callable", None)
    return fn if inner is None else as_written(inner)


@dataclass(frozen=True)
class Capture:
    """A recorded function.

    Attributes:
        program: ATen operators.
        outputs: structure of what the function returns.
        connected: for each output, whether autograd follows it.
        rules: names of custom backward rules that ran; the program does not contain them.
        repeatable: whether the program does all that the function does; false where only another run of the
            function repeats its effects.
        values: bits of the closed-over tensors whose values are a part of the program.
        ran: whether the function ran at the point, and changed what one call of it changes.
        returned: what it returned.
    """

    program: Program
    outputs: pytree.TreeSpec
    connected: tuple[bool, ...]
    rules: tuple[str, ...]
    repeatable: bool
    values: int
    ran: bool
    returned: tuple[torch.Tensor, ...]


def capture(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    point: Sequence[torch.Tensor] | None = None,
    state: Any = None,
) -> Capture:
    """Record `fn`, which takes one tensor for each spec.

    Warns with `GraphWarning` of each custom backward rule.

    Args:
        fn: the function.
        specs: shape, dtype and `requires_grad` of each argument.
        point: the arguments; the function then runs on them, and changes what one call of it changes.
            Without, everything that it changes is put back.
        state: what the function reads, where `fn` is a wrapper that is made anew for each call.

    Raises:
        TraceError: the function branches on values, makes shapes of them, or returns something other than
            tensors.
        Exception: whatever the function itself raises.
    """
    result: list[Capture] = []
    failure: list[BaseException] = []
    outer = recording()
    recorder = Recorder(real=point is not None, outer=outer)
    context = contextvars.copy_context()
    autocast = torch.is_autocast_enabled("cpu")

    def work() -> None:
        _here.recorder = recorder
        memory = Fingerprint(remember=True)
        memory.visit(fn if state is None else state)
        done = False
        try:
            with plain_operators(), torch.autocast("cpu", enabled=autocast):
                result.append(_capture(fn, specs, point, recorder))
            done = True
        except BaseException as error:
            # Python makes another error of one that is raised by an operator such as `*`.
            failure.append(recorder.refusal or error)
        finally:
            _here.recorder = None
            if point is None or (not done and isinstance(failure[0], TraceError)):
                recorder.restore()
                memory.restore()

    # A new thread has none of the caller's modes: no no_grad, vmap or jvp level.
    thread = threading.Thread(target=lambda: context.run(work), name="gradwire-capture")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    for name in result[0].rules:
        warnings.warn(
            f"{name} in {name_of(fn)} has a backward rule of its own, which a graph cannot carry: its "
            "derivatives will be those of what runs forward; write x + (g(x) - x).detach() for the values "
            "of g with the slope of x",
            GraphWarning,
            stacklevel=2,
        )
    return result[0]


def _capture(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    point: Sequence[torch.Tensor] | None,
    recorder: Recorder,
) -> Capture:
    arguments = [_placeholder(spec) for spec in specs] if point is None else list(point)
    for tensor, spec in zip(arguments, specs, strict=True):
        recorder.argument(tensor, spec.requires_grad)
    history = {tensor.grad_fn for tensor in arguments}
    observer = Observer(recorder)
    draws = _generators()
    with observer, recorder:
        returned = fn(*arguments)
    drew = _generators() != draws
    if drew and point is None:
        raise TraceError(
            f"{name_of(fn)} draws random numbers, which would be the same in every call: draw them outside "
            "and pass them in"
        )
    leaves, outputs = pytree.tree_flatten(returned)
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise TraceError(
                f"{name_of(fn)} returned a {type(leaf).__name__}; return tensors, or tuples, lists or "
                "dicts of them"
            )
        recorder.output(leaf)
    fold(recorder.program)
    history |= {one.tensor.grad_fn for one in recorder.program.closed_over}
    return Capture(
        recorder.program,
        outputs,
        tuple(leaf.requires_grad for leaf in leaves),
        tuple(sorted(observer.rules | _own_rules(leaves, history))),
        not observer.effects and not drew,
        recorder.values,
        point is not None,
        tuple(leaf.detach() for leaf in leaves),
    )


def _placeholder(spec: TensorSpec) -> torch.Tensor:
    tensor = torch.zeros(spec.shape, dtype=spec.dtype)
    # A copy is no leaf, so that the function may write to it.
    return tensor.requires_grad_().clone() if spec.requires_grad else tensor


def _generators() -> tuple[Any, ...]:
    """Return the states of the generators whose draws are constants of a graph."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), tuple(rest)


def _own_rules(results: Sequence[torch.Tensor], history: set[Any]) -> set[str]:
    """Return the names of the custom `torch.autograd.Function`s that results were computed with.

    Args:
        results: what the function returned.
        history: nodes of the autograd graph from before the function.

    Raises:
        TraceError: a module has a full backward hook.
    """
    names = set[str]()
    ahead: list[Any] = [result.grad_fn for result in results]
    seen = set(history)
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [before for before, _ in node.next_functions]
        function = getattr(type(node), "_forward_cls", None)
        if function is None:
            continue
        if function.__name__ == "BackwardHookFunction":
            raise TraceError(
                "a full backward hook of a module cannot be traced: remove it, or put what it does to the "
                "gradient in the function"
            )
        if function.__module__.partition(".")[0] != "torch":
            names.add(function.__qualname__)
    return names


def name_of(fn: Any) -> str:
    """Return the name of a function for messages."""
    return str(getattr(fn, "__name__", type(fn).__name__))
