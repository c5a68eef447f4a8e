"""A worker at work in a real Ray: what it loads and knows, which is neither the client nor any secret."""

from __future__ import annotations

import os
import subprocess
import sys

WORK = """
import asyncio, sys
from gradwire_server.process import environment
environment.prepare_server(1, 0, local_ray=True, cache=None)
import ray
from gradwire_server.process import app
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType
from gradwire_server.compute.ray_worker import RayLink
from gradwire_server.compute.remote_worker import RemoteWorker
from gradwire_server.compute.shared_values import SharedValue
from gradwire_server.compute.workbench import Delivery, NotHeld, Workbench
from gradwire_server.compute.worker import (
    CompileRequest, EvaluateRequest, Executable, LoadableKernel, RegisterRequest
)
from gradwire_server.settings import Settings
import numpy as np

def loaded(workbench):
    import sys
    return sorted(sys.modules)

def known(workbench):
    import os
    return sorted(name for name, value in os.environ.items() if "secret" in value or name == "RAY_AUTH_TOKEN")

async def work():
    link = RayLink("worker", Settings())
    await link.ready()
    worker = RemoteWorker(link)
    text = b'<ir_version: 10, opset_import: ["" : 21]> g (double[2] x) => (double[2] y) { y = Sin(x) }'
    graph = await worker.register(RegisterRequest(SharedValue("graph", text), True))
    spec = EvaluateSpec(FunctionSpec(graph.info.graph_id), (("x", ArrayType("float64", (2,))),))
    made = await worker.compile(CompileRequest(graph, spec))
    executable = Executable(spec, made.facts, SharedValue("kernel", made.executable))
    computed = await worker.evaluate(
        EvaluateRequest(LoadableKernel(graph, executable), {"x": np.zeros(2)})
    )
    assert computed.arrays[0].tolist() == [0, 0]
    try:
        await link.call(Workbench.evaluate, Delivery(), "unknown", {})
    except NotHeld:
        pass
    else:
        raise AssertionError("a kernel was run that the worker does not hold")
    print(await link.call(known))
    return await link.call(loaded)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
for names in asyncio.run(work()), sorted(sys.modules):
    assert "gradwire_engine" in names and "gradwire_wire" in names
    print([name for name in names if name == "gradwire" or name.startswith("gradwire.")])
ray.shutdown()
"""


def test_a_worker_at_work_knows_no_secret_and_neither_it_nor_the_server_loads_the_client() -> None:
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "a secret", "GRADWIRE_TOKEN": "a secret"}
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]
