"""Functions written with Equinox, Lineax, Optimistix and Diffrax have JAX's values and Jacobians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwire as gw
import gradwire.jax
from gradwire.frontends.jax import convert_function
from gradwire.frontends.sources import load
from gradwire_engine.planning.plan import Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec
from tests.client.frontends.jax.engine_client import EngineClient
from tests.client.frontends.jax.jax_oracle import agree
from tests.engine.in_process import argument_types, assemble

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(4, 4)) + 4 * np.eye(4), RNG.normal(size=4)


def reverse_jacobians_agree(fn: Any, *point: Any, rtol: float = 1e-8) -> None:
    converted = convert_function(fn, point)
    graph = register(converted.model.SerializeToString())
    inputs = dict(zip(converted.inputs, map(np.asarray, point), strict=True))
    problem = Problem(FunctionSpec(graph.info.graph_id), argument_types(inputs), "jacobian")
    found = assemble(graph, make_plan(graph, problem), inputs)
    wanted = jax.jit(jax.jacrev(fn, argnums=tuple(range(len(point)))))(*point)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-10)


def test_filtered_functions_and_modules_are_functions_of_jax() -> None:
    equinox = pytest.importorskip("equinox", reason="Equinox is not installed")
    jitted = equinox.filter_jit(lambda x, scale: scale * jnp.sin(x))
    assert [value.name for value in load(jitted, [gw.spec(3), gw.spec(())]).signature.inputs] == [
        "x",
        "scale",
    ]
    net = equinox.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    agree(lambda x: net(x), B[:3])
    assert load(net, [gw.spec(3)]).signature.outputs[0].shape == (2,)
    remote = gradwire.jax.remote(jitted, client=EngineClient())
    np.testing.assert_allclose(remote(B, scale=2.0), 2 * np.sin(B), rtol=1e-12)
    np.testing.assert_allclose(jax.jacobian(remote)(B, 2.0), np.diag(2 * np.cos(B)), rtol=1e-12)


@pytest.mark.parametrize("name", ["LU", "QR of a tall matrix", "CG", "SVD", "a batch"])
def test_linear_solves_of_lineax(name: str) -> None:
    lx = pytest.importorskip("lineax", reason="Lineax is not installed")

    def solve(a: Any, b: Any) -> Any:
        if name == "CG":
            operator = lx.MatrixLinearOperator(a @ a.T, lx.positive_semidefinite_tag)
            return lx.linear_solve(operator, b, lx.CG(1e-13, 1e-13)).value
        solver = {"LU": lx.LU(), "SVD": lx.SVD(), "a batch": lx.LU()}.get(name, lx.QR())
        return lx.linear_solve(lx.MatrixLinearOperator(a), b, solver).value

    if name == "a batch":
        fn, point = jax.vmap(solve, in_axes=(None, 0)), (A, np.stack([B, 2 * B]))
    else:
        fn, point = solve, (A[:, :3] if name.startswith("QR") else A, B)
    agree(fn, *point, rtol=1e-9)
    reverse_jacobians_agree(fn, *point)


@pytest.mark.parametrize("name", ["root", "fixed point", "least squares", "minimum"])
def test_solutions_of_optimistix(name: str) -> None:
    optx = pytest.importorskip("optimistix", reason="Optimistix is not installed")

    def residuals(y: Any, a: Any) -> Any:
        return jnp.stack([y[0] - a[0], y[1] * y[0] - a[1], y[1] - a[0]])

    solvers: dict[str, Any] = {
        "root": lambda a: optx.root_find(lambda y, a: y**3 - a, optx.Newton(1e-12, 1e-12), jnp.ones(2), a),
        "fixed point": lambda a: optx.fixed_point(
            lambda y, a: jnp.cos(a * y / 4), optx.FixedPointIteration(1e-13, 1e-13), jnp.ones(2), a
        ),
        "least squares": lambda a: optx.least_squares(
            residuals, optx.LevenbergMarquardt(1e-11, 1e-11), jnp.ones(2), a
        ),
        "minimum": lambda a: optx.minimise(
            lambda y, a: jnp.sum((y - a) ** 2 + 0.1 * y**4), optx.BFGS(1e-9, 1e-9), jnp.ones(2), a
        ),
    }

    def fn(a: Any) -> Any:
        return solvers[name](a).value

    agree(fn, np.array([2.0, 3.0]), rtol=1e-8)
    reverse_jacobians_agree(fn, np.array([2.0, 3.0]))


def test_what_optimistix_refuses_to_solve_is_nan() -> None:
    optx = pytest.importorskip("optimistix", reason="Optimistix is not installed")

    def fn(a: Any) -> Any:
        return optx.root_find(lambda y, a: y**2 + a, optx.Newton(1e-9, 1e-9), a, a, max_steps=8).value

    remote = gradwire.jax.remote(fn, client=EngineClient())
    assert np.isnan(remote(np.asarray(2.0)))
    np.testing.assert_allclose(remote(np.asarray(-4.0)), -2.0)


def test_solutions_of_diffrax_are_differentiated_by_their_adjoint() -> None:
    diffrax = pytest.importorskip("diffrax", reason="Diffrax is not installed")

    def fn(y: Any, rate: Any) -> Any:
        term = diffrax.ODETerm(lambda t, y, rate: -rate * y)
        control = diffrax.PIDController(rtol=1e-8, atol=1e-8)
        return diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, 1.0, 0.1, y, args=rate, stepsize_controller=control
        ).ys[-1]

    point = np.array([1.0, 2.0]), np.asarray(0.5)
    agree(fn, *point, rtol=1e-9)
    reverse_jacobians_agree(fn, *point)
