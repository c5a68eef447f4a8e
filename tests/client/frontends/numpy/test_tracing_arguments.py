"""Every argument of NumPy's functions and methods has its effect in a trace, or is refused by name."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire.errors import TraceError
from gradwire.frontends.numpy import TracedArray, complex_dispatch, dispatch, trace
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex
from gradwire.graphs.spec import spec_of
from tests.client.frontends.numpy.oracle import agree, by_reference

X = np.array([[0.5, 2.0, -1.25], [3.0, 0.25, 1.5]])
Z = X + 1j * X[::-1]

Call = Callable[..., Any]

CALLS: dict[str, Call] = {
    "np.concatenate": lambda f, x, **k: f([x, x], **k),
    "np.concat": lambda f, x, **k: f([x, x], **k),
    "np.stack": lambda f, x, **k: f([x, x], **k),
    "np.clip": lambda f, x, **k: f(x, 0, 1, **k),
    "np.take": lambda f, x, **k: f(x, [2, 0], 1, **k),
    "np.choose": lambda f, x, **k: f(np.array([0, 1, 1]), [x, 2 * x], **k),
    "np.compress": lambda f, x, **k: f([True, False, True], x, 1, **k),
    "np.dot": lambda f, x, **k: f(x, x.T, **k),
    "np.outer": lambda f, x, **k: f(x, x, **k),
    "np.linalg.multi_dot": lambda f, x, **k: f([x, x.T, x], **k),
    "np.einsum": lambda f, x, **k: f("ij,ij->i", x, x, **k),
    "np.quantile": lambda f, x, **k: f(x, [0.25, 0.5], 1, **k),
    "np.percentile": lambda f, x, **k: f(x, [25, 50], 1, **k),
    "np.nanquantile": lambda f, x, **k: f(x, [0.25, 0.5], 1, **k),
    "np.nanpercentile": lambda f, x, **k: f(x, [25, 50], 1, **k),
    "np.cumulative_sum": lambda f, x, **k: f(x, axis=1, **k),
    "np.cumulative_prod": lambda f, x, **k: f(x, axis=1, **k),
}
"""How a function with an `out` is called, where it takes more than one array."""


def _plain(function: Call, x: Any, **kwargs: Any) -> Any:
    return function(x, **kwargs)


def _with_out(functions: Any) -> dict[str, Any]:
    return {
        dispatch.public_name(function): function
        for function in functions
        if "out" in inspect.signature(function).parameters
    }


OF_REAL, OF_COMPLEX = _with_out(dispatch.implemented()), _with_out(complex_dispatch._functions)


def _hold(name: str, call: Call, argument: Any, make: Callable[[Any], Any]) -> None:
    """Hold what a call leaves in `out` to what NumPy's own leaves there."""
    result = np.asarray(call(make(argument)))
    zeros = partial(gw.zeros, result.shape, result.dtype)

    def function(x: Any) -> Any:
        y = zeros()
        before = y
        returned = call(make(x), out=y)
        assert returned is before, f"{name} returns out"
        return (y.real, y.imag) if result.dtype.kind == "c" else y

    model = trace(function, [spec_of(argument)])
    got = by_reference(model, {model.graph.input[0].name: argument})
    want = [result.real, result.imag] if result.dtype.kind == "c" else [result]
    for left, right in zip(got, want, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", OF_REAL)
def test_every_function_stores_its_result_in_out(name: str) -> None:
    _hold(name, partial(CALLS.get(name, _plain), OF_REAL[name]), X, lambda x: x)


@pytest.mark.parametrize("name", OF_COMPLEX)
def test_every_function_of_complex_arrays_stores_its_result_in_out(name: str) -> None:
    _hold(name, partial(CALLS.get(name, _plain), OF_COMPLEX[name]), X, lambda x: x + 1j * x[::-1])


METHODS_WITH_OUT = {
    "sum": (), "prod": (), "mean": (), "var": (), "std": (), "min": (), "max": (), "any": (), "all": (),
    "argmin": (), "argmax": (), "cumsum": (), "cumprod": (), "round": (), "trace": (), "clip": (0, 1),
    "take": ([2, 0],), "compress": ([True, False],), "dot": (X.T,), "choose": None,
}  # fmt: skip


def test_the_methods_with_an_out_are_numpys() -> None:
    own = {
        name for name in dir(np.ndarray)
        if not name.startswith("_") and callable(getattr(np.ndarray, name))
        and "out" in inspect.signature(getattr(np.ndarray, name)).parameters
    }  # fmt: skip
    assert own == METHODS_WITH_OUT.keys()


@pytest.mark.parametrize("name", METHODS_WITH_OUT)
def test_every_method_stores_its_result_in_out(name: str) -> None:
    arguments = METHODS_WITH_OUT[name]
    if arguments is None:
        agree(
            lambda x: (y := gw.zeros(3), (x[0] > 1).astype(np.int64).choose([x[0], x[1]], out=y), y)[-1],
            X, engine=False,
        )  # fmt: skip
        return
    _hold(name, lambda x, **out: getattr(x, name)(*arguments, **out), X, lambda x: x)


def test_out_is_stored_where_it_stands_by_position_too() -> None:
    agree(lambda x: (y := np.zeros_like(x[0]), np.sum(x, 0, None, y), y)[-1], X, engine=False)
    agree(lambda x: (y := np.zeros_like(x), np.clip(x, 0, 1, y), y)[-1], X, engine=False)
    agree(lambda x: (y := np.zeros_like(x), np.clip(a=x, a_min=0, a_max=1, out=y), y)[-1], X, engine=False)


def test_out_takes_part_in_derivatives() -> None:
    model = trace(lambda x: (y := np.zeros_like(x), np.clip(x, 0, 1, out=y), y)[-1], [spec_of(X[0, :2])])
    import jax

    from gradwire_engine.lowering import evaluate

    jacobian = jax.jacfwd(lambda x: evaluate(model, {"x": x})[0])(X[0, :2])
    np.testing.assert_array_equal(jacobian, [[1, 0], [0, 0]])


def test_out_must_be_traced_and_fit() -> None:
    with pytest.raises(TraceError, match="plain NumPy array"):
        trace(lambda x: np.sum(x, axis=0, out=np.zeros(3)), [spec_of(X)])
    with pytest.raises(ValueError, match=r"np\.sum: out= has shape \(2, 3\)"):
        trace(lambda x: np.sum(x, axis=0, out=np.zeros_like(x)), [spec_of(X)])
    with pytest.raises(TypeError, match="cannot cast the result"):
        trace(lambda x: np.clip(x, 0, 1, out=np.zeros_like(x, np.int64)), [spec_of(X)])
    with pytest.raises(TypeError, match="cannot cast the result"):
        trace(lambda x: np.fft.fft(x, out=np.zeros_like(x)), [spec_of(X)])


# Arguments that an implementation takes

WITHOUT_EFFECT = {
    "subok": "there are no subclasses of traced arrays",
    "device": "NumPy has one device and refuses others",
    "overwrite_input": "allows the input to be spoiled",
    "optimize": "chooses how, not what",
    "kind": "chooses how, not what",
    "stable": "a stable order is one that unstable sorting may give",
    "kth": "a full sort is partitioned everywhere",
    "assume_unique": "a promise that makes NumPy faster",
    "tol": "real arrays stay real",
}
"""Arguments that are taken and not looked at, and why the result is the same."""


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {
        name: item
        for name, item in inspect.signature(function).parameters.items()
        if name not in ("out", "like")
    }


def _unread(implementation: Any) -> set[str]:
    """The parameters that the body of a function never reads."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(implementation))).body
    if not isinstance(tree, ast.FunctionDef):
        return set()
    names = {
        node.id
        for statement in tree.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return set(inspect.signature(implementation).parameters) - names - {"self"}


IMPLEMENTATIONS = {dispatch.public_name(key): (key, item) for key, item in dispatch._functions.items()}
_OF_COMPLEX = {
    f"{dispatch.public_name(key)} of complex": (key, item)
    for key, item in complex_dispatch._functions.items()
    if not isinstance(item, partial)  # these pass all arguments on to the real function
}
CONSTANT = {"np.isrealobj", "np.iscomplexobj", "np.isrealobj of complex", "np.iscomplexobj of complex"}
CONSTRUCTORS = {
    f"np.{name}" for name in ("zeros", "ones", "empty", "full", "arange", "eye", "identity", "tri")
}


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, *_OF_COMPLEX])
def test_no_function_takes_an_argument_without_looking_at_it(name: str) -> None:
    _, implementation = (IMPLEMENTATIONS | _OF_COMPLEX)[name]
    if name not in CONSTANT and name not in CONSTRUCTORS and "<lambda>" not in implementation.__qualname__:
        assert _unread(implementation) <= WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS.keys() - CONSTRUCTORS))
def test_the_signature_is_numpys_or_a_part_of_it(name: str) -> None:
    function, implementation = IMPLEMENTATIONS[name]
    theirs, ours = _parameters(function), _parameters(implementation)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    positional = [item for item in theirs.values() if item.kind.name.startswith("POSITIONAL")]
    for index, (own, (key, item)) in enumerate(zip(positional, ours.items(), strict=False)):
        if item.kind in variadic or key in theirs:
            break
        # A leading argument may have another name here: it is passed by position.
        assert index == 0 or own.name not in ours, key
    for key, item in ours.items():
        own = theirs.get(key)
        if own is None or own.kind in variadic or own.default is np._NoValue:
            continue
        if own.default is not inspect.Parameter.empty:
            assert _same_default(item.default, own.default), (key, item.default, own.default)
    catching = [key for key, item in ours.items() if item.kind is inspect.Parameter.VAR_KEYWORD]
    assert all(key in theirs for key in catching), catching


def _same_default(ours: Any, theirs: Any) -> bool:
    return ours == theirs or (not ours and not theirs) or repr(ours) == repr(theirs)


@pytest.mark.parametrize("kind", [TracedArray, TracedComplex])
def test_the_methods_signatures_are_numpys(kind: Any) -> None:
    for name in dir(np.ndarray):
        method = getattr(kind, name, None)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        theirs = inspect.signature(getattr(np.ndarray, name)).parameters
        ours = inspect.signature(method).parameters
        missing = {key for key, item in theirs.items() if item.kind.name[:3] != "VAR"} - ours.keys()
        assert not missing or name == "dot", (name, missing)
        by_position = [key for key, item in theirs.items() if item.kind.name.startswith("POSITIONAL")]
        assert [key for key in ours if key in by_position] == by_position, name
        assert _unread(method) <= WITHOUT_EFFECT.keys() | {"_"}, name


ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "choose wraps": lambda x: np.choose(np.array([0, 3, -1]), [x, 2 * x], mode="wrap"),
    "choose clips": lambda x: np.choose(np.array([0, 3, -1]), [x, 2 * x], mode="clip"),
    "ediff1d with ends": lambda x: np.ediff1d(x, to_end=[9.0], to_begin=x[0, :2]),
    "corrcoef in single precision": lambda x: np.corrcoef(x, dtype=np.float32),
    "cov in single precision": lambda x: np.cov(x, dtype=np.float32),
    "astype without a copy": lambda x: (y := x * 1, y.astype(np.float64, copy=False).fill(3), y)[-1],
    "np.astype without a copy": lambda x: (y := x * 1, np.astype(y, np.float64, copy=False).fill(3), y)[-1],
    "astype to another dtype without a copy": lambda x: (
        y := x * 1, y.astype(np.float32, copy=False).fill(3), y,
    )[-1],
    "reshape with a copy": lambda x: (y := x * 1, y.reshape(6, copy=True).fill(3), y)[-1],
    "meshgrid makes copies": lambda x: (
        grids := np.meshgrid(x[0], x[1]), grids[0].__setitem__((0, 0), 5), *grids,
    )[2:],
    "reshape in column order": lambda x: x.reshape(3, 2, order="F"),
    "a copy in column order, reshaped": lambda x: np.ravel(np.copy(x, order="F"), "F"),
    "diagonal wrapped": lambda x: (
        y := gw.zeros((7, 2)), np.fill_diagonal(y, x[0, :2], wrap=True), y,
    )[-1],
    "diagonal of a tall matrix": lambda x: (y := gw.zeros((7, 2)), np.fill_diagonal(y, x[0, :2]), y)[-1],
    "diagonal of a wide matrix": lambda x: (y := x * 1, np.fill_diagonal(y, x[0]), y)[-1],
    "diagonal of a cube": lambda x: (y := gw.zeros((3, 3, 3)), np.fill_diagonal(y, x[0]), y)[-1],
    "sum with all arguments": lambda x: x.sum(0, initial=2.0, where=np.array([True, False, True])),
    "put clips": lambda x: (y := x * 1, y.put([0, 99], [7.0, 8.0], mode="clip"), y)[-1],
    "in-place partition": lambda x: (y := np.sort(x * 1), y.partition(1), y)[-1],
    "einsum in single precision": lambda x: np.einsum(
        "ij->i", x, dtype=np.float32, casting="same_kind",
    ),
    "made like another": lambda x: np.array(x, dtype=np.float32, ndmin=3, like=x),
    "padding by odd reflection": lambda x: np.pad(x, 2, "reflect", reflect_type="odd"),
    "padding by odd symmetry": lambda x: np.pad(x, ((1, 2), (4, 0)), "symmetric", reflect_type="odd"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_have_the_effect_that_they_have_in_numpy(name: str) -> None:
    agree(ARGUMENTS[name], X, engine=False)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "ravel by memory": (lambda x: x.ravel("K"), TraceError, "np.ravel with order='K'"),
    "reshape by memory": (lambda x: x.reshape(-1, order="A"), TraceError, "np.reshape with order='A'"),
    "flatten by memory": (lambda x: x.flatten("K"), TraceError, "order='K'"),
    "weighted quantiles": (lambda x: np.quantile(x, 0.5, weights=x), TraceError, "weights"),
    "weighted covariance": (lambda x: np.cov(x, fweights=[1, 2, 3]), TraceError, "fweights"),
    "a dtype that does not fit": (lambda x: np.add(x, 1.5, dtype=np.int64), TypeError, "Cannot cast"),
    "a rule for casts": (lambda x: x.astype(np.int64, casting="safe"), TypeError, "safe"),
    "a rule for joins": (
        lambda x: np.concatenate([x, x], dtype=np.float32, casting="safe"), TypeError, "safe",
    ),
    "a cast of einsum": (lambda x: np.einsum("ij->i", x, dtype=np.float32), TypeError, "safe"),
    "fields": (lambda x: np.sort(x, order="a"), ValueError, "no fields"),
    "an unknown mode": (lambda x: np.take(x, [0], mode="bounce"), ValueError, "clipmode"),
    "another device": (lambda x: x.to_device("cuda"), ValueError, "cuda"),
    "a copy in column order, reshaped and written to": (
        lambda x: np.copy(x, order="F").ravel().fill(1), TraceError, "reshaped view",
    ),
    "a transposed sum, reshaped and written to": (
        lambda x: (x.T + 1).ravel().fill(1), TraceError, "reshaped view",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_no_effect_is_refused(name: str) -> None:
    function, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        trace(lambda x: (function(x), x)[-1], [spec_of(X)])
