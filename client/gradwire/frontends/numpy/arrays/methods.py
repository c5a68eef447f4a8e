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

    def sum(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Any:
        """`np.sum`."""
        return np.sum(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims, initial=initial, where=where)

    def prod(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Any:
        """`np.prod`."""
        return np.prod(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims, initial=initial, where=where)

    def mean(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        *,
        where: Any = True,
    ) -> Any:
        """`np.mean`."""
        return np.mean(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims, where=where)

    def var(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: float = 0,
        keepdims: bool = False,
        **further: Any,
    ) -> Any:
        """`np.var`."""
        return np.var(self, axis=axis, dtype=dtype, out=out, ddof=ddof, keepdims=keepdims, **further)

    def std(
        self,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: float = 0,
        keepdims: bool = False,
        **further: Any,
    ) -> Any:
        """`np.std`."""
        return np.std(self, axis=axis, dtype=dtype, out=out, ddof=ddof, keepdims=keepdims, **further)

    def min(
        self,
        axis: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Any:
        """`np.min`."""
        return np.min(self, axis=axis, out=out, keepdims=keepdims, initial=initial, where=where)

    def max(
        self,
        axis: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = True,
    ) -> Any:
        """`np.max`."""
        return np.max(self, axis=axis, out=out, keepdims=keepdims, initial=initial, where=where)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False, *, where: Any = True) -> Any:
        """`np.any`."""
        return np.any(self, axis=axis, out=out, keepdims=keepdims, where=where)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False, *, where: Any = True) -> Any:
        """`np.all`."""
        return np.all(self, axis=axis, out=out, keepdims=keepdims, where=where)

    def argmin(self, axis: Any = None, out: Any = None, *, keepdims: bool = False) -> Any:
        """`np.argmin`."""
        return np.argmin(self, axis=axis, out=out, keepdims=keepdims)

    def argmax(self, axis: Any = None, out: Any = None, *, keepdims: bool = False) -> Any:
        """`np.argmax`."""
        return np.argmax(self, axis=axis, out=out, keepdims=keepdims)

    def ptp(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """`np.ptp`."""
        return np.ptp(self, axis=axis, out=out, keepdims=keepdims)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """`np.cumsum`."""
        return np.cumsum(self, axis=axis, dtype=dtype, out=out)

    def cumprod(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """`np.cumprod`."""
        return np.cumprod(self, axis=axis, dtype=dtype, out=out)

    def choose(self, choices: Any, out: Any = None, mode: str = "raise") -> Any:
        """`np.choose`."""
        return np.choose(self, choices, out=out, mode=mode)

    def compress(self, condition: Any, axis: Any = None, out: Any = None) -> Any:
        """`np.compress`."""
        return np.compress(condition, self, axis=axis, out=out)

    def nonzero(self) -> Any:
        """`np.nonzero`, which is refused."""
        return np.nonzero(self)

    def searchsorted(self, v: Any, side: str = "left", sorter: Any = None) -> Any:
        """`np.searchsorted`."""
        return np.searchsorted(self, v, side, sorter)

    def argpartition(self, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Any:
        """`np.argpartition`."""
        return np.argpartition(self, kth, axis, kind, order)

    def partition(self, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> None:
        """Partition in place."""
        self[...] = np.partition(self, kth, axis, kind, order)  # type: ignore[index]

    def put(self, indices: Any, values: Any, mode: str = "raise") -> None:
        """`np.put`."""
        np.put(self, indices, values, mode)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Any:
        """`np.reshape`; the shape as one tuple or as several integers."""
        made = np.reshape(self, shape[0] if len(shape) == 1 else shape, order)
        return made.copy() if copy else made

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

    def dot(self, other: Any, out: Any = None) -> Any:
        """`np.dot`."""
        return np.dot(self, other, out=out)

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
        """`np.take`."""
        return np.take(self, indices, axis=axis, out=out, mode=mode)

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        """`np.repeat`."""
        return np.repeat(self, repeats, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        """`np.diagonal`."""
        return np.diagonal(self, offset, axis1, axis2)

    def trace(
        self, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None
    ) -> Any:
        """`np.trace`."""
        return np.trace(self, offset, axis1, axis2, dtype, out)

    def clip(self, min: Any = None, max: Any = None, out: Any = None, **further: Any) -> Any:
        """`np.clip`."""
        return np.clip(self, min, max, out=out, **further)

    def round(self, decimals: int = 0, out: Any = None) -> Any:
        """`np.round`."""
        return np.round(self, decimals, out=out)

    def argsort(self, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
        """`np.argsort`."""
        return np.argsort(self, axis, kind, order, stable=stable)

    def sort(self, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
        """Sort in place."""
        self[...] = np.sort(self, axis, kind, order, stable=stable)  # type: ignore[index]

    def fill(self, value: Any) -> None:
        """Set every element."""
        self[...] = value  # type: ignore[index]

    def conj(self) -> Any:
        """Return the array itself if it is real, otherwise `np.conjugate`."""
        return np.conjugate(self) if self.dtype.kind == "c" else self  # type: ignore[attr-defined]

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
        """Return the array itself, on the only device there is.

        Raises:
            ValueError: another device is asked for.
        """
        if device != "cpu" or stream is not None:
            raise ValueError(f"traced arrays are on the device 'cpu', not on {device!r} (stream {stream!r})")
        return self
