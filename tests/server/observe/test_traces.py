"""Traces: from a client's span through the server to the tasks of its workers, at a real collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

import gradwire as gw
from gradwire_server.process import embedded
from tests.conftest import wait_until_serving


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self._arrived = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:
        with self._arrived:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str, trace: bytes, seconds: float = 30) -> list[Any]:
        """The spans of a name in a trace, once there are any."""
        end = time.monotonic() + seconds
        with self._arrived:
            while True:
                found = [span for span in self.spans if span.name == name and span.trace_id == trace]
                if found or time.monotonic() > end:
                    return found
                self._arrived.wait(0.5)


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(1).wait()


def test_a_client_s_span_leads_to_the_tasks_of_workers(collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    tracer = TracerProvider().get_tracer("test")
    server = embedded.start(workers=1, cache_dir=None, log_level="error", trace_endpoint=endpoint)
    try:
        wait_until_serving(server.address)
        with gw.connect(server.address) as client, tracer.start_as_current_span("mine") as mine:
            f = client.function(lambda x: np.sin(x), gw.spec(40))
            f.jacobian(np.ones(40), block_width=10)
            with pytest.raises(gw.NotFoundError):
                client.function("0" * 64)
        context = mine.get_span_context()
        trace = context.trace_id.to_bytes(16, "big")
        (call,) = kept.named("Differentiate", trace)
        assert call.parent_span_id == context.span_id.to_bytes(8, "big")
        assert [event.name for event in call.events].count("block sent") == 4
        tasks = [span for span in kept.spans if span.parent_span_id == call.span_id]
        assert "plan" in {task.name for task in tasks}
        for task in tasks:
            assert task.trace_id == trace
            assert call.start_time_unix_nano <= task.start_time_unix_nano
            assert task.end_time_unix_nano <= call.end_time_unix_nano
        failed = kept.named("GetGraph", trace)[-1]
        assert failed.status.message == "NOT_FOUND"
    finally:
        server.stop()
