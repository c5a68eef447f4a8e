"""The administrators' port: status, channelz and health in plain text, for whoever runs the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from gradwire_server.observe.activity import Activity, CallInProgress, WorkerAtWork
from gradwire_server.observe.readings import Reading
from gradwire_wire.v1 import admin_pb2, admin_pb2_grpc

ADMIN_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
_SHOWN = 1000


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """gradwire.v1.AdminService."""

    def __init__(self, activity: Activity, read: Callable[[], Reading], version: str) -> None:
        """Show what a server does.

        Args:
            activity: calls and workers.
            read: says what the server holds.
            version: of the server.
        """
        self._activity = activity
        self._read = read
        self._version = version
        self._started = time.monotonic()

    async def GetServerStatus(
        self,
        request: admin_pb2.GetServerStatusRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> admin_pb2.GetServerStatusResponse:
        """GetServerStatus."""
        now, reading, calls = time.monotonic(), self._read(), self._activity.calls
        return admin_pb2.GetServerStatusResponse(
            version=self._version,
            uptime=_duration(now - self._started),
            serving=reading.serving,
            workers=[_worker(worker, now) for worker in self._activity.workers.values()],
            calls=[_call(call, now) for call in calls[:_SHOWN]],
            calls_open=len(calls),
            requests_queued=reading.queued,
            held=[
                admin_pb2.HeldBytes(purpose=purpose, bytes=held.nbytes, budget=held.budget)
                for purpose, held in reading.held.items()
            ],
            workers_lost=self._activity.lost,
            resident_bytes=reading.resident,
        )


def _worker(worker: WorkerAtWork, now: float) -> admin_pb2.WorkerStatus:
    return admin_pb2.WorkerStatus(
        name=worker.name,
        task=worker.task,
        running=_duration(now - worker.since) if worker.task else None,
        request_id=worker.request,
        tasks_done=worker.done,
        busy=_duration(worker.busy_seconds),
    )


def _call(call: CallInProgress, now: float) -> admin_pb2.CallStatus:
    return admin_pb2.CallStatus(
        request_id=call.request.id,
        call=call.request.call,
        tenant=call.request.tenant,
        peer=call.request.peer,
        age=_duration(now - call.since),
        received_bytes=call.received,
        sent_bytes=call.sent,
        blocks_sent=call.blocks,
        tasks=len(call.tasks),
        worker_time=_duration(call.worker_seconds),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
