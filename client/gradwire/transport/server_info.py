"""What a server says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gradwire.tables import html_table
from gradwire_wire.v1 import server_info_pb2


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's versions, limits and workers.

    Attributes:
        version: of its release.
        jax_version, onnx_version: of the libraries that evaluate and read graphs.
        workers: processes that compute, at the moment of the question.
        device: "cpu" or "gpu".
        threads_per_worker: threads of one of them.
        fingerprint: equal on servers whose results have the same bits.
        limits: by the names that `LimitError.limit` gives.
        evaluate_seconds, compile_seconds: how long an evaluation, and a compilation, may take at most.
        tenant: whose graphs and arrays this client's token gives access to; "" where none is asked for.
    """

    version: str
    jax_version: str
    onnx_version: str
    workers: int
    device: str
    threads_per_worker: int
    fingerprint: str
    limits: Mapping[str, int]
    evaluate_seconds: float
    compile_seconds: float
    tenant: str

    def _repr_html_(self) -> str:
        facts = [
            ("JAX, onnx", f"{self.jax_version}, {self.onnx_version}"),
            ("workers", f"{self.workers} on {self.device}, {self.threads_per_worker} threads each"),
            *((name, f"{value:,}") for name, value in self.limits.items()),
        ]
        return html_table(f"gradwire {self.version}", ("", ""), facts, [])


def server_info_from(message: server_info_pb2.GetServerInfoResponse) -> ServerInfo:
    """Read the server's answer."""
    return ServerInfo(
        message.version,
        message.jax_version,
        message.onnx_version,
        message.workers,
        message.device,
        message.threads_per_worker,
        message.fingerprint,
        MappingProxyType(dict(sorted(message.limits.items()))),
        message.evaluate_time.ToNanoseconds() * 1e-9,
        message.compile_time.ToNanoseconds() * 1e-9,
        message.tenant,
    )
