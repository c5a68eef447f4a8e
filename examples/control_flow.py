"""Loops, branches and batches in a traced function, and their derivatives.

    python examples/control_flow.py

A predator-prey model over 400 steps: `gw.scan` keeps one step in the graph, `gw.cond` chooses between two
growth laws, `gw.vmap` runs a batch of populations, and `gw.while_` iterates until Newton's method has
converged. The same functions run on plain NumPy arrays; derivatives are checked against differences of these.
"""

import numpy as np

import gradwire as gw

STEPS, INTERVAL = 400, 0.02


def slope(state, rates):
    """Evaluate the Lotka-Volterra equations, with crowding of prey above 6."""
    prey, predators = state
    birth, hunt, growth, death = rates
    crowding = gw.cond(prey > 6.0, lambda: 0.1 * (prey - 6.0) ** 2, lambda: 0.0)
    return np.stack(
        [birth * prey - hunt * prey * predators - crowding, growth * prey * predators - death * predators]
    )


def simulate(start, rates):
    """Return the last state, and prey over time, by the classical Runge-Kutta method."""

    def step(state, _):
        a = slope(state, rates)
        b = slope(state + INTERVAL / 2 * a, rates)
        c = slope(state + INTERVAL / 2 * b, rates)
        d = slope(state + INTERVAL * c, rates)
        after = state + INTERVAL / 6 * (a + 2 * b + 2 * c + d)
        return after, after[0]

    return gw.scan(step, start, length=STEPS)


def most_prey(starts, rates):
    """Return the largest number of prey of each of a batch of populations."""
    return gw.vmap(lambda start: np.max(simulate(start, rates)[1]))(starts)


def equilibrium(rates):
    """Return the equilibrium without crowding, by Newton's method from (3, 3)."""

    def residual(state):
        birth, hunt, growth, death = rates
        return np.stack([birth - hunt * state[1], growth * state[0] - death]) * state

    def improve(state):
        birth, hunt, growth, death = rates
        rows = [
            np.stack([birth - hunt * state[1], -hunt * state[0]]),
            np.stack([growth * state[1], growth * state[0] - death]),
        ]
        return state - np.linalg.solve(np.stack(rows), residual(state))

    return gw.while_(lambda state: np.max(np.abs(residual(state))) > 1e-12, improve, np.full(2, 3.0))


def differences(function, x, step=1e-5):
    """Return central differences, one column for each element of x."""
    columns = [function(x + shift) - function(x - shift) for shift in step * np.eye(x.size)]
    return np.stack(columns, axis=-1) / (2 * step)


def main(client):
    """Differentiate the simulation, a batch of it and its equilibrium, and check each by differences."""
    start, rates = np.array([5.0, 1.0]), np.array([1.1, 0.4, 0.1, 0.4])

    simulation = client.function(simulate, gw.spec(2), gw.spec(4))
    end, prey = simulation(start, rates)
    (to_start, to_rates), _ = simulation.jacobian(start, rates)
    np.testing.assert_allclose(prey, simulate(start, rates)[1], rtol=1e-12)
    np.testing.assert_allclose(to_start, differences(lambda s: simulate(s, rates)[0], start), rtol=1e-6)
    np.testing.assert_allclose(to_rates, differences(lambda r: simulate(start, r)[0], rates), rtol=1e-6)
    print(f"after {STEPS} steps: {end[0]:.4f} prey, {end[1]:.4f} predators; at most {prey.max():.4f} prey")
    print("the last state by the first:\n", to_start.round(4))
    print("the last state by the rates:\n", to_rates.round(4))

    starts = start + np.array([[0.0, 0.0], [1.0, 0.5], [-2.0, 1.0]])
    peaks = client.function(most_prey, gw.spec((3, 2)), gw.spec(4))
    gradient = peaks.jacobian(starts, rates, wrt="rates")
    for place, one in enumerate(starts):
        alone = differences(lambda r, s=one: np.max(simulate(s, r)[1]), rates, step=1e-6)
        np.testing.assert_allclose(gradient[place], alone, rtol=1e-4, atol=1e-6)
    print("most prey, from three starts:", peaks(starts, rates).round(4))

    rest = client.function(equilibrium, gw.spec(4))
    birth, hunt, growth, death = rates
    np.testing.assert_allclose(rest(rates), [death / growth, birth / hunt], rtol=1e-12)
    # The number of iterations depends on the data: such a loop is differentiated in forward mode only.
    jacobian = rest.jacobian(rates)
    expected = [[0, 0, -death / growth**2, 1 / growth], [1 / hunt, -birth / hunt**2, 0, 0]]
    np.testing.assert_allclose(jacobian, expected, atol=1e-9)
    print("equilibrium:", rest(rates).round(4), "and by the rates:\n", jacobian.round(4))
    try:
        rest.vjp(rates, np.ones(2))
    except gw.NotDifferentiableError as refusal:
        print("reverse mode is refused:", refusal)
    else:
        raise AssertionError("reverse mode through a loop of unknown length should have been refused")


if __name__ == "__main__":
    with gw.local(workers=2) as client:
        main(client)
