"""A bare grpc.aio client to measure against: it receives a stream of chunks and drops them.

Run as a process of its own, so that nothing the SDK does to its process helps or hinders it:
`python -m benchmarks.bare_client ADDRESS` reads numbers of chunks and answers each with a line when they
have arrived.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio


async def download(address: str) -> None:
    """Serve downloads until standard input ends."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.unary_stream("/bare/Download")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            async for _ in stream(line.strip().encode()):
                pass
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(download(sys.argv[1]))
