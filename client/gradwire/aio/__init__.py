"""The asynchronous twin of `gradwire`: the same functions and derivatives, as coroutines.

async with gw.aio.connect("localhost:50051") as client:
    f = client.function(lambda x: np.sin(x), gw.spec(3))
    J, H = await asyncio.gather(f.jacobian(x), f.gradient().jacobian(x))
"""

from gradwire.aio.accumulation import AsyncAccumulator
from gradwire.aio.client import AsyncClient, FunctionStream, connect
from gradwire.aio.connection import GraphInfo
from gradwire.aio.function import AsyncFunction
from gradwire.aio.retry import Retry

__all__ = [
    "AsyncAccumulator",
    "AsyncClient",
    "AsyncFunction",
    "FunctionStream",
    "GraphInfo",
    "Retry",
    "connect",
]
