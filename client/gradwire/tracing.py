"""Traces NumPy functions to ONNX graphs, from a function and the shapes of its arguments."""

from gradwire.frontends.numpy import (
    Traced,
    TracedArray,
    asarray,
    cond,
    fori,
    full,
    input_names,
    ones,
    scan,
    trace,
    trace_function,
    vmap,
    while_,
    zeros,
)

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
