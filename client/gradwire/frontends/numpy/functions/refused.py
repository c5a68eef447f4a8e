"""Functions that cannot be traced, with advice: shapes that depend on values, or no operator in ONNX."""

from __future__ import annotations

from gradwire.frontends.numpy.dispatch import refuses

refuses(
    "the shape of the result would depend on values: use np.where(condition, a, b), or a sum over it",
    "nonzero", "flatnonzero", "argwhere", "extract", "trim_zeros",
)  # fmt: skip
refuses(
    "the shape of the result would depend on values: work on np.sort(x), or do it before tracing",
    "unique", "unique_values", "unique_counts", "unique_inverse", "unique_all", "union1d", "intersect1d",
    "setdiff1d", "setxor1d",
)  # fmt: skip
refuses(
    "its answer is a Python bool: compute np.max(np.abs(a - b)) and return it",
    "allclose", "array_equal", "array_equiv",
)  # fmt: skip
refuses(
    "eigenvalues of a general matrix are complex and have no operator: use np.linalg.eigh on a symmetric",
    "linalg.eig", "linalg.eigvals", "roots",
)  # fmt: skip
refuses(
    "counts are whole numbers, whose derivative is zero: bin with a smooth kernel instead",
    "histogram", "histogram2d", "histogramdd", "histogram_bin_edges",
)  # fmt: skip
refuses(
    "it is for files and printing: return the array from the function",
    "array2string", "array_repr", "array_str",
)  # fmt: skip
refuses("whether memory is shared means nothing in a graph", "may_share_memory", "shares_memory")
refuses("work on the bits outside the function", "packbits", "unpackbits")
refuses(
    "the result is complex for some values: write np.sqrt(x.astype(complex)), np.log(x.astype(complex))",
    "emath.sqrt", "emath.log", "emath.log2", "emath.log10", "emath.logn", "emath.power", "emath.arccos",
    "emath.arcsin", "emath.arctanh",
)  # fmt: skip
refuses("call np.einsum directly: the compiler chooses the order", "einsum_path")
refuses("use np.vstack: NumPy deprecates the other name", "row_stack")
refuses("sort np.abs(z) or np.real(z)", "sort_complex")
refuses("divide numbers by hand: the degree of the result must be known", "polydiv")
refuses("a graph has no files: return the array from the function", "save", "savez", "savetxt")
