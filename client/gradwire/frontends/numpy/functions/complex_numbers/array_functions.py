"""NumPy's array functions of complex traced arrays; most apply to both parts alike, or are products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex, combine, parts
from gradwire.frontends.numpy.axes import all_axes
from gradwire.frontends.numpy.complex_dispatch import implements_complex
from gradwire.frontends.numpy.dispatch import named
from gradwire.frontends.numpy.functions.complex_numbers.ufuncs import bilinear
from gradwire.frontends.numpy.functions.linear_algebra.norms import vector_norm
from gradwire.frontends.numpy.functions.statistics.reductions import root
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy

_ALIKE = """
    sum mean cumsum diff reshape ravel transpose swapaxes moveaxis rollaxis expand_dims squeeze broadcast_to
    flip flipud fliplr rot90 roll tile repeat take take_along_axis delete split array_split hsplit vsplit
    dsplit diagonal trace tril triu diag diagflat unstack matrix_transpose copy concatenate concat stack
    vstack hstack dstack column_stack block nan_to_num round around trapezoid gradient ediff1d
    linalg.diagonal linalg.trace linalg.matrix_transpose fft.fftshift fft.ifftshift
"""
"""Functions that are real and linear in their first argument, or that NumPy applies to each part."""

_PRODUCTS = """
    dot inner outer tensordot kron convolve cross linalg.matmul linalg.outer linalg.tensordot linalg.cross
"""
"""Functions that are linear in their first two arguments."""


def _split(item: Any) -> tuple[Any, Any]:
    """Split an array, or a list of arrays, into parts; the imaginary part of a real array is zero."""
    if isinstance(item, list | tuple):
        pairs = [_split(part) for part in item]
        return [real for real, _ in pairs], [imag for _, imag in pairs]
    real, imag = parts(item)
    return real, np.zeros_like(real) if imag is None else imag


def _joined(real: Any, imag: Any) -> Any:
    if isinstance(real, list | tuple):
        return type(real)(_joined(*pair) for pair in zip(real, imag, strict=True))
    if isinstance(real, TracedArray) and isinstance(imag, TracedArray) and real.dtype == imag.dtype:
        return TracedComplex(real, imag)  # parts that are views stay views
    return combine(real, imag)


def _alike(function: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
    real, imag = _split(z)
    args, kwargs = tuple(map(_of_part, args)), {key: _of_part(item) for key, item in kwargs.items()}
    return _joined(function(real, *args, **kwargs), function(imag, *args, **kwargs))


def _of_part(item: Any) -> Any:
    """Replace a complex dtype by that of its parts; return anything else as it is."""
    if isinstance(item, type | numpy.dtype) and item in (complex, np.complex64, np.complex128):
        return np.float32 if item == np.complex64 else np.float64
    return item


for _name in _ALIKE.split():
    implements_complex(_name)(partial(_alike, named(_name)))


def _product(function: Callable[..., Any], z: Any, w: Any, *args: Any, **kwargs: Any) -> Any:
    return bilinear(lambda a, b: function(a, b, *args, **kwargs), z, w)


for _name in _PRODUCTS.split():
    implements_complex(_name)(partial(_product, named(_name)))


@implements_complex("vdot")
def vdot(z: Any, w: Any, /) -> Any:
    return bilinear(np.vdot, np.conjugate(z), w)


@implements_complex("linalg.vecdot")
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return np.sum(np.conjugate(x1) * x2, axis=axis)


@implements_complex("correlate")
def correlate(z: Any, w: Any, mode: str = "valid") -> Any:
    return bilinear(lambda a, b: np.correlate(a, b, mode), z, np.conjugate(w))


@implements_complex("einsum")
def einsum(equation: Any, *operands: Any, **options: Any) -> Any:
    if not isinstance(equation, str) or len(operands) > 2:
        raise refuse(
            "np.einsum of complex numbers with lists of numbers, or with three operands and more",
            "write the equation as text and multiply two operands at a time",
        )
    if len(operands) == 1:
        return _alike(lambda x: np.einsum(equation, x, **options), operands[0])
    return bilinear(lambda a, b: np.einsum(equation, a, b, **options), *operands)


@implements_complex("shape")
def shape(a: Any) -> Any:
    return np.shape(_split(a)[0])


@implements_complex("ndim")
def ndim(a: Any) -> int:
    return len(shape(a))


@implements_complex("size")
def size(a: Any, axis: Any = None) -> Any:
    return np.size(_split(a)[0], axis)


@implements_complex("append")
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    if axis is None:
        return np.concatenate([np.ravel(arr), np.ravel(values)])
    return np.concatenate([arr, values], axis=axis)


@implements_complex("where")
def where(condition: Any, /, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        raise refuse("np.where(condition) with one argument", "give all three: np.where(condition, a, b)")
    if isinstance(condition, TracedComplex):
        condition = condition != 0
    (a, b), (c, d) = parts(x), parts(y)
    imag = np.where(condition, 0.0 if b is None else b, 0.0 if d is None else d)
    return combine(np.where(condition, a, c), imag)


@implements_complex("pad")
def pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    if mode != "constant":
        return _alike(lambda x: np.pad(x, pad_width, mode), array)
    real, imag = parts(constant_values)
    return combine(
        np.pad(array.real, pad_width, constant_values=real),
        np.pad(array.imag, pad_width, constant_values=0 if imag is None else imag),
    )


implements_complex("real")(lambda val: val.real)
implements_complex("imag")(lambda val: val.imag)


@implements_complex("angle")
def angle(z: Any, deg: bool = False) -> Any:
    """Return the angle; its derivative at 0 is 0."""
    turn = np.arctan2(z.imag, z.real)
    return turn * (180 / np.pi) if deg else turn


implements_complex("isreal")(lambda x: x.imag == 0)
implements_complex("iscomplex")(lambda x: x.imag != 0)
implements_complex("isrealobj")(lambda x: False)
implements_complex("iscomplexobj")(lambda x: True)


@implements_complex("full_like")
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    """Fill both parts; each is laid out like that of `a`."""
    kind = np.dtype(a.dtype if dtype is None else dtype)
    like, _ = _split(a)
    if kind.kind != "c":
        return np.full_like(like, fill_value, kind, order, subok, shape)
    real, imag = parts(fill_value)
    return combine(
        *(
            np.full_like(like, 0.0 if part is None else part, _of_part(kind), order, subok, shape)
            for part in (real, imag)
        )
    )


@implements_complex("zeros_like", "empty_like")
def zeros_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    return full_like(a, 0, dtype, order, subok, shape, device=device)


@implements_complex("ones_like")
def ones_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    return full_like(a, 1, dtype, order, subok, shape, device=device)


@implements_complex("var")
def var(x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    """Return the mean of the squared distances from the mean."""
    return sum(np.var(part, axis=axis, ddof=ddof, keepdims=keepdims) for part in parts(x))


@implements_complex("std")
def std(x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    return root(var(x, axis, ddof=ddof, keepdims=keepdims))


@implements_complex("linalg.norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    single = axis is not None and np.ndim(axis) == 0
    of_vectors = single or (axis is None and x.ndim == 1)
    if ord in (None, "fro", "f") or (ord == 2 and of_vectors):
        places = all_axes(tuple(axis) if np.ndim(axis) else axis, x.ndim)
        both = np.stack([x.real, x.imag])
        result = vector_norm(both, axis=(0, *(place + 1 for place in places)), keepdims=keepdims)
        return result[0] if keepdims else result
    if ord in (2, -2, "nuc"):
        raise refuse(f"np.linalg.norm of complex matrices with ord={ord!r}", "use the Frobenius norm")
    return np.linalg.norm(np.abs(x), ord, axis, keepdims)


def _as_real(matrix: Any) -> Any:
    """Return the real matrix that acts on stacked real and imaginary parts as the complex one does."""
    a, b = _split(matrix)
    return np.concatenate([np.concatenate([a, -b], axis=-1), np.concatenate([b, a], axis=-1)], axis=-2)


@implements_complex("linalg.solve")
def solve(a: Any, b: Any) -> Any:
    axis = -1 if np.ndim(b) == 1 else -2
    solution = np.linalg.solve(_as_real(a), np.concatenate(_split(b), axis=axis))
    return combine(*np.split(solution, 2, axis=axis))


@implements_complex("linalg.inv")
def inv(a: Any) -> Any:
    size = np.shape(a)[-1]
    inverse = np.linalg.inv(_as_real(a))
    return combine(inverse[..., :size, :size], inverse[..., size:, :size])
