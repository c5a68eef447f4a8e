"""Jacobians and Hessians arrive whole, from pieces cut anywhere, in any order, after any interruption."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from tests.client.wire_server import (
    BILINEAR,
    ENERGY,
    MATRIX,
    MIX,
    SQUARE,
    SQUARE32,
    WireServer,
    _mix_jacobian,
    model,
)

X = np.arange(1.0, 11.0)
A, B = np.array([1.0, 2.0]), np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("chunk", [1, 13, 1 << 20])
@pytest.mark.parametrize("width", [1, 3, 99])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_jacobian_is_whole_however_it_is_cut(
    client: gw.Client, wire_server: WireServer, chunk: int, width: int, shuffle: bool
) -> None:
    faults = wire_server.faults
    faults.chunk_bytes, faults.block_width, faults.shuffle = chunk, width, shuffle
    np.testing.assert_array_equal(client.function(SQUARE).jacobian(X), np.diag(2 * X))


def test_shapes_are_those_of_torch_and_jax(client: gw.Client) -> None:
    x = np.arange(6.0).reshape(2, 3)
    J = client.function(MATRIX).jacobian(x)
    assert J.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(J.reshape(6, 6), np.diag(np.cos(x).ravel()))
    H = client.function(ENERGY).hessian(X)
    np.testing.assert_array_equal(H, np.diag(6 * X))
    assert client.function(ENERGY).jacobian(X).shape == (10,)


def test_several_inputs_and_outputs_nest_outputs_first(client: gw.Client) -> None:
    f = client.function(MIX)
    expected = _mix_jacobian({"a": A, "b": B})
    (pa, pb), (qa, qb) = f.jacobian(A, B)
    for name, block in {("p", "a"): pa, ("p", "b"): pb, ("q", "a"): qa, ("q", "b"): qb}.items():
        np.testing.assert_array_equal(block, expected[name])
    np.testing.assert_array_equal(f.jacobian(A, B, wrt="b", of="q"), expected["q", "b"])
    by_input = f.jacobian(A, B, of="p")
    assert isinstance(by_input, tuple) and [b.shape for b in by_input] == [(2, 2), (2, 2, 3)]
    by_output = f.jacobian(A, B, wrt=0)
    assert isinstance(by_output, tuple) and [b.shape for b in by_output] == [(2, 2), (2, 3, 2)]
    assert f.jacobian(A, B, wrt=["a"], of=["p"])[0][0].shape == (2, 2)


def test_a_hessian_of_two_inputs_is_two_by_two(client: gw.Client) -> None:
    (aa, ab), (ba, bb) = client.function(BILINEAR).hessian(A, A)
    np.testing.assert_array_equal(ab, np.eye(2))
    np.testing.assert_array_equal(ba, np.eye(2))
    assert not aa.any() and not bb.any()
    assert not client.function(BILINEAR).hessian(A, A, wrt="b").any()


def test_a_float32_graph_gives_float32(client: gw.Client) -> None:
    J = client.function(SQUARE32).jacobian(X)
    assert J.dtype == np.float32
    np.testing.assert_array_equal(J, np.diag(2 * X))


def test_out_is_filled_and_returned(client: gw.Client, wire_server: WireServer, tmp_path: Path) -> None:
    wire_server.faults.chunk_bytes = 29
    f = client.function(SQUARE)
    for out in (
        np.empty((10, 10)),
        np.empty((20, 10))[::2],
        np.empty((10, 10), order="F"),
        np.memmap(tmp_path / "out", np.float64, "w+", shape=(10, 10)),
    ):
        assert f.jacobian(X, out=out) is out
        np.testing.assert_array_equal(out, np.diag(2 * X))
    outs = (np.empty((2, 2)), np.empty((2, 2, 3)))
    result = client.function(MIX).jacobian(A, B, of="p", out=outs)
    assert result[0] is outs[0] and result[1] is outs[1]


def test_an_out_that_does_not_fit_is_refused(client: gw.Client, wire_server: WireServer) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=r"float64 \[10, 10\], but is float64 \[9, 9\]"):
        client.function(SQUARE).jacobian(X, out=np.empty((9, 9)))
    np.testing.assert_array_equal(client.function(SQUARE).jacobian(X), np.diag(2 * X))


def test_blocks_come_one_by_one_and_cover_the_result(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.shuffle = True
    J = np.full((10, 10), np.nan)
    indices = []
    for block in client.function(SQUARE).jacobian_blocks(X):
        indices.append(block.index)
        assert (block.worker, block.compute) == ("w0", 0.25)
        for piece in block.pieces:
            assert (piece.row, piece.column) == ("y", "x")
            J[piece.rows, piece.columns] = piece.data
    np.testing.assert_array_equal(J, np.diag(2 * X))
    assert sorted(indices) == [0, 1, 2, 3] and indices != sorted(indices)
    H = np.zeros((10, 10))
    for block in client.function(ENERGY).hessian_blocks(X):
        for piece in block.pieces:
            H[piece.rows, piece.columns] = piece.data
    np.testing.assert_array_equal(H, np.diag(6 * X))


def test_leaving_the_blocks_early_cancels_the_stream(client: gw.Client, wire_server: WireServer) -> None:
    wire_server.faults.block_width, wire_server.faults.delay = 1, 0.05
    for _ in client.function(SQUARE).jacobian_blocks(X):
        break
    assert wire_server.cancelled.wait(5)


def test_a_sink_takes_blocks_and_may_use_the_client(client: gw.Client) -> None:
    f = client.function(SQUARE)
    seen: list[float] = []

    def sink(block: gw.Block) -> None:
        seen.append(sum(piece.data.sum() for piece in block.pieces) + f(np.zeros(1))[0])

    result, info = f.jacobian(X, sink=sink, return_info=True)
    assert result is None and info.plan.blocks == 4
    assert sum(seen) == (2 * X).sum()
    with pytest.raises(gw.InvalidArgumentError, match="out= and sink="):
        f.jacobian(X, sink=sink, out=np.empty((10, 10)))


def test_an_error_in_a_sink_ends_the_call(client: gw.Client) -> None:
    def sink(block: gw.Block) -> None:
        raise KeyError("full")

    with pytest.raises(KeyError, match="full"):
        client.function(SQUARE).jacobian(X, sink=sink)
    np.testing.assert_array_equal(client.function(SQUARE)(X), X**2)


def test_info_has_the_plan_and_where_the_time_went(client: gw.Client) -> None:
    J, info = client.function(SQUARE).jacobian(X, return_info=True)
    assert J.shape == (10, 10)
    assert (info.plan.mode, info.plan.blocks, info.resumed) == ("forward", 4, 0)
    assert info.summary.elapsed == 1.5 and info.summary.blocks_by_worker == {"w0": 4}


def test_progress_is_reported_up_to_the_end(client: gw.Client, wire_server: WireServer, capsys: Any) -> None:
    wire_server.faults.chunk_bytes = 100
    reports: list[gw.Progress] = []
    client.function(SQUARE).jacobian(X, progress=reports.append)
    assert (reports[0].bytes_done, reports[0].blocks_total) == (0, 4)
    assert (reports[-1].blocks_done, reports[-1].bytes_done, reports[-1].bytes_total) == (4, 800, 800)
    assert [r.bytes_done for r in reports] == sorted(r.bytes_done for r in reports)
    client.function(SQUARE).jacobian(X, progress=True)
    assert "4/4 blocks" in capsys.readouterr().err


def test_a_progress_callback_that_calls_back_is_told_so(client: gw.Client) -> None:
    f = client.function(SQUARE)
    with pytest.raises(RuntimeError, match="wait for itself"):
        f.jacobian(X, progress=lambda report: f(X))
    np.testing.assert_array_equal(f(X), X**2)


def test_a_plan_prints_what_would_be_done(client: gw.Client) -> None:
    plan = client.function(SQUARE).plan(gw.spec(1000))
    assert plan.blocks == 334
    assert str(plan) == (
        "jacobian, forward mode: asked for, or the graph has no reverse mode\n"
        "  1,000 seeds in 334 blocks of up to 3\n"
        "  d y / d x  float64 [1000, 1000]  1,000 × 1,000\n"
        "  result 7.63 MiB; a block takes about 4 KiB of memory and 2 Mflop"
    )
    assert client.function(ENERGY).plan(X, kind="hessian").kind == "hessian"
    with pytest.raises(gw.InvalidArgumentError, match="is open"):
        client.function(SQUARE).plan()


def test_options_travel(client: gw.Client, wire_server: WireServer) -> None:
    f = client.function(SQUARE)
    f.jacobian(X, mode="reverse", block_width=7, block_memory=1 << 20)
    options = wire_server.requests[-1].options
    assert (options.mode, options.block_width, options.block_memory_bytes) == (2, 7, 1 << 20)
    with pytest.raises(gw.InvalidArgumentError, match="'forward' or 'reverse', not 'sideways'"):
        f.jacobian(X, mode="sideways")
    with pytest.raises(gw.InvalidArgumentError, match="block_width"):
        f.jacobian(X, block_width=-1)


def test_a_derivative_of_a_transform_is_asked_for_as_such(client: gw.Client, wire_server: WireServer) -> None:
    plan = client.function(ENERGY).plan(X)
    assert plan.entries[0].row == "e"
    gradient = client.function(ENERGY).gradient()
    assert [v.name for v in gradient.signature.outputs] == ["x.gradient"]
    np.testing.assert_array_equal(gradient.jacobian(X), np.diag(6 * X))
    (transform,) = wire_server.requests[-1].function.transforms
    assert (transform.gradient.of, list(transform.gradient.wrt)) == ("e", ["x"])
    assert list(wire_server.requests[-1].of) == ["x.gradient"]


def test_scipy_takes_the_methods_as_callbacks(client: gw.Client) -> None:
    from scipy.optimize import minimize, root

    f = client.function(SQUARE)
    solution = root(lambda x: f(x) - 4.0, np.ones(3), jac=f.jacobian)
    np.testing.assert_allclose(solution.x, 2.0)
    e = client.function(ENERGY)
    found = minimize(
        lambda x: float((x**4).sum() / 4 - e(x)),
        np.full(3, 2.0),
        jac=lambda x: x**3 - e.grad(x),
        hess=lambda x: np.diag(3 * x**2) - e.hessian(x),
        method="trust-exact",
    )
    np.testing.assert_allclose(found.x, 3.0, rtol=1e-5)


async def test_the_asynchronous_interface_does_the_same(wire_server: WireServer) -> None:
    async with gw.aio.connect(wire_server.address) as client:
        f = client.function(SQUARE)
        J, info = await f.jacobian(X, return_info=True)
        np.testing.assert_array_equal(J, np.diag(2 * X))
        assert info.plan == await f.plan(X)
        total = 0.0
        async for block in f.jacobian_blocks(X):
            total += block.pieces[0].data.sum()
        assert total == (2 * X).sum()
        taken: list[int] = []

        async def sink(block: gw.Block) -> None:
            taken.append(block.index)

        await f.jacobian(X, sink=sink)
        assert taken == [0, 1, 2, 3]


def test_a_plan_needs_only_the_inputs_whose_shape_is_open(client: gw.Client) -> None:
    f = client.function(model("mix", "double[2] a, double[N,3] b", "double[2] p, double[N,3] q"))
    whole = f.plan(gw.spec(2), gw.spec((4, 3)))
    assert f.plan(b=gw.spec((4, 3))) == f.plan({"b": np.ones((4, 3))}) == whole
    with pytest.raises(gw.InvalidArgumentError, match=r"input b.*is open"):
        f.plan()
