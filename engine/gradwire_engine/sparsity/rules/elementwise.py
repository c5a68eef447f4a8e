"""Elementwise primitives: each element of the result depends on what the elements at its place depend on."""

from __future__ import annotations

import numpy as np

from gradwire_engine.sparsity.index_sets import EMPTY
from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule


@rule("neg", "convert_element_type", "real", "imag", "conj", "copy", "copy_p", "reduce_precision", "stored")
def unary(visit: Visit) -> list[Reach]:
    """Keep the pattern of the operand: of y = -x it is the identity."""
    return [visit.reached[0]]


@rule("optimization_barrier")
def barrier(visit: Visit) -> list[Reach]:
    """Keep the pattern of each operand."""
    return list(visit.reached)


@rule("add_any", "add", "sub", "complex")
def addition(visit: Visit) -> list[Reach]:
    """Unite the patterns of the operands: a row of y = a + b is that of a and that of b."""
    shape = visit.result_shape()
    first, second = (None if ids is None else np.broadcast_to(ids, shape) for ids in visit.reached)
    return [visit.sets.union(first, second)]


@rule("mul")
def multiplication(visit: Visit) -> list[Reach]:
    """Keep the pattern of the operand, without the rows in which the known factor is zero."""
    shape = visit.result_shape()
    first, second = visit.reached
    if first is not None and second is not None:
        return [visit.sets.union(np.broadcast_to(first, shape), np.broadcast_to(second, shape))]
    operand = 0 if first is not None else 1
    ids = np.broadcast_to(visit.ids(operand), shape)
    factor = visit.known(1 - operand)
    return [ids if factor is None else masked(ids, np.broadcast_to(factor, shape) == 0)]


@rule("div")
def division(visit: Visit) -> list[Reach]:
    """Keep the pattern of the numerator; a linear program divides by values that no seed reaches."""
    shape = visit.result_shape()
    first, second = (None if ids is None else np.broadcast_to(ids, shape) for ids in visit.reached)
    return [visit.sets.union(first, second)]


@rule("select_n")
def selection(visit: Visit) -> list[Reach]:
    """Take the pattern of the chosen case where the choice is known, and unite all cases where it is not."""
    shape = visit.result_shape()
    cases = [np.broadcast_to(visit.ids(k), shape) for k in range(1, len(visit.reached))]
    which = visit.known(0)
    if which is not None:
        index = np.broadcast_to(which, shape).astype(np.int64)
        if len(cases) == 2:
            return [np.where(index == 0, cases[0], cases[1])]
        return [np.take_along_axis(np.stack(cases), index[None], 0)[0]]
    united: Reach = None
    for k, ids in enumerate(visit.reached[1:]):
        if ids is not None:
            united = visit.sets.union(united, cases[k])
    return [united]


def masked(ids: Array, dropped: Array) -> Reach:
    """Return ids with the empty set where elements are dropped."""
    if not dropped.any():
        return ids
    return np.where(dropped, np.int32(EMPTY), ids)
