"""Functions that are traced once for all sizes of their arrays, against NumPy at many of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import gradwire as gw
from gradwire.frontends.numpy import trace, trace_function
from gradwire.graphs.sizes import Size, quotient, symbol
from tests.client.frontends.numpy.oracle import by_engine, by_reference, flat

SIZES = (1, 2, 3, 5, 8)


def laplacian(x: Any) -> Any:
    y = np.zeros_like(x)
    y[1:-1] = x[2:] - 2 * x[1:-1] + x[:-2]
    y[0], y[-1] = x[0], 2 * x[-1]
    return y


def framed(x: Any) -> Any:
    y = np.outer(x, x)
    y[0, :] = x
    y[1:-1, 1:-1] = 0.0
    return y


def scaled(x: Any) -> Any:
    y = x.copy()
    y += 1
    y[1:] *= 2
    return y


OF_ONE: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: np.tanh(x) * x + 1,
    "where": lambda x: np.where(x > 0, x, 0.0),
    "sum": lambda x: np.sum(x**2),
    "mean": lambda x: np.mean(x),
    "std": lambda x: (x - x.mean()) / (x.std() + 1),
    "softmax": lambda x: gw.special.softmax(x),
    "max": lambda x: np.max(x) - np.argmax(x),
    "max of differences": lambda x: np.max(np.abs(np.diff(x))),
    "cumsum": lambda x: np.cumsum(x),
    "sort": lambda x: np.sort(x),
    "norm": lambda x: np.linalg.norm(x),
    "dot": lambda x: x @ x,
    "einsum": lambda x: np.einsum("i,j->j", x, x),
    "tensordot": lambda x: np.tensordot(x, x, 1),
    "outer": lambda x: np.outer(x, x[1:]).T,
    "outer, flat": lambda x: np.outer(x, x).ravel(),
    "triangle": lambda x: np.tril(np.outer(x, x)).sum(1),
    "first and last": lambda x: x[0] * x[-1],
    "head": lambda x: x[:3] @ np.ones((3, 2)),
    "tail": lambda x: x[-2:],
    "part": lambda x: x[1:3] - x[-3:-1],
    "steps": lambda x: x[0:5:2],
    "reversed": lambda x: x[::-1] * np.flip(x),
    "indices": lambda x: x[[0, 2]] + np.take(x, [1, 0]),
    "stencil": lambda x: x[2:] - 2 * x[1:-1] + x[:-2],
    "gradient": lambda x: np.gradient(x),
    "trapezoid": lambda x: np.trapezoid(x),
    "convolution": lambda x: np.convolve(x, [1.0, -2.0, 1.0]),
    "padding": lambda x: np.pad(x, 1) * np.ones((2, 1)),
    "roll": lambda x: np.roll(x, 1) + np.roll(x, -1),
    "joined": lambda x: np.concatenate([x[1:], x[:1]]) + x,
    "stacked": lambda x: np.column_stack([x, x**2]) @ np.array([1.0, 2.0]),
    "tiled": lambda x: np.tile(x, 2) + np.hstack([x, x]),
    "broadcast": lambda x: np.broadcast_to(x, (3, *x.shape)) + x[None],
    "reshaped": lambda x: x.reshape(-1, 1) @ x.reshape(1, -1),
    "by the size": lambda x: np.sum(x) / x.shape[0] + x * (1 / (x.shape[0] + 1)) + np.sqrt(x.size),
    "size of a part": lambda x: x[2:].shape[0] * x.sum(),
    "size less a number": lambda x: (x.shape[0] - 5) * x,
    "made zeros": lambda x: gw.zeros(x.shape) + gw.ones((2, *x.shape)) * x,
    "ones of a part": lambda x: gw.ones(x[2:].shape).sum() + x,
    "laplacian": laplacian,
    "framed": framed,
    "scaled": scaled,
    "filled head": lambda x: [y := x.copy(), y.__setitem__(slice(None, 3), 1.0)][0].sum(),
    "scan": lambda x: gw.scan(lambda c, v: (c * 0.5 + v, c), 0.0, x)[0],
    "cond": lambda x: gw.cond(np.sum(x) > 0, lambda x: x * 2, lambda x: x[::-1], x),
    "fori": lambda x: gw.fori(0, 3, lambda i, c: c * x, x),
}
"""Functions of one array of a size n."""

OF_SEVERAL: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "matrix and vector": (lambda a, x: np.tanh(a @ x), [("n", "m"), "m"]),
    "rows": (lambda a, y: a * y[:, None] + a.sum(1, keepdims=True), [("n", "m"), "n"]),
    "loss": (lambda w, x, y: np.mean((x @ w - y) ** 2), [4, ("n", 4), "n"]),
    "sizes of their own": (lambda x, y: np.outer(x, y).sum(0), [None, None]),
    "none among numbers": (lambda x: x @ np.ones((3, 2)), [(None, 3)]),
    "distances": (lambda x: ((x[:, None] - x[None]) ** 2).sum(-1), [("n", 3)]),
    "nearest": (
        lambda x, c: np.min(((x[:, None, :] - c[None]) ** 2).sum(-1), axis=1).sum(),
        [("n", 2), (3, 2)],
    ),
    "attention": (
        lambda q, k, v: gw.special.softmax(q @ k.T / np.sqrt(q.shape[1]), axis=-1) @ v,
        [("n", "d"), ("m", "d"), ("m", "d")],
    ),
    "rows laid flat": (lambda x: x.reshape(x.shape[0], -1).sum(1), [("n", 2, 3)]),
    "blocks": (lambda x: x.reshape(-1, 6).sum(1), [("n", 2, 3)]),
    "transposed": (lambda x: x.T[1:].T + x.swapaxes(0, 1).reshape(-1).sum(), [("n", 3)]),
    "solve": (lambda a, b: np.linalg.solve(a + 9 * np.exp(0 * a) * (a == a), b), [(2, 2), (2, "n")]),
    "vmap": (lambda x: gw.vmap(lambda row: np.sin(row).sum())(x), [("n", 3)]),
    "tree": (lambda x, y: {"a": x[1:] * y[1:], "b": np.sum(x)}, ["n", "n"]),
}
"""Functions of several arrays, with the shapes of their specs."""


def point(shapes: list[Any], sizes: dict[str, int], seed: int = 0) -> list[Any]:
    random = np.random.default_rng(seed)
    sides = [shape if isinstance(shape, tuple) else (shape,) for shape in shapes]
    known: dict[Any, int] = {None: 3, **sizes}
    return [random.standard_normal([known.get(extent, extent) for extent in side]) for side in sides]


def compare(
    fn: Callable[..., Any],
    model: onnx.ModelProto,
    arguments: list[Any],
    run: Callable[[onnx.ModelProto, dict[str, Any]], list[Any]] = by_engine,
) -> bool:
    """Compare a graph with its function; False where the graph refuses the sizes."""
    named = dict(zip([value.name for value in model.graph.input], arguments, strict=True))
    try:
        found = run(model, named)
    except Exception as error:
        assert ">=" in str(error), error  # the name of the node that demands a size
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = flat(fn(*[np.array(one) for one in arguments]))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    return True


@pytest.mark.parametrize("name", OF_ONE)
def test_one_graph_serves_all_sizes_or_names_the_one_it_needs(name: str) -> None:
    model = trace(OF_ONE[name], [gw.spec("n")])
    onnx.checker.check_model(model, full_check=True)
    served = [compare(OF_ONE[name], model, point(["n"], {"n": size})) for size in SIZES]
    assert served == sorted(served) and all(served[-2:])


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_several_sizes_are_told_apart_by_their_names(name: str) -> None:
    fn, shapes = OF_SEVERAL[name]
    model = trace(fn, [gw.spec(shape) for shape in shapes])
    onnx.checker.check_model(model, full_check=True)
    for n, m, d in ((1, 1, 1), (2, 3, 1), (4, 2, 3), (3, 3, 3)):
        assert compare(fn, model, point(shapes, {"n": n, "m": m, "d": d}))


@pytest.mark.parametrize("name", ["stencil", "by the size", "laplacian", "outer", "padding"])
def test_another_runtime_agrees(name: str) -> None:
    model = trace(OF_ONE[name], [gw.spec("n")])
    for size in (3, 5):
        assert compare(OF_ONE[name], model, point(["n"], {"n": size}), by_reference)


@pytest.mark.parametrize("seed", range(40))
def test_any_slice_is_numpys_or_refused(seed: int) -> None:
    random = np.random.default_rng(seed)
    bounds = [None if random.random() < 0.3 else int(random.integers(-4, 5)) for _ in range(4)]
    first, second = slice(bounds[0], bounds[1], random.choice([1, 1, 1, 2, -1])), slice(*bounds[2:])

    def fn(x: Any) -> Any:
        part = x[first][second]
        return part * 2, part.shape[0] * np.sum(x), np.zeros_like(part)

    try:
        model = trace(fn, [gw.spec("n")])
    except gw.TraceError as error:
        assert "slice" in str(error) or "from the end" in str(error)
        return
    for size in range(1, 10):
        compare(fn, model, point(["n"], {"n": size}))


REFUSED: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "range": (lambda x: sum(x[i] for i in range(x.shape[0])), ["n"]),
    "loop": (lambda x: sum(v for v in x), ["n"]),
    "len": (lambda x: x / len(x), ["n"]),
    "int": (lambda x: x / int(x.shape[0]), ["n"]),
    "float": (lambda x: x / float(x.size), ["n"]),
    "arange": (lambda x: x * np.arange(x.shape[0]), ["n"]),
    "zeros": (lambda x: np.zeros(x.shape[0]) + x, ["n"]),
    "zeros of a shape": (lambda x: np.zeros(x.shape) + x, ["n"]),
    "ones in two axes": (lambda x: np.ones((x.shape[0], 2)) + x[:, None], ["n"]),
    "eye": (lambda x: np.eye(x.shape[0]) @ x, ["n"]),
    "full": (lambda x: np.full(x.shape, 2.0) * x, ["n"]),
    "branch": (lambda x: x if x.shape[0] > 3 else 2 * x, ["n"]),
    "equality": (lambda x: x if x.shape[0] == 3 else 2 * x, ["n"]),
    "half": (lambda x: x[: x.shape[0] // 2], ["n"]),
    "every second": (lambda x: x[::2], ["n"]),
    "number in broadcasting": (lambda x: x + np.ones(3), ["n"]),
    "number in a product": (lambda x: np.ones((2, 3)) @ x, ["n"]),
    "two sizes in broadcasting": (lambda x, y: x + y, ["n", "m"]),
    "two sizes in a product": (lambda x, y: x @ y, ["n", "m"]),
    "two sizes in a slice": (lambda x, y: x[: y.shape[0]], ["n", "m"]),
    "number in reshaping": (lambda x: x.reshape(2, -1), ["n"]),
    "all of a number": (lambda x: x.reshape(4), ["n"]),
    "squeezed": (lambda x: np.squeeze(x), [("n", 1)]),
    "split": (lambda x: np.split(x, 2), ["n"]),
    "median": (lambda x: np.median(x), ["n"]),
    "fft": (lambda x: np.abs(np.fft.rfft(x)), ["n"]),
    "list": (lambda x: [x[0]] * x.shape[0], ["n"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_number_is_refused_with_what_to_do(name: str) -> None:
    fn, shapes = REFUSED[name]
    with pytest.raises(gw.TraceError, match=r"gw\.spec\(100\)|count from an end"):
        trace(fn, [gw.spec(shape) for shape in shapes])


def test_sizes_that_always_differ_are_numpys_error() -> None:
    with pytest.raises(ValueError, match=r"shapes \(n,\) and \(n - 1,\) could not be broadcast"):
        trace(lambda x: x + x[1:], [gw.spec("n")])


def test_a_size_next_to_a_plain_number_does_not_widen_single_precision() -> None:
    def fn(x: Any) -> Any:
        return x * (1 / x.shape[0])

    with pytest.raises(gw.TraceError, match="float32"):
        trace(fn, [gw.spec("n", np.float32)])
    model = trace(lambda x: x / x.shape[0] * 2.0, [gw.spec("n", np.float32)])
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_size_is_a_polynomial() -> None:
    n, m = symbol("n"), symbol("m")
    assert str(3 * n * m - n + 2) == "3*m*n - n + 2"
    assert n - n == 0 and n + 1 - n == 1 and (n + 1) * (n - 1) == n * n - 1
    assert n - 1 < n <= n and n + m > 1 and n * m >= 1 and n != 0 and n != -1
    assert quotient(6 * n * m, 3 * m) == 2 * n and quotient(n + 1, 2) is None
    assert hash(n + 1) == hash(1 + n) and {n: 1}[symbol("n")] == 1
    for undecided in (lambda: n == 1, lambda: n > m, lambda: n - 1 == 0, lambda: bool(n - 1)):
        with pytest.raises(gw.TraceError):
            undecided()
    assert isinstance(n, Size)


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="identifier"):
        gw.spec("n + 1")
    with pytest.raises(TypeError):
        gw.spec((2.5,))  # type: ignore[arg-type]


def test_the_graph_is_the_same_in_every_trace() -> None:
    first, second = (
        trace_function(lambda x, y: x[1:] * y, [gw.spec("n"), gw.spec(())]).model for _ in range(2)
    )
    assert first == second
    own = trace(lambda x, y: x.sum() * y, [gw.spec(None), gw.spec((None, 2))])
    assert [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in own.graph.input
    ] == [["x.0"], ["y.0", 2]]
