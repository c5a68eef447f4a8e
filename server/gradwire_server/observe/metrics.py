"""Metrics for Prometheus, counted from events and read from the server when they are asked for.

https://prometheus.io/docs/practices/naming/ has the rules of their names and units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gradwire_server.observe.events import (
    BlockSent,
    BytesReceived,
    BytesSent,
    CallBegun,
    CallEnded,
    Event,
    Looked,
    TaskBegun,
    TaskEnded,
    WorkerGone,
    WorkerReady,
)
from gradwire_server.observe.readings import Reading

_CALL_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_START_SECONDS = (0.2, 0.5, 1, 2, 3, 5, 10, 30)


class Metrics:
    """The metrics of one server."""

    def __init__(self, read: Callable[[], Reading], version: str) -> None:
        """Count from now on.

        Args:
            read: says what the server holds; called in the thread that answers Prometheus.
            version: of the server.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(read))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gradwire_{name}", text, labels, registry=self._registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"gradwire_{name}", text, labels, buckets=buckets, registry=self._registry)

        info = Gauge("gradwire_build_info", "The version that runs", ("version",), registry=self._registry)
        info.labels(version).set(1)
        self._open = Gauge(
            "gradwire_calls_open", "Calls in progress", ("call", "tenant"), registry=self._registry
        )
        self._calls = counter("calls", "Calls that ended, by status", "call", "code", "tenant")
        self._seconds = histogram("call_seconds", "From a call's arrival to its end", _CALL_SECONDS, "call")
        self._received = counter(
            "received_bytes", "Bytes of graphs and arrays that came in", "call", "tenant"
        )
        self._sent = counter("sent_bytes", "Bytes of results that went out", "call", "tenant")
        self._blocks = counter("blocks", "Blocks of derivatives that were sent", "where")
        self._block_seconds = histogram("block_seconds", "Computing of one block", _CALL_SECONDS)
        self._waited = histogram("task_wait_seconds", "A task's wait for a worker", _CALL_SECONDS, "task")
        self._ran = histogram("task_seconds", "A task on a worker, with the way there", _CALL_SECONDS, "task")
        self._tasks = counter("tasks", "Tasks that came back from workers", "task", "outcome")
        self._compute = counter("worker_seconds", "Time of workers spent for a tenant", "tenant")
        self._started = histogram(
            "worker_start_seconds", "From wanting a worker to having it", _START_SECONDS
        )
        self._gone = counter("workers_lost", "Workers that died or were stopped", "reason")
        self._cache = counter("cache_lookups", "Lookups in caches, by where it was found", "cache", "found")

    def count(self, event: Event) -> None:
        """Count an event."""
        request = event.request
        call, tenant = (request.call, request.tenant) if request else ("", "")
        match event:
            case CallBegun():
                self._open.labels(call, tenant).inc()
            case CallEnded():
                self._calls.labels(event.call, event.code, tenant).inc()
                self._seconds.labels(event.call).observe(event.seconds)
                if event.admitted:
                    self._open.labels(call, tenant).dec()
            case BytesReceived():
                self._received.labels(call, tenant).inc(event.size)
            case BytesSent():
                self._sent.labels(call, tenant).inc(event.size)
            case BlockSent():
                self._blocks.labels("server" if event.worker == "server" else "worker").inc()
                self._block_seconds.observe(event.seconds)
            case TaskBegun():
                self._waited.labels(event.name).observe(event.waited)
            case TaskEnded():
                self._ran.labels(event.name).observe(event.seconds)
                self._tasks.labels(event.name, event.outcome).inc()
                self._compute.labels(tenant).inc(event.seconds)
            case WorkerReady():
                self._started.observe(event.seconds)
            case WorkerGone():
                self._gone.labels(event.reason).inc()
            case Looked():
                self._cache.labels(event.cache, event.found).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def names(self) -> set[str]:
        """Return the names of all series, as queries use them."""
        return {sample for metric in self._registry.collect() for sample in _series(metric)}


def _series(metric: Metric) -> Iterable[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return [metric.name + suffix for suffix in suffixes.get(metric.type, ("",))]


class _Readings(Collector):
    """Reads what the server holds when Prometheus asks."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        reading = self._read()
        yield GaugeMetricFamily("gradwire_workers", "Workers that take tasks", reading.workers)
        yield GaugeMetricFamily("gradwire_requests_queued", "Requests that wait for workers", reading.queued)
        held = GaugeMetricFamily("gradwire_held_bytes", "Bytes held for clients", labels=["purpose"])
        budget = GaugeMetricFamily("gradwire_budget_bytes", "Bytes that may be held", labels=["purpose"])
        for purpose, bytes_held in reading.held.items():
            held.add_metric([purpose], bytes_held.nbytes)
            budget.add_metric([purpose], bytes_held.budget)
        yield held
        yield budget
        yield GaugeMetricFamily("gradwire_resident_bytes", "Memory of the server's process", reading.resident)
