"""The port for Prometheus and for probes over HTTP: /metrics, /healthz and /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from gradwire_server.observe.metrics import Metrics

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # a peer that sends nothing holds a thread for so long

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: probes come every few seconds."""


class HttpPort:
    """Answers Prometheus and probes in threads of its own: they are answered while the event loop is busy."""

    def __init__(self, host: str, port: int, metrics: Metrics, serving: Callable[[], bool]) -> None:
        """Open the port.

        Args:
            host, port: where to listen; port 0 picks a free one.
            metrics: to show.
            serving: whether workers take tasks.

        Raises:
            OSError: the port is taken.
        """
        self._metrics = metrics
        self._serving = serving
        self._server = make_server(host, port, self._answer, _Server, _QuietHandler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"GET alone\n"
        elif path == "/metrics":
            status, body = "200 OK", self._metrics.text()
        elif path == "/healthz":
            status, body = "200 OK", b"alive\n"
        elif path == "/readyz" and self._serving():
            status, body = "200 OK", b"serving\n"
        elif path == "/readyz":
            status, body = "503 Service Unavailable", b"no workers\n"
        else:
            status, body = "404 Not Found", b"/metrics, /healthz, /readyz\n"
        start(status, [("Content-Type", _TEXT), ("Content-Length", str(len(body)))])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []
