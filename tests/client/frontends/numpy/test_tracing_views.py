"""What is a view in NumPy is one in a trace: it shows later writes to its base, and writes through to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradwire.errors import TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec_of
from tests.client.frontends.numpy.oracle import agree, by_reference, flat

X = np.array([[0.5, 2.0, -1.25], [3.0, 0.25, 1.5], [-0.75, 1.0, 4.0]])

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "[0]": lambda y: y[0],
    "[1, 2, ...]": lambda y: y[1, 2, ...],
    "[..., 1, 2]": lambda y: y[..., 1, 2],
    "[0, 0:1].reshape(())": lambda y: y[0, 0:1].reshape(()),
    "[0, 0:1].squeeze()": lambda y: y[0, 0:1].squeeze(),
    "[::-1, 1:]": lambda y: y[::-1, 1:],
    "[[0, 2]]": lambda y: y[[0, 2]],
    "T": lambda y: y.T,
    "mT": lambda y: y.mT,
    "real": np.real,
    "real_if_close": np.real_if_close,
    "transpose": np.transpose,
    "swapaxes": lambda y: np.swapaxes(y, 0, 1),
    "moveaxis": lambda y: np.moveaxis(y, 0, 1),
    "rollaxis": lambda y: np.rollaxis(y, 1),
    "matrix_transpose": np.matrix_transpose,
    "reshape": lambda y: np.reshape(y, -1),
    "reshape of rows": lambda y: np.reshape(y[1:], -1),
    "reshape of columns": lambda y: np.reshape(y[:, 1:], -1),
    "reshape of the transpose": lambda y: y.T.reshape(-1),
    "reshape in column order": lambda y: np.reshape(y, -1, order="F"),
    "reshape of the transpose in column order": lambda y: y.T.reshape(-1, order="F"),
    "ravel": np.ravel,
    "ravel of a sum of transposes": lambda y: (y.T + 1.0).ravel(),
    "flatten": lambda y: y.flatten(),
    "expand_dims": lambda y: np.expand_dims(y, 1),
    "squeeze": lambda y: np.squeeze(y[:1]),
    "atleast_1d": lambda y: np.atleast_1d(y[0]),
    "atleast_2d": lambda y: np.atleast_2d(y[0]),
    "atleast_3d": np.atleast_3d,
    "broadcast_to": lambda y: np.broadcast_to(y, (2, 3, 3)),
    "broadcast_arrays": lambda y: np.broadcast_arrays(y[:1], y)[0],
    "flip": np.flip,
    "rot90": np.rot90,
    "rot180": lambda y: np.rot90(y, 2),
    "rot0": lambda y: np.rot90(y, 0),
    "roll": lambda y: np.roll(y, 1),
    "split": lambda y: np.split(y, 3)[1],
    "unstack": lambda y: np.unstack(y, axis=1)[2],
    "diagonal": np.diagonal,
    "linalg.diagonal": np.linalg.diagonal,
    "diag of a matrix": lambda y: np.diag(y, 1),
    "diag of a vector": lambda y: np.diag(y[0]),
    "einsum of the diagonal": lambda y: np.einsum("ii->i", y),
    "einsum of the transpose": lambda y: np.einsum("ij->ji", y),
    "einsum of everything": lambda y: np.einsum("...", y),
    "einsum in another dtype": lambda y: np.einsum("ii->i", y, dtype=np.float32, casting="same_kind"),
    "einsum with a sum": lambda y: np.einsum("ij->i", y),
    "windows": lambda y: np.lib.stride_tricks.sliding_window_view(y, 2, axis=0),
    "meshgrid": lambda y: np.meshgrid(y[0], y[1], copy=False, sparse=True)[0],
    "meshgrid of copies": lambda y: np.meshgrid(y[0], y[1])[0],
    "ix_": lambda y: np.ix_(y[0].astype(int), [0])[0],
    "astype": lambda y: y.astype(np.float64),
    "astype without a copy": lambda y: y.astype(np.float64, copy=False),
    "copy": np.copy,
    "asarray": lambda y: np.asarray(y, like=y),
    "array": lambda y: np.array(y, like=y),
    "array without a copy": lambda y: np.array(y, copy=None, like=y),
    "ascontiguousarray": lambda y: np.ascontiguousarray(y, like=y),
    "ascontiguousarray of the transpose": lambda y: np.ascontiguousarray(y.T, like=y),
    "nan_to_num": np.nan_to_num,
    "nan_to_num in place": lambda y: np.nan_to_num(y, copy=False),
    "concatenate of one": lambda y: np.concatenate([y]),
    "take": lambda y: np.take(y, [0, 1], axis=0),
    "sort": np.sort,
    "triu": np.triu,
    "round of integers": lambda y: np.round(y.astype(int)),
    "clip without bounds": lambda y: np.clip(y, None, 1e9),
    "positive": np.positive,
    "conjugate": np.conjugate,
    "conj": lambda y: y.conj(),
    "roll by nothing": lambda y: np.roll(y, 0, axis=0),
    "tile once": lambda y: np.tile(y, 1),
    "pad by nothing": lambda y: np.pad(y, 0),
    "trapezoid": np.trapezoid,
}  # fmt: skip


def _read_after_a_write(function: Callable[[Any], Any], imaginary: bool) -> Callable[[Any], Any]:
    def program(x: Any) -> Any:
        y = x * (1 + 1j) if imaginary else x * 1.0
        view = function(y)
        y[...] = 2.0 * y[::-1] + 1.0
        return view.real if imaginary else view

    return program


def _written_through(function: Callable[[Any], Any], imaginary: bool) -> Callable[[Any], Any]:
    def program(x: Any) -> Any:
        y = x * (1 + 1j) if imaginary else x * 1.0
        view = function(y)
        view += 3.0
        view[...] = view * 2.0
        return (y.real, y.imag) if imaginary else y

    return program


REAL_ONLY = ("array", "integers", "clip", "real", "ix_", "astype", "windows", "meshgrid", "atleast", "conj")
OF_COMPLEX = [
    name
    for name in FUNCTIONS
    if not any(word in name for word in REAL_ONLY) and not name.startswith(("sort", "einsum in"))
]


def _hold(program: Callable[[Any], Any]) -> None:
    model = trace(program, [spec_of(X)])
    wanted = flat(program(X.copy()))
    for got, want in zip(by_reference(model, {"x": X}), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "imaginary"), [*((n, False) for n in FUNCTIONS), *((n, True) for n in OF_COMPLEX)]
)
def test_views_show_later_writes_to_their_base(name: str, imaginary: bool) -> None:
    _hold(_read_after_a_write(FUNCTIONS[name], imaginary))


REFUSED = {
    "reshape of columns": "reshaped view",
    "reshape of the transpose": "reshaped view",
    "reshape in column order": "reshaped view",
    "ravel of a sum of transposes": "reshaped view",
    "broadcast_arrays": "broadcast",
}
"""Where NumPy copies because of how elements lie in memory, or writes to many elements with a warning."""


@pytest.mark.parametrize(
    ("name", "imaginary"), [*((n, False) for n in FUNCTIONS), *((n, True) for n in OF_COMPLEX)]
)
def test_writes_to_views_reach_their_base(name: str, imaginary: bool) -> None:
    program = _written_through(FUNCTIONS[name], imaginary)
    try:
        program(X.copy())
    except (
        ValueError,
        TypeError,
        DeprecationWarning,
    ):  # NumPy's view is read-only, or what it gives is a scalar or of integers
        with pytest.raises((TraceError, TypeError, ValueError)):
            trace(program, [spec_of(X)])
        return
    if name in REFUSED:
        with pytest.raises(TraceError, match=REFUSED[name]):
            trace(program, [spec_of(X)])
        return
    _hold(program)


def test_scalars_are_no_views() -> None:
    def program(x: Any) -> Any:
        y = x * 1.0
        s = y[0, 0]
        s += 1.0
        t = y[0, 0, ...][()]
        t += 1.0
        return y, s, t

    agree(program, X, engine=False)


def test_the_diagonal_through_einsum_can_be_set() -> None:
    def program(a: Any) -> Any:
        a = a.copy()
        np.einsum("ii->i", a)[:] = 0
        return a

    agree(program, X)
