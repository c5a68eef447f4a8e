"""The scikit-learn front-end: converts fitted estimators to graphs, with skl2onnx.

Estimators that skl2onnx converts only with the float32 attributes of ONNX's classical operators, or not at
all in float64, are written here as NumPy formulas and traced: support vector machines, Gaussian processes and
polynomial features. `gradwire.sklearn` is its public name.
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
