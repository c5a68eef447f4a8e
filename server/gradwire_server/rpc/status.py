"""Turns exceptions into gRPC statuses with `google.rpc` details: the error table, in one place."""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from itertools import accumulate
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from gradwire_engine.errors import EngineError, InvalidGraph, InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_server.errors import (
    Forbidden,
    NotBuilt,
    Overloaded,
    PlanChanged,
    ServiceError,
    Stalled,
    TimeLimit,
    TryLater,
    Unauthenticated,
    Unavailable,
    UnknownId,
    WorkerLost,
)
from gradwire_server.observe.events import current_request
from gradwire_wire import STATUS_DETAILS_KEY, WireError

DOMAIN = "gradwire"
# Statuses travel in HTTP/2 trailers, which peers bound at 8 KiB: the message once as it is, and again in the
# details. What is not printable ASCII takes three bytes for each of its own, and so does "%".
_MESSAGE_BYTES = 2000
_FIELD_BYTES = 256
_DESCRIPTION_BYTES = 512

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = structlog.get_logger()


def status_of(error: BaseException) -> Status:
    """Make the status that tells a client about an error.

    An error of no known class becomes INTERNAL with an id; the log has the traceback under that id.
    """
    if isinstance(error, EngineError):
        return _engine_status(error)
    if isinstance(error, WireError):
        return _status(code_pb2.INVALID_ARGUMENT, str(error), _violation("", str(error)))
    if isinstance(error, ServiceError):
        return _service_status(error)
    if isinstance(error, TimeoutError):
        return _status(code_pb2.DEADLINE_EXCEEDED, "the deadline passed before the result was ready")
    if isinstance(error, asyncio.CancelledError):
        return _status(code_pb2.CANCELLED, "the call was cancelled")
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return _status(
            code_pb2.RESOURCE_EXHAUSTED,
            "the computation ran out of memory; ask for narrower blocks or a smaller batch",
            _info("LIMIT_EXCEEDED", limit="memory"),
        )
    return _internal_status(error)


def _engine_status(error: EngineError) -> Status:
    message = str(error)
    if isinstance(error, InvalidInput):
        return _status(code_pb2.INVALID_ARGUMENT, message, _violation(error.field, message))
    if isinstance(error, InvalidGraph):
        return _status(
            code_pb2.INVALID_ARGUMENT, message, _violation("model", message), _info("INVALID_GRAPH")
        )
    if isinstance(error, NotDifferentiable):
        return _status(code_pb2.FAILED_PRECONDITION, message, _info("NOT_DIFFERENTIABLE"))
    if isinstance(error, LimitExceeded):
        return _limit_status(message, error.limit, error.allowed, error.requested)
    return _internal_status(error)


def _service_status(error: ServiceError) -> Status:
    message = str(error)
    if isinstance(error, UnknownId):
        resource = ResourceInfo(
            resource_type=f"gradwire.v1.{error.kind.capitalize()}",
            resource_name=_shortened(error.identifier, 128),
            description=_shortened(message, _FIELD_BYTES),
        )
        return _status(code_pb2.NOT_FOUND, message, resource)
    if isinstance(error, Unauthenticated):
        return _status(code_pb2.UNAUTHENTICATED, message, _info("UNAUTHENTICATED"))
    if isinstance(error, Forbidden):
        return _status(code_pb2.PERMISSION_DENIED, message, _info("FORBIDDEN"))
    if isinstance(error, NotBuilt):
        return _status(code_pb2.UNIMPLEMENTED, message, _violation(error.field, message))
    if isinstance(error, PlanChanged):
        return _status(code_pb2.FAILED_PRECONDITION, message, _info("PLAN_CHANGED"))
    if isinstance(error, Overloaded):
        status = _limit_status(message, error.limit, error.allowed, error.requested)
        if isinstance(error, TryLater):
            retry = RetryInfo()
            retry.retry_delay.FromNanoseconds(int(max(0.0, error.seconds) * 1e9))
            status.details.add().Pack(retry)
        return status
    if isinstance(error, TimeLimit):
        return _status(code_pb2.DEADLINE_EXCEEDED, message, _info("TIME_LIMIT"))
    if isinstance(error, Stalled):
        return _status(code_pb2.UNAVAILABLE, message, _info("STALLED"))
    if isinstance(error, Unavailable):
        return _status(code_pb2.UNAVAILABLE, message, _info("UNAVAILABLE"))
    if isinstance(error, WorkerLost):
        return _status(code_pb2.INTERNAL, message, _info("WORKER_LOST"))
    return _internal_status(error)


def _limit_status(message: str, limit: str, allowed: int, requested: int) -> Status:
    info = _info("LIMIT_EXCEEDED", limit=limit, allowed=str(allowed), requested=str(requested))
    return _status(code_pb2.RESOURCE_EXHAUSTED, message, info)


def _internal_status(error: BaseException) -> Status:
    identifier = secrets.token_hex(6)
    _log.error("internal error", error_id=identifier, exc_info=(type(error), error, error.__traceback__))
    message = f"internal error {identifier}; the server's log has the rest under this id"
    return _status(code_pb2.INTERNAL, message, _info("INTERNAL", error_id=identifier))


def _status(code: int, message: str, *details: Message) -> Status:
    status = Status(code=code, message=_shortened(message))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _shortened(text: str, most: int = _MESSAGE_BYTES) -> str:
    """Return a text that takes at most so many bytes on its way, cut where it takes more."""
    # A surrogate that stands alone, which a name in a graph may have, has no bytes at all.
    text = text[: most + 1].encode(errors="replace").decode()
    if sum(map(_cost, text)) <= most:
        return text
    costs = accumulate(map(_cost, text))
    return text[: bisect_right(list(costs), most - 3)] + "..."


def _cost(character: str) -> int:
    return 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())


def _violation(field: str, description: str) -> BadRequest:
    violation = BadRequest.FieldViolation(
        field=_shortened(field, _FIELD_BYTES), description=_shortened(description, _DESCRIPTION_BYTES)
    )
    return BadRequest(field_violations=[violation])


def _info(reason: str, **metadata: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _is_out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "JaxRuntimeError" and str(error).startswith("RESOURCE_EXHAUSTED")


def code_of(status: Status) -> grpc.StatusCode:
    """Return the code of a status."""
    return _CODES[status.code]


async def end(context: grpc.aio.ServicerContext[Any, Any], status: Status) -> NoReturn:
    """End a call with a status, its details and the request's id in the trailing metadata."""
    request = current_request()
    if request is not None:
        status.details.add().Pack(RequestInfo(request_id=request.id))
    trailer = (STATUS_DETAILS_KEY, status.SerializeToString())
    await context.abort(code_of(status), status.message, trailing_metadata=(trailer,))
    raise AssertionError("abort raises")
