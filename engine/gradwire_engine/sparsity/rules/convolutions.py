"""Convolutions: windows along the spatial axes, dense over the channels of a group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import numpy as np

from gradwire_engine.abstract import abstract
from gradwire_engine.lowering.rules.networks import depthwise
from gradwire_engine.sparsity.taps import Taps
from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule

_FOLLOWED_TAPS = 512
"""Taps of a known filter up to which its zeros are followed one by one."""


@rule("conv_general_dilated")
def convolution(visit: Visit) -> list[Reach]:
    """Unite what the taps of each window hold: y = conv(x, w) has a band for each tap.

    Operands are brought to (batch, channels, spatial) and (out channels, channels a group, spatial).
    """
    lhs_spec, rhs_spec, out_spec = visit.params["dimension_numbers"]
    taps = _taps(visit)
    result: Reach = None
    if visit.reached[0] is not None:
        moved = _of_image(visit, visit.ids(0).transpose(lhs_spec), taps)
        result = moved
    if visit.reached[1] is not None:
        moved = _of_filter(visit, visit.ids(1).transpose(rhs_spec), taps)
        result = visit.sets.union(result, moved)
    assert result is not None
    # out_spec names the axis of each logical dimension; its inverse puts them there.
    return [result.transpose(np.argsort(out_spec))]


@rule(depthwise.NAME)
def depthwise_convolution(visit: Visit) -> list[Reach]:
    """Follow the shifted products that a depthwise convolution is a sum of."""
    return _expanded(visit, depthwise.sum_of_products)


@rule(depthwise.KERNEL_NAME)
def depthwise_kernel(visit: Visit) -> list[Reach]:
    """Follow the products that the gradient of a depthwise filter is a sum of."""
    return _expanded(visit, depthwise.kernel_products)


def _expanded(visit: Visit, function: Callable[..., Any]) -> list[Reach]:
    operands = [abstract(atom.aval.shape, atom.aval.dtype) for atom in visit.equation.invars]
    program = jax.make_jaxpr(partial(function, **visit.params))(*operands)
    reached, _ = visit.walk.closed(program, visit.reached, visit.values)
    return reached


def _taps(visit: Visit) -> list[Taps]:
    params = visit.params
    lhs_spec, rhs_spec, _ = params["dimension_numbers"]
    return [
        Taps.of_windows(
            visit.shape(0)[lhs_spec[2 + k]],
            visit.shape(1)[rhs_spec[2 + k]],
            params["window_strides"][k],
            params["padding"][k],
            params["lhs_dilation"][k],
            params["rhs_dilation"][k],
        )
        for k in range(len(lhs_spec) - 2)
    ]


def _of_image(visit: Visit, ids: Array, taps: list[Taps]) -> Array:
    """Follow seeds from the image; `ids` is (batch, channels, spatial)."""
    params = visit.params
    _, rhs_spec, _ = params["dimension_numbers"]
    outputs = visit.shape(1)[rhs_spec[0]]
    groups, batch_groups = params["feature_group_count"], params["batch_group_count"]
    batch, channels, *spatial = ids.shape
    # (batch groups, batch, feature groups, channels of a group, spatial); at most one of both is above 1
    parted = ids.reshape(batch_groups, batch // batch_groups, groups, channels // groups, *spatial)
    value = visit.known(1)
    if value is not None and value.size <= _FOLLOWED_TAPS and not value.all():
        united = _by_taps(visit, parted, value.transpose(rhs_spec) != 0, taps)
    else:
        united = visit.sets.union_along(parted, (3,))
        for axis, along in enumerate(taps):
            united = along.united(visit.sets, united, 3 + axis)
        each = outputs // (groups * batch_groups)
        shape = (*united.shape[:3], each, *united.shape[3:])
        united = np.broadcast_to(np.expand_dims(united, 3), shape)
    # (batch groups, batch, groups, outputs of a group, spatial) to (batch, outputs, spatial)
    ordered = np.moveaxis(united, 0, 1)
    return ordered.reshape(batch // batch_groups, outputs, *united.shape[4:])


def _by_taps(visit: Visit, parted: Array, nonzero: Array, taps: list[Taps]) -> Array:
    """Unite over the taps that are not zero; `nonzero` is (outputs, channels of a group, spatial)."""
    batch_groups, batch, groups = parted.shape[:3]
    sizes = tuple(along.places.shape[0] for along in taps)
    each = nonzero.shape[0] // (groups * batch_groups)
    result = np.full((batch_groups, batch, groups, each, *sizes), -1, np.int32)
    for output, channel, *place in np.argwhere(nonzero):
        group, within = divmod(int(output), each)
        batch_group, feature_group = divmod(group, groups)
        held = parted[batch_group, :, feature_group, channel]
        for axis, (along, tap) in enumerate(zip(taps, place, strict=True)):
            one = Taps(along.places[:, tap : tap + 1], along.held[:, tap : tap + 1])
            held = np.moveaxis(one.taken(held, 1 + axis)[:, 0], 0, 1 + axis)
        united = visit.sets.union(result[batch_group, :, feature_group, within], held)
        result[batch_group, :, feature_group, within] = united
    return result


def _of_filter(visit: Visit, ids: Array, taps: list[Taps]) -> Array:
    """Follow seeds from the filter; `ids` is (outputs, channels of a group, spatial)."""
    united = visit.sets.union_along(ids, (1,))
    for axis, along in enumerate(taps):
        united = along.united_taps(visit.sets, united, 1 + axis)
    shape = visit.result_shape()
    _, _, out_spec = visit.params["dimension_numbers"]
    batch = shape[out_spec[0]]
    assert prod(united.shape) * batch == prod(shape)
    return np.broadcast_to(united[None], (batch, *united.shape))
