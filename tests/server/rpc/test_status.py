"""From exceptions to statuses: what the connection tests do not reach."""

from __future__ import annotations

import string
from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from structlog.testing import capture_logs

from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_server.errors import TryLater, Unavailable, WorkerLost
from gradwire_server.rpc.status import status_of


def test_an_unforeseen_error_tells_the_client_an_id_and_the_log_the_rest() -> None:
    with capture_logs() as logs:
        status = status_of(KeyError("secret of another client"))
    assert status.code == code_pb2.INTERNAL
    assert "secret" not in status.message
    (entry,) = logs
    assert entry["error_id"] in status.message
    assert "secret" in str(entry["exc_info"][1])


def test_messages_fit_the_trailers() -> None:
    """Peers refuse some of what is over 8 KiB; there are a few other trailers."""
    for character in ("x", "%", "\n", "\N{SNOWMAN}", "\N{GRINNING FACE}", "\0", "\ud800"):
        status = status_of(InvalidInput(character * 100_000, f'inputs["{character * 10_000}"]'))
        message = quote(status.message, safe=string.printable.replace("%", "").rstrip())
        details = b64encode(status.SerializeToString())
        assert len(message) + len(details) < 7000, character
        assert status.message.endswith("...")
    short = status_of(InvalidInput("\N{SNOWMAN} is short", "x"))
    assert short.message == "\N{SNOWMAN} is short"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("draining"), grpc.StatusCode.UNAVAILABLE),
        (WorkerLost("three times"), grpc.StatusCode.INTERNAL),
        (MemoryError(), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (TimeoutError(), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_each_error_has_its_code(error: Exception, code: grpc.StatusCode) -> None:
    assert status_of(error).code == code.value[0]


def test_a_limit_carries_its_figures() -> None:
    status = status_of(LimitExceeded("too many", "nodes", 10, 11))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("LIMIT_EXCEEDED", "gradwire")
    assert dict(info.metadata) == {"limit": "nodes", "allowed": "10", "requested": "11"}


def test_a_limit_for_now_says_when_to_come_again() -> None:
    status = status_of(TryLater("too often", "stopped_workers", 20, 21, 2.5))
    assert status.code == code_pb2.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
