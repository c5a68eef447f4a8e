"""The array that a traced function computes with: NumPy's interface, recorded in a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from gradwire.frontends.numpy import complex_dispatch, sparse
from gradwire.frontends.numpy.arrays import indexing
from gradwire.frontends.numpy.arrays.cells import Cell, FrozenCell, ViewCell
from gradwire.frontends.numpy.arrays.methods import ArrayMethods
from gradwire.frontends.numpy.casts import check_cast, check_operands, fits
from gradwire.frontends.numpy.dispatch import call_function, namespace, sparse_product, stored
from gradwire.frontends.numpy.ufuncs.accumulation import accumulate
from gradwire.frontends.numpy.ufuncs.rules import as_value, call, type_of
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import DType, GraphValue, Shape
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import any_symbolic, surely_same

_NOT_A_NUMBER = "use NumPy's functions (np.sin, not math.sin) and keep values in arrays"
_REDUCTIONS = {
    "add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all",
    "logical_or": "any",
}  # fmt: skip
_ACCUMULATIONS = {"add": "cumsum", "multiply": "cumprod"}
_AT = {"add": "add", "multiply": "mul", "maximum": "max", "minimum": "min"}


class TracedArray(ArrayMethods, NDArrayOperatorsMixin):
    """A NumPy array whose values are not known yet.

    Arithmetic, ufuncs, array functions, indexing, assignment and methods behave as on a NumPy array of the
    same shape and dtype, and are recorded in a graph. Shapes are integers, or sizes that have a name.
    Operations that need a value (`if`, `float()`, `np.asarray`) raise `gradwire.TraceError`.
    """

    __slots__ = ("_cell",)
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 1000

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def value(self) -> GraphValue:
        """The present value in the graph."""
        return self._cell.read()

    @property
    def graph(self) -> GraphBuilder:
        """The graph that computes it."""
        return self._cell.graph

    @property
    def shape(self) -> Shape:
        """Extent of each axis."""
        return self._cell.shape

    @property
    def dtype(self) -> DType:
        """NumPy dtype."""
        return self._cell.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._cell.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return ops.size_of(self._cell.shape)

    def __repr__(self) -> str:
        return f"TracedArray(shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0].__index__()

    def __iter__(self) -> Iterator[TracedArray]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[position] for position in range(len(self)))

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if sparse.involved(inputs):
            return sparse_product(ufunc, method, inputs, kwargs)
        if complex_dispatch.involved(inputs):
            return complex_dispatch.call_ufunc(ufunc, method, inputs, kwargs)
        out = kwargs.pop("out", None)
        if kwargs.pop("where", True) is not True:
            raise refuse(f"np.{ufunc.__name__} with where=", "write np.where(condition, result, otherwise)")
        if method == "at":
            return _at(ufunc, *inputs)
        result = _ufunc_method(ufunc, method, inputs, kwargs)
        own = out is not None and len(out) == 1 and out[0] is inputs[0] is self
        if out is None or (own and self.stands_for_scalar()):
            return result
        if len(out) == 1:
            return stored(f"np.{ufunc.__name__}", result, out)
        return tuple(
            item if target is None else stored(f"np.{ufunc.__name__}", item, target)
            for item, target in zip(result, out, strict=True)
        )

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # A real result may be stored in a complex array: `out` does not make a call complex.
        if complex_dispatch.involved((*args, *(item for key, item in kwargs.items() if key != "out"))):
            return complex_dispatch.call_function(function, args, kwargs)
        return call_function(function, args, kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        return namespace()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if sparse.asked_by_scipy(1):
            return np.empty((), object)
        raise refuse(
            "turning a traced array into a plain NumPy array (np.asarray, np.array([...]), assigning it "
            "into an array made by np.zeros or np.empty, indexing a plain array with it, an operation of "
            "a masked array, a SciPy function)",
            "drop np.asarray; write gw.asarray([...]) for np.array([...]); make arrays that are to be "
            "filled with np.zeros_like(x) or gw.zeros(shape), and tables that are to be indexed with "
            "gw.asarray(table); for functions of SciPy use gw.special (logsumexp, softmax), "
            "or set SCIPY_ARRAY_API=1 before SciPy is imported",
        )

    # What needs a value

    def __bool__(self) -> bool:
        raise refuse(
            f"the truth of a traced {self._describe()} (if, while, and, or, not, assert, max(), sorted())",
            "use np.where(condition, a, b) or gw.cond for if, gw.while_ for while, np.logical_and/or/not for "
            "and/or/not, np.max and np.sort for max() and sorted()",
        )

    def __float__(self) -> float:
        raise refuse(
            f"float() of a traced {self._describe()} (or assigning it to an element of a plain array)",
            f"{_NOT_A_NUMBER}; make arrays that are to be filled with np.zeros_like(x) or gw.zeros(shape)",
        )

    def __int__(self) -> int:
        raise refuse(
            f"int() of a traced {self._describe()}", "use .astype(np.int64), or np.floor and np.rint"
        )

    def __round__(self, ndigits: int | None = None) -> Any:
        if self.shape:
            raise TypeError("round() is for one number: use np.round for an array")
        rounded = np.round(self, ndigits or 0)
        return rounded.astype(np.int64) if ndigits is None else rounded

    def __complex__(self) -> complex:
        raise refuse(f"complex() of a traced {self._describe()}", _NOT_A_NUMBER)

    def __index__(self) -> int:
        raise refuse(
            f"a traced {self._describe()} as a Python integer (range, a list index, a shape)",
            "loop with gw.fori instead of range, or along an array with gw.scan; index arrays with it, not "
            "lists (np.stack makes an array of a list); shapes must be fixed",
        )

    def __contains__(self, item: Any) -> bool:
        raise refuse("`in` on a traced array", "use np.any(x == item) inside np.where")

    def item(self, *_: Any) -> Any:
        """Raise a TraceError: there is no value yet."""
        raise refuse(".item()", _NOT_A_NUMBER)

    def tolist(self) -> Any:
        """Raise a TraceError: there are no values yet."""
        raise refuse(".tolist()", "iterate over the array itself")

    @property
    def flat(self) -> Any:
        """Raise a TraceError that recommends `ravel`."""
        raise refuse(".flat", "use .ravel(), which is a view that can be assigned to")

    def _describe(self) -> str:
        return f"{self.dtype} array of shape {self.shape}"

    def stands_for_scalar(self) -> bool:
        """Whether it stands for a scalar of NumPy, which is immutable: "s += 1" binds s anew.

        A view without axes, as `b[0, ...]` is, can be written to.
        """
        return not self.shape and not isinstance(self._cell, ViewCell)

    def receive(self, name: str, result: Any) -> None:
        """Store the result of a call that names this array as `out`, under NumPy's rules for casts.

        Raises:
            TypeError: NumPy would not cast the result to this array's dtype.
            ValueError: the result does not broadcast to this array.
        """
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"cannot cast the result of {name} from {result.dtype} to {self.dtype} "
                "in place; use .astype first"
            )
        if not fits(result.shape, self.shape):
            raise ValueError(
                f"non-broadcastable output operand with shape {self.shape} doesn't match {result.shape}"
            )
        self._cell.write(ops.expand(ops.cast(value_of(self.graph, result), self.dtype), self.shape))

    # Indexing

    def __getitem__(self, key: Any) -> TracedArray:
        index = indexing.parse(_plain_key(key), self.shape, self.graph)
        cell = self._cell
        if not index.basic:
            return wrap(indexing.take(cell.read(), index))
        if not index.shape and not _names_ellipsis(key):  # NumPy gives a scalar, which is no view
            if not self.shape:
                return wrap(cell.read())
            known = not any_symbolic(self.shape)
            found = cell.element(indexing.position(index, self.shape)) if known else None
            return wrap(indexing.take(cell.settled(), index) if found is None else found)

        def forward(base: GraphValue) -> GraphValue:
            return indexing.take(base, index)

        def backward(base: GraphValue, new: GraphValue) -> GraphValue:
            return indexing.put(base, index, new)

        adjacent = cell.contiguous and indexing.is_contiguous(index, self.shape)
        return TracedArray(
            ViewCell(cell, index.shape, forward, backward, index.parts, adjacent, ordered=cell.ordered)
        )

    def __setitem__(self, key: Any, new: Any) -> None:
        plain = _plain_key(key)
        if isinstance(plain, GraphValue) and plain.dtype == ops.BOOL:
            self._assign_where(plain, new)
            return
        index = indexing.parse(plain, self.shape, self.graph)
        cell = self._cell
        if isinstance(new, TracedArray) and index.basic and _is_current_view(new._cell, cell, index.parts):
            # "x[key] += ..." assigns the view, which has already written through.
            return
        value = fitted(self.graph, new, index.shape, self.dtype)
        if index.basic and not index.shape and self.shape and not any_symbolic(self.shape):
            cell.write_element(indexing.position(index, self.shape), value)
        else:
            cell.write(indexing.put(cell.read(), index, value))

    def _assign_where(self, mask: GraphValue, new: Any) -> None:
        """Assign one number through a mask, which needs no indexing by the mask."""
        value = as_value(self.graph, _operand(new), self.dtype)
        if value.size != 1 or mask.shape != self.shape[: mask.ndim]:
            raise refuse(
                f"assigning an array of shape {value.shape} through a traced mask of shape {mask.shape}",
                "write x = np.where(mask, new, x)",
            )
        mask = ops.reshape(mask, mask.shape + (1,) * (self.ndim - mask.ndim))
        self._cell.write(ops.where(mask, ops.reshape(value, ()), self.value))

    # Copies

    def __copy__(self) -> TracedArray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> TracedArray:
        return self.copy()

    def copy(self, order: str = "C") -> Self:
        """Copy the array; assignments to the copy do not reach it."""
        return type(self)(Cell(self.value, copied_in_order(self, order)))

    def astype(
        self,
        dtype: npt.DTypeLike,
        order: str = "K",
        casting: Any = "unsafe",
        subok: bool = True,
        copy: bool = True,
    ) -> Any:
        """Copy the array to another dtype; complex64 and complex128 give a `TracedComplex`.

        Raises:
            TypeError: the casting rule does not allow it.
        """
        kind = np.dtype(dtype)
        check_cast(self.dtype, kind, casting)
        if kind == self.dtype:
            return self.copy(order) if copy else self
        if kind.kind == "c":
            part = ops.FLOAT32 if kind == np.complex64 else ops.FLOAT64
            return wrap(ops.cast(self.value, part)) * kind.type(1)
        return wrap(ops.cast(self.value, kind))


def _plain_key(key: Any) -> Any:
    """Replace the traced arrays in a key by their values."""
    if isinstance(key, tuple):
        return tuple(_plain_key(item) for item in key)
    if isinstance(key, slice):
        return slice(*(_operand(bound) for bound in (key.start, key.stop, key.step)))
    if isinstance(key, list) and any(isinstance(item, TracedArray) for item in key):
        return np.stack(key).value  # type: ignore[attr-defined]
    return _operand(key)


def _names_ellipsis(key: Any) -> bool:
    """Whether a key holds "...", which makes a view also of a single element."""
    return key is Ellipsis or (isinstance(key, tuple) and any(item is Ellipsis for item in key))


def _is_current_view(cell: Cell, base: Cell, key: object) -> bool:
    return isinstance(cell, ViewCell) and cell.base is base and cell.key == key and cell.settled_now


def _operand(item: Any) -> Any:
    return item.value if isinstance(item, TracedArray) else item


def wrap(value: GraphValue, ordered: bool = True) -> TracedArray:
    """Make an array that holds a value; `ordered` says whether NumPy lays it out in C order."""
    return TracedArray(Cell(value, ordered))


def copied_in_order(array: TracedArray, order: str) -> bool:
    """Whether NumPy lays out a copy in C order; "K" and "A" keep the order of the original.

    Raises:
        ValueError: NumPy has no such order.
    """
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    return order == "C" or array.ndim < 2 or (order != "F" and array._cell.ordered)


def graph_of(*arrays: Any) -> GraphBuilder:
    """Return the graph of the first traced array among the arguments, or in lists among them.

    Raises:
        TypeError: no argument is traced.
    """
    for array in arrays:
        if isinstance(array, TracedArray):
            return array.graph
        if isinstance(array, list | tuple) and any(
            isinstance(item, TracedArray | list | tuple) for item in array
        ):
            try:
                return graph_of(*array)
            except TypeError:
                continue
    raise TypeError("no traced array among the arguments")


def value_of(graph: GraphBuilder, item: Any, dtype: npt.DTypeLike | None = None) -> GraphValue:
    """Convert anything array-like to a value, in the given dtype or its own."""
    operand = _operand(item)
    if dtype is None:
        dtype = operand.dtype if isinstance(operand, GraphValue) else np.asarray(operand).dtype
    return as_value(graph, operand, np.dtype(dtype))


def traced(graph: GraphBuilder, item: Any) -> TracedArray:
    """Convert anything array-like to a traced array."""
    return item if isinstance(item, TracedArray) else wrap(value_of(graph, item))


def apply(ufunc: np.ufunc, *operands: Any, dtype: npt.DTypeLike | None = None) -> Any:
    """Apply a ufunc to operands of which at least one is traced."""
    graph = graph_of(*operands)
    kind = None if dtype is None else np.dtype(dtype)
    # A result is laid out as its operands are.
    ordered = all(item._cell.ordered for item in operands if isinstance(item, TracedArray))
    results = [wrap(v, ordered) for v in call(ufunc, [_operand(item) for item in operands], graph, kind)]
    return results[0] if len(results) == 1 else tuple(results)


def fitted(graph: GraphBuilder, item: Any, shape: Shape, dtype: DType) -> GraphValue:
    """Broadcast an item to a shape for assignment, dropping leading axes of extent 1.

    Args:
        graph: where the value is made.
        item: a traced array, or anything array-like.
        shape: the shape to broadcast to.
        dtype: the dtype of the result.

    Raises:
        ValueError: the item does not broadcast to the shape.
    """
    value = value_of(graph, item, dtype)
    extra = value.ndim - len(shape)
    if extra > 0 and all(extent == 1 for extent in value.shape[:extra]):
        value = ops.reshape(value, value.shape[extra:])
    if not fits(value.shape, shape):
        raise ValueError(f"could not broadcast input array from shape {value.shape} into shape {shape}")
    return ops.expand(value, shape)


def view(
    array: TracedArray,
    shape: Shape,
    forward: Callable[[GraphValue], GraphValue],
    backward: Callable[[GraphValue], GraphValue] | None,
    ordered: bool = False,
    key: object = None,
) -> TracedArray:
    """Make a view that rearranges the elements of an array.

    Args:
        array: the array to view.
        shape: the shape of the view.
        forward: from the array's value to the view's.
        backward: the inverse of `forward`, for assignment to the view; None refuses assignment.
        ordered: whether its elements follow each other in memory as the array's do.
        key: what makes the view.
    """
    put = None if backward is None else lambda base, new: backward(new)
    cell = array._cell
    return TracedArray(ViewCell(cell, shape, forward, put, key, ordered=ordered and cell.ordered))


def reshaped(array: TracedArray, shape: Shape) -> TracedArray:
    """Reshape an array: a view where NumPy makes one, otherwise a copy that refuses assignment."""
    cell = array._cell
    if not cell.contiguous and not surely_same(array.shape, shape):
        return TracedArray(FrozenCell(ops.reshape(cell.read(), shape)))
    before = array.shape

    def forward(base: GraphValue) -> GraphValue:
        return ops.reshape(base, shape)

    def backward(base: GraphValue, new: GraphValue) -> GraphValue:
        return ops.reshape(new, before)

    return TracedArray(ViewCell(cell, shape, forward, backward, contiguous=True))


def _ufunc_method(ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    name = ufunc.__name__
    dtype = kwargs.pop("dtype", None)
    kinds = [type_of(_operand(item)) for item in inputs] if dtype is not None else []
    check_operands(ufunc, kinds, dtype, kwargs.pop("casting", "same_kind"))
    if method == "__call__":
        if name in ("matmul", "vecdot") and ("axis" in kwargs or "axes" in kwargs):
            return _with_core_axis(ufunc, inputs, kwargs)
        _no_more(name, kwargs)
        return apply(ufunc, *inputs, dtype=dtype)
    if method == "outer" and ufunc.nin == 2:
        _no_more(name, kwargs)
        a, b = (traced(graph_of(*inputs), item) for item in inputs)
        return apply(ufunc, reshaped(a.copy(), a.shape + (1,) * b.ndim), b, dtype=dtype)
    if method == "reduce" and name in _REDUCTIONS:
        function = getattr(np, _REDUCTIONS[name])
        if dtype is not None:
            kwargs["dtype"] = dtype
        return function(inputs[0], **{"axis": 0, **kwargs})
    if method == "accumulate" and name in (*_ACCUMULATIONS, "maximum", "minimum"):
        array = traced(graph_of(*inputs), inputs[0])
        axis = kwargs.pop("axis", 0)
        _no_more(f"{name}.accumulate", kwargs)
        return wrap(accumulate(ufunc, array.value, axis, dtype))
    raise refuse(f"np.{name}.{method}", "write the loop, or use a reduction such as np.sum or np.max")


def _no_more(name: str, kwargs: dict[str, Any]) -> None:
    for key in kwargs:
        raise refuse(f"np.{name} with {key}=", "leave the argument out")


def _with_core_axis(ufunc: np.ufunc, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if ufunc.__name__ != "vecdot" or set(kwargs) != {"axis"}:
        raise refuse(f"np.{ufunc.__name__} with axes=", "move the axes with np.moveaxis first")
    axis = operator.index(kwargs["axis"])
    return apply(ufunc, *(np.moveaxis(item, axis, -1) for item in inputs))


def _at(ufunc: np.ufunc, target: Any, key: Any, amount: Any) -> None:
    """Apply `np.add.at(x, key, amount)`, which unlike `x[key] += amount` counts repeated positions."""
    if ufunc.__name__ not in _AT or not isinstance(target, TracedArray):
        raise refuse(
            f"np.{ufunc.__name__}.at", "use np.add.at on an array made by np.zeros_like(x) or gw.zeros"
        )
    index = indexing.parse(_plain_key(key), target.shape, target.graph)
    value = fitted(target.graph, amount, index.shape, target.dtype)
    target._cell.write(indexing.reduce_at(target.value, index, value, _AT[ufunc.__name__]))
