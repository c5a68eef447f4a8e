"""Step a stiff equation in time by implicit Euler, with one prepared Jacobian for all steps.

A front of the Fisher equation, du/dt = d2u/dx2 + u (1 - u), travels along a line of 400 cells. Each step
solves v - dt f(v) = u by Newton's method: its matrix 1 - dt J is tridiagonal. The Jacobian is prepared once;
every matrix shares its index arrays with the others, and 3 seeds and 1,198 numbers are a Jacobian.
"""

import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import eye_array
from scipy.sparse.linalg import splu

import gradwire as gw

CELLS, LENGTH, END = 400, 40.0, 2.0
width = LENGTH / CELLS


def rate(u):
    """Return the change of concentrations; no flux at the ends."""
    left, right = np.concatenate([u[:1], u[:-1]]), np.concatenate([u[1:], u[-1:]])
    return (left - 2 * u + right) / width**2 + u * (1 - u)


def advance(f, jacobian, u, steps):
    """Take implicit Euler steps to END; return the end and how many linear systems were solved."""
    dt, solved = END / steps, 0
    for _ in range(steps):
        v = u
        for _ in range(8):
            residual = v - dt * f(v) - u
            if np.abs(residual).max() < 1e-10:
                break
            v = v - splu((eye_array(CELLS) - dt * jacobian(v)).tocsc()).solve(residual)
            solved += 1
        u = v
    return u, solved


start = 1 / (1 + np.exp(4 * (np.linspace(0, LENGTH, CELLS) - LENGTH / 4)))
with gw.local(workers=2) as client:
    f = client.function(rate, gw.spec(CELLS))
    jacobian = f.prepare_jacobian()
    assert jacobian.colors == 3 and jacobian.pattern.nnz == 3 * CELLS - 2
    coarse, few = advance(f, jacobian, start, 20)
    fine, many = advance(f, jacobian, start, 40)

exact = solve_ivp(lambda t, u: rate(u), (0, END), start, method="LSODA", rtol=1e-9, atol=1e-11).y[:, -1]
errors = [np.abs(one - exact).max() for one in (coarse, fine)]
print(jacobian.plan.sparse)
print(f"20 steps, {few} systems: off by {errors[0]:.1e}; 40 steps, {many} systems: off by {errors[1]:.1e}")
assert 1.7 < errors[0] / errors[1] < 2.3, "implicit Euler is of first order"
