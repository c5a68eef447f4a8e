"""Products with values that no seed reaches: matrices, tensors, batches of them."""

from __future__ import annotations

from math import prod

import numpy as np

from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule

_FOLLOWED = 0.5
"""Share of zeros from which on the zeros of a known factor are followed."""


@rule("dot_general")
def contraction(visit: Visit) -> list[Reach]:
    """Unite rows along the contracted axes: y = W x has full rows, or those of W where its zeros are known.

    For x of shape (batch, free, contracted) and a factor of shape (batch, free', contracted), element
    (b, f, f') depends on what x[b, f, :] depends on.
    """
    (left_axes, right_axes), (left_batch, right_batch) = visit.params["dimension_numbers"]
    left, right = visit.reached
    axes = (left_axes, left_batch), (right_axes, right_batch)
    result: Reach = None
    for operand, ids in enumerate((left, right)):
        if ids is None:
            continue
        (contracted, batch), (other_contracted, other_batch) = axes[operand], axes[1 - operand]
        united = _product(
            visit,
            _arranged(ids, batch, contracted),
            _factor(visit, 1 - operand, other_batch, other_contracted),
            _arranged_shape(visit.shape(1 - operand), other_batch, other_contracted),
        )
        # (batch, own free, other free): the left operand's free axes come first.
        own = [e for k, e in enumerate(ids.shape) if k not in (*contracted, *batch)]
        shape = visit.shape(1 - operand)
        other = [e for k, e in enumerate(shape) if k not in (*other_contracted, *other_batch)]
        ordered = united if operand == 0 else united.transpose(0, 2, 1)
        batches = [ids.shape[axis] for axis in batch]
        free = [*own, *other] if operand == 0 else [*other, *own]
        result = visit.sets.union(result, ordered.reshape((*batches, *free)))
    return [result]


def _arranged(array: Array, batch: tuple[int, ...], contracted: tuple[int, ...]) -> Array:
    """Return an operand as (batch, free, contracted)."""
    free = [axis for axis in range(array.ndim) if axis not in (*batch, *contracted)]
    return array.transpose([*batch, *free, *contracted]).reshape(
        _arranged_shape(array.shape, batch, contracted)
    )


def _arranged_shape(
    shape: tuple[int, ...], batch: tuple[int, ...], contracted: tuple[int, ...]
) -> tuple[int, int, int]:
    free = [extent for axis, extent in enumerate(shape) if axis not in (*batch, *contracted)]
    return (
        prod(shape[axis] for axis in batch),
        prod(free),
        prod(shape[axis] for axis in contracted),
    )


def _factor(visit: Visit, operand: int, batch: tuple[int, ...], contracted: tuple[int, ...]) -> Array | None:
    """Return where a known factor is not zero, as (batch, free, contracted); None where that is no help."""
    value = visit.known(operand)
    if value is None or not value.size:
        return None
    nonzero = np.asarray(value != 0)
    if np.count_nonzero(nonzero) > (1 - _FOLLOWED) * nonzero.size:
        return None
    return _arranged(nonzero, batch, contracted)


def _product(visit: Visit, ids: Array, factor: Array | None, shape: tuple[int, int, int]) -> Array:
    """Return the ids of the product, as (batch, free, other free)."""
    batches, free, _ = ids.shape
    others = shape[1]
    if factor is None:
        united = visit.sets.union_along(ids, (2,))
        return np.broadcast_to(united[:, :, None], (batches, free, others))
    result = np.empty((batches, free, others), np.int32)
    for b in range(batches):
        row, place = np.nonzero(factor[b])  # rows ascend
        offsets = np.searchsorted(row, np.arange(others + 1))
        for f in range(free):
            result[b, f] = visit.sets.union_groups(offsets, ids[b, f][place])
    return result
