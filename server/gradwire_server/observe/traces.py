"""Traces for OpenTelemetry: a span a call, and under it one for each task that a worker ran for it.

A call that a client makes within a span of its own continues that trace: the SDK sends its context in the
metadata `traceparent` (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import time

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gradwire_server.observe.events import BlockSent, CallBegun, CallEnded, Event, Looked, Request, TaskEnded

_FINE = ("OK", "CANCELLED")


class Traces:
    """Makes spans from events and sends them to a collector, from a thread of its own."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Send to a collector.

        Args:
            endpoint: of OTLP over gRPC, such as "http://127.0.0.1:4317"; http is plain text.
            version: of the server.
        """
        resource = Resource.create({"service.name": "gradwire", "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("gradwire")
        self._calls: dict[int, Span] = {}
        # Events are on a clock that never jumps, spans on the wall's.
        self._offset = time.time() - time.monotonic()

    def follow(self, event: Event) -> None:
        """Make of an event what it means for spans."""
        request = event.request
        if request is None:
            return
        span = self._calls.get(request.number)
        match event:
            case CallBegun():
                self._begin(request, event.at)
            case CallEnded() if span is not None:
                del self._calls[request.number]
                span.set_attribute("rpc.grpc.status_code", event.code)
                if event.code not in _FINE:
                    span.set_status(Status(StatusCode.ERROR, event.code))
                span.end(self._nanoseconds(event.at))
            case TaskEnded():
                under = set_span_in_context(span) if span is not None else None
                start = self._nanoseconds(event.at - event.seconds)
                facts = {"gradwire.worker": event.worker, "gradwire.outcome": event.outcome}
                task = self._tracer.start_span(event.name, under, attributes=facts, start_time=start)
                task.end(self._nanoseconds(event.at))
            case BlockSent() if span is not None:
                facts_sent: dict[str, str | int] = {
                    "gradwire.block": event.index,
                    "gradwire.worker": event.worker,
                }
                span.add_event("block sent", facts_sent, self._nanoseconds(event.at))
            case Looked() if span is not None:
                looked = {"gradwire.cache": event.cache, "gradwire.found": event.found}
                span.add_event("cache", looked, self._nanoseconds(event.at))

    def _begin(self, request: Request, at: float) -> None:
        parent = TraceContextTextMapPropagator().extract({"traceparent": request.traceparent})
        facts = {
            "rpc.system": "grpc",
            "rpc.service": "gradwire.v1.GradientService",
            "rpc.method": request.call,
            "gradwire.request": request.id,
            "gradwire.tenant": request.tenant,
        }
        self._calls[request.number] = self._tracer.start_span(
            request.call, parent, SpanKind.SERVER, facts, start_time=self._nanoseconds(at)
        )

    def _nanoseconds(self, at: float) -> int:
        return int((at + self._offset) * 1e9)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
