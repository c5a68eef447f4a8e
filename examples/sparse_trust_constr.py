"""Minimize the area of a film that encloses a given volume, with trust-constr and sparse Hessians.

A soap film over a square frame is blown up until it encloses a volume. Its area is one number of 900
heights; the Hessian couples each height with six neighbors. `f.callbacks(sparse=True)` gives it to SciPy as a
csr_array.
"""

import numpy as np
from scipy.optimize import LinearConstraint, minimize
from scipy.sparse import csr_array

import gradwire as gw

SIDE, VOLUME = 30, 0.8
width = 2 / (SIDE + 1)


def area(heights):
    """Return the area of the film: two triangles for each square of the mesh."""
    h = np.pad(heights.reshape(SIDE, SIDE), 1)
    down, right = (h[1:, :] - h[:-1, :]) / width, (h[:, 1:] - h[:, :-1]) / width
    lower = np.sqrt(1 + down[:, :-1] ** 2 + right[:-1, :] ** 2)
    upper = np.sqrt(1 + down[:, 1:] ** 2 + right[1:, :] ** 2)
    return np.sum(lower + upper) * width**2 / 2


enclosed = csr_array(np.full((1, SIDE**2), width**2))
volume = LinearConstraint(enclosed, VOLUME, VOLUME)
start = np.zeros(SIDE**2)

with gw.local(workers=2) as client:
    f = client.function(area, gw.spec(SIDE**2))
    c = f.callbacks(sparse=True)
    options = {"gtol": 1e-8, "xtol": 1e-12, "maxiter": 200}
    film = minimize(
        c.value, start, jac=c.grad, hess=c.hessian, method="trust-constr", constraints=volume, options=options
    )
    H = c.hessian(film.x)
    slope = c.grad(film.x)

pressure = slope / enclosed.toarray().ravel()  # the same everywhere, as in any bubble
print(f"{film.nit} iterations with Hessians of {H.nnz:,} entries in place of {SIDE**4:,}")
print(f"area {film.fun:.6f} for the volume {(enclosed @ film.x)[0]:.6f}, pressure {pressure.mean():.5f}")
assert H.nnz < 7 * SIDE**2
assert abs((enclosed @ film.x)[0] - VOLUME) < 1e-9
assert np.ptp(pressure) < 1e-4 * pressure.mean(), "the gradient is a multiple of the constraint's"
