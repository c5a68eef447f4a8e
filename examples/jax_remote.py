"""A JAX program that fits a Lotka-Volterra model to data, with the simulator evaluated by the service.

    python examples/jax_remote.py

The simulator is a JAX function, and `remote` returns one that the service evaluates. The loss, the optimizer
and jit run locally. A Jacobian of the simulator is one call: `vmap` becomes a batch on the service.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import gradwire as gw
import gradwire.jax

jax.config.update("jax_enable_x64", True)

STEPS, INTERVAL = 200, 0.05
TRUTH = {"birth": 1.1, "death": 0.4, "hunt": 0.4, "growth": 0.1}


def simulate(rates: dict[str, jax.Array], start: jax.Array) -> jax.Array:
    """Prey and predators over time, by the classical Runge-Kutta method."""

    def slope(state: jax.Array) -> jax.Array:
        prey, predators = state
        return jnp.stack(
            [
                rates["birth"] * prey - rates["hunt"] * prey * predators,
                rates["growth"] * prey * predators - rates["death"] * predators,
            ]
        )

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        a = slope(state)
        b = slope(state + INTERVAL / 2 * a)
        c = slope(state + INTERVAL / 2 * b)
        d = slope(state + INTERVAL * c)
        after = state + INTERVAL / 6 * (a + 2 * b + 2 * c + d)
        return after, after

    return jax.lax.scan(step, start, None, length=STEPS)[1]


def main(client: gw.Client) -> None:
    """Fit the rates with the remote simulator; gradients are checked against the local one."""
    remote = gradwire.jax.remote(simulate, client=client)
    start = jnp.array([10.0, 5.0])
    truth = {name: jnp.asarray(rate) for name, rate in TRUTH.items()}
    guess = {name: 0.95 * rate for name, rate in truth.items()}
    data = simulate(truth, start)

    def residual(rates: dict[str, jax.Array], simulator) -> jax.Array:  # type: ignore[no-untyped-def]
        return (simulator(rates, start) - data).ravel() / data.std()

    def loss(rates: dict[str, jax.Array], simulator) -> jax.Array:  # type: ignore[no-untyped-def]
        return jnp.mean(residual(rates, simulator) ** 2)

    here = jax.grad(loss)(guess, simulate)
    there = jax.jit(jax.grad(lambda rates: loss(rates, remote)))(guess)
    for name in TRUTH:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-9)
    print("gradient of the loss, by the service:", {name: f"{there[name]:.4f}" for name in TRUTH})

    # Gauss-Newton: the Jacobian of 400 residuals with respect to 4 rates is one batched call.
    rates = guess
    began = time.perf_counter()
    for iteration in range(6):
        columns = jax.jacfwd(residual)(rates, remote)
        matrix = jnp.stack([columns[name] for name in TRUTH], axis=1)
        step = jnp.linalg.lstsq(matrix, residual(rates, remote))[0]
        rates = {name: rates[name] - step[place] for place, name in enumerate(TRUTH)}
        print(f"iteration {iteration}: loss {loss(rates, remote):.3e}")
    for name, rate in TRUTH.items():
        np.testing.assert_allclose(rates[name], rate, rtol=1e-9)
    print(
        f"rates found in {time.perf_counter() - began:.2f} s:",
        {n: round(float(r), 6) for n, r in rates.items()},
    )


if __name__ == "__main__":
    with gw.local(workers=2) as client:
        main(client)
