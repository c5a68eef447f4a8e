"""Compares derivatives with those of onnx-ad, an independent implementation.

onnx-ad rewrites an ONNX graph into an ONNX graph of its derivative, with rules of its own; onnx's reference
evaluates the result in NumPy. Neither shares a line with the engine, nor with JAX.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ad
import pytest
from onnx.reference import ReferenceEvaluator

from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import Hvp, Jvp, Vjp
from tests.engine.small_graphs import model_text, value_of

OPSET = 17

Arrays = dict[str, np.ndarray[Any, Any]]

GRAPHS = {
    "chain": """(double[3,4] x) => (double[3,4] y) {
        a = Sin (x) b = Exp (a) c = Tanh (b) d = Mul (c, x) e = Sigmoid (d) y = Sub (e, a) }""",
    "quotients": """(double[3,4] x, double[4] z) => (double[3,4] y) {
        s = Mul (x, x) one = Constant <value = double {1.5}> () p = Add (s, one)
        q = Div (z, p) r = Sqrt (p) l = Log (r) y = Add (q, l) }""",
    "powers": """(double[5] x) => (double[5] y) {
        s = Abs (x) half = Constant <value = double {2.5}> () y = Pow (s, half) }""",
    "activations": """(double[4,3] x) => (double[4,3] y) {
        a = Softplus (x) b = Softsign (a) c = LeakyRelu <alpha = 0.125> (x) d = Elu <alpha = 0.5> (c)
        e = Mul (b, d) y = Erf (e) }""",
    "trigonometry": """(double[6] x) => (double[6] y) {
        t = Tanh (x) a = Asin (t) b = Acos (t) c = Atan (x) d = Sinh (c) e = Asinh (x)
        y = Sum (a, b, c, d, e) }""",
    "mlp": """(double[2,3] x, double[3,5] w, double[5] b, double[5,2] v) => (double[2,2] y) {
        h = Gemm (x, w, b) t = Tanh (h) y = MatMul (t, v) }""",
    "gemm_transposed": """(double[3,2] a, double[4,3] b, double[4] c) => (double[2,4] y) {
        y = Gemm <transA = 1, transB = 1, alpha = 0.5, beta = 2.0> (a, b, c) }""",
    "batched_product": """(double[2,3,4] a, double[4,5] b) => (double[2,3,5] y) {
        p = MatMul (a, b) y = Sin (p) }""",
    "contraction": """(double[3,4] a, double[4,5] b) => (double[5,3] y) {
        y = Einsum <equation = "ij,jk->ki"> (a, b) }""",
    "convolution": """(double[1,2,6,5] x, double[3,2,3,2] w, double[3] b) => (double[1,3,3,4] y) {
        c = Conv <strides = [2, 1], pads = [1, 0, 0, 0]> (x, w, b) y = Tanh (c) }""",
    "dilated_convolution": """(double[1,2,9] x, double[3,2,3] w) => (double[1,3,5] y) {
        c = Conv <dilations = [2]> (x, w) y = Sigmoid (c) }""",
    "transposed_convolution": """(double[1,2,4] x) => (double[1,2,9] y)
        <double[2,2,3] w = {0.5, -1.0, 2.0, 0.25, 1.5, -0.75, 1.0, 3.0, -2.0, 0.125, 0.375, -1.25}> {
        c = ConvTranspose <strides = [2]> (x, w) y = Sin (c) }""",
    "pooling": """(double[1,2,6,6] x) => (double[1,2,3,3] y) {
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) y = Mul (m, a) }""",
    "softmax": """(double[3,5] x) => (double[3,5] y) {
        s = Softmax <axis = 1> (x) l = LogSoftmax <axis = 0> (x) y = Mul (s, l) }""",
    "layer_norm": """(double[3,6] x, double[6] scale, double[6] bias) => (double[3,6] y) {
        y = LayerNormalization <axis = -1> (x, scale, bias) }""",
    "batch_norm": """(double[2,3,4] x, double[3] s, double[3] b) => (double[2,3,4] y) {
        m = Constant <value = double[3] {0.1, -0.2, 0.3}> ()
        v = Constant <value = double[3] {1.0, 0.5, 2.0}> ()
        y = BatchNormalization (x, s, b, m, v) }""",
    "instance_norm": """(double[2,3,5] x, double[3] s, double[3] b) => (double[2,3,5] y) {
        y = InstanceNormalization (x, s, b) }""",
    "reductions": """(double[3,4] x) => (double[3,1] y) {
        a = ReduceLogSumExp <axes = [1]> (x) b = ReduceL2 <axes = [1]> (x) c = ReduceProd <axes = [1]> (x)
        d = ReduceMean <axes = [1]> (x) e = ReduceMax <axes = [1]> (x) y = Sum (a, b, c, d, e) }""",
    "selections": """(double[5,4] x) => (double[3,4] y) {
        i = Constant <value = int64[3] {4, 0, 4}> () g = Gather (x, i)
        zero = Constant <value = double {0.0}> () c = Greater (g, zero) n = Neg (g) s = Mul (g, g)
        y = Where (c, s, n) }""",
    "rearrangements": """(double[2,6] x) => (double[8,8] y) {
        shape = Constant <value = int64[2] {4, 3}> () r = Reshape (x, shape) t = Transpose (r)
        first = Constant <value = int64[1] {1}> () last = Constant <value = int64[1] {9}> ()
        s = Slice (t, first, last) p = Concat <axis = 0> (t, s, s)
        pads = Constant <value = int64[4] {1, 0, 0, 2}> () q = Pad (p, pads) u = Mul (q, q)
        s2 = Sin (u) v = Transpose (s2) y = MatMul (u, v) }""",
    "clipping": """(double[6] x) => (double[6] y) {
        low = Constant <value = double {-0.5}> () high = Constant <value = double {0.75}> ()
        c = Clip (x, low, high) m = Max (c, x) n = Min (m, c) y = Add (m, n) }""",
    "scatter": """(double[5] x, double[2] u) => (double[5] y) {
        i = Constant <value = int64[2,1] {3, 1}> () s = ScatterND (x, i, u)
        axis = Constant <value = int64 {0}> ()
        c = CumSum (s, axis) y = Sin (c) }""",
}  # fmt: skip


def _model(name: str) -> tuple[bytes, onnx.ModelProto]:
    text = model_text(GRAPHS[name], opset=OPSET)
    return text, onnx.parser.parse_model(text.decode())


def _point(model: onnx.ModelProto, seed: int = 0) -> Arrays:
    """Draws values in [-2, 2].

    They are at least 0.05 apart from one another and from the kinks at the constants above.
    """
    random = np.random.default_rng(seed)
    point = {}
    for item in model.graph.input:
        shape = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        size = int(np.prod(shape))
        point[item.name] = random.permutation(np.linspace(-1.93, 1.97, size)).reshape(shape)
    return point


def _like(values: onnx.ModelProto, outputs: bool, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    items = values.graph.output if outputs else values.graph.input
    return {
        item.name: random.standard_normal([dim.dim_value for dim in item.type.tensor_type.shape.dim])
        for item in items
    }


def _theirs(model: onnx.ModelProto, point: Arrays, seeds: Arrays) -> Arrays:
    """Evaluates a derivative model of onnx-ad at a point; its seeds have a trailing axis that counts them."""
    inputs = {**point, **{name: value[..., None] for name, value in seeds.items()}}
    results = ReferenceEvaluator(model).run(None, inputs)
    return {item.name: result for item, result in zip(model.graph.output, results, strict=True)}


def _agree(ours: Any, theirs: Any) -> None:
    scale = max(1.0, float(np.abs(ours).max()))
    np.testing.assert_allclose(theirs, ours, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("name", GRAPHS)
def test_onnx_ad_has_the_same_cotangents(name: str) -> None:
    text, model = _model(name)
    point, seeds = _point(model), _like(model, True, 1)
    theirs = _theirs(
        onnx_ad.reverse(model, layout="onnx"), point, {f"adj_{key}": value for key, value in seeds.items()}
    )
    cotangents = {f"{key}.cotangent": value for key, value in seeds.items()}
    ours = value_of(register(text, text=True), {**point, **cotangents}, Vjp())
    for key in point:
        _agree(ours[f"{key}.cotangent"], theirs[f"adj_{key}"][..., 0])


@pytest.mark.parametrize("name", GRAPHS)
def test_onnx_ad_has_the_same_tangents(name: str) -> None:
    text, model = _model(name)
    point, seeds = _point(model), _like(model, False, 2)
    theirs = _theirs(
        onnx_ad.forward(model, layout="onnx"), point, {f"fwd_{key}": value for key, value in seeds.items()}
    )
    tangents = {f"{key}.tangent": value for key, value in seeds.items()}
    ours = value_of(register(text, text=True), {**point, **tangents}, Jvp())
    _agree(ours["y.tangent"], theirs["fwd_y"][..., 0])


SMOOTH = ("chain", "quotients", "mlp", "softmax", "layer_norm", "batched_product", "selections", "scatter")


@pytest.mark.parametrize("name", SMOOTH)
def test_onnx_ad_has_the_same_hessian_vector_products(name: str) -> None:
    _, model = _model(name)
    point, tangents = _point(model), _like(model, False, 3)
    # Of the sum of squared outputs; onnx-ad's is the forward model of the reverse model.
    body = GRAPHS[name]
    inputs, nodes = body[: body.index("=>")], body[body.index("{") + 1 : body.rindex("}")]
    scalar = f"{inputs} => (double loss) {{ {nodes} loss = ReduceSumSquare <keepdims = 0> (y) }}"
    text = model_text(scalar, opset=OPSET)
    adjoint = onnx_ad.reverse(onnx.parser.parse_model(text.decode()), layout="onnx")
    directions = {f"fwd_{key}": value for key, value in tangents.items()}
    second = onnx_ad.forward(adjoint, inputs=list(point), layout="onnx")
    theirs = _theirs(second, {**point, "adj_loss": np.ones(1)}, directions)
    seeds = {f"{key}.tangent": value for key, value in tangents.items()}
    ours = value_of(register(text, text=True), {**point, **seeds}, Hvp())
    for key in point:
        _agree(ours[f"{key}.hvp"], theirs[f"fwd_adj_{key}"][..., 0, 0])
