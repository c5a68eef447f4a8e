"""Traced functions against NumPy itself, evaluated by two independent interpreters of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
import scipy.linalg
import scipy.special
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from gradwire.frontends.numpy import trace_function
from gradwire.graphs.comparison import Difference, moved_inputs, width_of, worst_difference
from gradwire.graphs.reference import Reference
from gradwire.graphs.spec import spec_of
from gradwire_engine.lowering import evaluate

jax.config.update("jax_enable_x64", True)


def _operator(name: str, function: Callable[..., Any]) -> type[OpRun]:
    """An operator of the extension domain for onnx's reference evaluator, by NumPy or SciPy."""
    attributes = list(getattr(function, "__kwdefaults__", None) or ())

    def run(self: Any, *inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        given = {key: kwargs[key] for key in attributes if kwargs.get(key) is not None}
        result = function(*inputs, **given)
        return tuple(result) if isinstance(result, tuple) else (np.asarray(result),)

    return type(name, (OpRun,), {"op_domain": "gradwire.sci", "_run": run})


def _sort(x: Any, *, axis: int = -1, descending: int = 0) -> tuple[Any, Any]:
    order = np.argsort(-x if descending else x, axis=axis, kind="stable")
    return np.take_along_axis(x, order, axis), order


def _cholesky(a: Any, *, upper: int = 0) -> Any:
    factor = np.linalg.cholesky(a)
    return np.swapaxes(factor, -1, -2) if upper else factor


def _eigh(a: Any, *, lower: int = 1) -> tuple[Any, Any]:
    return tuple(np.linalg.eigh(a, "L" if lower else "U"))


_SCI = {
    "Solve": np.linalg.solve,
    "Inverse": np.linalg.inv,
    "Cholesky": _cholesky,
    "SlogDet": lambda a: tuple(np.asarray(part) for part in np.linalg.slogdet(a)),
    "Eigh": _eigh,
    "QR": lambda a: tuple(np.linalg.qr(a)),
    "SvdValues": lambda a: np.linalg.svd(a, compute_uv=False),
    "Sort": _sort,
    "Lgamma": scipy.special.gammaln,
    "Digamma": scipy.special.digamma,
    "Erfc": scipy.special.erfc,
    "Erfinv": scipy.special.erfinv,
    "Xlogy": scipy.special.xlogy,
    "Expit": scipy.special.expit,
    "Log1p": lambda x: np.log1p(x),
    "Expm1": lambda x: np.expm1(x),
    "Atan2": lambda y, x: np.arctan2(y, x),
    "Hypot": lambda x, y: np.hypot(x, y),
    "Ldexp": lambda x, n: np.ldexp(x, n),
    "LogAddExp": lambda a, b: np.logaddexp(a, b),
    "Cbrt": lambda x: np.cbrt(x),
    "Exp2": lambda x: np.exp2(x),
    "Log2": lambda x: np.log2(x),
    "Log10": lambda x: np.log10(x),
    "Sinc": lambda x: np.sinc(x),
    "SVD": lambda a: tuple(np.linalg.svd(a, full_matrices=False)),
    "Pinv": lambda a, rtol: np.linalg.pinv(a, rtol=rtol),
    "LogNdtr": scipy.special.log_ndtr,
    "Ndtri": scipy.special.ndtri,
    "Betaln": scipy.special.betaln,
    "Betainc": scipy.special.betainc,
    "Igamma": scipy.special.gammainc,
    "Igammac": scipy.special.gammaincc,
    "BesselI0": scipy.special.i0,
    "BesselI1": scipy.special.i1,
    "BesselI0e": scipy.special.i0e,
    "BesselI1e": scipy.special.i1e,
    "StopGradient": lambda x: x,
}

_COMPLEX = {
    "Sqrt": np.sqrt, "Log": np.log, "Log1p": np.log1p, "Tan": np.tan, "Tanh": np.tanh, "Asin": np.arcsin,
    "Acos": np.arccos, "Atan": np.arctan, "Asinh": np.arcsinh, "Acosh": np.arccosh, "Atanh": np.arctanh,
    "Div": np.divide, "Pow": np.power,
}  # fmt: skip


def _of_pairs(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """A function of complex numbers as one of their parts."""

    def of_parts(*parts: Any) -> tuple[Any, ...]:
        result = function(*(real + 1j * imag for real, imag in zip(parts[::2], parts[1::2], strict=True)))
        return np.asarray(result.real), np.asarray(result.imag)

    return of_parts


_SCI |= {f"Complex{name}": _of_pairs(function) for name, function in _COMPLEX.items()}

NEW_OPS = [_operator(name, function) for name, function in _SCI.items()]
# onnx's own evaluator rounds Erf to single precision.
NEW_OPS.append(type("Erf", (OpRun,), {"op_domain": "", "_run": lambda self, x: (scipy.special.erf(x),)}))


def flat(result: Any) -> list[np.ndarray[Any, Any]]:
    """What a function returns as a list of arrays."""
    if isinstance(result, dict):
        return [np.asarray(item) for item in result.values()]
    items = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(item) for item in items]


def by_reference(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    """The outputs as onnx's reference evaluator has them."""
    return [np.asarray(item) for item in ReferenceEvaluator(model, new_ops=NEW_OPS).run(None, inputs)]


def by_engine(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    """The outputs as the engine's lowering has them, all inputs unknown while it traces."""
    return [np.asarray(item) for item in jax.jit(lambda values: evaluate(model, values))(inputs)]


def agree(
    fn: Callable[..., Any],
    *arguments: Any,
    rtol: float = 1e-12,
    atol: float = 1e-13,
    reference: bool = True,
    engine: bool = True,
) -> onnx.ModelProto:
    """Trace `fn` and hold the graph's values, shapes and dtypes to what `fn` returns on the arguments."""
    arrays = [np.asarray(argument) for argument in arguments]
    traced = trace_function(fn, [spec_of(array) for array in arrays])
    onnx.checker.check_model(traced.model, full_check=True)
    expected = flat(fn(*(array.copy() for array in arrays)))
    names = [item.name for item in traced.model.graph.input]
    inputs = dict(zip(names, arrays, strict=True))
    declared = [_declared(item) for item in traced.model.graph.output]
    assert declared == [(item.dtype, item.shape) for item in expected]
    evaluators = [by_reference] * reference + [by_engine] * engine
    assert evaluators
    for evaluator in evaluators:
        actual = evaluator(traced.model, inputs)
        assert len(actual) == len(expected)
        for got, want in zip(actual, expected, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape), evaluator.__name__
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=evaluator.__name__)
        if evaluator is by_engine:
            assert traced.bound.reference is not None
            assert difference(traced.bound.reference, arrays, actual) is None
    return traced.model


def difference(reference: Reference, arrays: Sequence[Any], found: Sequence[Any]) -> Difference | None:
    """What users are told of: the difference that the comparison at the first use finds."""

    def values(at: Sequence[Any]) -> list[Any]:
        with np.errstate(all="ignore"):
            return reference.values([np.array(array) for array in at])

    width = width_of([*arrays, *found])
    return worst_difference(
        values(arrays), found, width, lambda: list(map(values, moved_inputs(arrays, width, 0)))
    )


def _declared(info: onnx.ValueInfoProto) -> tuple[np.dtype[Any], tuple[int, ...]]:
    kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return kind, tuple(side.dim_value for side in info.type.tensor_type.shape.dim)


def operators(model: onnx.ModelProto) -> Sequence[str]:
    """The operators of a model's nodes, in order."""
    return [node.op_type for node in model.graph.node]
