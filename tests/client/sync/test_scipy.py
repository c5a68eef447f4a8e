"""SciPy's solvers take a function and its derivatives as they are, and converge to known solutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import integrate, optimize

import gradwire as gw
from gradwire.transport.channel import Stub

START = np.array([1.3, 0.7, 0.8, 1.9, 1.2])
TIMES = np.linspace(0.0, 2.0, 30)
TRUE, GUESS = np.array([2.0, -1.3, 0.5]), np.array([1.0, -1.0, 0.0])


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def decay(p: Any) -> Any:
    """Residuals of a decay with an offset, which are zero at TRUE."""
    data = TRUE[0] * np.exp(TRUE[1] * TIMES) + TRUE[2]
    return p[0] * np.exp(p[1] * TIMES) + p[2] - data


def circle(x: Any) -> Any:
    """Zero where the unit circle meets the diagonal."""
    return np.stack([x[0] ** 2 + x[1] ** 2 - 1.0, x[0] - x[1]])


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address, verify="never") as connected:
        yield connected


@pytest.fixture(scope="module")
def f(client: gw.Client) -> gw.Function:
    return client.function(rosenbrock, gw.spec(5))


@pytest.fixture(scope="module")
def residuals(client: gw.Client) -> gw.Function:
    return client.function(decay, gw.spec(3))


@pytest.fixture(scope="module")
def system(client: gw.Client) -> gw.Function:
    return client.function(circle, gw.spec(2))


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


GRADIENT = ["CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "trust-constr"]
PRODUCT = ["Newton-CG", "trust-ncg", "trust-krylov", "trust-constr"]
HESSIAN = ["Newton-CG", "trust-ncg", "trust-krylov", "trust-exact", "trust-constr"]


def solved(result: Any, solution: Any = 1.0, tolerance: float = 1e-3) -> None:
    """The solver itself does not count as an oracle: where it stops is compared."""
    np.testing.assert_allclose(result.x, solution, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", GRADIENT)
def test_minimize_takes_the_function_and_its_gradient(f: gw.Function, method: str) -> None:
    solved(optimize.minimize(f, START, jac=f.grad, method=method))


@pytest.mark.parametrize("method", PRODUCT)
def test_minimize_takes_products_with_the_hessian(f: gw.Function, method: str) -> None:
    solved(optimize.minimize(f, START, jac=f.grad, hessp=f.hvp, method=method))


@pytest.mark.parametrize("method", HESSIAN)
def test_minimize_takes_the_hessian(f: gw.Function, method: str) -> None:
    solved(optimize.minimize(f, START, jac=f.grad, hess=f.hessian, method=method))


def test_dogleg_takes_the_hessian_where_it_is_positive(f: gw.Function) -> None:
    solved(optimize.minimize(f, np.full(5, 1.05), jac=f.grad, hess=f.hessian, method="dogleg"))


@pytest.mark.parametrize("method", GRADIENT)
def test_minimize_takes_value_and_gradient_as_one_function(
    f: gw.Function, trips: Counter[str], method: str
) -> None:
    result = optimize.minimize(f.value_and_grad, START, jac=True, method=method)
    solved(result)
    assert 0 < trips.total() <= max(result.nfev, result.get("njev", 0))


@pytest.mark.parametrize("method", GRADIENT)
def test_callbacks_take_one_trip_for_each_point(f: gw.Function, trips: Counter[str], method: str) -> None:
    c = f.callbacks()
    result = optimize.minimize(c.value, START, jac=c.grad, method=method)
    solved(result)
    assert set(trips) == {"evaluate"} and trips.total() <= max(result.nfev, result.get("njev", 0))


def test_callbacks_bring_the_hessian_along_for_newton_steps(f: gw.Function, trips: Counter[str]) -> None:
    c = f.callbacks(along="hessian")
    result = optimize.minimize(c.value, START, jac=c.grad, hess=c.hessian, method="trust-exact")
    solved(result)
    assert trips == {"differentiate": result.nfev}
    assert result.nhev > result.nfev / 2


def test_products_with_the_hessian_take_a_trip_each(f: gw.Function, trips: Counter[str]) -> None:
    c = f.callbacks()
    result = optimize.minimize(c.value, START, jac=c.grad, hessp=c.hvp, method="trust-ncg")
    solved(result)
    assert set(trips) == {"evaluate"} and trips.total() <= result.nfev + result.nhev


@pytest.mark.parametrize("start", [[1, 2, 3, 2, 1], np.full(5, 2, np.int32), np.full(5, 0.5, np.float32)])
def test_a_start_of_any_real_type_will_do(f: gw.Function, start: Any) -> None:
    solved(optimize.minimize(f, start, jac=f.grad, method="BFGS"))


def test_bounds_are_kept(f: gw.Function) -> None:
    result = optimize.minimize(f, np.zeros(5), jac=f.grad, method="L-BFGS-B", bounds=[(None, 0.5)] * 5)
    free = optimize.minimize(rosenbrock, np.zeros(5), method="L-BFGS-B", bounds=[(None, 0.5)] * 5)
    np.testing.assert_allclose(result.x, free.x, atol=1e-4)


# The nearest point of the plane x + y + z = 3 within the ball of radius 2 about (1, 0, 0) to (2, 2, 2) is
# (1, 1, 1).
FAR = np.array([2.0, 2.0, 2.0])


def distance(x: Any) -> Any:
    return np.sum((x - FAR) ** 2)


def plane(x: Any) -> Any:
    return np.sum(x) - 3.0


def ball(x: Any) -> Any:
    return np.stack([4.0 - (x[0] - 1.0) ** 2 - x[1] ** 2 - x[2] ** 2])


def test_slsqp_takes_constraints_with_jacobians(client: gw.Client) -> None:
    x0 = gw.spec(3)
    f, equal, inside = (client.function(one, x0) for one in (distance, plane, ball))
    constraints = [
        {"type": "eq", "fun": equal, "jac": equal.jacobian},
        {"type": "ineq", "fun": inside, "jac": inside.jacobian},
    ]
    start = np.array([1.0, 0.0, 0.5])
    solved(optimize.minimize(f, start, jac=f.grad, method="SLSQP", constraints=constraints))


def test_trust_constr_takes_constraints_with_second_derivatives(client: gw.Client) -> None:
    x0 = gw.spec(3)
    f, equal, inside = (client.function(one, x0) for one in (distance, plane, ball))
    c = inside.callbacks()
    constraints = [
        optimize.NonlinearConstraint(equal, 0.0, 0.0, jac=equal.grad, hess=lambda x, v: np.zeros((3, 3))),
        optimize.NonlinearConstraint(c.value, 0.0, np.inf, jac=c.jacobian, hess=c.weighted_hessian),
    ]
    start = np.array([1.0, 0.0, 0.5])
    solved(
        optimize.minimize(
            f, start, jac=f.grad, hess=f.hessian, method="trust-constr", constraints=constraints
        )
    )


def test_a_weighted_hessian_sums_over_outputs(client: gw.Client) -> None:
    f = client.function(lambda x, a: np.stack([a * x[0] ** 2 * x[1], x[1] ** 3]), gw.spec(2), gw.spec(()))
    x, v = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    expected = 5 * 1.5 * np.array([[2 * x[1], 2 * x[0]], [2 * x[0], 0]]) + 7 * np.diag([0, 6 * x[1]])
    np.testing.assert_allclose(f.callbacks().weighted_hessian(x, v, 1.5), expected, rtol=1e-13)


LOSSES = [("trf", "linear"), ("trf", "soft_l1"), ("dogbox", "linear"), ("dogbox", "cauchy"), ("lm", "linear")]


@pytest.mark.parametrize(("method", "loss"), LOSSES)
def test_least_squares_takes_the_jacobian(residuals: gw.Function, method: str, loss: str) -> None:
    result = optimize.least_squares(residuals, GUESS, jac=residuals.jacobian, method=method, loss=loss)
    solved(result, TRUE)


@pytest.mark.parametrize(("method", "loss"), LOSSES)
def test_least_squares_takes_one_trip_for_each_point(
    residuals: gw.Function, trips: Counter[str], method: str, loss: str
) -> None:
    c = residuals.callbacks()
    result = optimize.least_squares(c.value, GUESS, jac=c.jacobian, method=method, loss=loss)
    solved(result, TRUE)
    assert set(trips) == {"differentiate"}
    assert trips.total() <= result.nfev + (method == "lm")  # lm returns to the best point at times


def test_curve_fit_and_leastsq_take_the_jacobian(client: gw.Client, residuals: gw.Function) -> None:
    found, _, _, _, flag = optimize.leastsq(residuals, GUESS, Dfun=residuals.jacobian, full_output=True)
    assert flag in (1, 2, 3, 4)
    np.testing.assert_allclose(found, TRUE, rtol=1e-6)
    model = client.function(
        lambda t, a, b, c: a * np.exp(b * t) + c, gw.spec(30), gw.spec(()), gw.spec(()), gw.spec(())
    )
    data = model(TIMES, *TRUE)

    def columns(*at: Any) -> Any:
        return np.stack(model.jacobian(*at, wrt=[1, 2, 3]), axis=1)

    found, _ = optimize.curve_fit(model, TIMES, data, GUESS, jac=columns)
    np.testing.assert_allclose(found, TRUE, rtol=1e-6)


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_takes_the_jacobian(system: gw.Function, method: str) -> None:
    for start in ([1.0, 0.2], [1, 0]):
        solved(optimize.root(system, start, jac=system.jacobian, method=method), np.sqrt(0.5))


@pytest.mark.parametrize("method", ["hybr", "lm"])
def test_root_takes_value_and_jacobian_as_one_function(
    system: gw.Function, trips: Counter[str], method: str
) -> None:
    result = optimize.root(system.value_and_jacobian, [1.0, 0.2], jac=True, method=method)
    solved(result, np.sqrt(0.5))
    assert set(trips) == {"differentiate"}


def test_fsolve_takes_the_jacobian(system: gw.Function) -> None:
    found = optimize.fsolve(system, [1.0, 0.2], fprime=system.jacobian)
    np.testing.assert_allclose(found, np.sqrt(0.5), rtol=1e-9)


def test_fsolve_and_root_scalar_solve_for_one_number(client: gw.Client) -> None:
    f = client.function(lambda x: x**3 - 8.0, gw.spec(()))
    newton = optimize.root_scalar(f, x0=3, fprime=f.grad, method="newton")
    halley = optimize.root_scalar(f, x0=3.0, fprime=f.grad, fprime2=f.hessian, method="halley")
    np.testing.assert_allclose([newton.root, halley.root], 2.0, rtol=1e-12)
    c = f.callbacks()
    np.testing.assert_allclose(optimize.fsolve(c.value, 3, fprime=c.jacobian), 2.0, rtol=1e-9)


@pytest.mark.parametrize("method", ["Radau", "BDF", "LSODA"])
def test_solve_ivp_takes_the_jacobian_by_the_state(client: gw.Client, method: str) -> None:
    rate = np.array([[-1000.0, 1.0], [0.0, -0.5]])
    f = client.function(lambda t, y: rate @ y + np.stack([0.0 * t, np.cos(t)]), gw.spec(()), gw.spec(2))
    by_state = partial(f.jacobian, wrt=1)
    options: dict[str, Any] = {"method": method, "rtol": 1e-6, "atol": 1e-8}
    found = integrate.solve_ivp(f, (0, 2), [1, 1], jac=by_state, **options)
    # y' = -y/2 + cos t from 1, in closed form
    t = found.t
    exact = (1 - 0.4) * np.exp(-t / 2) + 0.4 * np.cos(t) + 0.8 * np.sin(t)
    assert found.success
    np.testing.assert_allclose(found.y[1], exact, rtol=1e-4)
    c = f.callbacks(wrt="y", along="nothing")
    again = integrate.solve_ivp(c.value, (0, 2), [1, 1], jac=c.jacobian, **options)
    np.testing.assert_array_equal(again.y, found.y)


def test_arguments_of_solvers_reach_the_other_inputs(client: gw.Client, trips: Counter[str]) -> None:
    def bowl(x: Any, a: Any, b: Any) -> Any:
        return np.sum(a * (x - b) ** 4) + np.sum((x - b) ** 2)

    f = client.function(bowl, gw.spec(4), gw.spec(()), gw.spec(4))
    c, b = f.callbacks(), np.arange(4.0)
    result = optimize.minimize(c.value, np.zeros(4), args=(3, b), jac=c.grad, method="BFGS")
    solved(result, b)
    assert trips.total() <= result.nfev
    result = optimize.minimize(c.value, np.zeros(4), args=(3, b), jac=c.grad, hessp=c.hvp, method="Newton-CG")
    solved(result, b)
    result = optimize.minimize(
        c.value, np.zeros(4), args=(3, b), jac=c.grad, hess=c.hessian, method="trust-exact"
    )
    solved(result, b)
    assert optimize.check_grad(c.value, c.grad, b + 1.0, 3, b) < 1e-4


def test_a_matrix_is_varied_as_the_flat_vector_that_solvers_have(client: gw.Client) -> None:
    goal = np.arange(6.0).reshape(2, 3)
    f = client.function(lambda w: np.sum(np.cosh(w - goal)), gw.spec((2, 3)))
    c = f.callbacks()
    for extra in ({"hess": c.hessian}, {"hessp": c.hvp}):
        result = optimize.minimize(c.value, np.zeros(6), jac=c.grad, method="trust-constr", **extra)
        solved(result, goal.ravel())
    g = client.function(lambda w: (w - goal) ** 3 + w - goal, gw.spec((2, 3))).callbacks()
    assert g.jacobian(np.zeros(6)).shape == (6, 6)
    solved(optimize.least_squares(g.value, np.zeros(6), jac=g.jacobian), goal.ravel())


def test_a_float32_graph_serves_solvers_that_compute_in_float64(client: gw.Client) -> None:
    f = client.function(lambda x: np.sum((x - 1) ** 2), gw.spec(3, np.float32))
    c = f.callbacks()
    assert isinstance(c.value(np.zeros(3)), float)
    assert c.grad(np.zeros(3)).dtype == np.float64
    solved(optimize.minimize(c.value, np.zeros(3), jac=c.grad, method="L-BFGS-B"))
    solved(optimize.minimize(f, np.zeros(3), jac=f.grad, method="L-BFGS-B"))


def test_the_gradient_is_that_of_finite_differences(f: gw.Function) -> None:
    assert optimize.check_grad(f, f.grad, START) < 1e-4


def test_solvers_of_one_variable_take_callbacks_of_a_function_of_one_number(client: gw.Client) -> None:
    c = client.function(lambda x: x**3 - 2, gw.spec(())).callbacks(along="hessian")
    assert np.shape(c.grad(1.0)) == np.shape(c.hessian(1.0)) == ()
    assert (c.grad([1.0]).shape, c.hessian([1.0]).shape) == ((1,), (1, 1))  # as minimize has its points
    for more in ({"fprime": c.grad}, {"fprime": c.grad, "fprime2": c.hessian}):
        found = optimize.root_scalar(c.value, x0=1, **more)
        assert np.shape(found.root) == ()
        np.testing.assert_allclose(found.root, 2 ** (1 / 3), rtol=1e-12)
