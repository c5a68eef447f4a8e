"""Derivatives of fitted scikit-learn models with respect to their inputs.

How to change a sample so that its class changes, the sensitivity of a regression to each feature, and the
curvature of a Gaussian process: scikit-learn itself computes none of these.

Run: python examples/sklearn_models.py
"""

import numpy as np
from sklearn.datasets import make_classification, make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVR

import gradwire as gw
import gradwire.sklearn


def finite_difference(fn, x, step=1e-5):
    """Return the Jacobian of `fn` at one row, by central differences in each feature."""
    columns = [(fn(x + step * e) - fn(x - step * e)) / (2 * step) for e in np.eye(x.shape[1])]
    return np.stack(columns, axis=-1)


def main(client: gw.Client) -> None:
    """Differentiate a classifier, a regression and a Gaussian process, and check by differences."""
    # A classifier: the Jacobian of its probabilities, and a step to its decision boundary.
    x, labels = make_classification(400, 6, random_state=0)
    classifier = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()).fit(x, labels)
    f = client.function(classifier.predict_proba)
    row = x[:1]
    jacobian = f.jacobian(row)  # (1, 2, 1, 6)
    np.testing.assert_allclose(
        jacobian[0, :, 0], finite_difference(classifier.predict_proba, row)[0], rtol=1e-6, atol=1e-9
    )
    margin = client.function(classifier.decision_function)
    value, slope = margin(row)[0], margin.grad(row)
    moved = row
    for _ in range(8):  # Newton's method
        value, slope = margin(moved)[0], margin.grad(moved)
        moved = moved - value * slope / np.sum(slope**2)
    np.testing.assert_allclose(classifier.predict_proba(moved), 0.5, atol=1e-6)
    print(f"on the boundary after a step of {np.linalg.norm(moved - row):.3f}:", (moved - row)[0].round(3))

    # A regression: the sensitivity of every prediction to every feature, from one product.
    x, y = make_friedman1(300, 6, noise=0.1, random_state=0)
    regressor = make_pipeline(StandardScaler(), SVR(C=20)).fit(x, y)
    g = client.function(regressor)
    ones = np.ones(len(x))  # rows are independent: one product contains all gradients
    gradients = g.vjp(x, ones)
    for place in (0, 17):
        expected = finite_difference(regressor.predict, x[place : place + 1])[0]
        np.testing.assert_allclose(gradients[place], expected, rtol=1e-6, atol=1e-7)
    print("mean sensitivity to each feature:", np.abs(gradients).mean(axis=0).round(2))

    # A Gaussian process: the Hessian of its mean, and the gradient of its standard deviation.
    kernel = ConstantKernel(10.0) * RBF([0.8, 0.8, 0.8, 2.0, 4.0, 9.0]) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None).fit(x[:80], y[:80])
    h = client.function(gradwire.sklearn.model(process, return_std=True))
    at = np.full((1, 6), 0.5)
    hessian = h.hessian(at, of="prediction").reshape(6, 6)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-8)
    slopes = finite_difference(lambda z: h.grad(z, of="prediction")[0], at, 1e-4)
    np.testing.assert_allclose(hessian, slopes, rtol=1e-4, atol=1e-4)
    deviation = h.grad(at, of="std")[0]
    expected = finite_difference(lambda z: process.predict(z, return_std=True)[1], at, 1e-4)[0]
    np.testing.assert_allclose(deviation, expected, rtol=1e-4, atol=1e-6)
    print("curvature of the process:", np.linalg.eigvalsh(hessian).round(2))


if __name__ == "__main__":
    with gw.local(workers=2) as client:
        main(client)
