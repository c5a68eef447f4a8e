"""Asks for a token where a service does not ask by itself, as reflection does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeAlias

import grpc

from gradwire_server.access.callers import Access
from gradwire_server.access.tokens import COMPUTE
from gradwire_server.rpc.status import end, status_of

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls of some services pass, and asks for a token for all others."""

    def __init__(self, access: Access, passing: Collection[str], scope: str = COMPUTE) -> None:
        """Let the services in `passing` through: those that ask by themselves, or are open to all.

        Args:
            access: says who may call.
            passing: names of services.
            scope: that a token needs for all others.
        """
        self._scope = scope
        self._access = access
        self._passing = passing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the method's handler, or one that refuses."""
        handler = await continuation(details)
        if handler is None or details.method.split("/")[1] in self._passing or not self._access.wants_tokens:
            return handler
        try:
            self._access.caller(tuple(details.invocation_metadata), {}, self._scope)
        except Exception as error:
            return _refusing(handler, error)
        return handler


def _refusing(handler: Any, error: Exception) -> Handler:
    async def refuse(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await end(context, status_of(error))

    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Any = makers[handler.request_streaming, handler.response_streaming]
    made: Handler = make(refuse, handler.request_deserializer, handler.response_serializer)
    return made
