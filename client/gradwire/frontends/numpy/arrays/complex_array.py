"""Complex traced arrays: pairs of real traced arrays, since graphs hold real arrays only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from gradwire.frontends.numpy import sparse
from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, value_of, wrap
from gradwire.frontends.numpy.arrays.methods import ArrayMethods
from gradwire.frontends.numpy.casts import check_cast
from gradwire.frontends.numpy.complex_dispatch import call_function, call_ufunc
from gradwire.frontends.numpy.dispatch import sparse_product
from gradwire.frontends.numpy.ufuncs.rules import check_plain
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import DType, Shape
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy

_COMPLEX: dict[str, DType] = {"f": np.dtype(np.complex64), "d": np.dtype(np.complex128)}
_REAL_PARTS = "take np.real(z), np.imag(z) or np.abs(z) first"


class TracedComplex(ArrayMethods, NDArrayOperatorsMixin):
    """A complex array whose values are not known yet.

    Complex arrays come from np.fft, from arithmetic with complex constants and from `x.astype(complex)`.
    Arithmetic, elementary functions, sums, products, indexing, assignment and rearrangement behave as on a
    NumPy array. Derivatives are those of real functions of real inputs: a traced function returns real
    arrays, such as absolute values or real parts.
    """

    __slots__ = ("_imag", "_real")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 1001

    def __init__(self, real: TracedArray, imag: TracedArray) -> None:
        self._real = real
        self._imag = imag

    @property
    def real(self) -> TracedArray:
        """The real part: a view, which can be assigned to."""
        return self._real[...]

    @real.setter
    def real(self, new: Any) -> None:
        self._real[...] = new

    @property
    def imag(self) -> TracedArray:
        """The imaginary part: a view, which can be assigned to."""
        return self._imag[...]

    @imag.setter
    def imag(self, new: Any) -> None:
        self._imag[...] = new

    @property
    def graph(self) -> GraphBuilder:
        """The graph that computes it."""
        return self._real.graph

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self._real.shape

    @property
    def dtype(self) -> DType:
        """complex64 or complex128."""
        return _COMPLEX[self._real.dtype.char]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._real.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._real.size

    def __repr__(self) -> str:
        return f"TracedComplex(shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        return len(self._real)

    def __iter__(self) -> Iterator[TracedComplex]:
        return (TracedComplex(*pair) for pair in zip(self._real, self._imag, strict=True))

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: numpy.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if sparse.involved(inputs):
            return sparse_product(ufunc, method, inputs, kwargs)
        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return call_function(function, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        return self._real.__array_namespace__(api_version=api_version)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if sparse.asked_by_scipy(1):
            return np.empty((), object)
        raise refuse(
            f"a traced {self.dtype} array of shape {self.shape} where plain or real numbers are needed "
            "(np.asarray, np.array([...]), a real array)",
            f"{_REAL_PARTS}, or write gw.asarray([...]) for np.array([...])",
        )

    # What needs a value

    def __bool__(self) -> bool:
        raise self._refused("as a truth")

    def __float__(self) -> Any:
        raise self._refused("as a number of Python")

    __int__ = __float__
    __complex__ = __float__
    __index__ = __float__

    def item(self, *_: Any) -> Any:
        """Raise a TraceError: there is no value yet."""
        raise self._refused("as a number of Python")

    def tolist(self) -> Any:
        """Raise a TraceError: there are no values yet."""
        raise self._refused("as a list")

    def _refused(self, use: str) -> Exception:
        return refuse(f"a traced {self.dtype} array of shape {self.shape} {use}", _REAL_PARTS)

    # Indexing and copies

    def __getitem__(self, key: Any) -> TracedComplex:
        return TracedComplex(self._real[key], self._imag[key])

    def __setitem__(self, key: Any, new: Any) -> None:
        real, imag = parts(new)
        self._real[key] = real
        self._imag[key] = 0.0 if imag is None else imag

    def __copy__(self) -> TracedComplex:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> TracedComplex:
        return self.copy()

    def copy(self, order: str = "C") -> TracedComplex:
        """Copy the array; assignments to the copy do not reach it."""
        return TracedComplex(self._real.copy(order), self._imag.copy(order))

    def stands_for_scalar(self) -> bool:
        """Whether it stands for a scalar of NumPy; see `TracedArray.stands_for_scalar`."""
        return self._real.stands_for_scalar()

    def receive(self, name: str, result: Any) -> None:
        """Store the result of a call that names this array as `out`; see `TracedArray.receive`."""
        real, imag = parts(result)
        self._real.receive(name, real)
        self._imag.receive(name, np.zeros_like(real) if imag is None else imag)

    def astype(
        self,
        dtype: npt.DTypeLike,
        order: str = "K",
        casting: Any = "unsafe",
        subok: bool = True,
        copy: bool = True,
    ) -> TracedComplex:
        """Copy the array to single or double precision.

        Raises:
            TraceError: the dtype is real.
            TypeError: the casting rule does not allow it.
        """
        kind = np.dtype(dtype)
        check_cast(self.dtype, kind, casting)
        if kind == self.dtype:
            return self.copy(order) if copy else self
        if kind.kind != "c":
            raise refuse(f"turning complex numbers into {kind}", "take np.real(z) or np.abs(z)")
        part = np.float32 if kind == np.complex64 else np.float64
        return TracedComplex(self._real.astype(part), self._imag.astype(part))


def parts(item: Any) -> tuple[Any, Any]:
    """Split anything into its real and imaginary part; the latter is None for real items.

    A constant whose imaginary part is zero throughout counts as real: the product of a negative number with
    that zero would be -0.0, the other side of branch cuts.
    """
    if isinstance(item, TracedComplex):
        return item._real, item._imag
    if isinstance(item, TracedArray | bool | int | float):
        return item, None
    check_plain(item)
    weak = isinstance(item, complex) and not isinstance(item, np.generic)
    plain = item if weak else np.asarray(item)
    if not weak and plain.dtype.kind != "c":
        return item, None
    zero = not (np.any(plain.imag) or np.any(np.signbit(plain.imag)))
    return plain.real, None if zero else plain.imag


def part_dtype(*parts: Any) -> DType:
    """Return the common dtype of the parts of complex numbers, float32 or float64."""
    kinds = [part.dtype for part in parts if hasattr(part, "dtype")]  # numbers of Python are weak
    return ops.FLOAT32 if np.result_type(*kinds) in (np.float16, np.float32) else ops.FLOAT64


def combine(real: Any, imag: Any) -> TracedComplex:
    """Make a complex array from parts, broadcast against each other; at least one part is traced."""
    graph, kind = graph_of(real, imag), part_dtype(real, imag)
    values = [value_of(graph, 0.0 if part is None else part, kind) for part in (real, imag)]
    shape = ops.broadcast(*(value.shape for value in values))
    ordered = all(part._cell.ordered for part in (real, imag) if isinstance(part, TracedArray))
    return TracedComplex(*(wrap(ops.expand(value, shape), ordered) for value in values))
