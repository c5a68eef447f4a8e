"""Fitted estimators over the same rows of four features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVR, OneClassSVM

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 4))
TARGET = ROWS @ [1, 2, -1, 0.5] + np.sin(ROWS[:, 0])
TWO = (TARGET > 0).astype(int)
THREE = np.digitize(TARGET, [-1, 1])
POINT, TANGENT = RNG.normal(size=(2, 3, 4))


def _process(kernel: Any, alpha: float = 0.1, **options: Any) -> GaussianProcessRegressor:
    return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None, **options)


def _net(kind: Any, activation: str, **options: Any) -> Any:
    return kind(hidden_layer_sizes=(8,), activation=activation, max_iter=30, random_state=0, **options)


SMOOTH: dict[str, tuple[Any, Any]] = {
    "linear": (LinearRegression(), TARGET),
    "ridge_of_two_targets": (Ridge(), np.stack([TARGET, TARGET**2], axis=1)),
    "poisson": (PoissonRegressor(), np.exp(TARGET / 4)),
    "logistic": (LogisticRegression(), TWO),
    "logistic_of_three": (LogisticRegression(), THREE),
    "logistic_of_words": (LogisticRegression(), np.array(["no", "yes"])[TWO]),
    "network": (_net(MLPRegressor, "tanh"), TARGET),
    "network_classifier": (_net(MLPClassifier, "logistic"), TWO),
    "network_of_three": (_net(MLPClassifier, "tanh"), THREE),
    "rbf_process": (_process(RBF([1.0, 2.0, 1.0, 1.5]), normalize_y=True), TARGET),
    "matern_05": (_process(Matern(nu=0.5)), TARGET),
    "matern_15": (_process(ConstantKernel(2.0) * Matern(1.5, nu=1.5)), TARGET),
    "matern_25": (_process(Matern([1.0, 2.0, 1.0, 1.5], nu=2.5) + WhiteKernel(0.1)), TARGET),
    "matern_inf": (_process(Matern(nu=np.inf)), TARGET),
    "rational_quadratic": (_process(RationalQuadratic(1.2, 0.7)), TARGET),
    "sum_of_kernels": (
        _process(0.5 * DotProduct(0.3) ** 2 + ExpSineSquared(5.0, 8.0), 60.0),
        TARGET,
    ),
    "shifted_process": (_process(ConstantKernel(1.5) + RBF()), TARGET),
    "process_of_two_targets": (
        _process(RBF(), normalize_y=True),
        np.stack([TARGET, TARGET**2], axis=1),
    ),
    "support_vectors": (SVR(C=10), TARGET),
    "nu_support_vectors": (NuSVR(), TARGET),
    "linear_kernel": (SVR(kernel="linear"), TARGET),
    "polynomial_kernel": (SVR(kernel="poly", coef0=1.0), TARGET),
    "sigmoid_kernel": (SVR(kernel="sigmoid"), TARGET),
    "support_vector_classifier": (SVC(), TWO),
    "support_vectors_of_three": (SVC(kernel="poly", coef0=1.0), THREE),
    "pairs_of_three": (SVC(decision_function_shape="ovo"), THREE),
    "linear_support_vectors": (LinearSVC(), THREE),
    "one_class": (OneClassSVM(), None),
    "pipeline": (make_pipeline(StandardScaler(), PolynomialFeatures(2), PCA(5), Ridge()), TARGET),
    "pipeline_classifier": (make_pipeline(StandardScaler(), LogisticRegression()), TWO),
    "pipeline_of_vectors": (make_pipeline(MinMaxScaler(), SVR()), TARGET),
    "voting": (VotingRegressor([("ridge", Ridge()), ("vectors", SVR())]), TARGET),
    "search": (GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}), TARGET),
    "naive_bayes": (GaussianNB(), TWO),
    "discriminant": (LinearDiscriminantAnalysis(), THREE),
    "quadratic_discriminant": (QuadraticDiscriminantAnalysis(), THREE),
    "scaler": (StandardScaler(), None),
    "components": (PCA(2), None),
    "polynomials": (PolynomialFeatures((2, 3)), None),
    "interactions": (PolynomialFeatures(3, interaction_only=True, include_bias=False), None),
    "clusters": (KMeans(3, n_init=1, random_state=0), None),
}
"""Differentiable estimators and what they are fitted to; float64 throughout."""

_VOTERS = [("logistic", LogisticRegression()), ("bayes", GaussianNB())]

METHODS: dict[str, tuple[Any, Any, str]] = {
    "process_classifier": (GaussianProcessClassifier(optimizer=None), TWO, "predict_proba"),
    "process_of_three": (
        GaussianProcessClassifier(RBF([1.0, 2, 1, 1]), optimizer=None),
        THREE,
        "predict_proba",
    ),
    "network_of_two_targets": (
        _net(MLPRegressor, "tanh"),
        np.stack([TARGET, TARGET**2], axis=1),
        "predict",
    ),
    "discriminant_directions": (LinearDiscriminantAnalysis(), THREE, "transform"),
    "discriminant_by_eigenvectors": (LinearDiscriminantAnalysis(solver="eigen"), THREE, "transform"),
    "voting_classifier": (VotingClassifier(_VOTERS, voting="soft"), TWO, "predict_proba"),
    "powers": (PowerTransformer(), None, "transform"),
    "powers_alone": (PowerTransformer(standardize=False), None, "transform"),
    "kernel_ridge": (KernelRidge(kernel="rbf", gamma=0.3), TARGET, "predict"),
    "kernel_ridge_of_two_targets": (
        KernelRidge(kernel="poly", degree=2),
        np.stack([TARGET, TARGET**2], axis=1),
        "predict",
    ),
    "laplacian_ridge": (KernelRidge(kernel="laplacian"), TARGET, "predict"),
    "cosine_ridge": (KernelRidge(kernel="cosine"), TARGET, "predict"),
    "nystroem": (Nystroem(n_components=5, random_state=0), None, "transform"),
    "fourier_features": (RBFSampler(n_components=5, random_state=0), None, "transform"),
    "ridge_of_nystroem": (
        make_pipeline(StandardScaler(), Nystroem(n_components=9, random_state=0), Ridge()),
        TARGET,
        "predict",
    ),
    "log_probabilities": (LogisticRegression(), THREE, "predict_log_proba"),
    "log_probabilities_of_pipeline": (
        make_pipeline(PowerTransformer(), LogisticRegression()),
        TWO,
        "predict_log_proba",
    ),
    "log_probabilities_of_bayes": (GaussianNB(), THREE, "predict_log_proba"),
    "log_probabilities_of_network": (_net(MLPClassifier, "tanh"), THREE, "predict_log_proba"),
    "mixture_density": (GaussianMixture(2, random_state=0), None, "score_samples"),
    "mixture": (GaussianMixture(3, covariance_type="diag", random_state=0), None, "predict_proba"),
    "tied_mixture": (GaussianMixture(2, covariance_type="tied", random_state=0), None, "score_samples"),
    "spheres": (GaussianMixture(2, covariance_type="spherical", random_state=0), None, "score_samples"),
    "kernel_density": (KernelDensity(bandwidth=0.7), None, "score_samples"),
    "one_class_scores": (OneClassSVM(), None, "score_samples"),
    "inverse_of_scaler": (StandardScaler(), None, "inverse_transform"),
    "inverse_of_range": (MinMaxScaler(), None, "inverse_transform"),
    "inverse_of_robust_scaler": (RobustScaler(), None, "inverse_transform"),
    "inverse_of_components": (PCA(2, whiten=True), None, "inverse_transform"),
    "inverse_of_pipeline": (make_pipeline(StandardScaler(), PCA(3)), None, "inverse_transform"),
}
"""Methods with formulas of this package: the estimator, what it is fitted to, the method."""

STEPS: dict[str, tuple[Any, Any]] = {
    "boosting": (GradientBoostingRegressor(n_estimators=8, random_state=0), TARGET),
    "boosting_classifier": (GradientBoostingClassifier(n_estimators=5, random_state=0), TWO),
    "histogram_boosting": (HistGradientBoostingRegressor(max_iter=5), TARGET),
    "forest": (RandomForestRegressor(n_estimators=5, random_state=0), TARGET),
    "forest_classifier": (RandomForestClassifier(n_estimators=5, random_state=0), THREE),
}
"""Piecewise constant estimators."""


def fitted(estimator: Any, target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(ROWS) if target is None else estimator.fit(ROWS, target)


def difference(fn: Callable[[Any], Any], x: Any, tangent: Any, step: float = 1e-4) -> Any:
    """The derivative along a tangent by central differences of fourth order."""

    def at(multiple: float) -> Any:
        return fn(x + multiple * step * tangent)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
