"""Generated subjects of derivative checks: one operator, with random shapes, axes and attributes.

Shapes include scalars, and axes of one and of no elements. Operators of a family share a strategy; each
draws only what its operator's specification allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.conformance.lifted import Subject, qualified
from tests.conformance.points import point
from tests.engine.lowering.derivative_checks import one_node

Draw = Callable[..., Any]
Shape = tuple[int, ...]
Case = tuple[list[Any], dict[str, Any]]
"""Inputs (arrays, or None where omitted) and keyword arguments of one_node."""

SCI = "gradwire.sci"

extents = st.integers(0, 3)
seeds = st.integers(0, 2**16)


def words(text: str) -> list[str]:
    """Splits a text into words."""
    return text.split()


def shapes(least: int = 0, most: int = 3, smallest: int = 0) -> st.SearchStrategy[Shape]:
    """Returns a strategy of shapes with between `least` and `most` axes."""
    return st.lists(st.integers(smallest, 3), min_size=least, max_size=most).map(tuple)


def normal(draw: Draw, shape: Shape) -> np.ndarray[Any, Any]:
    """Draws a floating array."""
    return np.random.default_rng(draw(seeds)).standard_normal(shape)


def broadcastable(draw: Draw, shape: Shape) -> Shape:
    """Draws a shape that broadcasts to `shape`: leading axes dropped, some extents 1."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(1 if draw(st.booleans()) else extent for extent in kept)


def an_axis(draw: Draw, shape: Shape) -> int:
    """Draws an axis, counted from either end."""
    return int(draw(st.integers(-len(shape), len(shape) - 1)))


def some_axes(draw: Draw, shape: Shape) -> np.ndarray[Any, Any]:
    """Draws distinct axes, in any order."""
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True)) if shape else []
    return np.array([axis - len(shape) * draw(st.booleans()) for axis in axes], np.int64)


def unary(draw: Draw) -> Case:
    return [normal(draw, draw(shapes()))], {}


def binary(draw: Draw) -> Case:
    shape = draw(shapes())
    pair = [normal(draw, shape), normal(draw, broadcastable(draw, shape))]
    return (pair[::-1] if draw(st.booleans()) else pair), {}


def positive_pair(draw: Draw) -> Case:
    """Draws a static parameter and an array."""
    shape = draw(shapes())
    return [np.array(draw(st.floats(0.5, 3.0))), normal(draw, shape)], {}


def variadic(draw: Draw) -> Case:
    shape = draw(shapes())
    count = draw(st.integers(1, 3))
    return [normal(draw, broadcastable(draw, shape) if i else shape) for i in range(count)], {}


def prelu(draw: Draw) -> Case:
    shape = draw(shapes())
    return [normal(draw, shape), normal(draw, broadcastable(draw, shape))], {}


def fmod(draw: Draw) -> Case:
    shape = draw(shapes())
    return [normal(draw, shape), normal(draw, broadcastable(draw, shape))], {"fmod": 1}


def where(draw: Draw) -> Case:
    shape = draw(shapes())
    condition = normal(draw, broadcastable(draw, shape)) > 0
    return [condition, normal(draw, shape), normal(draw, broadcastable(draw, shape))], {}


def clip(draw: Draw) -> Case:
    low, high = draw(st.sampled_from([(None, 0.5), (-0.5, None), (-0.5, 0.5), (0.5, -0.5)]))
    bounds = [None if bound is None else np.array(bound) for bound in (low, high)]
    return [normal(draw, draw(shapes())), *bounds], {}


def reduction(draw: Draw) -> Case:
    shape = draw(shapes())
    axes = some_axes(draw, shape) if draw(st.booleans()) else None
    flags = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    return [normal(draw, shape), *([] if axes is None else [axes])], flags


def filled_reduction(draw: Draw) -> Case:
    """Draws a reduction of nonempty arrays, as the largest of no elements is not defined."""
    shape = draw(shapes(smallest=1))
    return [normal(draw, shape), some_axes(draw, shape)], {"keepdims": draw(st.integers(0, 1))}


def along_axis(draw: Draw) -> Case:
    shape = draw(shapes(1))
    return [normal(draw, shape)], {"axis": an_axis(draw, shape)}


def along_filled_axis(draw: Draw) -> Case:
    shape = draw(shapes(1, smallest=1))
    return [normal(draw, shape)], {"axis": an_axis(draw, shape)}


def cumulative(draw: Draw) -> Case:
    shape = draw(shapes(1))
    flags = {"opset": 26, "exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    return [normal(draw, shape), np.array(an_axis(draw, shape))], flags


def lp_normalization(draw: Draw) -> Case:
    shape = draw(shapes(1, smallest=1))
    return [normal(draw, shape)], {"axis": an_axis(draw, shape), "p": draw(st.sampled_from([1, 2]))}


def top_k(draw: Draw) -> Case:
    shape = draw(shapes(1, smallest=1))
    axis = an_axis(draw, shape)
    k = draw(st.integers(0, shape[axis]))
    return [normal(draw, shape), np.array([k])], {
        "axis": axis,
        "largest": draw(st.integers(0, 1)),
        "outputs": 2,
    }


def sort(draw: Draw) -> Case:
    inputs, attributes = along_axis(draw)
    return inputs, {**attributes, "outputs": 2, "domain": SCI}


def reshape(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(smallest=1)))
    shape = draw(st.permutations(x.shape))
    return [x, np.array(draw(st.sampled_from([[*shape], [-1], [1, -1]])), np.int64)], {}


def transpose(draw: Draw) -> Case:
    x = normal(draw, draw(shapes()))
    return [x], {"perm": draw(st.permutations(range(x.ndim)))} if x.ndim else {}


def unsqueeze(draw: Draw) -> Case:
    x = normal(draw, draw(shapes()))
    return [x, np.array([draw(st.integers(-x.ndim - 1, x.ndim))])], {}


def squeeze(draw: Draw) -> Case:
    shape = [*draw(shapes(0, 2))]
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, 1)
    return [normal(draw, tuple(shape)), np.array([axis])], {}


def expand(draw: Draw) -> Case:
    shape = draw(shapes())
    return [normal(draw, broadcastable(draw, shape)), np.array(shape, np.int64)], {}


def concat(draw: Draw) -> Case:
    shape = [*draw(shapes(1))]
    axis = an_axis(draw, tuple(shape))
    inputs = []
    for _ in range(draw(st.integers(1, 3))):
        shape[axis] = draw(extents)
        inputs.append(normal(draw, tuple(shape)))
    return inputs, {"axis": axis}


def split(draw: Draw) -> Case:
    sizes = draw(st.lists(extents, min_size=1, max_size=3))
    other = draw(extents)
    x = normal(draw, (other, sum(sizes)))
    return [x, np.array(sizes, np.int64)], {"axis": draw(st.sampled_from([1, -1])), "outputs": len(sizes)}


def slice_(draw: Draw) -> Case:
    shape = draw(shapes(1, smallest=1))
    axis = an_axis(draw, shape)
    bound = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, 2**63 - 1])
    step = draw(st.sampled_from([-2, -1, 1, 2]))
    numbers = [draw(bound), draw(bound), axis, step]
    starts, ends, axes, steps = (np.array([number], np.int64) for number in numbers)
    return [normal(draw, shape), starts, ends, axes, steps], {}


def tile(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(1)))
    return [x, np.array([draw(extents) for _ in x.shape], np.int64)], {}


def pad(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(1, 2, smallest=2)))
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    least = -1 if mode == "constant" else 0
    pads = np.array([draw(st.integers(least, 1)) for _ in range(2 * x.ndim)], np.int64)
    return [x, pads, *([normal(draw, ())] if mode == "constant" else [])], {"mode": mode}


def gather(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(1, smallest=1)))
    axis = an_axis(draw, x.shape)
    size = x.shape[axis]
    picks = draw(st.lists(st.integers(-size, size - 1), max_size=4))
    return [x, np.array(picks, np.int64)], {"axis": axis}


def gather_elements(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(1, smallest=1)))
    axis = an_axis(draw, x.shape)
    rng = np.random.default_rng(draw(seeds))
    size = x.shape[axis]
    return [x, rng.integers(-size, size, x.shape)], {"axis": axis}


def scatter_elements(draw: Draw) -> Case:
    """Draws repeated indices only where the result does not depend on the order of writes."""
    reduction = draw(st.sampled_from(["none", "add", "mul"]))
    (x, indices), attributes = gather_elements(draw)
    if reduction == "none":
        indices = np.argsort(indices, axis=attributes["axis"])
    return [x, indices, normal(draw, x.shape)], {**attributes, "reduction": reduction}


def scatter_nd(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(2, smallest=1)))
    rows = draw(st.lists(st.integers(0, x.shape[0] - 1), max_size=3, unique=True))
    indices = np.array(rows, np.int64).reshape(-1, 1)
    updates = normal(draw, (len(rows), *x.shape[1:]))
    return [x, indices, updates], {"reduction": draw(st.sampled_from(["none", "add", "mul"]))}


def gather_nd(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(2, smallest=1)))
    rng = np.random.default_rng(draw(seeds))
    return [x, np.stack([rng.integers(0, size, 3) for size in x.shape[:2]], -1)], {}


def trilu(draw: Draw) -> Case:
    return [normal(draw, draw(shapes(2))), np.array(draw(st.integers(-2, 2)))], {
        "upper": draw(st.integers(0, 1))
    }


def matmul(draw: Draw) -> Case:
    m, k, n = draw(st.tuples(extents, extents, extents))
    batch = draw(shapes(0, 1))
    left = (*batch, m, k) if draw(st.booleans()) else (k,)
    right = (*broadcastable(draw, batch), k, n) if draw(st.booleans()) else (k,)
    return [normal(draw, left), normal(draw, right)], {}


def gemm(draw: Draw) -> Case:
    m, k, n = draw(st.tuples(extents, extents, extents))
    a, b = draw(st.tuples(st.booleans(), st.booleans()))
    inputs = [normal(draw, (k, m) if a else (m, k)), normal(draw, (n, k) if b else (k, n))]
    if draw(st.booleans()):
        inputs.append(normal(draw, broadcastable(draw, (m, n))))
    return inputs, {"transA": int(a), "transB": int(b), "alpha": 0.5, "beta": 1.5}


def einsum(draw: Draw) -> Case:
    sizes = dict(zip("ijkb", (draw(st.integers(1, 3)) for _ in "ijkb"), strict=True))
    equation = draw(st.sampled_from(["ij,jk->ik", "bij,bjk->bik", "ij->ji", "ii->i", "i,j->ij", "ij,ij->"]))
    terms = equation.split("->")[0].split(",")
    return [normal(draw, tuple(sizes[letter] for letter in term)) for term in terms], {"equation": equation}


def square(draw: Draw) -> Case:
    size = draw(st.integers(1, 3))
    return [normal(draw, (*draw(shapes(0, 1)), size, size))], {}


def system(draw: Draw) -> Case:
    (a,), _ = square(draw)
    return [a, normal(draw, (*a.shape[:-1], draw(st.integers(1, 2))))], {}


def layer_norm(draw: Draw) -> Case:
    x = normal(draw, draw(shapes(1, smallest=2)))
    axis = an_axis(draw, x.shape)
    return [x, normal(draw, x.shape[axis:])], {"axis": axis}


def batch_norm(draw: Draw) -> Case:
    x = normal(draw, (2, draw(st.integers(1, 3)), *draw(shapes(0, 1))))
    return [x, *(normal(draw, x.shape[1:2]) for _ in range(4))], {}


def instance_norm(draw: Draw) -> Case:
    x = normal(draw, (2, draw(st.integers(1, 2)), 3))
    return [x, normal(draw, x.shape[1:2]), normal(draw, x.shape[1:2])], {}


def conv(draw: Draw) -> Case:
    groups, spatial = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = normal(draw, (1, 2, *[draw(st.integers(3, 4)) for _ in range(spatial)]))
    w = normal(draw, (2, 2 // groups, *[2] * spatial))
    flags = {
        "group": groups,
        "strides": [draw(st.integers(1, 2)) for _ in range(spatial)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(spatial)],
        "pads": [draw(st.integers(0, 1)) for _ in range(2 * spatial)],
    }
    return [x, w, *([normal(draw, (w.shape[0],))] if draw(st.booleans()) else [])], flags


def pool(draw: Draw) -> Case:
    x = normal(draw, (1, 2, draw(st.integers(3, 5)), 4))
    flags = {
        "kernel_shape": [2, 2],
        "strides": [draw(st.integers(1, 2)) for _ in range(2)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(2)],
        "pads": [draw(st.integers(0, 1)) for _ in range(4)],
        "ceil_mode": draw(st.integers(0, 1)),
    }
    return [x], flags


def global_pool(draw: Draw) -> Case:
    return [normal(draw, (*draw(shapes(2, 2, smallest=1)), 2, 3))], {}


def in_sci(family: Callable[[Draw], Case], outputs: int = 1) -> Callable[[Draw], Case]:
    """Returns the same family in the domain gradwire.sci."""

    def drawn(draw: Draw) -> Case:
        inputs, attributes = family(draw)
        return inputs, {**attributes, "domain": SCI, "outputs": outputs}

    return drawn


def complex_pairs(draw: Draw) -> Case:
    """Real and imaginary parts of two complex numbers or arrays."""
    (a, c), _ = binary(draw)
    return [a, normal(draw, a.shape), c, normal(draw, c.shape)], {"domain": SCI, "outputs": 2}


def pinv(draw: Draw) -> Case:
    (a,), attributes = square(draw)
    return [a, np.array(1e-12)], {**attributes, "domain": SCI}


def polygamma(draw: Draw) -> Case:
    return [normal(draw, draw(shapes()))], {"n": draw(st.integers(0, 2)), "domain": SCI}


def ldexp(draw: Draw) -> Case:
    shape = draw(shapes())
    return [normal(draw, shape), np.asarray(draw(st.integers(-5, 5)))], {"domain": SCI}


COMPLEX_UNARY = words(
    """
    ComplexAcos ComplexAcosh ComplexAsin ComplexAsinh ComplexAtan ComplexAtanh ComplexLog ComplexLog1p
    ComplexSqrt ComplexTan ComplexTanh
    """
)
UNARY = words(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid
    HardSwish Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin
    Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
    """
)
SCI_UNARY = words(
    """
    BesselI0 BesselI1 Cbrt Digamma Erfc Erfinv Exp2 Expit Expm1 Lgamma Log10 Log1p Log2 Sinc
    """
)

FAMILIES: dict[str, Callable[[Draw], Case]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), binary),
    **dict.fromkeys(("Max", "Min", "Mean", "Sum"), variadic),
    "PRelu": prelu,
    "Mod": fmod,
    "Where": where,
    "Clip": clip,
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare", "ReduceProd", "ReduceL1"), reduction),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL2"), filled_reduction),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp"), filled_reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Flatten"), along_axis),
    "Hardmax": along_filled_axis,
    **dict.fromkeys(("CumSum", "CumProd"), cumulative),
    "LpNormalization": lp_normalization,
    "TopK": top_k,
    "Reshape": reshape,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Tile": tile,
    "Pad": pad,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Trilu": trilu,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "Det": square,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "Conv": conv,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), global_pool),
    **{qualified(SCI, op): in_sci(unary) for op in SCI_UNARY},
    **{qualified(SCI, op): in_sci(binary) for op in ("Atan2", "Hypot", "LogAddExp", "Xlogy")},
    **{qualified(SCI, op): in_sci(square) for op in words("Cholesky EigvalsH Inverse LogDet SvdValues")},
    **{qualified(SCI, op): in_sci(square, outputs=2) for op in ("Eigh", "QR", "SlogDet")},
    **{qualified(SCI, op): in_sci(system) for op in ("Solve", "TriangularSolve")},
    **{qualified(SCI, op): in_sci(square, outputs=3) for op in ("LU", "SVD")},
    **{qualified(SCI, op): in_sci(unary) for op in ("BesselI0e", "BesselI1e", "LogNdtr", "Ndtri")},
    **{qualified(SCI, op): in_sci(positive_pair) for op in ("Igamma", "Igammac", "Betaln")},
    **{qualified(SCI, op): in_sci(binary, outputs=2) for op in COMPLEX_UNARY},
    **{qualified(SCI, op): complex_pairs for op in ("ComplexDiv", "ComplexPow")},
    qualified(SCI, "Pinv"): pinv,
    qualified(SCI, "Ldexp"): ldexp,
    qualified(SCI, "Polygamma"): polygamma,
    qualified(SCI, "Sort"): sort,
}
"""How the inputs and attributes of an operator are drawn."""


@st.composite
def subjects(draw: Draw, op: str) -> Subject:
    """Draws a subject for one operator, named as in FAMILIES."""
    inputs, options = FAMILIES[op](draw)
    seed = draw(seeds)
    inputs = point(op, {key: options[key] for key in options}, inputs, seed)
    model = one_node(op.rpartition(":")[2], *inputs, **options)
    values = {f"x{index}": value for index, value in enumerate(inputs) if value is not None}
    shapes = ", ".join(str(list(value.shape)) for value in values.values())
    return Subject(op, f"{op}({shapes}) {options}", model, values)
