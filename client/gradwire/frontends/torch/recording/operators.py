"""What a recorder needs to know of an ATen operator: what it writes, whether it makes a view, its rule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import global_decomposition_table

from gradwire.frontends.torch.lowering import has_rule, name_of_op

_VALUES = frozenset({"_local_scalar_dense", "equal", "item", "is_nonzero", "allclose"})
_CHECKS = frozenset({"_linalg_check_errors", "_assert_async", "_assert_scalar", "_assert_tensor_metadata"})
_LITERAL = frozenset({
    "nonzero", "nonzero_static", "unique_dim", "_unique", "_unique2", "unique_consecutive", "bincount",
    "histc", "unique_dim_consecutive", "repeat_interleave", "argwhere",
})  # fmt: skip
_SHAPES_ALONE = frozenset({
    "zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty", "new_empty_strided",
    "zero_",
})  # fmt: skip
_RELAID = frozenset({"unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_"})
_DRAWS = frozenset({
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "normal",
    "uniform", "exponential", "multinomial", "poisson", "random", "cauchy", "log_normal", "geometric",
    "_sample_dirichlet", "_standard_gamma", "binomial",
})  # fmt: skip
_UNDECLARED = {"native_batch_norm": (3, 4), "cudnn_batch_norm": (3, 4)}
"""Arguments that an operator writes to in training, although its schema does not say so."""
_COPIED = frozenset({"view_as_real", "view_as_complex"})
_RUN = frozenset({"_pack_padded_sequence", "_ctc_loss", "linalg_lstsq"})
_LENGTHS = {"_pack_padded_sequence": 1}
_MASKED = frozenset(
    {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "masked_select"}
)


@dataclass(frozen=True)
class Operator:
    """Properties of an operator.

    Attributes:
        name: without namespace and overload.
        written: positions of the arguments that it writes to.
        out: whether it stores its results in keyword arguments.
        view: whether a result shares memory with an argument.
        relaid: whether it changes the layout of its argument and not its elements.
        in_place: whether its only result is the argument that it writes to.
        shapes_alone: whether it reads the shape of its argument and not its elements.
        reads_values: whether it returns numbers.
        layout: whether it returns facts about the layout of tensors.
        check: whether it raises for some values and does nothing else.
        draws: whether it draws random numbers.
        literal: whether the shape of its result depends on values of all its arguments.
        rule: whether it has a rule.
    """

    name: str
    written: tuple[int, ...]
    out: bool
    view: bool
    relaid: bool
    in_place: bool
    shapes_alone: bool
    reads_values: bool
    layout: bool
    check: bool
    draws: bool
    literal: bool
    rule: bool

    @property
    def copied(self) -> bool:
        """Whether it makes a view that is recorded as a copy."""
        return self.name in _COPIED

    @property
    def shapes_need_values(self) -> bool:
        """Whether PyTorch has no shapes for it without values."""
        return self.name in _RUN

    @property
    def length_from(self) -> int | None:
        """The argument that its further results depend on, which has to be known; None if they do not."""
        return _LENGTHS.get(self.name)

    @property
    def masked(self) -> bool:
        """Whether it takes boolean masks, which make a shape out of values."""
        return self.name in _MASKED


@functools.cache
def operator(op: Any) -> Operator:
    """Return the properties of an operator."""
    name, schema = name_of_op(op), op._schema
    arguments = [(i, one) for i, one in enumerate(schema.arguments) if one.alias_info is not None]
    written = tuple(i for i, one in arguments if one.alias_info.is_write and not one.kwarg_only)
    out = any(one.alias_info.is_write and one.kwarg_only for _, one in arguments)
    relaid = name in _RELAID
    in_place = bool(written) and name.endswith("_") and len(written) == 1
    return Operator(
        name,
        _UNDECLARED.get(name, written),
        out,
        any(not one.alias_info.is_write for _, one in arguments),
        relaid,
        in_place and not relaid,
        name in _SHAPES_ALONE,
        name in _VALUES,
        bool(schema.returns) and not any("Tensor" in str(one.type) for one in schema.returns),
        name in _CHECKS,
        name.removesuffix("_") in _DRAWS,
        name in _LITERAL,
        has_rule(name) and not _is_composite(op),
    )


def decomposition(op: Any) -> Callable[..., Any] | None:
    """Return a function of other operators that computes an operator, or None."""
    if _is_composite(op):
        return op.decompose  # type: ignore[no-any-return]
    return global_decomposition_table["post_autograd"].get(op)


def _is_composite(op: Any) -> bool:
    """Whether an operator is one of others for autograd; only inside decompositions it is seen itself."""
    has: Any = torch._C._dispatch_has_kernel_for_dispatch_key
    return bool(has(op.name(), "CompositeImplicitAutograd"))


@functools.cache
def functional(op: Any) -> Any:
    """Return the operator that computes what one with out= or an underscore stores, or None."""
    schema = op._schema
    out = {one.name for one in schema.arguments if one.kwarg_only and one.alias_info is not None}
    names = [one.name for one in schema.arguments if one.name not in out]
    packet = getattr(getattr(torch.ops, op.namespace), name_of_op(op).rstrip("_"), None)
    for overload in packet.overloads() if packet is not None else ():
        other = getattr(packet, overload)
        types = {one.name: str(one.type) for one in schema.arguments}
        needed = [
            one
            for one in other._schema.arguments
            if one.name in types or not (one.kwarg_only and one.has_default_value())
        ]
        if [one.name for one in needed] == names and all(str(one.type) == types[one.name] for one in needed):
            return other
    return None
