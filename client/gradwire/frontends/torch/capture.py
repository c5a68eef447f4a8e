"""Records a PyTorch function as a graph of ATen operators on fake tensors.

The function runs once on tensors without memory, with autograd enabled. Derivatives taken inside it are
recorded too, and results that PyTorch would not differentiate (`detach`, `torch.no_grad`) pass through an
operator that becomes `StopGradient`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import global_decomposition_table
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from gradwire.errors import GraphWarning, TraceError
from gradwire.frontends.torch.lowering import name_of_op, needs_decomposition

_C: Any = torch._C
_ON_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException)
_lock = threading.Lock()
_here = threading.local()


def recording() -> bool:
    """Whether this thread records a function: what is remote within it is then computed by PyTorch.

    Its operators, derivatives taken in it included, become part of the graph.
    """
    return bool(getattr(_here, "recording", False))


@torch.library.custom_op("gradwire::stop_gradient", mutates_args=())
def _stop_gradient(x: torch.Tensor) -> torch.Tensor:
    """Copies a tensor; autograd does not follow the copy."""
    return x.clone()


@_stop_gradient.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@_stop_gradient.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor) -> tuple[torch.Tensor, int | None]:
    return _stop_gradient(x), in_dims[0]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor argument, and whether autograd follows it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool


def tensor_spec(tensor: torch.Tensor, requires_grad: bool | None = None) -> TensorSpec:
    """Returns the spec of a tensor; by default, autograd follows it if it is floating-point."""
    follows = tensor.is_floating_point() if requires_grad is None else requires_grad
    return TensorSpec(tuple(tensor.shape), tensor.dtype, follows)


@dataclass(frozen=True)
class Capture:
    """A recorded function.

    Attributes:
        graph: ATen operators; its placeholders are the arguments, its outputs `outputs` in order.
        outputs: structure of what the function returns.
        connected: for each output, whether autograd follows it.
        literals: names of the graph's tensors that the function created (`torch.tensor(0.5)`); it closes over
            the others.
        rules: names of custom backward rules that ran; the graph does not contain them.
    """

    graph: torch.fx.GraphModule
    outputs: pytree.TreeSpec
    connected: tuple[bool, ...]
    literals: frozenset[str]
    rules: tuple[str, ...]


def capture(fn: Callable[..., Any], specs: Sequence[TensorSpec]) -> Capture:
    """Records `fn`, which takes one tensor for each spec.

    Warns with `GraphWarning` of each custom backward rule.

    Raises:
        TraceError: the function branches on values, makes shapes of them, or returns something other than
            tensors.
        Exception: whatever the function itself raises.
    """
    # A new thread has none of the caller's modes: no autocast, no_grad, vmap or jvp level.
    result: list[Capture] = []
    failure: list[BaseException] = []

    def work() -> None:
        _here.recording = True
        try:
            with _lock:
                result.append(_capture(fn, specs))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="gradwire-capture")
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


def _capture(fn: Callable[..., Any], specs: Sequence[TensorSpec]) -> Capture:
    found: dict[str, Any] = {"rules": set()}

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        arguments = [
            tensor.requires_grad_().view_as(tensor) if spec.requires_grad else tensor
            for tensor, spec in zip(tensors, specs, strict=True)
        ]
        with _Connections(found["rules"]):
            returned = fn(*arguments)
        leaves, found["outputs"] = pytree.tree_flatten(returned)
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise TraceError(
                    f"{name_of(fn)} returned a {type(leaf).__name__}; return tensors, or tuples, lists or "
                    "dicts of them"
                )
        found["connected"] = tuple(leaf.requires_grad for leaf in leaves)
        found["rules"] |= _own_rules(leaves)
        return leaves

    table: dict[Any, Callable[..., Any]] = {
        op: rule
        for op, rule in global_decomposition_table["post_autograd"].items()
        if needs_decomposition(op)
    }
    with (
        warnings.catch_warnings(action="ignore"),
        FakeTensorMode(allow_non_fake_inputs=True),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
    ):
        examples = [torch.empty(spec.shape, dtype=spec.dtype) for spec in specs]
        try:
            graph = make_fx(run, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
        except _ON_VALUES:
            raise TraceError(
                f"{name_of(fn)} needs the value of a tensor (an if, a loop, float() or .item()), which is "
                "not known while its graph is recorded; use torch.where, or pass the number as an argument"
            ) from None
        except DynamicOutputShapeException as error:
            raise TraceError(
                f"{name_of(fn)} makes a shape out of values ({error}); write torch.where(mask, a, b) in "
                "place of a boolean mask"
            ) from None
    return Capture(
        graph, found["outputs"], found["connected"], _literals(graph), tuple(sorted(found["rules"]))
    )


def _literals(graph: torch.fx.GraphModule) -> frozenset[str]:
    """Returns the names of tensors made by `torch.tensor` and its kind, which PyTorch lifts at once."""
    return frozenset(
        str(node.target)
        for node in graph.graph.nodes
        if node.op == "get_attr"
        and any(name_of_op(user.target).startswith("lift_fresh") for user in node.users)
    )


class _Connections(TorchFunctionMode):
    """Marks floating-point results that autograd does not follow, although it follows an operand.

    Args:
        rules: a set to which the names of hooks on gradients are added.
    """

    def __init__(self, rules: set[str]) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if kwargs and kwargs.get("generator") is not None:
            raise TraceError("a random generator cannot be traced: draw the numbers outside and pass them in")
        if func in (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist):
            raise TraceError(
                f"Tensor.{func.__name__} needs the values of a tensor, which are not known while a graph is "
                "recorded; compute with PyTorch's functions, or give a NumPy function to client.function"
            )
        if func is torch.nn.functional.one_hot:  # PyTorch's own checks the values
            return _one_hot(*args, **(kwargs or {}))
        if func is torch.Tensor.register_hook:
            self._rules.add("Tensor.register_hook")
        leaves = pytree.tree_leaves((args, kwargs))
        followed = any(isinstance(leaf, torch.Tensor) and _followed(leaf) for leaf in leaves)
        result = func(*args, **(kwargs or {}))
        # Without a followed operand there is no derivative to stop, and the result may be a view for writing.
        return _marked(func, args, result) if followed else result


def _marked(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Returns the result of a call with a followed operand, marked where autograd does not follow it."""
    if func is _C._VariableFunctions._make_dual:
        return result  # autograd may follow its tangent
    if isinstance(result, tuple | list) and any(isinstance(item, torch.Tensor) for item in result):
        marked = [_stopped(item) if _unfollowed(item) else item for item in result]
        if type(result) in (tuple, list):
            return type(result)(marked)
        return type(result)(marked) if hasattr(result, "n_sequence_fields") else result
    written = args[0] if func is torch.Tensor.__setitem__ else result
    if not _unfollowed(written):
        return result
    if any(written is one for one in args):
        # An in-place result must stay the same object.
        with torch.no_grad():
            written.copy_(_stopped(written))
        return result
    return _stopped(result)


def _unfollowed(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.is_floating_point() and not _followed(item)


def _stopped(tensor: torch.Tensor) -> torch.Tensor:
    marked: torch.Tensor = _stop_gradient(tensor)
    return marked


def _one_hot(tensor: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    if num_classes < 0:
        raise TraceError("one_hot makes a shape out of values; say num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _followed(tensor: torch.Tensor) -> bool:
    """Whether autograd follows a tensor, or the tensor that it wraps within a transform of `torch.func`.

    `requires_grad` of a wrapper is that of its own level: always false for `vmap`; for `grad`, whether the
    result depends on the inner variable.
    """
    while not tensor.requires_grad and _C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


def _own_rules(results: Sequence[torch.Tensor]) -> set[str]:
    """Returns the names of the custom `torch.autograd.Function`s that results were computed with."""
    names = set[str]()
    ahead: list[Any] = [result.grad_fn for result in results]
    seen = set[Any]()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [before for before, _ in node.next_functions]
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and function.__module__.partition(".")[0] != "torch":
            names.add(function.__qualname__)
    return names


def name_of(fn: Any) -> str:
    """Returns the name of a function for messages."""
    return str(getattr(fn, "__name__", type(fn).__name__))
