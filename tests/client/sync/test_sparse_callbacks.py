"""SciPy's solvers take sparse callbacks, and end where dense ones and SciPy's own differences do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse
from scipy import integrate, optimize

import gradwire as gw
from gradwire.transport.channel import Stub

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

COUNT = 30
START = np.linspace(0.4, 1.6, COUNT)


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_residuals(x: Any) -> Any:
    return np.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])


def heat(t: Any, u: Any) -> Any:
    """Diffusion and a reaction on a line: stiff, and tridiagonal in u."""
    padded = np.concatenate([np.zeros(1), u, np.ones(1)])
    return 400.0 * (padded[2:] - 2 * u + padded[:-2]) - u**3 + 0 * t


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address, verify="never") as connected:
        yield connected


@pytest.fixture(scope="module")
def f(client: gw.Client) -> gw.Function:
    return client.function(rosenbrock, gw.spec(COUNT))


@pytest.fixture(scope="module")
def r(client: gw.Client) -> gw.Function:
    return client.function(rosenbrock_residuals, gw.spec(COUNT))


@pytest.fixture(scope="module")
def flow(client: gw.Client) -> gw.Function:
    return client.function(heat, gw.spec(()), gw.spec(COUNT))


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each call went over the wire."""
    count: Counter[str] = Counter()
    for name in ("evaluate", "differentiate"):
        plain = getattr(Stub, name)

        def counted(self: Stub, *args: Any, plain: Any = plain, name: str = name) -> Any:
            count[name] += 1
            return plain(self, *args)

        monkeypatch.setattr(Stub, name, counted)
    return count


@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_least_squares_takes_sparse_jacobians_along_with_values(
    r: gw.Function, trips: Counter[str], loss: Any
) -> None:
    c = r.callbacks(sparse=True)
    found = optimize.least_squares(c.value, START, jac=c.jacobian, tr_solver="lsmr", loss=loss, xtol=1e-12)
    dense = optimize.least_squares(rosenbrock_residuals, START, tr_solver="exact", loss=loss, xtol=1e-12)
    assert scipy.sparse.issparse(found.jac)
    assert trips == {"differentiate": found.nfev}
    np.testing.assert_allclose(found.x, dense.x, rtol=1e-6)


def test_least_squares_groups_its_own_differences_by_the_pattern(r: gw.Function) -> None:
    sparsity = r.callbacks().jac_sparsity
    assert isinstance(sparsity, scipy.sparse.csr_array) and sparsity.dtype == bool
    np.testing.assert_array_equal(sparsity.toarray(), r.jacobian(START) != 0)
    runs = Counter[str]()

    def counted(x: Any) -> Any:
        runs["model"] += 1
        return rosenbrock_residuals(x)

    optimize.least_squares(counted, START, jac_sparsity=sparsity, max_nfev=1)
    assert runs["model"] < 8, "a difference for each group of columns, not for each column"


@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_stiff_solvers_take_sparse_jacobians_and_patterns(flow: gw.Function, method: Any) -> None:
    c = flow.callbacks(wrt="u", along="nothing", sparse=True)
    span, u0 = (0.0, 0.05), np.zeros(COUNT)
    options: Any = {"method": method, "rtol": 1e-7, "atol": 1e-9}
    dense = integrate.solve_ivp(heat, span, u0, jac=flow.callbacks(wrt="u").jacobian, **options)
    for given in ({"jac": c.jacobian}, {"jac_sparsity": c.jac_sparsity}):
        found = integrate.solve_ivp(heat, span, u0, **given, **options)
        assert found.success
        np.testing.assert_allclose(found.y[:, -1], dense.y[:, -1], rtol=1e-5)


@pytest.mark.parametrize("along", ["grad", "hessian"])
def test_trust_constr_takes_sparse_hessians(f: gw.Function, trips: Counter[str], along: Any) -> None:
    c = f.callbacks(along=along, sparse=True)
    bounds = optimize.LinearConstraint(scipy.sparse.eye_array(COUNT, format="csr"), -2, 2)
    options = {"method": "trust-constr", "constraints": bounds, "options": {"gtol": 1e-9}}
    found = optimize.minimize(c.value, START, jac=c.grad, hess=c.hessian, **options)
    if along == "hessian":
        assert trips == {"differentiate": trips["differentiate"]} and trips.total() <= found.nfev + 1
    dense = f.callbacks()
    other = optimize.minimize(dense.value, START, jac=dense.grad, hess=dense.hessian, **options)
    np.testing.assert_allclose(found.x, other.x, atol=1e-6)


def test_a_constraint_takes_a_sparse_jacobian_and_weighted_hessian(r: gw.Function) -> None:
    c, dense = r.callbacks(sparse=True), r.callbacks()
    weights = np.linspace(-1, 1, 2 * (COUNT - 1))
    found = c.weighted_hessian(START, weights)
    assert scipy.sparse.issparse(found) and found.nnz == COUNT - 1
    np.testing.assert_allclose(found.toarray(), dense.weighted_hessian(START, weights), rtol=1e-14)
    constraint = optimize.NonlinearConstraint(c.value, -5, 5, jac=c.jacobian, hess=c.weighted_hessian)
    result = optimize.minimize(
        lambda x: float(x @ x), START, jac=lambda x: 2 * x, hess=lambda x: 2 * scipy.sparse.eye_array(COUNT),
        method="trust-constr", constraints=constraint,
    )  # fmt: skip
    assert np.all(np.abs(rosenbrock_residuals(result.x)) <= 5 + 1e-6)


def test_sparse_derivatives_are_the_dense_ones_and_may_be_written_to(f: gw.Function, r: gw.Function) -> None:
    for function, part in ((r, "jacobian"), (f, "hessian")):
        sparse = getattr(function.callbacks(sparse=True), part)
        dense = getattr(function.callbacks(), part)(START)
        first = sparse(START)
        assert isinstance(first, scipy.sparse.csr_array) and first.has_canonical_format
        np.testing.assert_allclose(first.toarray(), dense, rtol=1e-13)
        first.data *= -1
        first.indices[:] = 0
        np.testing.assert_allclose(sparse(START).toarray(), dense, rtol=1e-13)


def test_float32_graphs_give_float64_matrices(client: gw.Client) -> None:
    c = client.function(rosenbrock_residuals, gw.spec(5, "float32")).callbacks(sparse=True)
    matrix = c.jacobian(np.ones(5))
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.toarray()[0, :2], [-20, 10])


def test_value_gradient_and_hessian_come_in_one_trip(f: gw.Function, trips: Counter[str]) -> None:
    value, gradient, H = f.value_grad_and_hessian(START, sparse=True)
    assert trips == {"differentiate": 1}
    assert value == pytest.approx(rosenbrock(START))
    np.testing.assert_allclose(gradient, f.grad(START))
    assert H.nnz == 3 * COUNT - 2
    np.testing.assert_allclose(H.toarray(), f.hessian(START), rtol=1e-13)
    # It is colored as a Hessian: the Jacobian of a gradient is one.
    hessian, of_gradient = f.plan(kind="hessian", sparse=True), f.gradient().plan(sparse=True)
    assert hessian.sparse.coloring == of_gradient.sparse.coloring == "star"
    assert hessian.sparse.column_colors == of_gradient.sparse.column_colors


def test_without_scipy_it_is_named(f: gw.Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwire._sync.callbacks.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install scipy"):
        f.callbacks(sparse=True)
    with pytest.raises(ModuleNotFoundError, match="pip install scipy"):
        _ = f.callbacks().jac_sparsity
    with pytest.raises(gw.InvalidArgumentError, match="sparse is True, False or 'auto'"):
        f.callbacks(sparse="yes")  # type: ignore[arg-type]
    with pytest.raises(gw.InvalidArgumentError, match="a pattern of your own is taken by"):
        f.callbacks(sparse=np.eye(COUNT, dtype=bool))
