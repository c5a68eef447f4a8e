"""Settings: one typed model for the configuration file, the environment and the flags.

Flags take precedence over `GRADWIRE_*` variables, those over the TOML file that `--config` or
`GRADWIRE_CONFIG` names, and that over the defaults. Every limit of the service is here. Numbers of bytes may
have a unit: 512MB, 2GiB.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gradwire_engine.limits import Limits
from gradwire_server import machine
from gradwire_server.settings_sources import PREFIX, FileSource, bytes_of, check_environment, explained
from gradwire_wire.hosts import is_loopback

MIB = 1 << 20
GIB = 1 << 30

_OF_THE_MACHINE = 0.4
_IN_OBJECT_STORE = 0.8
"""What of the bytes held for clients may be in Ray's object store at the same time."""

_LEAST_OBJECT_STORE = 256 * MIB
_WORKERS_CACHES = 0.25
"""Memory for the caches of all workers together, as a part of what is held for clients."""

_PARTS = {
    "graphs": ("graph_cache_bytes", 0.15),
    "tensors": ("tensor_cache_bytes", 0.2),
    "uploads": ("upload_bytes", 0.2),
    "requests": ("pending_bytes", 0.05),
    "results": ("unread_bytes", 0.2),
    "sums": ("accumulation_bytes", 0.1),
    "kernels": ("kernel_cache_bytes", 0.04),
    "structures": ("structure_cache_bytes", 0.06),
}
"""The setting of each purpose, and its part of `memory_bytes` unless that is set."""

PositiveBytes = Annotated[PositiveInt, BeforeValidator(bytes_of)]
NonNegativeBytes = Annotated[NonNegativeInt, BeforeValidator(bytes_of)]


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gradwire"


def _default_memory() -> int:
    return int(_OF_THE_MACHINE * machine.memory_bytes())


def _folder(value: Any) -> Any:
    if value == "":
        raise ValueError("it is empty: name a folder, or null to keep nothing")
    return None if value == "null" else value


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="gradwire-server",
    )

    config: Path | None = Field(None, description="a TOML file of settings")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; unix:PATH has no port")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 picks a free one")

    token_file: Path | None = Field(
        None, description="tokens of clients, as `gradwire token new` writes them; none: anyone may call"
    )
    tls_cert: Path | None = Field(None, description="this server's certificate, in PEM; none: plain text")
    tls_key: Path | None = Field(None, description="the certificate's private key, in PEM")
    tls_client_ca: Path | None = Field(
        None, description="roots of the certificates that clients must show, in PEM; none: they show none"
    )
    plain_text_tokens: bool = Field(
        False, description="tokens may travel in plain text: something in front of the server encrypts"
    )

    admin_host: str = Field(
        "127.0.0.1", min_length=1, description="address for metrics, probes and `gradwire status`"
    )
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="port for `gradwire status`, channelz and health in plain text"
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port for Prometheus and HTTP probes: /metrics, /healthz, /readyz"
    )

    trace_endpoint: str = Field(
        "", description="collector of traces, OTLP over gRPC, such as http://127.0.0.1:4317; empty: no traces"
    )

    workers: PositiveInt | Literal["auto"] = Field(
        "auto", description="worker processes; auto: one per CPU core, or per GPU"
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="what workers compute on")
    threads_per_worker: PositiveInt = Field(
        1, description="threads of one CPU worker; part of what makes results the same bit by bit"
    )
    ray_address: str = Field("", description="a Ray cluster to join (host:port or auto); empty: a local Ray")
    memory_bytes: PositiveBytes = Field(
        default_factory=_default_memory,
        description="held for all clients together; by default 40% of the machine or its control group",
    )
    object_store_bytes: PositiveBytes | None = Field(
        None, description="shared memory of a local Ray; by default 80% of memory-bytes, as far as there is"
    )
    worker_cache_bytes: PositiveBytes | None = Field(
        None,
        description="graphs, weights, kernels and arrays kept in each worker; by default all workers "
        "together 25% of memory-bytes",
    )
    worker_niceness: int = Field(
        5, ge=0, le=19, description="niceness of workers: the server's process goes first"
    )
    cache_dir: Annotated[Path | None, BeforeValidator(_folder)] = Field(
        default_factory=_default_cache_dir,
        description="compiled kernels are kept for the next start in folders made here; null: nowhere",
    )

    graph_bytes: PositiveBytes = Field(512 * MIB, description="limit: a serialized graph")
    graph_nodes: PositiveInt = Field(200_000, description="limit: nodes of a graph")
    array_bytes: PositiveBytes = Field(8 * GIB, description="limit: any one array while evaluating")
    evaluation_bytes: PositiveBytes = Field(8 * GIB, description="limit: all arrays of one evaluation")
    detection_bytes: PositiveBytes = Field(
        4 * GIB, description="limit: memory in which a sparsity pattern is found"
    )
    nonzeros: PositiveInt = Field(500_000_000, description="limit: entries of a sparsity pattern")
    colors: PositiveInt = Field(100_000, description="limit: seeds of a sparse derivative")
    loop_trips: PositiveInt = Field(10_000_000, description="limit: trips of a loop of known length")
    tensor_bytes: PositiveBytes = Field(2 * GIB, description="limit: an uploaded array")
    upload_bytes: PositiveBytes | None = Field(
        None, description="limit: all uploads in progress together; by default 20% of memory-bytes"
    )
    pending_bytes: PositiveBytes | None = Field(
        None, description="limit: inputs of all calls on streams in progress; by default 5% of memory-bytes"
    )
    unread_bytes: PositiveBytes | None = Field(
        None, description="results of all requests that are not read yet; by default 20% of memory-bytes"
    )
    message_fields: PositiveInt = Field(
        8192, description="limit: fields of a received message of over 256 KiB"
    )
    names: PositiveInt = Field(
        4096, description="limit: inputs, outputs or names of one list in a request, and of a function"
    )
    name_bytes: PositiveBytes = Field(4096, description="limit: a name or an id in a request")
    transforms: PositiveInt = Field(16, description="limit: transforms of one function")
    equations: PositiveInt = Field(
        1_000_000, description="limit: equations of a function with its transforms, as estimated"
    )
    request_bytes: PositiveBytes = Field(4 * MIB, description="limit: a received message")
    message_bytes: PositiveBytes = Field(3584 * 1024, description="limit: the result of a unary Evaluate")
    result_bytes: PositiveBytes = Field(1 << 44, description="limit: all blocks of one derivative")
    plan_blocks: PositiveInt = Field(1 << 18, description="limit: blocks of one derivative")
    queue_length: PositiveInt = Field(1024, description="limit: requests that wait for workers")
    concurrent_rpcs: PositiveInt = Field(
        1024, description="limit: calls and streams open at once, health checks apart"
    )
    tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="of the calls and bytes that others leave, what one tenant may have, or one address "
        "where nobody is asked who they are",
    )
    idle_seconds: PositiveFloat = Field(
        600.0, description="an EvaluateStream or Accumulate ends after so long without a message or work"
    )
    stalled_seconds: PositiveFloat = Field(60.0, description="an upload ends after so long without a message")
    unread_seconds: PositiveFloat = Field(
        600.0, description="a stream ends when its client has not read for so long"
    )
    calls_per_stream: PositiveInt = Field(256, description="calls in flight on one EvaluateStream")

    block_memory_bytes: PositiveBytes = Field(
        256 * MIB, description="memory of one block, unless asked otherwise"
    )
    blocks_in_flight: NonNegativeInt = Field(
        0, description="blocks or batches of one request; 0: three per worker, at least 4"
    )
    inflight_bytes: PositiveBytes = Field(
        512 * MIB, description="unread blocks, or batches not yet added, of one request"
    )
    accumulation_bytes: PositiveBytes | None = Field(
        None, description="limit: the sums of all accumulations together; by default 10% of memory-bytes"
    )
    evaluate_seconds: PositiveFloat = Field(300.0, description="limit: one evaluation, block or batch")
    compile_seconds: PositiveFloat = Field(600.0, description="limit: one parsing, planning or compilation")
    cancel_grace_seconds: NonNegativeFloat = Field(
        0.5, description="an abandoned computation may go on for so long before its worker is replaced"
    )
    spare_workers: NonNegativeInt = Field(
        1, description="workers that stand by, started, to take the place of one that is lost; none on GPUs"
    )
    heartbeat_seconds: NonNegativeFloat = Field(
        10.0,
        description="a worker on this machine of which no thread has run for so long is frozen and replaced; "
        "0: never",
    )
    attempts: PositiveInt = Field(3, description="workers that one task may lose before it fails")

    graph_cache_bytes: PositiveBytes | None = Field(
        None, description="registered graphs kept; by default 15% of memory-bytes"
    )
    tensor_cache_bytes: PositiveBytes | None = Field(
        None, description="uploaded arrays kept; by default 20% of memory-bytes"
    )
    kernel_cache_bytes: PositiveBytes | None = Field(
        None, description="compiled kernels kept in memory; by default 4% of memory-bytes"
    )
    structure_cache_bytes: PositiveBytes | None = Field(
        None,
        description="patterns and colorings kept in memory; by default 6% of memory-bytes",
    )
    held_seconds: PositiveFloat | None = Field(
        None, description="graphs and arrays that nobody has used for so long are deleted; null: never"
    )
    kernel_disk_bytes: PositiveBytes = Field(4 * GIB, description="compiled kernels kept on disk")
    plan_cache_entries: PositiveInt = Field(256, description="plans kept")

    fast_path_flops: NonNegativeFloat = Field(
        5e7,
        description="fast path: the server's own process runs kernels of up to so many operations; 0: none",
    )
    fast_path_memory_bytes: NonNegativeBytes = Field(32 * MIB, description="fast path: memory of one run")
    fast_path_seconds: NonNegativeFloat = Field(
        0.1, description="fast path: time that one run took when tried"
    )
    fast_path_weight_bytes: NonNegativeBytes = Field(16 * MIB, description="fast path: weights of the graph")
    fast_path_executable_bytes: NonNegativeBytes = Field(
        8 * MIB, description="fast path: size of the compiled kernel"
    )
    fast_path_flops_per_byte: NonNegativeFloat = Field(
        16.0, description="fast path: operations of a block per byte of its result"
    )
    inline_flops: NonNegativeFloat = Field(
        2e5, description="fast path: kernels of up to so many operations run on the event loop"
    )

    drain_seconds: NonNegativeFloat = Field(30.0, description="streams may go on for so long after SIGTERM")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags and arguments, then the environment, then the file.

        The parameters are those of pydantic-settings, which calls this. The file is the one that the variable
        GRADWIRE_CONFIG names, in TOML; there are neither dotenv files nor secret files.

        Raises:
            FileNotFoundError: GRADWIRE_CONFIG names no file.
        """
        check_environment(os.environ, settings_cls.model_fields)
        return init_settings, env_settings, FileSource(settings_cls)

    @classmethod
    def read(cls, arguments: Sequence[str] = (), **given: Any) -> Settings:
        """Read settings from every source.

        Args:
            arguments: command-line flags, as in `--port 0 --workers=2`, with hyphens or underscores.
            **given: settings by name, which a program gives in place of flags.

        Raises:
            SettingsError: one is unknown or not valid.
        """
        flags = [_with_hyphens(argument) for argument in arguments]
        try:
            return cls(_cli_parse_args=flags, **given)
        except ValidationError as error:
            raise explained(error, cls.model_fields, flags, given) from None

    @model_validator(mode="after")
    def _certificates_are_whole(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate and its key go together: set tls-cert and tls-key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls-client-ca is for encrypted connections: set tls-cert and tls-key too")
        return self

    @property
    def limits(self) -> Limits:
        """The limits that the engine checks."""
        return Limits(
            graph_bytes=self.graph_bytes,
            nodes=self.graph_nodes,
            array_bytes=self.array_bytes,
            evaluation_bytes=self.evaluation_bytes,
            detection_bytes=self.detection_bytes,
            nonzeros=self.nonzeros,
            colors=self.colors,
            loop_trips=self.loop_trips,
            blocks=self.plan_blocks,
            transforms=self.transforms,
            names=self.names,
            equations=self.equations,
        )

    @property
    def bounds(self) -> dict[str, int]:
        """Bytes that may be held for clients, by purpose."""
        # What the object store has no room for would go to disk.
        whole = min(self.memory_bytes, int(self.object_store / _IN_OBJECT_STORE))
        return {
            purpose: getattr(self, setting) or max(1, int(part * whole))
            for purpose, (setting, part) in _PARTS.items()
        }

    @property
    def derived(self) -> dict[str, int]:
        """The bounds by the names of their settings, also of those that were not set."""
        return {_PARTS[purpose][0]: bound for purpose, bound in self.bounds.items()}

    @property
    def object_store(self) -> int:
        """Bytes of shared memory for a local Ray."""
        if self.object_store_bytes is not None:
            return self.object_store_bytes
        wanted, shared = int(_IN_OBJECT_STORE * self.memory_bytes), Path("/dev/shm")  # noqa: S108
        # Where it does not fit, Ray would put it on disk.
        free = int(0.9 * psutil.disk_usage(str(shared)).free) if shared.is_dir() else wanted
        return max(_LEAST_OBJECT_STORE, min(wanted, free))

    @property
    def worker_cache(self) -> int:
        """Bytes that each worker may keep between calls."""
        return self.worker_cache_bytes or int(_WORKERS_CACHES * self.memory_bytes / max(2, self.worker_count))

    @property
    def share(self) -> float:
        """What one tenant or address may have: all of it where only this machine can call."""
        asked = self.token_file is not None or self.tls_client_ca is not None
        return self.tenant_share if asked or not is_loopback(self.host) else 1.0

    @property
    def worker_count(self) -> int:
        """How many workers to start on a local Ray."""
        if self.workers == "auto" and self.device == "gpu":
            return _visible_gpus()
        if self.workers == "auto":
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.workers

    @property
    def spare_count(self) -> int:
        """How many workers stand by: a spare would keep a GPU from those that compute."""
        return 0 if self.device == "gpu" else self.spare_workers

    def window(self, workers: int) -> int:
        """Return how many blocks or batches of one request may be in flight with so many workers."""
        return self.blocks_in_flight or max(4, 3 * workers)

    def flags(self) -> list[str]:
        """Return flags for another process that reproduce the settings that were made explicitly."""
        values: dict[str, Any] = self.model_dump(mode="json", include=self.model_fields_set)
        return [f"--{name.replace('_', '-')}={_flag(value)}" for name, value in values.items()]


def _visible_gpus() -> int:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return max(1, len([name for name in chosen.split(",") if name]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))


def _with_hyphens(argument: str) -> str:
    name, separator, value = argument.partition("=")
    return name.replace("_", "-") + separator + value if argument.startswith("--") else argument


def _flag(value: Any) -> str:
    return "null" if value is None else str(value)
