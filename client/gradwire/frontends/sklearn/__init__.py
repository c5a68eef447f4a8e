"""Fitted scikit-learn models as functions on the service. Install with "gradwire[sklearn]".

    f = client.function(regressor)                      # predict
    f = client.function(classifier.predict_proba)       # or any other method that takes rows
    J = f.jacobian(x)                                   # x: (rows, features)

    import gradwire.sklearn
    f = client.function(gradwire.sklearn.model(process, return_std=True))  # a Gaussian process, with "std"

skl2onnx makes the graphs, in float64. What it can only write with the float32 attributes of ONNX's classical
operators, and what it cannot write at all in float64, is written here: support vectors, Gaussian processes,
polynomial features and linear support vectors.
"""

from gradwire.frontends.sources import converters

try:
    from gradwire.frontends.sklearn.conversion import convert, model
except ModuleNotFoundError as error:
    if error.name not in ("skl2onnx", "sklearn"):
        raise
    raise ModuleNotFoundError(
        f"graphs of scikit-learn models are made with {error.name}: pip install 'gradwire[sklearn]'",
        name=error.name,
    ) from None

__all__ = ["model"]

converters["sklearn"] = convert
