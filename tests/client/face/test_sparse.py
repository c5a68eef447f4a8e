"""Sparse derivatives over a real server: the matrices of dense ones, from fewer seeds and fewer bytes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import scipy.sparse

import gradwire as gw
import gradwire_wire as wire
from gradwire.results import Plan
from gradwire_wire.v1 import derivative_pb2, function_pb2, gradient_service_pb2_grpc

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


def chain(x: Any) -> Any:
    return x[1:] - x[:-1] ** 2


def rosenbrock(x: Any) -> Any:
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def two(x: Any, z: Any) -> Any:
    return np.tanh(x) * z.reshape(-1), z.sum(axis=1) * np.array([2.0, 3.0])


def brusselator(u: Any) -> Any:
    def spread(z: Any) -> Any:
        return np.roll(z, 1, 0) + np.roll(z, -1, 0) + np.roll(z, 1, 1) + np.roll(z, -1, 1) - 4 * z

    a, b = u[0], u[1]
    return np.stack([1 + a * a * b - 4.4 * a + spread(a), 3.4 * a - a * a * b + spread(b)])


@pytest.fixture(scope="module")
def remote(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as client:
        yield client


@pytest.mark.parametrize("mode", [None, "forward", "reverse"])
def test_a_sparse_jacobian_is_the_dense_one(remote: gw.Client, mode: Any) -> None:
    f, x = remote.function(chain, gw.spec(9)), np.linspace(0.5, 2, 9)
    J, info = f.jacobian(x, sparse=True, mode=mode, return_info=True)
    assert isinstance(J, scipy.sparse.csr_array) and J.has_canonical_format
    np.testing.assert_array_equal(J.toarray(), f.jacobian(x))
    assert info.plan.sparse.nonzeros == J.nnz == 16
    assert info.plan.seeds == 2 and "16 non-zeros of 8 × 9; 2 colors of" in str(info.plan)


@pytest.mark.parametrize("triangle", [False, True])
def test_a_sparse_hessian_is_the_dense_one(remote: gw.Client, triangle: bool) -> None:
    f, x = remote.function(rosenbrock, gw.spec(8)), np.linspace(0.5, 2, 8)
    dense = f.hessian(x)
    H = f.hessian(x, sparse=True, triangle=triangle)
    assert H.nnz == (15 if triangle else 22)
    np.testing.assert_allclose(H.toarray(), np.tril(dense) if triangle else dense, rtol=1e-13)


def test_several_inputs_and_outputs_give_blocks_or_one_matrix(remote: gw.Client) -> None:
    x, z = np.linspace(0, 1, 4), np.array([[1.0, 2], [3, 4]])
    f = remote.function(two, gw.spec(4), gw.spec((2, 2)))
    sizes = {0: 4, 1: 2}
    blocks, dense = f.jacobian(x, z, sparse=True), f.jacobian(x, z)
    for i in range(2):
        for j in range(2):
            assert blocks[i][j].shape == (sizes[i], 4)
            np.testing.assert_array_equal(blocks[i][j].toarray(), dense[i][j].reshape(sizes[i], 4))
    joint = f.jacobian(x, z, sparse=True, joined=True)
    np.testing.assert_array_equal(joint.toarray(), scipy.sparse.block_array(blocks).toarray())
    part = f.jacobian(x, z, wrt=1, of=1, sparse=True)
    np.testing.assert_array_equal(part.toarray(), dense[1][1].reshape(2, 4))


def test_value_and_derivative_come_together(remote: gw.Client) -> None:
    f, x = remote.function(chain, gw.spec(9)), np.linspace(0.5, 2, 9)
    value, J = f.value_and_jacobian(x, sparse=True)
    np.testing.assert_array_equal(value, chain(x))
    np.testing.assert_array_equal(J.toarray(), f.jacobian(x))


def test_a_prepared_derivative_shares_its_index_arrays(remote: gw.Client, tmp_path: Path) -> None:
    f = remote.function(brusselator, gw.spec((2, 5, 5)))
    prepared = f.prepare_jacobian()
    assert prepared.colors <= 10 and prepared.pattern.nnz == 300
    draw = np.random.default_rng(0)
    points = [draw.random((2, 5, 5)) for _ in range(2)]
    matrices = [prepared(point) for point in points]
    assert np.shares_memory(matrices[0].indices, matrices[1].indices)
    assert np.shares_memory(matrices[0].indptr, prepared.pattern.indptr)
    for point, matrix in zip(points, matrices, strict=True):
        np.testing.assert_allclose(matrix.toarray(), f.jacobian(point).reshape(50, 50), rtol=1e-14)
    prepared.save(tmp_path / "pattern.npz")
    kept = gw.load_pattern(tmp_path / "pattern.npz")
    assert kept.pattern_id == prepared.pattern.pattern_id and kept.shape == (50, 50)
    np.testing.assert_array_equal(kept.boolean().toarray(), prepared.pattern.boolean().toarray())
    hessian = remote.function(rosenbrock, gw.spec(6)).prepare_hessian(triangle=True)
    assert (scipy.sparse.triu(hessian(np.ones(6)), 1)).nnz == 0


def test_a_pattern_travels_once(remote: gw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwire.transport.placement import SparseValues

    received: list[int] = []
    write = SparseValues.write_pattern

    def counted(self: SparseValues, chunk: Any) -> None:
        received.append(len(chunk.data))
        write(self, chunk)

    monkeypatch.setattr(SparseValues, "write_pattern", counted)
    f, x = remote.function(chain, gw.spec(11)), np.linspace(0.5, 2, 11)
    f.jacobian(x, sparse=True)
    assert sum(received) == 2 * 4 * 20
    f.jacobian(2 * x, sparse=True)
    assert sum(received) == 2 * 4 * 20


def test_sparsity_alone_takes_shapes(remote: gw.Client) -> None:
    f = remote.function(chain, gw.spec(9))
    pattern = f.sparsity()
    np.testing.assert_array_equal(pattern.boolean().toarray(), f.jacobian(np.full(9, 0.5)) != 0)
    assert remote.function(rosenbrock, gw.spec(5)).sparsity(kind="hessian").nnz == 13


def test_auto_gives_a_matrix_or_an_array(remote: gw.Client) -> None:
    f = remote.function(chain, gw.spec(9))
    assert scipy.sparse.issparse(f.jacobian(np.ones(9), sparse="auto"))
    g = remote.function(lambda x: x * np.sum(x), gw.spec(4))
    J = g.jacobian(np.ones(4), sparse="auto")
    np.testing.assert_array_equal(J, np.ones((4, 4)) + 4 * np.eye(4))
    two = remote.function(lambda x, z: (x * np.sum(x), z * np.sum(z)), gw.spec(2), gw.spec(3))
    joint = two.jacobian(np.ones(2), np.ones(3), sparse="auto", joined=True)
    dense = two.jacobian(np.ones(2), np.ones(3))
    np.testing.assert_array_equal(
        joint.toarray() if scipy.sparse.issparse(joint) else joint, np.block([list(row) for row in dense])
    )
    one = g.jacobian(np.ones(4), sparse="auto", joined=True)
    np.testing.assert_array_equal(one, J)


def test_large_index_arrays_that_a_function_closes_over_are_followed(remote: gw.Client) -> None:
    count = 200_000
    order = np.random.default_rng(1).permutation(count)
    f = remote.function(lambda x: x[order] ** 2, gw.spec(count))
    x = np.linspace(1, 2, count)
    J = f.jacobian(x, sparse=True)
    assert J.nnz == count
    np.testing.assert_array_equal(J.indices, order)
    np.testing.assert_allclose(J.data, 2 * x[order])


def test_large_matrices_of_scipy_that_a_function_closes_over_are_followed(remote: gw.Client) -> None:
    count = 20_000
    A = scipy.sparse.random_array((count, count), density=5e-4, format="csr", rng=np.random.default_rng(4))
    assert A.data.nbytes > 1 << 20, "large enough to travel apart from the graph"
    J = remote.function(lambda x: A @ x, gw.spec(count)).jacobian(np.ones(count), sparse=True)
    assert (J != A).nnz == 0 and J.nnz == A.nnz


def test_options_that_do_not_go_together_are_refused(remote: gw.Client) -> None:
    f = remote.function(chain, gw.spec(9))
    for options, message in (
        ({"joined": True}, "joined= is of sparse"),
        ({"sparse": True, "out": np.ones((8, 9))}, "out= takes dense"),
        ({"sparse": True, "sink": print}, "sink= takes dense"),
        ({"sparse": "auto", "triangle": True}, "'auto' may give a dense one"),
        ({"sparse": "yes"}, "sparse is True, False, 'auto' or a pattern"),
    ):
        with pytest.raises(gw.InvalidArgumentError, match=message):
            (f.hessian if "triangle" in options else f.jacobian)(np.ones(9), **options)


def _chain_pattern(n: int) -> Any:
    return scipy.sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))


@pytest.mark.parametrize("form", ["matrix", "boolean", "coordinates", "pattern", "int64"])
def test_a_pattern_of_ones_own_is_taken_and_checked(remote: gw.Client, form: str) -> None:
    f, x = remote.function(chain, gw.spec(9)), np.linspace(0.5, 2, 9)
    matrix = _chain_pattern(9)
    coordinates = matrix.tocoo()
    given = {
        "matrix": matrix,
        "boolean": matrix.toarray() != 0,
        "coordinates": (coordinates.row, coordinates.col),
        "pattern": f.sparsity(),
        "int64": (coordinates.row.astype(np.int64).tolist(), coordinates.col.astype(np.int64)),
    }[form]
    for _ in range(2):
        J, info = f.jacobian(x, sparse=given, return_info=True)
        np.testing.assert_array_equal(J.toarray(), f.jacobian(x))
    assert info.plan.sparse.nonzeros == 16


def test_a_pattern_that_lacks_an_entry_is_refused_at_its_first_use(remote: gw.Client) -> None:
    f, x = remote.function(chain, gw.spec(10)), np.linspace(0.5, 2, 10)
    lacking = _chain_pattern(10).tolil()
    lacking[4, 5] = 0
    for mode in ("forward", "reverse"):
        with pytest.raises(gw.InvalidArgumentError, match=r"the pattern given lacks entries.* [45] first"):
            f.jacobian(x, sparse=lacking.tocsr(), mode=mode)
    trusted = f.prepare_jacobian(pattern=lacking.tocsr(), verify_pattern=False)
    assert trusted(x).nnz == 17
    more = _chain_pattern(10).tolil()
    more[0, 9] = 1
    np.testing.assert_array_equal(f.jacobian(x, sparse=more.tocsr()).toarray(), f.jacobian(x))


def test_one_triangle_of_a_hessians_pattern_stands_for_both(remote: gw.Client) -> None:
    f, x = remote.function(rosenbrock, gw.spec(8)), np.linspace(0.5, 2, 8)
    band = scipy.sparse.diags_array([np.ones(8), np.ones(7)], offsets=[0, -1])
    np.testing.assert_allclose(f.hessian(x, sparse=band).toarray(), f.hessian(x), rtol=1e-13)
    half = f.hessian(x, sparse=band, triangle=True)
    np.testing.assert_allclose(half.toarray(), np.tril(f.hessian(x)), rtol=1e-13)
    with pytest.raises(gw.InvalidArgumentError, match="lacks entries"):
        f.hessian(x, sparse=scipy.sparse.eye_array(8))


def test_a_pattern_that_does_not_fit_is_refused(remote: gw.Client) -> None:
    f, x = remote.function(chain, gw.spec(9)), np.linspace(0.5, 2, 9)
    for given, message in (
        ((np.array([8]), np.array([0])), "names row 8 of a matrix of 8 x 9"),
        ((np.array([0]), np.array([-1])), "names column -1"),
        ((np.array([0.5]), np.array([0])), "integers"),
        ((np.array([0, 1]), np.array([0])), "sparse= takes"),
        (np.eye(3), "sparse= takes"),
    ):
        with pytest.raises(gw.InvalidArgumentError, match=message):
            f.jacobian(x, sparse=given)
    with pytest.raises(gw.InvalidArgumentError, match="verify_pattern"):
        f.prepare_jacobian(verify_pattern=False)


def test_without_scipy_results_are_coordinates(remote: gw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    f, x = remote.function(two, gw.spec(4), gw.spec((2, 2))), np.linspace(0, 1, 4)
    z = np.array([[1.0, 2], [3, 4]])
    expected = f.jacobian(x, z)
    monkeypatch.setattr("gradwire.sparse.find_spec", lambda name: None)
    found = f.jacobian(x, z, sparse=True)
    assert isinstance(found[0][0], gw.Coordinates)
    for i in range(2):
        for j in range(2):
            dense = expected[i][j]
            np.testing.assert_array_equal(found[i][j].toarray(), dense.reshape(found[i][j].shape))


def test_blocks_have_the_same_bits_however_they_are_computed(remote: gw.Client) -> None:
    f = remote.function(brusselator, gw.spec((2, 10, 10)))
    x = np.random.default_rng(2).random((2, 10, 10))
    whole = f.jacobian(x, sparse=True)
    for width in (1, 3):
        J, info = f.jacobian(x, sparse=True, block_width=width, return_info=True)
        assert info.plan.blocks > 1
        np.testing.assert_array_equal(J.toarray(), whole.toarray())


def test_limits_are_named_and_a_small_cache_of_structures_only_plans_anew(
    remote: gw.Client, tmp_path: Path
) -> None:
    x = np.random.default_rng(4).random((2, 10, 10))
    with gw.local(workers=1, nonzeros=1300, structure_cache_bytes=1, cache_dir=tmp_path) as client:
        f = client.function(brusselator, gw.spec((2, 10, 10)))
        g = client.function(chain, gw.spec(9))
        for _ in range(2):  # each puts the other's structure out of the cache
            found = f.jacobian(x, sparse=True, block_width=1)
            assert g.jacobian(np.ones(9), sparse=True).nnz == 16
        with pytest.raises(gw.LimitError, match="2700 non-zeros of 450 x 450; the limit is 1300") as caught:
            client.function(brusselator, gw.spec((2, 15, 15))).jacobian(np.ones((2, 15, 15)), sparse=True)
        assert caught.value.limit == "nonzeros"
    # One worker and two: the same bits.
    again = remote.function(brusselator, gw.spec((2, 10, 10))).jacobian(x, sparse=True, block_width=1)
    np.testing.assert_array_equal(found.data, again.data)


def test_a_pattern_is_only_taken_for_checked_where_all_is_finite(remote: gw.Client) -> None:
    f = remote.function(lambda x: np.sqrt(x), gw.spec(7))
    eye = scipy.sparse.eye_array(7)
    verified = []
    for first in (0.0, 1.0, 4.0):
        x = np.full(7, 2.0)
        x[0] = first
        _, info = f.jacobian(x, sparse=eye, return_info=True)
        verified.append(info.summary.pattern_verified)
    # At an infinite slope nothing is settled; then it is, once.
    assert verified == [False, True, False]


def test_coroutines_give_the_same(server: EmbeddedServer) -> None:
    async def run() -> tuple[Any, Any, Plan]:
        async with gw.aio.connect(server.address) as client:
            f = client.function(chain, gw.spec(9))
            prepared = await f.prepare_jacobian()
            x = np.linspace(0.5, 2, 9)
            return await prepared(x), await f.jacobian(x), prepared.plan

    matrix, dense, plan = asyncio.run(run())
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert plan.sparse is not None and plan.sparse.coloring in ("column", "row")


def test_importing_the_sdk_imports_no_scipy() -> None:
    code = "import gradwire, gradwire.sparse, sys; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_without_a_rule_are_named_once(remote: gw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from gradwire.sparse import SparsePlan

    read = SparsePlan.from_proto
    monkeypatch.setattr(
        SparsePlan, "from_proto", lambda plan: replace(read(plan), dense_operators=("ragged_dot",))
    )
    f = remote.function(chain, gw.spec(9))
    with pytest.warns(gw.GraphWarning, match="dense in what depends on ragged_dot") as told:
        f.jacobian(np.ones(9), sparse=True)
        f.jacobian(np.ones(9), sparse=True)
        f.sparsity()
        f.plan(sparse=True)
    assert len(told) == 1


def test_one_liners_take_the_options(remote: gw.Client) -> None:
    x = np.linspace(0.5, 2, 8)
    J = remote.jacobian(chain, x, sparse=True)
    np.testing.assert_array_equal(J.toarray(), remote.jacobian(chain, x))
    H = remote.hessian(rosenbrock, x, sparse=True, triangle=True)
    np.testing.assert_allclose(H.toarray(), np.tril(remote.hessian(rosenbrock, x)), rtol=1e-13)
    joint = remote.jacobian(two, x[:4], np.ones((2, 2)), sparse=True, joined=True)
    assert joint.shape == (6, 8)


def frame(x: Any) -> Any:
    """Return a function whose Jacobian has a full first row and column and a diagonal."""
    return np.concatenate([np.sum(x**2, keepdims=True), x[1:] ** 2 * x[:1]])


def test_prepared_colors_are_those_of_a_valid_coloring(remote: gw.Client) -> None:
    f = remote.function(brusselator, gw.spec((2, 6, 6)))
    for mode, side in (("forward", "column_colors"), ("reverse", "row_colors")):
        prepared = f.prepare_jacobian(mode=mode)
        colors = getattr(prepared, side)
        assert colors.dtype == np.int32 and len(colors) == 72
        assert set(colors) == set(range(prepared.colors))
        dense = prepared.pattern.boolean().toarray().astype(int)
        dense = dense if mode == "forward" else dense.T
        assert (dense @ np.eye(prepared.colors, dtype=int)[colors]).max() == 1
        other = "row_colors" if side == "column_colors" else "column_colors"
        assert getattr(prepared, other) is None
    both = remote.function(frame, gw.spec(40)).prepare_jacobian()
    assert both.plan.sparse.coloring == "bidirectional" and both.colors < 10
    assert both.column_colors.max() + 1 + both.row_colors.max() + 1 == both.colors
    again = remote.function(frame, gw.spec(40))
    again.jacobian(np.ones(40), sparse=True)  # it holds the pattern: the colors come alone
    np.testing.assert_array_equal(again.prepare_jacobian().column_colors, both.column_colors)


@pytest.mark.parametrize("messages", [1, 2, 3])
def test_a_stream_that_breaks_within_the_pattern_is_received_anew(
    remote: gw.Client, monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    from gradwire.transport.channel import Stub

    call, broken = Stub.differentiate, []

    def breaking(self: Stub, request: bytes, timeout: float | None) -> Any:
        stream = call(self, request, timeout)
        return stream if broken else Breaking(stream)

    class Breaking:
        def __init__(self, stream: Any) -> None:
            self._stream, self._left = stream, messages

        async def read(self) -> Any:
            if not self._left:
                broken.append(self)
                unavailable = grpc.StatusCode.UNAVAILABLE
                raise grpc.aio.AioRpcError(unavailable, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
            self._left -= 1
            return await self._stream.read()

        def cancel(self) -> None:
            self._stream.cancel()

    f, x = remote.function(chain, gw.spec(13)), np.linspace(0.5, 2, 13)
    f.value(x)
    monkeypatch.setattr(Stub, "differentiate", breaking)
    J = f.jacobian(x, sparse=True)
    assert broken
    np.testing.assert_array_equal(J.toarray(), f.jacobian(x))


def test_numbers_outside_of_the_matrix_are_refused(remote: gw.Client) -> None:
    from gradwire.transport.placement import SparseValues
    from gradwire_wire.framing import Chunk

    plan = remote.function(chain, gw.spec(9)).plan(sparse=True)
    for bad in (-1, 9):
        values = SparseValues(plan, None)
        with pytest.raises(gw.ServerError, match="numbers outside of 0 to 8"):
            values.write_pattern(Chunk((2, 0, 0), memoryview(np.int32(bad).tobytes())))


def test_a_dense_derivative_has_no_pattern(server: EmbeddedServer, remote: gw.Client) -> None:
    f = remote.function(chain, gw.spec(9))
    f.value(np.ones(9))
    for field in ("pattern_only", "pattern_colors"):
        request = derivative_pb2.DifferentiateRequest(
            function=function_pb2.Function(graph_id=f.graph_id),
            inputs={"x": wire.to_tensor(np.ones(9))},
            kind=derivative_pb2.DERIVATIVE_KIND_JACOBIAN,
            **{field: True},
        )
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
            list(gradient_service_pb2_grpc.GradientServiceStub(channel).Differentiate(request))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "only a sparse derivative has a pattern" in refused.value.details()
