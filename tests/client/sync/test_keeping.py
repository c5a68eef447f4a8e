"""Functions are kept: in ONNX files, and pickled to be used in another process."""

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import gradwire as gw

X = np.array([0.5, 2.0])
LARGE = np.arange(2.0 * (1 << 17)).reshape(2, -1) / (1 << 17)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def over_large(x: Any) -> Any:
    return np.sum(np.sin(x) @ LARGE)


def test_a_saved_function_is_an_onnx_file_with_its_large_constants(client: gw.Client, tmp_path: Path) -> None:
    f = client.function(over_large, gw.spec(2))
    assert f.constants
    f.save(tmp_path / "f.onnx")
    (value,) = ReferenceEvaluator(str(tmp_path / "f.onnx")).run(None, {"x": X})
    np.testing.assert_allclose(value, over_large(X))
    again = client.function(tmp_path / "f.onnx")
    assert not again.constants
    np.testing.assert_allclose(again.grad(X), np.cos(X) * LARGE.sum(1))
    onnx.checker.check_model(f.model, full_check=True)


def test_a_derivative_has_no_file(client: gw.Client, tmp_path: Path) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=r"a derivative \(gradient\) has no form in ONNX"):
        client.function(over_large, gw.spec(2)).gradient().save(tmp_path / "g.onnx")


def test_what_the_server_makes_of_a_model_has_no_file_and_can_be_pickled(
    client: gw.Client, tmp_path: Path
) -> None:
    model = """<ir_version: 8, opset_import: ["" : 18]>
        g (double[2] x, double k) => (double[2] y) { y = Mul(x, k) }"""
    f = client.function(model, fixed={"k": 3.0})
    with pytest.raises(gw.TraceError, match="pickle the function"):
        f.save(tmp_path / "f.onnx")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(f))(X), 3 * X)


def _gradient_of(pickled: bytes) -> Any:
    return pickle.loads(pickled)(X)


def test_a_pickled_function_works_in_another_process(client: gw.Client) -> None:
    f = client.function(over_large, gw.spec(2))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_gradient_of, (pickle.dumps(f.gradient()),))
    np.testing.assert_allclose(found, np.cos(X) * LARGE.sum(1))


@pytest.mark.parametrize("kept", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_are_functions_of_their_own_on_the_same_server(client: gw.Client, kept: Any) -> None:
    f = client.function(lambda x: np.sum(x**3), gw.spec(2), names=["v"])
    again = kept(f)
    assert again.signature == f.signature
    assert again.graph_id == f.graph_id
    np.testing.assert_allclose(again.hessian(v=X), np.diag(6 * X))
