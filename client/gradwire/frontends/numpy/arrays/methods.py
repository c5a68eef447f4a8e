"""Methods that real and complex traced arrays share: calls of NumPy's functions, and formatting."""

from __future__ import annotations

from typing import Any

import numpy

from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


class ArrayMethods:
    """Methods that call array functions, which dispatch back to the tracer.

    A method has the parameters, the result and the errors of the NumPy function that its docstring names, of
    which the array is the first argument.
    """

    __slots__ = ()

    def __format__(self, form: str) -> str:
        if form:
            raise refuse(
                f"writing a traced array as {form!r}",
                "it has no digits yet: print it without a format, which shows shape and dtype, or return it "
                "and print the result",
            )
        return str(self)

    def sum(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.sum`."""
        return np.sum(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.prod`."""
        return np.prod(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.mean`."""
        return np.mean(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def var(
        self, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False
    ) -> Any:
        """`np.var`."""
        return np.var(self, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def std(
        self, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False
    ) -> Any:
        """`np.std`."""
        return np.std(self, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def min(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.min`."""
        return np.min(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.max`."""
        return np.max(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.any`."""
        return np.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.all`."""
        return np.all(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Any:
        """`np.argmin`."""
        return np.argmin(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Any:
        """`np.argmax`."""
        return np.argmax(self, axis=axis, keepdims=keepdims)

    def ptp(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        """`np.ptp`."""
        return np.ptp(self, axis=axis, keepdims=keepdims)

    def cumsum(self, axis: Any = None, dtype: Any = None) -> Any:
        """`np.cumsum`."""
        return np.cumsum(self, axis=axis, dtype=dtype)

    def cumprod(self, axis: Any = None, dtype: Any = None) -> Any:
        """`np.cumprod`."""
        return np.cumprod(self, axis=axis, dtype=dtype)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        """`np.reshape`; the shape as one tuple or as several integers."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def ravel(self, order: str = "C") -> Any:
        """`np.ravel`."""
        return np.ravel(self, order)

    def flatten(self, order: str = "C") -> Any:
        """Return a one-dimensional copy."""
        return np.ravel(self, order).copy()

    def transpose(self, *axes: Any) -> Any:
        """`np.transpose`; the axes as one tuple or as several integers."""
        order = axes[0] if len(axes) == 1 else (axes or None)
        return np.transpose(self, order)

    @property
    def T(self) -> Any:
        """The axes reversed."""
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        """The last two axes swapped."""
        return np.swapaxes(self, -1, -2)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        """`np.swapaxes`."""
        return np.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Any:
        """`np.squeeze`."""
        return np.squeeze(self, axis)

    def dot(self, other: Any) -> Any:
        """`np.dot`."""
        return np.dot(self, other)

    def take(self, indices: Any, axis: Any = None, out: None = None, mode: str = "raise") -> Any:
        """`np.take`."""
        return np.take(self, indices, axis=axis, mode=mode)

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        """`np.repeat`."""
        return np.repeat(self, repeats, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        """`np.diagonal`."""
        return np.diagonal(self, offset, axis1, axis2)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
        """`np.trace`."""
        return np.trace(self, offset, axis1, axis2, dtype)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """`np.clip`."""
        return np.clip(self, min, max)

    def round(self, decimals: int = 0) -> Any:
        """`np.round`."""
        return np.round(self, decimals)

    def argsort(self, axis: Any = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Any:
        """`np.argsort`."""
        return np.argsort(self, axis=axis)

    def sort(self, axis: int = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> None:
        """Sort in place."""
        self[...] = np.sort(self, axis=axis)  # type: ignore[index]

    def fill(self, number: Any) -> None:
        """Set every element."""
        self[...] = number  # type: ignore[index]

    def conj(self) -> Any:
        """Return the array itself: traced arrays are real."""
        return np.conjugate(self)

    conjugate = conj

    @property
    def real(self) -> Any:
        """The array itself: traced arrays are real."""
        return self

    @property
    def imag(self) -> Any:
        """Zeros: traced arrays are real."""
        return np.zeros_like(self)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(self.dtype.itemsize)  # type: ignore[attr-defined]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(self.dtype.itemsize * self.size)  # type: ignore[attr-defined]

    @property
    def device(self) -> str:
        """ "cpu", as the Array API has it for NumPy's arrays."""
        return "cpu"

    def to_device(self, device: str, /, *, stream: Any = None) -> Any:
        """Return the array itself."""
        return self
