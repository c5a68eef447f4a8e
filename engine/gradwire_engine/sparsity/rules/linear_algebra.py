"""Solves, transforms and orders: dense along some axes, independent along the others."""

from __future__ import annotations

import numpy as np

from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule, unfollowed


def dense_along(visit: Visit, ids: Array, axes: tuple[int, ...]) -> Array:
    """Let each element depend on all elements along axes."""
    united = visit.sets.union_along(ids, axes)
    return np.broadcast_to(np.expand_dims(united, axes), ids.shape)


@rule("triangular_solve")
def triangular_solve(visit: Visit) -> list[Reach]:
    """Solve triangular systems: each right-hand side is dense in itself, independent of the others."""
    axis = -2 if visit.params["left_side"] else -1
    ids = visit.ids(1)
    result = dense_along(visit, ids, (ids.ndim + axis,))
    if visit.reached[0] is not None:
        matrix = visit.ids(0)
        whole = dense_along(visit, matrix, (matrix.ndim - 2, matrix.ndim - 1))
        united = visit.sets.union(result, np.broadcast_to(whole[..., :1, :1], ids.shape))
        assert united is not None
        result = united
    return [result]


@rule("tridiagonal_solve")
def tridiagonal_solve(visit: Visit) -> list[Reach]:
    """Solve tridiagonal systems: dense along the system's axis."""
    ids = visit.ids(3)
    return [dense_along(visit, ids, (ids.ndim - 2,))]


@rule("fft")
def fourier_transform(visit: Visit) -> list[Reach]:
    """Transform along the last axes: dense along them."""
    ids, shape = visit.ids(0), visit.result_shape()
    axes = tuple(range(ids.ndim - len(visit.params["fft_lengths"]), ids.ndim))
    united = visit.sets.union_along(ids, axes)
    return [np.broadcast_to(np.expand_dims(united, axes), shape)]


@rule("sort")
def sort(visit: Visit) -> list[Reach]:
    """Order along an axis by values that are not known: dense along it."""
    axis = visit.params["dimension"]
    return [None if ids is None else dense_along(visit, ids, (axis,)) for ids in visit.reached]


@rule("custom_linear_solve")
def linear_solve(visit: Visit) -> list[Reach]:
    """Follow the program of the solve: what the right-hand sides reach, batches apart."""
    lengths, programs = visit.params["const_lengths"], visit.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    stop = start + lengths.solve
    right_hand_sides = start + lengths.solve + lengths.transpose_solve
    if any(ids is not None for ids in visit.reached[:right_hand_sides]):
        return unfollowed(visit)
    reached, _ = visit.walk.closed(
        programs.solve,
        [*visit.reached[start:stop], *visit.reached[right_hand_sides:]],
        [*visit.values[start:stop], *visit.values[right_hand_sides:]],
    )
    return reached[: len(visit.equation.outvars)]
