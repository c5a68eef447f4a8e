"""Take the sparse Jacobian of an ONNX file: no program, no automatic differentiation, just the file.

The model smooths a signal of 1,000 samples with a small filter, bends it and takes differences of neighbors:
what some other program may have exported. Each output depends on 6 samples of the signal, and 6 seeds give
all of the Jacobian.
"""

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

import gradwire as gw

MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
smoothing (double[1, 1, 1000] signal) => (double[1, 1, 995] change)
<double[1, 1, 5] filter = {0.1, 0.2, 0.4, 0.2, 0.1},
 int64[1] first = {0}, int64[1] second = {1},
 int64[1] last = {995}, int64[1] end = {996}, int64[1] axis = {2}>
{
  smooth = Conv(signal, filter)
  bent = Tanh(smooth)
  before = Slice(bent, first, last, axis)
  after = Slice(bent, second, end, axis)
  change = Sub(after, before)
}
"""

with open("smoothing.onnx", "wb") as file:
    file.write(onnx.parser.parse_model(MODEL).SerializeToString())

signal = np.random.default_rng(0).normal(size=(1, 1, 1000))
with gw.local(workers=2) as client:
    f = client.function("smoothing.onnx")
    J, info = f.jacobian(signal, sparse=True, return_info=True)

print(info.plan.sparse)
assert J.shape == (995, 1000) and J.nnz == 6 * 995 and info.plan.seeds == 6

# onnx's own evaluator has no derivatives, but a difference quotient along one direction is a check.
model = ReferenceEvaluator("smoothing.onnx")
direction = np.random.default_rng(1).normal(size=signal.shape)
step = 1e-6
ahead = model.run(None, {"signal": signal + step * direction})[0]
behind = model.run(None, {"signal": signal - step * direction})[0]
difference = np.abs((ahead - behind).ravel() / (2 * step) - J @ direction.ravel()).max()
print(f"{J.nnz:,} entries from {info.plan.seeds} seeds; off a difference quotient by {difference:.0e}")
assert difference < 1e-8
