"""Values and products of derivatives, against closed forms."""

import asyncio

import numpy as np
import pytest
from google.rpc import error_details_pb2

import gradwire as gw
from tests.client import wire_server as numpy_server
from tests.client.wire_server import BILINEAR, ENERGY, MATRIX, MIX, PICK, SQUARE, SQUARE32, WireServer

X = np.array([1.0, -2.0, 3.0])
A, B = np.array([1.0, 2.0]), np.arange(6.0).reshape(2, 3)


def test_value_and_products_of_one_input(client: gw.Client) -> None:
    f = client.function(SQUARE)
    v = np.array([1.0, 0.5, -1.0])
    np.testing.assert_array_equal(f(X), X**2)
    np.testing.assert_array_equal(f.value(x=X), X**2)
    np.testing.assert_array_equal(f.jvp(X, v), 2 * X * v)
    np.testing.assert_array_equal(f.vjp(X, v), 2 * X * v)
    e = client.function(ENERGY)
    np.testing.assert_array_equal(e.grad(X), 3 * X**2)
    np.testing.assert_array_equal(e.hvp(X, v), 6 * X * v)
    value, gradient = e.value_and_grad(X)
    assert value == (X**3).sum()
    np.testing.assert_array_equal(gradient, 3 * X**2)


def test_results_are_arrays_that_may_be_written_to(client: gw.Client) -> None:
    y = client.function(SQUARE)(X)
    assert type(y) is np.ndarray
    y += 1.0


@pytest.mark.parametrize("give", ["positional", "named", "mixed", "tuple", "mapping"])
def test_several_inputs_are_given_in_any_way(client: gw.Client, give: str) -> None:
    f = client.function(MIX)
    p, q = {
        "positional": lambda: f(A, B),
        "named": lambda: f(b=B, a=A),
        "mixed": lambda: f(A, b=B),
        "tuple": lambda: f((A, B)),
        "mapping": lambda: f({"b": B, "a": A}),
    }[give]()
    np.testing.assert_array_equal(p, A * B.sum())
    np.testing.assert_array_equal(q, B**2)


def test_several_inputs_and_outputs_give_tuples_and_one_chosen_by_itself_gives_an_array(
    client: gw.Client,
) -> None:
    f = client.function(MIX)
    va, vb = np.array([1.0, -1.0]), np.ones((2, 3))
    p, q = f.jvp((A, B), (va, vb))
    np.testing.assert_array_equal(p, va * B.sum() + A * vb.sum())
    np.testing.assert_array_equal(q, 2 * B * vb)
    np.testing.assert_array_equal(f.jvp(A, B, vb, wrt="b", of="q"), 2 * B * vb)
    (only,) = f.jvp(A, B, (vb,), wrt=["b"], of=[1])
    np.testing.assert_array_equal(only, 2 * B * vb)
    wa, wb = f.vjp(A, B, (va, vb))
    np.testing.assert_array_equal(wa, va * B.sum())
    np.testing.assert_array_equal(wb, np.full((2, 3), A @ va) + 2 * B * vb)
    np.testing.assert_array_equal(f.vjp(A, B, va, of=0, wrt=-1), np.full((2, 3), A @ va))


def test_hessian_products_cross_inputs(client: gw.Client) -> None:
    f = client.function(BILINEAR)
    u, v = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    ha, hb = f.hvp(A, A, (u, v))
    np.testing.assert_array_equal(ha, v)
    np.testing.assert_array_equal(hb, u)


def test_a_batch_axis_is_evaluated_index_by_index(client: gw.Client) -> None:
    f = client.function(SQUARE)
    xs = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(f(xs, batched="x"), xs**2)
    seeds = np.eye(3)
    np.testing.assert_array_equal(f.vjp(X, seeds, batched="y.cotangent"), np.diag(2 * X))
    np.testing.assert_array_equal(f.jvp(xs, X, batched=0), 2 * xs * X)


def test_transforms_have_signatures_of_their_own(client: gw.Client) -> None:
    f = client.function(SQUARE)
    pullback = f.as_vjp()
    assert str(pullback.signature) == "(x: float64[N], y.cotangent: float64[N]) -> (x.cotangent: float64[N])"
    np.testing.assert_array_equal(pullback(X, np.ones(3)), 2 * X)
    np.testing.assert_array_equal(client.function(ENERGY).gradient()(X), 3 * X**2)


def test_integer_inputs_stay_integers_and_are_left_out_of_wrt(client: gw.Client) -> None:
    f = client.function(PICK)
    indices = np.array([2, 0])
    np.testing.assert_array_equal(f(X, indices), X[indices])
    np.testing.assert_array_equal(f.jvp(X, indices, X), X[indices])
    with pytest.raises(gw.InvalidArgumentError, match=r"'i'.*float64|float64.*astype"):
        f(X, np.array([0.0, 1.0]))


def test_inputs_take_the_dtype_of_the_graph_where_that_is_of_the_same_kind(client: gw.Client) -> None:
    f = client.function(SQUARE32)
    for given in (X, [1, -2, 3], X.astype(np.float32)):
        y = f(given)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, (X**2).astype(np.float32))
    with pytest.raises(gw.InvalidArgumentError, match="complex128"):
        f(X.astype(complex))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: f(A), "missing input: b: float64"),
        (lambda f: f(A, B, A), "3 arguments given, but the function has 2 inputs"),
        (lambda f: f(A, c=B), "no input 'c', nor an option of that name; the inputs are: a, b"),
        (lambda f: f(A, B, a=A), "given twice"),
        (lambda f: f.jvp((A, B), A), "pass a tuple"),
        (lambda f: f.jvp((A, B), (A,)), "1 tangents given, but 2 are needed"),
        (lambda f: f.jvp(), "tangent is missing"),
        (lambda f: f.grad(A, B), "say which one"),
        (lambda f: f(A, B, batched="c"), "batched: there is no input 'c'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(
    client: gw.Client, wire_server: WireServer, call: object, words: str
) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=words):
        call(client.function(MIX))  # type: ignore[operator]
    assert wire_server.calls == []


def test_a_large_input_travels_once_within_its_request_and_is_then_uploaded_and_referred_to(
    client: gw.Client, wire_server: WireServer
) -> None:
    f = client.function(MATRIX)
    x = np.random.default_rng(0).normal(size=(200, 300))
    for _ in range(3):
        np.testing.assert_array_equal(f(x), np.sin(x))
    assert wire_server.calls.count("PutTensor") == 1
    first, *later = [r for r in wire_server.requests if hasattr(r, "inputs")]
    assert first.inputs["x"].data and all(r.inputs["x"].tensor_id for r in later)
    np.testing.assert_array_equal(f(x[::-1, ::2]), np.sin(x[::-1, ::2]))  # another array, another id


def test_a_result_known_to_be_large_comes_over_a_stream(client: gw.Client, wire_server: WireServer) -> None:
    x = np.random.default_rng(0).normal(size=(600, 700))
    np.testing.assert_array_equal(client.function(MATRIX)(x), np.sin(x))
    assert "Evaluate" not in wire_server.calls and "EvaluateStream" in wire_server.calls


def test_a_result_over_the_servers_message_limit_is_asked_for_again_over_a_stream(
    client: gw.Client, wire_server: WireServer
) -> None:
    wire_server.faults.message_bytes = 100
    np.testing.assert_array_equal(client.function(SQUARE)(np.arange(50.0)), np.arange(50.0) ** 2)
    assert wire_server.calls[-2:] == ["Evaluate", "EvaluateStream"]


def test_answers_in_another_order_find_their_callers(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.shuffle = True
    f = client.function(SQUARE)
    with f.stream() as s:
        answers = [s.vjp(X, np.full(3, float(k))) for k in range(10)]
        for k, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.result(10), 2 * X * k)
    assert wire_server.calls == ["RegisterGraph", "EvaluateStream"]


def test_one_stream_carries_several_functions_and_large_results(client: gw.Client) -> None:
    f, g = client.function(MATRIX), client.function(ENERGY)
    x = np.random.default_rng(0).normal(size=(500, 400))
    with client.stream() as stream:
        value, gradient = stream.function(f)(x), stream.function(g).grad(X)
        np.testing.assert_array_equal(value.result(10), np.sin(x))
        np.testing.assert_array_equal(gradient.result(10), 3 * X**2)


def test_a_call_that_fails_leaves_the_stream_open(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(SQUARE)
    f(X)
    with f.stream() as s:
        violation = error_details_pb2.BadRequest.FieldViolation(field='inputs["x"]', description="too long")
        details = error_details_pb2.BadRequest(field_violations=[violation])
        wire_server.faults.error = numpy_server.status(3, "x does not fit", details)
        with pytest.raises(gw.InvalidArgumentError, match="x does not fit") as caught:
            s.value(X).result(10)
        assert caught.value.violations == (gw.Violation('inputs["x"]', "too long"),)
        wire_server.faults.error = None
        np.testing.assert_array_equal(s.value(X).result(10), X**2)
    assert wire_server.calls.count("EvaluateStream") == 1


async def test_the_asynchronous_interface_does_the_same(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        f = client.function(SQUARE)
        async with f.stream() as s:
            products = await asyncio.gather(*(s.vjp(X, w) for w in np.eye(3)))
        np.testing.assert_array_equal(products, np.diag(2 * X))
        value, jacobian = await f.value_and_jacobian(X)
        np.testing.assert_array_equal(value, X**2)
        np.testing.assert_array_equal(jacobian, np.diag(2 * X))


async def test_a_call_that_is_cancelled_is_cancelled_on_the_server(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        f = client.function(SQUARE)
        await f(X)
        wire_server.faults.delay = 0.3
        async with f.stream() as s:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await s(X)
            wire_server.faults.delay = 0.0
            np.testing.assert_array_equal(await s(X), X**2)
        assert wire_server.cancelled.is_set()


async def test_a_timeout_on_a_stream_is_told_to_the_server(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        f = client.function(SQUARE)
        await f(X)
        wire_server.faults.delay = 5.0
        async with f.stream() as s:
            with pytest.raises(gw.DeadlineError):
                await s(X, timeout=0.1)


def test_one_liners_trace_from_their_arguments(client: gw.Client, wire_server: WireServer) -> None:
    scale = np.ones(3)

    def square(x: np.ndarray) -> np.ndarray:  # the server goes by its name
        return (scale * x) ** 2

    np.testing.assert_array_equal(client.vjp(square, X, X), 2 * X * X)
    np.testing.assert_array_equal(client.jvp(square, X, X), 2 * X * X)
    np.testing.assert_array_equal(client.jacobian(square, X), np.diag(2 * X))
    (graph,) = wire_server.graphs.values()
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == [3]
    assert wire_server.calls.count("RegisterGraph") == 1
    scale[:] = 2.0  # an array that a function closes over is taken as it is now
    client.jacobian(square, X)
    assert len(wire_server.graphs) == 2


def test_one_liners_take_models_and_several_arguments(client: gw.Client) -> None:
    np.testing.assert_array_equal(client.grad(ENERGY, X), 3 * X**2)
    np.testing.assert_array_equal(client.hvp(ENERGY, X, X), 6 * X * X)
    np.testing.assert_array_equal(client.hessian(ENERGY, X), np.diag(6 * X))
    np.testing.assert_array_equal(client.grad(BILINEAR, A, 3 * A, wrt="a"), 3 * A)
