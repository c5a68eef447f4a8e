"""Traces NumPy functions to ONNX graphs, without JAX and without running the function on numbers.

`trace` calls the function with `TracedArray` objects, which implement NumPy's protocols (`__array_ufunc__`,
`__array_function__`, the Array API namespace) and record the operations applied to them.
"""

from gradwire.frontends.numpy import array_api  # noqa: F401 - the namespace of traced arrays
from gradwire.frontends.numpy.arrays import sizes  # noqa: F401 - what ufuncs do with sizes by name
from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.numpy.control_flow import cond, fori, scan, vmap, while_
from gradwire.frontends.numpy.functions.manipulation.creation import asarray, full, ones, zeros
from gradwire.frontends.numpy.tracer import Traced, input_names, trace, trace_function

__all__ = [
    "Traced",
    "TracedArray",
    "asarray",
    "cond",
    "fori",
    "full",
    "input_names",
    "ones",
    "scan",
    "trace",
    "trace_function",
    "vmap",
    "while_",
    "zeros",
]
