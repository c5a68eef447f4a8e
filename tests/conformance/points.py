"""Points at which to differentiate each operator, chosen by rules that avoid kinks and poles.

A rule takes a node's attributes and its inputs (NumPy arrays; None where omitted; sequences as lists)
and returns inputs of the same types and shapes. No kink of the operator lies within MARGIN of any
coordinate of the result, so the function is smooth where a narrower difference evaluates it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]
Inputs = list[Any]
Rule = Callable[[Attributes, Inputs, np.random.Generator], Inputs]

MARGIN = 0.02
"""Distance kept from every kink; ten times the widest step of the difference."""


def is_float(value: Any) -> bool:
    """Returns whether a value is a floating array."""
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _each(function: Callable[[Array, np.random.Generator], Array], only: Sequence[int] | None = None) -> Rule:
    """Returns a rule that applies `function` to each floating input separately.

    With `only`, the floating inputs at other positions are shaken.
    """

    def rule(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
        return [
            (function(value, rng) if only is None or index in only else _shaken(value, rng))
            if is_float(value)
            else value
            for index, value in enumerate(inputs)
        ]

    return rule


def _shaken(value: Array, rng: np.random.Generator) -> Array:
    return value + rng.uniform(-0.1, 0.1, value.shape)


def _distinct(value: Array, rng: np.random.Generator) -> Array:
    """Returns elements in the same order, none closer than 2 MARGIN to another or to 0."""
    order = np.argsort(np.ravel(_shaken(value, rng)), kind="stable")
    ranks = np.empty(value.size)
    ranks[order] = np.arange(value.size)
    gap = max(2 * MARGIN, min(0.25, 4.0 / max(1, value.size)))
    return ((ranks - value.size // 2 + 0.5) * gap).reshape(value.shape)


shaken = _each(_shaken)
"""Moves the given inputs a little: for operators that are smooth wherever the inputs are valid."""


def apart(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Moves elements of all floating inputs apart from one another: for maxima, sorting, ties."""
    floats = [value for value in inputs if is_float(value)]
    pooled = _distinct(np.concatenate([np.ravel(value) for value in floats] or [np.zeros(0)]), rng)
    parts = iter(np.split(pooled, np.cumsum([value.size for value in floats])[:-1]))
    return [next(parts).reshape(value.shape) if is_float(value) else value for value in inputs]


def away(*kinks: float, only: Sequence[int] | None = None) -> Rule:
    """Returns a rule that shakes, then keeps every element at least 2.5 MARGIN from every kink."""

    def move(value: Array, rng: np.random.Generator) -> Array:
        moved = _shaken(value, rng)
        for kink in kinks:
            near = np.abs(moved - kink) < 2.5 * MARGIN
            moved = np.where(near, kink + np.where(moved < kink, -3, 3) * MARGIN, moved)
        return moved

    return _each(move, only)


def away_by(kinks: Callable[[Attributes], Sequence[float]], only: Sequence[int] | None = None) -> Rule:
    """Returns a rule like `away`, with kinks that follow from the attributes."""
    return lambda attributes, inputs, rng: away(*kinks(attributes), only=only)(attributes, inputs, rng)


def within(low: float, high: float, only: Sequence[int] | None = None) -> Rule:
    """Returns a rule that draws uniformly from an interval."""
    return _each(lambda value, rng: rng.uniform(low, high, value.shape), only)


def between_multiples(low: float, high: float, only: Sequence[int] | None = None) -> Rule:
    """Returns a rule that shakes, with the fractional part in [low, high]."""

    def move(value: Array, rng: np.random.Generator) -> Array:
        return np.floor(_shaken(value, rng)) + rng.uniform(low, high, value.shape)

    return _each(move, only)


def clip(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Keeps elements away from the bounds, which are inputs, or attributes before opset 11."""
    bounds = [float(value) for value in inputs[1:] if is_float(value)]
    bounds += [float(attributes[name]) for name in ("min", "max") if name in attributes]
    return [*away(*bounds)(attributes, inputs[:1], rng), *inputs[1:]]


def remainder(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses quotients whose fractional part is in [0.2, 0.8], and divisors away from 0."""
    x, y = inputs
    if not is_float(x):
        return inputs
    y = np.where(np.abs(y) < 0.5, 0.75, y)
    quotient = np.floor(x / y) + rng.uniform(0.2, 0.8, np.broadcast_shapes(x.shape, y.shape))
    return [(quotient * y) if x.shape == quotient.shape else x, y]


def grid_sample(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses positions a fraction of [0.15, 0.35] past a pixel centre, away from centres and edges."""
    x, grid = inputs
    sizes = np.array(x.shape[2:][::-1], float)
    aligned = attributes.get("align_corners", 0)
    pixel = (grid + 1) / 2 * (sizes - 1) if aligned else ((grid + 1) * sizes - 1) / 2
    pixel = np.floor(np.nan_to_num(pixel)) + rng.uniform(0.15, 0.35, grid.shape)
    grid = pixel / np.maximum(sizes - 1, 1) * 2 - 1 if aligned else (2 * pixel + 1) / sizes - 1
    return [_shaken(x, rng), grid]


def spread_regions(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses distinct pixels, and regions slightly inside the given ones, off pixel boundaries."""
    corners = np.array([0.137, 0.171, -0.113, -0.157])
    return [_distinct(inputs[0], rng), inputs[1] + corners, *inputs[2:]]


def whole_regions(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses distinct pixels, and moves regions by less than half a pixel, to which they are rounded."""
    return [_distinct(inputs[0], rng), inputs[1] + np.array([0.0, 0.1, 0.1, 0.1, 0.1])]


def positive_definite(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses a symmetric first input whose eigenvalues are positive and well separated."""
    a = inputs[0]
    root = rng.standard_normal(a.shape)
    size = a.shape[-1] if a.ndim > 1 else 0
    matrix = root @ np.swapaxes(root, -1, -2) * 0.1 + np.diag(1.0 + np.arange(size))
    return [matrix, *shaken(attributes, inputs[1:], rng)]


def well_conditioned(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses a first input that is far from singular, with singular values well separated."""
    a = inputs[0]
    eye = np.eye(*a.shape[-2:]) * (2.0 + np.arange(a.shape[-1]))
    return [eye + rng.uniform(-0.4, 0.4, a.shape), *shaken(attributes, inputs[1:], rng)]


def pseudo_invertible(attributes: Attributes, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """Chooses a well-conditioned matrix and keeps the tolerance, which is far from every singular value."""
    return [*well_conditioned(attributes, inputs[:1], rng), *inputs[1:]]


def _hard_sigmoid(attributes: Attributes) -> tuple[float, float]:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return -beta / alpha, (1 - beta) / alpha


def _shrink(attributes: Attributes) -> tuple[float, float]:
    threshold = attributes.get("lambd", 0.5)
    return -threshold, threshold


positive = within(0.3, 2.0)

SCI = "gradwire.sci:"
ML = "ai.onnx.ml:"
TRAINING = "ai.onnx.preview.training:"

_COMPLEX = "Acos Acosh Asin Asinh Atan Atanh Div Log Log1p Pow Sqrt Tan Tanh".split()  # noqa: SIM905

RULES: dict[str, Rule] = {
    **dict.fromkeys(("Abs", "Relu", "Sign", "Selu", "Elu", "Celu", "LeakyRelu", "PRelu"), away(0.0)),
    **dict.fromkeys(("Softsign", "Reciprocal", "ReduceL1", "ReduceL2", "LpNormalization"), away(0.0)),
    **dict.fromkeys(("LpPool", "GlobalLpPool"), away(0.0)),
    **dict.fromkeys(("Max", "Min", "ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool"), apart),
    **dict.fromkeys(("TopK", "ArgMax", "ArgMin", "Hardmax", "Unique", SCI + "Sort"), apart),
    **dict.fromkeys(("Sqrt", "Log", "ReduceLogSum", "Pow", SCI + "Log2", SCI + "Log10"), positive),
    **dict.fromkeys(("Acos", "Asin", "Atanh", SCI + "Erfinv"), within(-0.85, 0.85)),
    **dict.fromkeys(("Floor", "Ceil"), between_multiples(0.1, 0.9)),
    "Round": between_multiples(-0.4, 0.4),
    "Acosh": within(1.2, 3.0),
    "Tan": within(-1.2, 1.2),
    "Div": away(0.0, only=(1,)),
    "Mod": remainder,
    "Clip": clip,
    "HardSigmoid": away_by(_hard_sigmoid),
    "HardSwish": away(-3.0, 3.0),
    "Shrink": away_by(_shrink),
    "ThresholdedRelu": away_by(lambda attributes: (attributes.get("alpha", 1.0),)),
    **dict.fromkeys(("Cast", "CastLike"), within(-2.0, 2.0)),
    "BatchNormalization": within(0.5, 1.5, only=(4,)),
    "GridSample": grid_sample,
    "DeformConv": between_multiples(0.15, 0.35, only=(2,)),
    "RoiAlign": spread_regions,
    "MaxRoiPool": whole_regions,
    "DynamicQuantizeLinear": apart,
    "Det": well_conditioned,
    ML + "Normalizer": apart,
    ML + "Binarizer": away_by(lambda attributes: (attributes.get("threshold", 0.0),)),
    TRAINING + "Adagrad": positive,
    TRAINING + "Adam": positive,
    TRAINING + "Momentum": positive,
    SCI + "Cholesky": positive_definite,
    SCI + "Eigh": positive_definite,
    SCI + "EigvalsH": positive_definite,
    **dict.fromkeys(
        (f"{SCI}{op}" for op in ("Inverse", "Solve", "LogDet", "SlogDet", "QR", "SvdValues", "LU", "SVD")),
        well_conditioned,
    ),
    SCI + "TriangularSolve": well_conditioned,
    **dict.fromkeys((SCI + "Igamma", SCI + "Igammac", SCI + "Betaln"), positive),
    SCI + "Ndtri": within(0.1, 0.9),
    # The first quadrant inside the unit circle: away from every pole and cut of the complex functions.
    **dict.fromkeys((f"{SCI}Complex{op}" for op in _COMPLEX), within(0.2, 0.6)),
    SCI + "Pinv": pseudo_invertible,
    **dict.fromkeys((SCI + "BesselI0e", SCI + "BesselI1e"), away(0.0)),
    SCI + "Lgamma": within(0.5, 3.0),
    SCI + "Digamma": within(0.5, 3.0),
    SCI + "Polygamma": within(0.5, 3.0),
    SCI + "Log1p": within(-0.5, 2.0),
    SCI + "Atan2": away(0.0),
    SCI + "Hypot": away(0.0),
    SCI + "Cbrt": away(0.0),
    SCI + "Sinc": away(0.0),
    SCI + "Xlogy": positive,
}
"""Rules of operators with kinks or poles; every other one is smooth wherever its inputs are valid."""


_DISCRETE = """
    And BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Equal Greater GreaterOrEqual
    IsInf IsNaN Less LessOrEqual MatMulInteger Not Or Xor ArgMax ArgMin Shape Size SequenceLength
    OptionalHasElement QuantizeLinear QLinearMatMul MelWeightMatrix HannWindow HammingWindow
    BlackmanWindow Constant ConstantOfShape EyeLike SequenceEmpty Range RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike ai.onnx.ml:LabelEncoder
    ai.onnx.ml:OneHotEncoder gradwire.sci:PivotsToPermutation
    StringConcat StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer
"""

DISCRETE = frozenset(_DISCRETE.split())
"""Operators whose outputs depend on no floating input, or are not floating."""


def point(op: str, attributes: Attributes, inputs: Inputs, seed: int) -> Inputs:
    """Returns inputs of an operator at which it is smooth; `op` is qualified as in RULES."""
    moved = RULES.get(op, shaken)(attributes, inputs, np.random.default_rng(seed))
    return [np.asarray(value) if isinstance(value, np.generic) else value for value in moved]
