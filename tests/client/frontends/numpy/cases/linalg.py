"""Linear algebra, and what is computed by least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.client.frontends.numpy.cases.case import Case

RNG = np.random.default_rng(12)
TALL = RNG.normal(size=(5, 3))
WIDE = RNG.normal(size=(3, 5))
STACK = RNG.normal(size=(2, 3, 3)) + 3 * np.eye(3)
SPD = STACK @ np.swapaxes(STACK, -1, -2) + np.diag([1.0, 2.0, 3.0])
INDEFINITE = SPD - 9 * np.eye(3)
B = RNG.normal(size=5)


def _rebuilt(a: Any) -> Any:
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    return (u * s[..., None, :]) @ vh, s, u @ np.swapaxes(u, -1, -2), np.abs(vh)


def _hermitian(a: Any) -> Any:
    a = (a + np.swapaxes(a, -1, -2)) / 2
    u, s, vh = np.linalg.svd(a, hermitian=True)
    return (u * s[..., None, :]) @ vh, s, np.linalg.svd(a, compute_uv=False, hermitian=True)


def _likelihood(points: Any, values: Any, scale: Any) -> Any:
    gaps = points[:, None] - points[None, :]
    kernel = np.exp(-0.5 * (gaps / scale) ** 2) + 0.1 * np.eye(5)
    factor = np.linalg.cholesky(kernel)
    half = np.linalg.solve(factor, values)
    return -0.5 * half @ half - np.log(np.diagonal(factor)).sum(), np.linalg.slogdet(kernel)[1]


CASES: dict[str, Case] = {
    "cholesky": Case(lambda a: (np.linalg.cholesky(a), np.linalg.cholesky(a, upper=True)), (SPD,)),
    "det": Case(np.linalg.det, (STACK,)),
    "slogdet": Case(lambda a: tuple(np.linalg.slogdet(a)), (STACK,)),
    "inv": Case(np.linalg.inv, (STACK,)),
    "solve": Case(np.linalg.solve, (STACK, RNG.normal(size=(2, 3, 2)))),
    "solve for a vector": Case(np.linalg.solve, (STACK[0], B[:3])),
    "tensorsolve": Case(
        lambda a, b: np.linalg.tensorsolve(a.reshape(2, 3, 6), b.reshape(2, 3)),
        (RNG.normal(size=(6, 6)) + 5 * np.eye(6), RNG.normal(size=6)),
    ),
    "tensorinv": Case(
        lambda a: (np.linalg.tensorinv(a.reshape(2, 3, 6)), np.linalg.tensorinv(a.reshape(6, 3, 2), ind=1)),
        (RNG.normal(size=(6, 6)) + 5 * np.eye(6),),
    ),
    "eigh": Case(
        lambda a: (np.linalg.eigh(a).eigenvalues, np.abs(np.linalg.eigh(a, "U").eigenvectors)), (SPD,)
    ),
    "eigvalsh": Case(lambda a: (np.linalg.eigvalsh(a), np.linalg.eigvalsh(a, UPLO="U")), (SPD,)),
    "qr": Case(lambda a: (np.abs(np.linalg.qr(a).Q), np.abs(np.linalg.qr(a, "r"))), (TALL,)),
    "qr of a wide matrix": Case(lambda a: tuple(map(np.abs, np.linalg.qr(a))), (WIDE,)),
    "svd": Case(_rebuilt, (TALL,)),
    "svd of a wide matrix": Case(_rebuilt, (WIDE,)),
    "svd of stacked square matrices": Case(lambda a: np.abs(np.linalg.svd(a)[2]), (STACK,)),
    "svd of symmetric matrices": Case(_hermitian, (INDEFINITE,)),
    "svdvals": Case(lambda a: (np.linalg.svdvals(a), np.linalg.svd(a, compute_uv=False)), (TALL,)),
    "pinv": Case(lambda a: (np.linalg.pinv(a), np.linalg.pinv(a.T, rcond=1e-10)), (TALL,)),
    "pinv of stacked matrices": Case(lambda a: np.linalg.pinv(a, rtol=None), (STACK,)),
    "pinv of symmetric matrices": Case(
        lambda a: np.linalg.pinv(a + a.swapaxes(1, 2), hermitian=True), (SPD,)
    ),
    "lstsq": Case(lambda a, b: (*np.linalg.lstsq(a, b)[:2], np.linalg.lstsq(a, b)[3]), (TALL, B)),
    "lstsq for several right sides": Case(
        lambda a, b: np.linalg.lstsq(a, b, rcond=-1)[:2], (TALL, RNG.normal(size=(5, 2)))
    ),
    "lstsq of a wide matrix": Case(lambda a, b: np.linalg.lstsq(a, b)[:2], (WIDE, B[:3])),
    "matrix_rank": Case(
        lambda a, v: (
            (
                np.linalg.matrix_rank(a),
                np.linalg.matrix_rank(np.outer(v, v)),
                np.linalg.matrix_rank(a, tol=100.0),
                np.linalg.matrix_rank(v),
            )
        ),
        (STACK, B),
        slope_rtol=None,
    ),
    "cond": Case(
        lambda a: tuple(np.linalg.cond(a, p) for p in (None, 1, -1, 2, -2, np.inf, "fro")), (STACK,)
    ),
    "cond of a tall matrix": Case(np.linalg.cond, (TALL,)),
    "norm": Case(
        lambda a: (
            (
                np.linalg.norm(a),
                np.linalg.norm(a, axis=1),
                np.linalg.norm(a, 2),
                np.linalg.norm(a, "nuc"),
                np.linalg.norm(a, np.inf),
                np.linalg.norm(a, -1),
                np.linalg.norm(a[0], 3),
            )
        ),
        (TALL,),
    ),
    "vector_norm": Case(
        lambda a: (np.linalg.vector_norm(a), np.linalg.vector_norm(a, axis=0, ord=1)), (TALL,)
    ),
    "matrix_norm": Case(lambda a: (np.linalg.matrix_norm(a), np.linalg.matrix_norm(a, ord=2)), (STACK,)),
    "matrix_power": Case(lambda a: [np.linalg.matrix_power(a, n) for n in (-2, 0, 1, 5)], (STACK / 3,)),
    "multi_dot": Case(lambda a, b: np.linalg.multi_dot([a, b, a, b]), (TALL, WIDE)),
    "products": Case(
        lambda a, b: (
            (
                np.linalg.matmul(a, b),
                np.linalg.outer(a[0], b[0]),
                np.linalg.tensordot(a, b, axes=1),
                np.linalg.vecdot(a, b.T),
                np.linalg.cross(a, b.T),
            )
        ),
        (TALL, WIDE),
    ),
    "parts of matrices": Case(
        lambda a: (np.linalg.diagonal(a), np.linalg.trace(a), np.linalg.matrix_transpose(a)), (STACK,)
    ),
    "polyfit": Case(
        lambda x, y: (np.polyfit(x, y, 2), np.polyfit(x, y, 1, w=np.arange(1, 6.0))),
        (np.arange(5.0) + 0.1 * B, RNG.normal(size=5)),
        rtol=1e-8,
    ),
    "likelihood of a Gaussian process": Case(_likelihood, (np.arange(5.0), B, np.array(0.8))),
}
