"""Array functions for counting, windows, masks, statistics and polynomials."""

from __future__ import annotations

from typing import Any

import numpy as np

import gradwire as gw
from tests.client.frontends.numpy.cases.case import Case

RNG = np.random.default_rng(15)
V = RNG.normal(size=7)
A = RNG.normal(size=(4, 5))
KNOTS = np.sort(RNG.normal(size=6)) + np.arange(6)
HEIGHTS = RNG.normal(size=6)
HOLES = np.where(RNG.random((4, 5)) > 0.6, np.nan, A)
HOLES[0], HOLES[:, 0] = A[0], A[:, 0]
WORDS = np.array([3, 1, 2, 1, 2])
windows = np.lib.stride_tricks.sliding_window_view


def _in_place(v: Any, a: Any) -> Any:
    put, along, masked, placed, tiled = v.copy(), a.copy(), a.copy(), a.copy(), a.copy()
    np.put(put, [0, 3], [9.0, 1.0])
    np.put_along_axis(along, np.argmax(a, 0)[None], 5.0, 0)
    np.putmask(masked, masked > 0, 0.0)
    np.place(placed, placed < 0, 1.0)
    np.putmask(tiled, tiled > 0, v)
    filled = a.copy()
    np.fill_diagonal(filled, 7.0)
    copied = np.zeros_like(a)
    np.copyto(copied, a[0])
    return put, along, masked, placed, tiled, filled, copied


def _kinds(v: Any) -> Any:
    assert np.can_cast(v, np.float64)
    assert np.isrealobj(v)
    assert not np.iscomplexobj(v)
    return v.astype(np.common_type(v, v)) * np.ndim(v) * np.size(v) * len(np.shape(v)), np.astype(
        v, np.float64
    )


CASES: dict[str, Case] = {
    "searchsorted": Case(
        lambda k, v: (
            np.searchsorted(k, v),
            np.searchsorted(k, v, "right"),
            np.searchsorted(np.arange(3.0), v),
        ),
        (KNOTS, V),
        slope_rtol=None,
    ),
    "digitize": Case(
        lambda v: (np.digitize(v, [-1, 0, 1]), np.digitize(v, [-1, 0, 1], True), np.digitize(v, [1, 0, -1])),
        (V,),
        slope_rtol=None,
    ),
    "isin": Case(
        lambda v: (np.isin(v, [1, 2]), np.isin(v, [1, 2], invert=True)), (np.arange(5.0),), slope_rtol=None
    ),
    "bincount": Case(
        lambda v: (np.bincount([0, 2, 2, 1, 0, 5, 5], v), np.bincount([0, 2, 2, 1, 0, 5, 5], v, minlength=9)),
        (V,),
    ),
    "positions": Case(
        lambda a: (
            *np.unravel_index(np.argmax(a), a.shape),
            *np.unravel_index(np.argmin(a), a.shape, "F"),
            np.ravel_multi_index((np.argmax(a, 0), np.arange(5)), (4, 5)),
        ),
        (A,),
        slope_rtol=None,
    ),
    "lexsort": Case(lambda a, b: np.lexsort((a, b)), (WORDS, np.array([1, 1, 0, 0, 1])), slope_rtol=None),
    "accumulations without NaN": Case(lambda a: (np.nancumsum(a), np.nancumprod(a, 1)), (HOLES,)),
    "reductions without NaN": Case(
        lambda a: (
            np.nansum(a),
            np.nanmean(a, 1),
            np.nanstd(a),
            np.nanvar(a, 0),
            np.nanmax(a),
            np.nanmin(a, 1),
            np.nanprod(a, 1),
        ),
        (HOLES,),
    ),
    "quantiles without NaN": Case(
        lambda a: (
            np.nanquantile(a, [0.2, 0.7], axis=1),
            np.nanmedian(a),
            np.nanpercentile(a, 30, axis=0, keepdims=True),
            np.nanmedian(a, axis=1),
        ),
        (HOLES,),
    ),
    "nanargmax": Case(lambda a: (np.nanargmax(a, 0), np.nanargmin(a)), (HOLES,), slope_rtol=None),
    "apply_along_axis": Case(
        lambda a: (
            np.apply_along_axis(np.sort, 0, a),
            np.apply_along_axis(lambda row: row.sum(), 1, a),
            np.apply_along_axis(lambda row: np.outer(row, row), 1, a),
            np.apply_over_axes(np.sum, a, [0, 1]),
        ),
        (A,),
    ),
    "piecewise": Case(
        lambda v: (
            np.piecewise(v, [v < 0, v >= 1], [lambda x: -x, np.exp, 3.0]),
            np.piecewise(v, v > 0, [1.0, lambda x: x * x]),
            np.piecewise(v, [v < 0], [7]),
        ),
        (V,),
    ),
    "sliding_window_view": Case(
        lambda v, a: (windows(v, 3), windows(a, (2, 3)), windows(a, 2, axis=1)), (V, A)
    ),
    "changes in place": Case(_in_place, (V, A)),
    "polynomials": Case(
        lambda p, x: (
            np.polyval(p[:3], x),
            np.polyadd(p, p[:2]),
            np.polysub(p[:2], p),
            np.polymul(p, p[:3]),
            np.polyder(p),
            np.polyder(p, 2),
            np.polyint(p),
            np.polyint(p, 2, 3.0),
            np.poly(p),
        ),
        (V, A),
    ),
    "reductions with masks": Case(
        lambda a: (
            np.sum(a, where=a > 0),
            np.sum(a, 0, where=a > 0, initial=2.0),
            np.prod(a, where=a > 0),
            np.max(a, initial=0.5),
            np.min(a, 1, where=a > 0, initial=3.0),
            np.mean(a, where=a > 0),
            np.mean(a, axis=0, where=a > -1),
            np.any(a > 0, where=a > 2),
            np.all(a > 0, 1, where=a > 0),
        ),
        (A,),
    ),
    "extrema of nothing with a first value": Case(
        lambda a: (np.max(a[:0], initial=0.5), np.min(a[:0], 0, initial=3.0), np.sum(a)), (A,)
    ),
    "interp": Case(
        lambda x, k, f: (
            np.interp(x, k, f),
            np.interp(x, np.arange(6.0), f, left=2.0, right=1.0),
            np.interp(x, k, f, period=2.5),
            np.interp(x, k[:2], f[:2]),
            np.interp(x, k[:1], f[:1]),
        ),
        (V, KNOTS, HEIGHTS),
    ),
    "compress and insert": Case(
        lambda a, v: (
            np.compress([1, 0, 1, 1], a, 0),
            np.compress([0, 1, 1], a),
            np.insert(a, 1, 5.0, 0),
            np.insert(a, [0, 2], 9.0, axis=1),
            np.insert(v, 2, [1.0, 2.0]),
            np.insert(v, [1, 1, 3], [1.0, 2.0, 3.0]),
            np.insert(a, 2, v[:5], axis=0),
            np.insert(a, slice(0, 2), 3.0, axis=0),
            np.insert(v, -1, v[0]),
            np.resize(a, (3, 9)),
            np.insert(a, 1, v[:4], axis=1),
        ),
        (A, V),
    ),
    "gradient at coordinates": Case(
        lambda f, x: (
            np.gradient(f, x[:5], axis=1),
            np.gradient(f, x[:5], axis=1, edge_order=2),
            *np.gradient(f, 2.0, x[:5]),
            *np.gradient(f, edge_order=2),
        ),
        (A, KNOTS),
    ),
    "quantile": Case(
        lambda a: tuple(
            np.quantile(a, [0.1, 0.33, 0.9], axis=0, method=method)
            for method in (
                "linear",
                "weibull",
                "hazen",
                "interpolated_inverted_cdf",
                "median_unbiased",
                "normal_unbiased",
                "lower",
                "higher",
                "nearest",
                "midpoint",
            )
        ),
        (A,),
    ),
    "rounding": Case(
        lambda v: (np.round(v), np.around(v, 2), np.fix(v), v.round(1)), (np.array([0.123, -2.341, 7.219]),)
    ),
    "i0": Case(np.i0, (V,)),
    "spaces": Case(
        lambda v: (
            np.logspace(v[0], v[1], 4),
            np.logspace(v[0], 2.0, 3, base=2.0),
            np.linspace(v[0], 1.0, 4),
            np.geomspace(v[0] ** 2, 5.0, 4),
            np.geomspace(v**2, 3.0, 3, axis=1),
        ),
        (V,),
    ),
    "indices of triangles": Case(
        lambda a: (
            a[np.tril_indices_from(a[:, :4])],
            a[np.triu_indices_from(a)],
            a[:, :4][np.diag_indices_from(a[:, :4])],
        ),
        (A,),
    ),
    "kinds and shapes": Case(_kinds, (V,)),
    "partitions": Case(lambda v: (np.sort(np.partition(v, 3)), v[np.argpartition(v, 2)].sum()), (V,)),
    "constructors like an array": Case(
        lambda v: (
            v + np.zeros(7, like=v),
            v * np.ones(7, like=v),
            v + np.arange(7, like=v),
            np.eye(7, like=v) @ v,
            v + np.full(7, 2.0, like=v),
            np.identity(7, like=v) @ v,
            np.tri(7, like=v) @ v,
            v + 0 * np.empty_like(v),
            np.asarray(v, like=v),
            np.array(v, like=v),
        ),
        (V,),
    ),
    "rounding with Python's round": Case(
        lambda v: (round(10 * v[0]), round(v[1], 2), f"{v}" and v), (V,), slope_rtol=None
    ),
    "arrays of lists": Case(
        lambda v: (
            gw.asarray([[np.cos(v[0]), -np.sin(v[0]), 1], [v[1], 2, 3], [4, 5, 6]]),
            gw.asarray([v, [1, 2, 3, 4, 5, 6, 7]]),
            np.array([[v[0], 1], [2, 3]], like=v),
            np.array([v[0], 1], ndmin=3, like=v),
            v * np.array([1, 2, 3, 4, 5, 6, 7], like=v),
            v * np.asarray(3.0, like=v),
            np.copy(v, "C"),
        ),
        (V,),
    ),
    "arrays of lists in single precision": Case(
        lambda v: (gw.asarray([v[0], 1], dtype=np.float32), np.asarray([v[0], v[1]], np.float32, like=v)),
        (V,),
        slope_rtol=None,
    ),
    "arrays of lists of complex numbers": Case(
        lambda v: (
            np.abs(gw.asarray([[v[0], 1j * v[1]], [2, v[2]]]) @ gw.asarray([1j * v[0], 3])),
            np.imag(gw.asarray([[1j, 2], [v[0], 1j * v[1]]])),
            np.imag(v * gw.asarray([1, 2, 3, 4, 5, 6, 7j])),
            np.real(gw.asarray(1j * v) ** 2),
        ),
        (V,),
    ),
    "other names": Case(
        lambda v: (
            np.amax(v),
            np.amin(v),
            np.asanyarray(v, like=v),
            np.ascontiguousarray(v, like=v),
            0 * np.empty(7, like=v),
            np.real_if_close(v),
            np.copy(v),
            v.astype(np.result_type(v, np.float32)),
        ),
        (V,),
    ),
    "unstack": Case(lambda a: (*np.unstack(a), *np.unstack(a, axis=1)), (A,)),
    "cumulative_prod": Case(lambda v: (np.cumulative_prod(v), np.cumulative_sum(v)), (V,)),
    "dsplit": Case(lambda a: np.dsplit(a[None], [2]), (A,)),
    "grids": Case(lambda v, w: np.meshgrid(v, w), (V, HEIGHTS)),
    "matrix_transpose": Case(np.matrix_transpose, (A,)),
    "tests of signs": Case(
        lambda a: (np.isposinf(a), np.isneginf(a), np.isreal(a), np.iscomplex(a)), (HOLES,), slope_rtol=None
    ),
    "ix_": Case(lambda a: a[np.ix_([0, 2], [1, 3])], (A,)),
    "mesh of traced positions": Case(lambda a, i: a[np.ix_(i, np.array([1, 3]))], (A, np.array([0, 2]))),
}
