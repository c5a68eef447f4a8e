"""`gradwire status`: what a server is busy with, once or again and again."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.duration_pb2 import Duration

from gradwire.transport.security import TOKEN_VARIABLE
from gradwire_server.sizes import text_of_bytes as written
from gradwire_wire.v1 import admin_pb2, admin_pb2_grpc

_SHOWN = 20


def show(
    address: Annotated[
        str, typer.Option("--address", "-a", help="the server's admin-host:admin-port (a setting of it)")
    ],
    watch: Annotated[float, typer.Option(help="show it again every so many seconds, until Ctrl-C")] = 0.0,
) -> None:
    """Show workers, calls in progress with what they have got so far, and memory against its budget."""
    token = os.environ.get(TOKEN_VARIABLE)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        while True:
            try:
                answer = stub.GetServerStatus(
                    admin_pb2.GetServerStatusRequest(), timeout=10, metadata=metadata
                )
            except grpc.RpcError as error:
                typer.echo(f"gradwire: {address}: {_reason(error)}", err=True)
                raise typer.Exit(1) from None
            if watch > 0:
                typer.echo("\x1b[2J\x1b[H", nl=False)
            typer.echo(text_of(answer))
            if watch <= 0:
                return
            time.sleep(watch)


def _reason(error: Any) -> str:
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return "this is no port for administrators: it is the one of the server's setting admin-port"
    return str(error.details())


def text_of(status: admin_pb2.GetServerStatusResponse) -> str:
    """Write a status for people."""
    state = "serving" if status.serving else "NOT SERVING: no workers"
    lines = [
        f"gradwire {status.version}, up {_time(status.uptime)}, {state}, "
        f"memory of the server {written(status.resident_bytes)}",
        "",
        f"workers ({len(status.workers)}, {status.workers_lost} lost so far)",
    ]
    for worker in status.workers:
        doing = f"{worker.task} for {_time(worker.running)}" if worker.task else "idle"
        whose = f", call {worker.request_id}" if worker.request_id else ""
        lines.append(f"  {worker.name}: {doing}{whose}; {worker.tasks_done} tasks in {_time(worker.busy)}")
    lines += ["", f"calls ({status.calls_open} open, {status.requests_queued} wait for a worker)"]
    for call in status.calls[:_SHOWN]:
        tenant = f" of {call.tenant}" if call.tenant else ""
        lines.append(
            f"  {call.request_id}: {call.call}{tenant} from {call.peer}, {_time(call.age)}: "
            f"{call.blocks_sent} blocks, {written(call.sent_bytes)} sent, {call.tasks} tasks on workers, "
            f"{_time(call.worker_time)} of them used"
        )
    if status.calls_open > _SHOWN:
        lines.append(f"  and {status.calls_open - _SHOWN} more")
    lines += ["", "held for clients"]
    lines += [f"  {held.purpose}: {written(held.bytes)} of {written(held.budget)}" for held in status.held]
    return "\n".join(lines)


def _time(duration: Duration) -> str:
    seconds = duration.seconds + duration.nanos * 1e-9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
