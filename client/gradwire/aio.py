"""The asynchronous interface of `gradwire`: the same functions and derivatives, as coroutines.

For example:

    async with gw.aio.connect("localhost:50051") as client:
        f = client.function(lambda x: np.sin(x), gw.spec(3))
        J, H = await asyncio.gather(f.jacobian(x), f.gradient().jacobian(x))
"""

from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.client import AsyncClient, FunctionStream, connect
from gradwire._face.function import AsyncFunction
from gradwire.transport.connection import GraphInfo
from gradwire.transport.retry import Retry
from gradwire.transport.server_info import ServerInfo

__all__ = [
    "AsyncAccumulator",
    "AsyncClient",
    "AsyncFunction",
    "FunctionStream",
    "GraphInfo",
    "Retry",
    "ServerInfo",
    "connect",
]
