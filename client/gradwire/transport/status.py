"""Translates gRPC statuses into the SDK's exceptions."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

import gradwire_wire as wire
from gradwire.errors import BY_CODE, PreconditionError, ServerError, Violation
from gradwire.transport.channel import RequestsCall, UploadCall

# The reason of the error for a stream that cannot be resumed, because the server would plan it differently.
PLAN_CHANGED = "PLAN_CHANGED"
# What gRPC says of a certificate that another attempt will not make valid.
_REFUSED_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
_WRITE_FAILED = "Internal error from Core"
_WAITS, _WAIT_SECONDS = 100, 0.01
T = TypeVar("T")


@contextmanager
def translated(address: str, timeout: float | None = None) -> Iterator[None]:
    """Translate a gRPC error raised in the block into the SDK's own, with a shorter message."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # The gRPC error repeats status and message in ten lines of debugging text: not chained.
        raise from_rpc_error(error, address, timeout) from None


class StatusRecorder:
    """Records the status that the server ended a stream of requests with.

    A write to a call that the server has ended makes gRPC replace the server's status by an internal error
    of its own, whether the server's has arrived already or is still to come. This keeps the server's.
    """

    def __init__(self, call: RequestsCall) -> None:
        self._known: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def _note(self, call: RequestsCall) -> None:
        # Called whenever a status is set; while one is set, none of these coroutines waits.
        details = _result_now(call.details())
        if details != _WRITE_FAILED:
            self._known = self._known or grpc.aio.AioRpcError(
                _result_now(call.code()), grpc.aio.Metadata(), _result_now(call.trailing_metadata()), details
            )

    async def reason(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the error to report in place of one that was raised by reading."""
        waits = _WAITS if error.details() == _WRITE_FAILED else 0
        while self._known is None and waits:
            waits -= 1
            await asyncio.sleep(_WAIT_SECONDS)
        return self._known or error


async def finish_upload(call: UploadCall) -> bytes:
    """Await the answer to streamed requests; raise the server's own error (see `StatusRecorder`)."""
    status = StatusRecorder(call)
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise await status.reason(error) from None


def _result_now(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that does not wait."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    raise RuntimeError("gRPC waits for the status of a call that has ended")


def from_rpc_error(error: grpc.aio.AioRpcError, address: str, timeout: float | None) -> ServerError:
    """Return the exception for a failed call.

    Args:
        error: what gRPC raised.
        address: of the server, for messages that gRPC itself made up.
        timeout: of the call in seconds, for the same.
    """
    name = error.code().name
    message = error.details() or ""
    details = list(_details(error))
    if not details:
        if name == "UNAVAILABLE":
            message = f"cannot reach the server at {address}: {message or 'no answer'}"
        elif name == "DEADLINE_EXCEEDED":
            limit = f" of {timeout:g} s" if timeout is not None else ""
            message = f"the call took longer than its timeout{limit} and was stopped"
    made = from_parts(name, message, details)
    made.final = _REFUSED_CERTIFICATE in message and not details
    return made


def _details(error: grpc.aio.AioRpcError) -> Iterator[AnyMessage]:
    for key, value in error.trailing_metadata() or ():
        if key == wire.STATUS_DETAILS_KEY:
            try:
                yield from status_pb2.Status.FromString(
                    value if isinstance(value, bytes) else value.encode("latin-1")
                ).details
            except DecodeError:
                continue


def from_parts(code: str | int, message: str, details: Iterable[AnyMessage]) -> ServerError:
    """Return the exception for a status.

    Args:
        code: name or number of a `google.rpc.Code`.
        message: what the server said.
        details: the messages of `google.rpc.Status.details`.
    """
    name = code if isinstance(code, str) else _code_name(code)
    violations: list[Violation] = []
    reason, request_id, metadata = "", "", dict[str, str]()
    retry_after: float | None = None
    for detail in details:
        bad, info, resource = (
            error_details_pb2.BadRequest(),
            error_details_pb2.ErrorInfo(),
            error_details_pb2.ResourceInfo(),
        )
        own, again = error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(info):
            reason = info.reason
            metadata |= dict(info.metadata)
        elif detail.Unpack(resource):
            metadata |= {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
        elif detail.Unpack(own):
            request_id = own.request_id
        elif detail.Unpack(again):
            retry_after = max(0.0, again.retry_delay.ToTimedelta().total_seconds())
    kind = PreconditionError if reason == PLAN_CHANGED else BY_CODE.get(name, ServerError)
    text = message or f"the server answered {name} and said no more"
    return kind(
        text,
        code=name,
        violations=violations,
        reason=reason,
        metadata=metadata,
        request_id=request_id,
        retry_after=retry_after,
    )


def _code_name(code: int) -> str:
    try:
        return str(code_pb2.Code.Name(code))
    except ValueError:
        return f"status {code}"
