"""Fitted scikit-learn estimators as functions on the service. Install with "gradwire[sklearn]".

    f = client.function(regressor)                      # predict
    f = client.function(classifier.predict_proba)       # or any other method that takes rows
    J = f.jacobian(x)                                   # x: (rows, features)

    import gradwire.sklearn
    f = client.function(gradwire.sklearn.model(process, return_std=True))  # a Gaussian process, with "std"

Graphs are made by skl2onnx, in float64. Support vector machines, Gaussian processes and polynomial features
are converted by gradwire itself: ONNX's classical operators would hold their numbers in float32.
"""

from gradwire.frontends.sklearn import model

__all__ = [
    "model",
]
