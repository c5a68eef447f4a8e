"""Structured logs on standard error: for people, or one JSON object per line."""

from __future__ import annotations

import logging
import sys

import structlog

from gradwire_server.observe.events import current_request


def _with_request(
    logger: object, method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the request that is served to a line of the log."""
    request = current_request()
    if request is not None:
        entry.setdefault("request", request.id)
        entry.setdefault("call", request.call)
        if request.tenant:
            entry.setdefault("tenant", request.tenant)
    return entry


def configure(form: str, level: str) -> None:
    """Set up logging for this process.

    Args:
        form: "console" or "json".
        level: the lowest level that is logged: "debug", "info", "warning" or "error".
    """
    shared: list[structlog.typing.Processor] = [
        _with_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the values of local variables: they may be a client's data.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    if form == "json":
        shared += [tracebacks, structlog.processors.JSONRenderer()]
    else:
        shared += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
