"""Derivatives of a model in an .onnx file with respect to its inputs, without a framework.

Run: python examples/onnx_file.py
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx

import gradwire as gw

# Exporters write such files; this one is in ONNX's text format: softplus of a quadratic form, for any number
# of rows.
TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
energy (double[rows, 3] x) => (double[rows] e, double[rows, 3] features)
<double[3, 3] a = {2, 1, 0, 0, 1, 0.5, 0, 0, 3}> {
    features = MatMul (x, a)
    squares = Mul (features, features)
    axis = Constant <value_ints: ints = [1]> ()
    q = ReduceSum <keepdims = 0> (squares, axis)
    e = Softplus (q)
}
"""
A = np.array([[2, 1, 0], [0, 1, 0.5], [0, 0, 3]])


def main(client: gw.Client, folder: Path) -> None:
    """Write the model to `folder` and differentiate the file."""
    path = folder / "energy.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)

    f = client.function(path)  # also a str, bytes, a ModelProto, or the text itself
    print(f.signature)
    print("nodes:", f.describe().node_count)

    # One row: the gradient of an output by name.
    x = np.array([[0.3, -0.2, 0.1]])
    gradient = f.grad(x, of="e")
    slope = 1 / (1 + np.exp(-np.sum((x @ A) ** 2)))
    np.testing.assert_allclose(gradient, 2 * slope * x @ A @ A.T, rtol=1e-12)
    print("gradient:", gradient[0].round(4))

    # Five rows, which do not depend on each other: the Jacobian is block-diagonal.
    rows = np.random.default_rng(0).normal(size=(5, 3)) / 3
    jacobian = f.jacobian(rows, of="e")
    assert jacobian.shape == (5, 5, 3)
    off_diagonal = jacobian[~np.eye(5, dtype=bool)]
    np.testing.assert_array_equal(off_diagonal, 0)

    # The Hessian of one row, checked against differences of the gradient.
    hessian = f.hessian(x, of="e").reshape(3, 3)
    step = 1e-5
    for column in range(3):
        shift = step * np.eye(3)[column]
        difference = (f.grad(x + shift, of="e") - f.grad(x - shift, of="e")) / (2 * step)
        np.testing.assert_allclose(hessian[:, column], difference[0], rtol=1e-7, atol=1e-8)
    print("Hessian's eigenvalues:", np.linalg.eigvalsh(hessian).round(4))

    # Weights in a file beside the model are loaded with it.
    large = folder / "with_weights_beside.onnx"
    model = onnx.parser.parse_model(TEXT)
    onnx.save(model, large, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(client.function(large).grad(x, of="e"), gradient)

    # A file that is no model is refused before anything is sent.
    (folder / "cut.onnx").write_bytes(path.read_bytes()[:100])
    try:
        client.function(folder / "cut.onnx")
    except gw.InvalidArgumentError as error:
        print("refused:", error)


if __name__ == "__main__":
    with gw.local(workers=2) as client, tempfile.TemporaryDirectory() as folder:
        main(client, Path(folder))
