"""Real models beside onnxruntime: the forward pass, and one product with a cotangent.

python -m benchmarks.real_models      (needs onnxruntime: pip install 'gradwire[peers]')

The models are those that packages of PyPI carry: speechmos (DNSMOS), rapidocr-onnxruntime (PP-OCRv4). Their
wheels are downloaded to a folder that is removed afterwards, and are not installed.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

import gradwire as gw
from benchmarks.report import Figure, interleaved, table

ROUNDS = 7


@dataclass(frozen=True)
class RealModel:
    """A model in a package.

    Attributes:
        name: of the row.
        package: of PyPI.
        path: within the wheel.
        shape: of the float32 input.
    """

    name: str
    package: str
    path: str
    shape: tuple[int, ...]


MODELS = (
    RealModel("DNSMOS, speech quality", "speechmos", "speechmos/dnsmos_models/sig.onnx", (1, 901, 161)),
    RealModel(
        "PP-OCRv4, recognition",
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        (1, 3, 48, 320),
    ),
)


def _downloaded(model: RealModel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, model.package], check=True, stdout=sys.stderr)
    (wheel,) = folder.glob(f"{model.package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.path, folder))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _figures(client: gw.Client, model: RealModel, path: Path) -> list[Figure]:
    # A worker computes with one thread; onnxruntime takes one for each core unless told otherwise.
    one, all_cores = _session(path, 1), _session(path, 0)
    name = one.get_inputs()[0].name
    x = 0.1 * np.random.default_rng(0).standard_normal(model.shape).astype(np.float32)
    f = client.function(path)
    (expected, *_), found = one.run(None, {name: x}), f(x)
    found = found[0] if isinstance(found, tuple) else found
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    w = np.ones_like(found)
    f.vjp(x, w, of=0)
    ours, alone, theirs, product = interleaved(
        ROUNDS,
        lambda: f(x),
        lambda: one.run(None, {name: x}),
        lambda: all_cores.run(None, {name: x}),
        lambda: f.vjp(x, w, of=0),
    )
    forward = [
        Figure(
            f"{model.name}, forward",
            f"{ours * 1e3:.0f} ms",
            f"onnxruntime in process, {threads}, {time * 1e3:.0f} ms",
            ours / time,
            "at most 2",
            ours <= 2 * time,
        )
        for threads, time in (("one thread", alone), ("all cores", theirs))
    ]
    return [
        *forward,
        Figure(
            f"{model.name}, vjp",
            f"{product * 1e3:.0f} ms",
            f"its own forward pass, {ours * 1e3:.0f} ms",
            product / ours,
            "at most 4",
            product <= 4 * ours,
        ),
    ]


def main() -> None:
    """Print the rows of all models."""
    rows: list[Figure] = []
    with TemporaryDirectory() as folder, gw.local(workers=2) as client:
        client.wait_ready()
        for model in MODELS:
            rows += _figures(client, model, _downloaded(model, Path(folder)))
    print(table(rows))


if __name__ == "__main__":
    main()
