"""Evaluate of a 10-element vjp against a bare echo of the same bytes, over an open stream and unary.

python -m benchmarks.latency
"""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter

import grpc.aio
import numpy as np

import gradwire as gw
from benchmarks.bare import bare_server
from benchmarks.report import Figure, table
from gradwire_wire.v1 import function_pb2

CALLS = 2000
ROUNDS = 5


def _same_bytes() -> bytes:
    """Return a request of the size that the vjp's has."""
    tensors = {name: gw.wire.to_tensor(np.ones(10)) for name in ("x", "y.cotangent")}
    vjp = function_pb2.Transform(vjp=function_pb2.VjpTransform(wrt=["x"], of=["y"]))
    function = function_pb2.Function(graph_id="0" * 64, transforms=[vjp])
    evaluate = function_pb2.EvaluateRequest(function=function, inputs=tensors)
    return function_pb2.EvaluateStreamRequest(call_id=1, evaluate=evaluate).SerializeToString()


async def _measure(address: str, bare: str) -> tuple[dict[str, float], ...]:
    x, w = np.linspace(0.1, 1, 10), np.linspace(1, 2, 10)
    payload = _same_bytes()
    samples: dict[str, list[float]] = {"stream": [], "echo stream": [], "unary": [], "echo unary": []}
    async with gw.aio.connect(address) as client, grpc.aio.insecure_channel(bare) as channel:
        f = client.function(lambda x: np.tanh(x) * np.sin(x), gw.spec(10))
        unary_echo = channel.unary_unary("/bare/Echo")
        for _ in range(200):
            await f.vjp(x, w)
            await unary_echo(payload)
        for _ in range(ROUNDS):
            async with f.stream() as streamed:
                for _ in range(CALLS // ROUNDS):
                    start = perf_counter()
                    await streamed.vjp(x, w)
                    samples["stream"].append(perf_counter() - start)
            call = channel.stream_stream("/bare/EchoStream")()
            for _ in range(CALLS // ROUNDS):
                start = perf_counter()
                await call.write(payload)
                await call.read()
                samples["echo stream"].append(perf_counter() - start)
            await call.done_writing()
            for _ in range(CALLS // ROUNDS):
                start = perf_counter()
                await f.vjp(x, w)
                samples["unary"].append(perf_counter() - start)
            for _ in range(CALLS // ROUNDS):
                start = perf_counter()
                await unary_echo(payload)
                samples["echo unary"].append(perf_counter() - start)
    middle = {name: median(taken) for name, taken in samples.items()}
    tail = {name: sorted(taken)[int(0.99 * len(taken))] for name, taken in samples.items()}
    return middle, tail


def figures() -> list[Figure]:
    """Return two rows: stream and unary."""
    with gw.local(workers=2) as client, bare_server() as bare:
        client.wait_ready()
        middle, tail = asyncio.run(_measure(client.address, bare))
    rows = []
    for name, target in (("stream", 3.0), ("unary", 2.0)):
        ratio = middle[name] / middle[f"echo {name}"]
        rows.append(
            Figure(
                f"vjp of 10 elements, {name}, p50",
                f"{middle[name] * 1e6:.0f} us (p99 {tail[name] * 1e6:.0f})",
                f"bare grpc.aio echo of the same bytes, {middle[f'echo {name}'] * 1e6:.0f} us",
                ratio,
                f"at most {target:g}",
                ratio <= target,
            )
        )
    return rows


if __name__ == "__main__":
    print(table(figures()))
