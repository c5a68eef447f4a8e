"""Products of scipy.sparse matrices, which are constants, with traced arrays.

A product gathers an element for each stored entry, multiplies it by the entry, and adds it where it belongs:
work and memory grow with the entries and not with the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex, combine, parts
from gradwire.frontends.numpy.dispatch import provides_sparse_product, stored
from gradwire.frontends.numpy.sparse import is_sparse
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import DType
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


@provides_sparse_product
def multiply(ufunc: numpy.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply a sparse matrix by a traced array, or an array by a matrix, as `@` does.

    Raises:
        TraceError: the ufunc is another one, or another argument than `out` is given.
        ValueError: the shapes do not fit.
    """
    out = kwargs.pop("out", None)
    matrices = [item for item in inputs if is_sparse(item)]
    if not _is_product(ufunc, matrices) or method != "__call__" or kwargs or len(matrices) > 1:
        raise refuse(
            f"np.{ufunc.__name__} of a sparse matrix and a traced array",
            "A @ x, x @ A and A.T @ x can be traced; write A.toarray() for anything else",
        )
    (matrix,) = matrices
    if matrix.ndim != 2:
        raise refuse("a product with a sparse array of one dimension", "write A.toarray() @ x")
    if is_sparse(inputs[0]):
        # Of a stack of matrices the rows are the axis before the last.
        result = _along(-2 if np.ndim(inputs[1]) > 1 else -1, matrix, inputs[1])
    else:
        result = _along(-1, matrix.T, inputs[0])
    return result if out is None else stored(f"np.{ufunc.__name__}", result, out)


def _is_product(ufunc: numpy.ufunc, matrices: list[Any]) -> bool:
    """Whether a ufunc multiplies matrices; of SciPy's older class, `scipy.sparse.spmatrix`, `*` does too."""
    star = all(any(kind.__name__ == "spmatrix" for kind in type(item).__mro__) for item in matrices)
    return ufunc.__name__ == "matmul" or (ufunc.__name__ == "multiply" and star)


def _along(axis: int, matrix: Any, x: Any) -> Any:
    """Multiply a matrix by an array along one of the array's axes."""
    if not x.ndim:
        raise ValueError("matmul: an operand has no axes; write A * x")
    return np.moveaxis(_product(matrix, np.moveaxis(x, axis, 0)), 0, axis)


def _product(matrix: Any, x: Any) -> Any:
    """Multiply a matrix by an array along the array's first axis."""
    if x.shape[0] != matrix.shape[1]:
        raise ValueError(f"matmul: shapes {matrix.shape} and {x.shape} do not fit")
    kind = np.result_type(matrix.dtype, x.dtype)
    part = kind if kind.kind != "c" else np.dtype(np.float32 if kind == np.complex64 else np.float64)
    entries = matrix.tocsr().tocoo()
    rows, columns = entries.row.astype(np.int64), entries.col.astype(np.int64)

    def real_product(numbers: Any, array: TracedArray) -> TracedArray:
        return _of_entries(matrix.shape[0], rows, columns, numbers, array, part)

    if kind.kind != "c":
        return real_product(entries.data, x)
    (a, b), (c, d) = parts(entries.data), parts(x)
    real, imag = real_product(a, c), None
    if b is not None:
        imag = real_product(b, c)
    if d is not None:
        crossed = real_product(a, d)
        imag = crossed if imag is None else imag + crossed
        real = real if b is None else real - real_product(b, d)
    result: TracedComplex = combine(real, imag)
    return result


def _of_entries(
    count: int, rows: Any, columns: Any, numbers: Any, x: TracedArray, kind: DType
) -> TracedArray:
    """Add up numbers times rows of `x`: each number times the row that its column names.

    Args:
        count: rows of the result.
        rows: where each product is added.
        columns: which row of `x` is multiplied.
        numbers: by what.
        x: of any number of axes.
        kind: the dtype of the result.
    """
    graph, rest = x.graph, x.shape[1:]
    inner = ops.wide(ops.cast(x.value, kind))
    nothing = graph.constant(np.zeros((count, *rest), inner.dtype))
    if not rows.size or 0 in rest:
        return wrap(ops.cast(nothing, kind))
    weights = graph.constant(numbers.astype(inner.dtype).reshape((-1,) + (1,) * len(rest)))
    products = ops.binary("Mul", ops.gather(inner, graph.constant(columns), 0), weights)
    total = ops.scatter_nd(nothing, graph.constant(rows.reshape(-1, 1)), products, "add")
    return wrap(ops.cast(total, kind))
