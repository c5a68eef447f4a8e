"""The command line against a running server, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.sparse

import gradwire as gw

MODEL = """<ir_version: 8, opset_import: ["" : 18]>
agraph (double[3] x, double[2,3] W) => (double[2] y, double[1] s) {
  h = MatMul(W, x)
  y = Tanh(h)
  s = ReduceSum(y)
}
"""
STENCIL = """<ir_version: 8, opset_import: ["" : 18]>
agraph (double[3] x) => (double[2] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}>
{
  left = Slice(x, zero, two)
  right = Slice(x, one, three)
  y = Mul(left, right)
}
"""
"""Each output is the product of two neighbors."""
RESERVED = """

<ir_version: 8, opset_import: ["" : 18]>
agraph (uint8[3] x) => (double[3] file, double[3] allow_pickle) {
  file = Cast<to: int = 11>(x)
  allow_pickle = Neg(file)
}
"""
"""Outputs that are called like arguments of np.savez, of bytes, in a text that begins with empty lines."""
COMMAND = (str(Path(sys.executable).with_name("gradwire")),)
LIGHT = """
import sys
for name in ("jax", "ray", "psutil", "pydantic_settings", "structlog", "gradwire_engine"):
    sys.modules[name] = None
from gradwire_server.cli.entry import main
sys.argv[0] = "gradwire"
main()
"""
"""What the command does where the server is not installed beside it."""
X = np.array([1.0, 2.0, 3.0])
W = np.array([[0.1, 0.2, 0.3], [0.0, -0.1, 0.2]])
Y = np.tanh(W @ X)
JACOBIAN = (1 - Y**2)[:, None] * W


@pytest.fixture
def gradwire(server, tmp_path):
    """Run the command in an empty folder with the model and inputs in it."""
    (tmp_path / "model.onnxtxt").write_text(MODEL)
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "model.onnx")
    (tmp_path / "open.onnxtxt").write_text(MODEL.replace("[3] x", "[N] x"))
    (tmp_path / "stencil.onnxtxt").write_text(STENCIL)
    (tmp_path / "reserved.onnxtxt").write_text(RESERVED)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "data.npz", W=W, other=X)

    def run(
        *arguments: str, address: bool = True, command: Sequence[str] = COMMAND, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        given = ["--address", server.address] if address else []
        environment = {name: value for name, value in os.environ.items() if name != "GRADWIRE_ADDRESS"}
        return subprocess.run(
            [*command, *arguments, *given],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=environment | variables,
        )

    run.folder = tmp_path
    return run


INPUTS = ("--input", "x=x.npy", "--input", "W=data.npz:W")


def test_jacobian_writes_one_array_for_each_pair_of_names(gradwire):
    done = gradwire("jacobian", "model.onnx", *INPUTS, "-o", "out.npz")
    assert done.returncode == 0, done.stderr
    written = np.load(gradwire.folder / "out.npz")
    assert set(written.files) == {"dy_dx", "dy_dW", "ds_dx", "ds_dW"}
    np.testing.assert_allclose(written["dy_dx"], JACOBIAN, rtol=1e-14)
    np.testing.assert_allclose(written["ds_dx"], JACOBIAN.sum(0)[None], rtol=1e-14)


def test_wrt_and_of_choose_and_a_single_result_may_be_a_npy_file(gradwire):
    done = gradwire("jacobian", "model.onnxtxt", *INPUTS, "--wrt", "x", "--of", "y", "-o", "out.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(gradwire.folder / "out.npy"), JACOBIAN, rtol=1e-14)


def test_hessian_is_the_derivative_of_the_gradient(gradwire):
    done = gradwire("hessian", "model.onnx", *INPUTS, "--wrt", "x", "--of", "s", "-o", "out.npy")
    assert done.returncode == 0, done.stderr
    expected = np.einsum("i,ij,ik->jk", -2 * Y * (1 - Y**2), W, W)
    np.testing.assert_allclose(np.load(gradwire.folder / "out.npy"), expected, rtol=1e-12)


def test_products_take_literal_vectors(gradwire):
    done = gradwire(
        "jvp", "model.onnx", *INPUTS, "--wrt", "x", "--of", "y", "--vector", "x=[1,0,-1]", "-o", "out.npy"
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(gradwire.folder / "out.npy"), JACOBIAN @ [1, 0, -1], rtol=1e-13)
    done = gradwire("vjp", "model.onnx", *INPUTS, "--wrt", "x", "--of", "y", "-v", "y=[1,2]", "-o", "out.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(gradwire.folder / "out.npy"), [1, 2] @ JACOBIAN, rtol=1e-13)


def test_value_prints_what_it_does_not_write_and_is_quiet_in_a_pipe(gradwire):
    done = gradwire("value", "model.onnx", *INPUTS)
    assert done.returncode == 0 and done.stderr == ""
    assert "y float64[2]" in done.stdout and "s float64[1]" in done.stdout


def test_outputs_may_have_any_name_and_bytes_are_given_as_numbers(gradwire):
    done = gradwire("value", "reserved.onnxtxt", "-i", "x=[255,0,1]", "-o", "out.npz")
    assert done.returncode == 0, done.stderr
    written = np.load(gradwire.folder / "out.npz")
    assert set(written.files) == {"file", "allow_pickle"}
    np.testing.assert_array_equal(written["file"], [255.0, 0.0, 1.0])
    np.testing.assert_array_equal(written["allow_pickle"], [-255.0, 0.0, -1.0])


def test_inspect_shows_inputs_outputs_and_operators(gradwire):
    done = gradwire("inspect", "model.onnx")
    assert done.returncode == 0, done.stderr
    for expected in ("x: float64[3]", "y: float64[2]", "Tanh x 1", "nodes: 3 in the graph", "opset 18"):
        assert expected in done.stdout


def test_plan_shows_mode_and_blocks_without_evaluating(gradwire):
    done = gradwire("plan", "model.onnx", *INPUTS, "--kind", "hessian", "--wrt", "x", "--of", "s")
    assert done.returncode == 0, done.stderr
    assert "hessian, forward over reverse mode" in done.stdout and "d2 s / dx dx" in done.stdout


def test_plan_needs_no_inputs_of_fixed_shapes(gradwire):
    done = gradwire("plan", "model.onnx", "--wrt", "x", "--of", "y")
    assert done.returncode == 0, done.stderr
    assert "jacobian, reverse mode: fewer rows (2) than columns (3)" in done.stdout
    done = gradwire("plan", "open.onnxtxt", "-i", "x=x.npy", "--wrt", "x", "--of", "y")
    assert done.returncode == 0, done.stderr


def test_a_sparse_jacobian_is_a_file_of_scipy(gradwire):
    done = gradwire("jacobian", "stencil.onnxtxt", "-i", "x=x.npy", "--sparse", "-o", "J.npz")
    assert done.returncode == 0, done.stderr
    assert "4 non-zeros of 2 × 3; 2 colors of" in done.stdout
    assert "J.npz: 2 x 3, 4 values of float64" in done.stdout
    matrix = scipy.sparse.load_npz(gradwire.folder / "J.npz")
    assert isinstance(matrix, scipy.sparse.csr_array)
    np.testing.assert_allclose(matrix.toarray(), [[2, 1, 0], [0, 3, 2]])


def test_a_sparse_hessian_is_one_matrix_of_all_inputs(gradwire):
    done = gradwire("hessian", "model.onnx", *INPUTS, "--of", "s", "--sparse", "-o", "H.npz")
    assert done.returncode == 0, done.stderr
    assert "d2 s / dW dx: rows 3:9, columns 0:3" in done.stdout
    matrix = scipy.sparse.load_npz(gradwire.folder / "H.npz").toarray()
    assert matrix.shape == (9, 9)
    np.testing.assert_allclose(
        matrix[:3, :3], np.einsum("i,ij,ik->jk", -2 * Y * (1 - Y**2), W, W), rtol=1e-12
    )
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)


def test_a_sparse_result_without_a_file_is_printed_as_coordinates(gradwire):
    done = gradwire("jacobian", "stencil.onnxtxt", "-i", "x=x.npy", "--sparse")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-5:] == ["row column value", "0 0 2", "0 1 1", "1 1 3", "1 2 2"]


def test_a_sparse_plan_shows_nonzeros_colors_and_bytes_against_dense(gradwire):
    done = gradwire("plan", "stencil.onnxtxt", "--sparse")
    assert done.returncode == 0, done.stderr
    for expected in ("4 non-zeros of 2 × 3", "2 colors", "values 32 B, coordinates 32 B once; dense 48 B"):
        assert expected in done.stdout


def test_without_scipy_a_sparse_file_is_refused_before_work(gradwire):
    light = (
        sys.executable,
        "-c",
        LIGHT.replace("import sys", "import sys, importlib.util as u").replace(
            "from gradwire_server",
            "f = u.find_spec\nu.find_spec = lambda n: None if n == 'scipy' else f(n)\nfrom gradwire_server",
            1,
        ),
    )
    asked = ("jacobian", "stencil.onnxtxt", "-i", "x=x.npy", "--sparse")
    done = gradwire(*asked, "-o", "J.npz", command=light)
    assert done.returncode == 1 and "pip install scipy" in done.stderr and not done.stdout
    done = gradwire(*asked, command=light)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "1 2 2", done.stderr


def test_the_address_may_be_in_the_environment(gradwire):
    done = gradwire("value", "model.onnx", *INPUTS, address=False, GRADWIRE_ADDRESS="http://a:1")
    assert done.returncode == 1 and "GRADWIRE_ADDRESS is no address" in done.stderr
    done = gradwire("value", "model.onnx", *INPUTS, address=False, GRADWIRE_ADRESS="a:1")
    assert done.returncode == 1 and "did you mean GRADWIRE_ADDRESS" in done.stderr


def test_the_version_is_told(gradwire):
    assert gradwire("--version", address=False).stdout == f"gradwire {gw.__version__}\n"


def test_without_the_server_installed_the_command_is_a_client_of_a_running_one(gradwire):
    light = (sys.executable, "-c", LIGHT)
    asked = ("jacobian", "model.onnx", *INPUTS, "--wrt", "x", "--of", "y", "-o", "y.npy")
    done = gradwire(*asked, command=light)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(gradwire.folder / "y.npy"), JACOBIAN, rtol=1e-14)
    for arguments in (("serve",), ("serve", "--help"), ("demo",), ("value", "model.onnx", *INPUTS)):
        done = gradwire(*arguments, address=False, command=light)
        assert done.returncode == 1 and "pip install 'gradwire[server]'" in done.stderr, arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("value", "model.onnx", "--input", "x=x.npy"), "W"),
        (("value", "model.onnx", "--input", "x"), "write NAME=VALUE"),
        (("value", "model.onnx", "--input", "x=absent.npy"), "absent.npy"),
        (("value", "model.onnx", "--input", "x=one"), "neither"),
        (("value", "model.onnx", "--input", "x=data.npz"), "name one of its arrays"),
        (("jacobian", "model.onnx", *INPUTS, "--wrt", "z"), "'z'"),
        (("jacobian", "model.onnx", *INPUTS, "--mode", "sideways"), "sideways"),
        (("hessian", "model.onnx", *INPUTS, "--of", "y"), "one"),
        (("vjp", "model.onnx", *INPUTS, "-v", "z=1"), "these do: y, s"),
        (("vjp", "model.onnx", *INPUTS, "-v", "y=[1,1]"), "a vector is missing for s: write s=VALUE"),
        (("jvp", "model.onnx", *INPUTS, "--wrt", "x"), "a vector is missing for x: write x=VALUE"),
        (("jacobian", "model.onnx", *INPUTS, "--sparse", "-o", "J.npy"), "scipy.sparse.load_npz"),
        (("value", "model.onnx", *INPUTS, "--timeout", "-1"), "-1 is no positive number of seconds"),
        (("value", "model.onnx", *INPUTS, "--timeout", "nan"), "nan is no positive number of seconds"),
        (("value", "absent.onnx"), "absent.onnx"),
        (("plan", "open.onnxtxt"), "x: float64[N]: its shape is open"),
        (("value", "reserved.onnxtxt", "-i", "x=[256,0,1]"), "cannot hold 256"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line_and_fails(gradwire, arguments, message):
    done = gradwire(*arguments)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_named(gradwire):
    done = gradwire("value", "model.onnx", *INPUTS, "--address", "127.0.0.1:1", address=False)
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr


def test_serve_lists_its_settings_and_refuses_wrong_ones(gradwire):
    listed = gradwire("serve", "--help", address=False)
    assert listed.returncode == 0 and "--evaluate-seconds" in listed.stdout + listed.stderr
    wrong = gradwire("serve", "--port", "many", address=False)
    assert wrong.returncode == 2 and "port" in wrong.stderr and "Traceback" not in wrong.stderr


def test_check_compares_derivatives_and_draws_the_inputs_left_out(gradwire):
    result = gradwire("check", "model.onnx", "--input", "x=x.npy")
    assert result.returncode == 0, result.stderr
    assert "W" in result.stderr and "drawn from a standard normal distribution" in result.stderr
    assert result.stdout.count("  ok") == 4
    assert "J v: graph and differences" in result.stdout


def test_check_ends_with_status_1_where_derivatives_are_not_those_of_the_values(gradwire, tmp_path):
    (tmp_path / "steps.onnxtxt").write_text(
        '<ir_version: 8, opset_import: ["" : 18]> g (double[3] x) => (double[3] y)'
        " <double k = {1000.0}> { a = Mul(x, k) b = Floor(a) y = Mul(b, x) }"
    )
    result = gradwire("check", "steps.onnxtxt", "-i", "x=[0.50005,2.00005,1.00005]")
    assert result.returncode == 1
    assert "DIFFERS" in result.stdout
    assert "the function does not pass its check" in result.stderr


def test_inner_values_and_weights_are_inputs_and_outputs(gradwire, tmp_path):
    np.save(tmp_path / "h.npy", W @ X)
    cut = ("--inputs", "h", "--outputs", "y")
    done = gradwire("jacobian", "model.onnxtxt", *cut, "-i", "h=h.npy", "-o", "J.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "J.npy"), np.diag(1 - Y**2), rtol=1e-14)

    (tmp_path / "scaled.onnxtxt").write_text(
        '<ir_version: 8, opset_import: ["" : 18]> g (double[3] x) => (double[3] y)'
        " <double[3] k = {1.0, 2.0, 3.0}> { y = Mul(x, k) }"
    )
    done = gradwire("jacobian", "scaled.onnxtxt", "--inputs", "k", "--inputs", "x", "--wrt", "k",
                    "-i", "x=x.npy", "-i", "k=[1,1,1]", "-o", "J.npy")  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "J.npy"), np.diag(X))

    shown = gradwire("inspect", "model.onnxtxt", *cut)
    assert shown.returncode == 0, shown.stderr
    assert "h: float64[" in shown.stdout and "s: float64" not in shown.stdout


def test_arrays_given_where_names_belong_are_told_the_option_for_them(gradwire):
    for option, other, given in (("--inputs", "--input", "x=x.npy"), ("--outputs", "--output", "out.npz")):
        done = gradwire("jacobian", "model.onnx", option, given)
        assert done.returncode == 2 and f"{other} is the option for arrays" in " ".join(done.stderr.split())
    done = gradwire("jacobian", "model.onnx", "--outputs", "z")
    assert done.returncode == 1 and "the graph has no value 'z'" in done.stderr
