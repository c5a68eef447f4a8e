"""Functions whose result has a shape that depends on values, or that ONNX cannot express, with advice."""

from __future__ import annotations

from gradwire.tracing.dispatch import refuses

refuses(
    "the shape of the result would depend on values: use np.where(condition, a, b), or a sum over it",
    "nonzero", "flatnonzero", "argwhere", "extract", "compress", "trim_zeros",
)  # fmt: skip
refuses(
    "the shape of the result would depend on values: work on np.sort(x), or do it before tracing",
    "unique", "unique_values", "unique_counts", "unique_inverse", "unique_all", "union1d", "intersect1d",
    "setdiff1d", "setxor1d", "bincount", "histogram", "histogram2d", "histogramdd",
)  # fmt: skip
refuses("use np.where or np.select, whose branches are arrays", "piecewise")
refuses(
    "count the knots passed, (x[..., None] >= knots).sum(-1), or use np.interp", "searchsorted", "digitize"
)
refuses(
    "its answer is a Python bool: compute np.max(np.abs(a - b)) and return it",
    "allclose", "array_equal", "array_equiv",
)  # fmt: skip
refuses(
    "eigenvalues of a general matrix are complex: use np.linalg.eigh for a symmetric one",
    "linalg.eig", "linalg.eigvals", "roots",
)  # fmt: skip
refuses("apply the function to whole arrays with axis=", "apply_along_axis", "apply_over_axes")
refuses("assign with indices: x[index] = value", "put", "place", "putmask", "put_along_axis")
refuses("a graph has no files: return the array from the function", "save", "savez", "savetxt")
