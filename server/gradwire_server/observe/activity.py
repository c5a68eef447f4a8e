"""What a server is busy with: calls in progress and what each worker does, kept up to date by events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradwire_server.observe.events import (
    BlockSent,
    BytesReceived,
    BytesSent,
    CallBegun,
    CallEnded,
    Event,
    Request,
    TaskBegun,
    TaskEnded,
    WorkerGone,
    WorkerReady,
)


@dataclass
class CallInProgress:
    """A call that has not ended.

    Attributes:
        request: the call.
        since: when it began, on the clock `time.monotonic`.
        received, sent: bytes so far.
        blocks: blocks sent so far.
        tasks: names of the tasks that workers run for it, by their ids.
        worker_seconds: time of workers spent for it so far.
    """

    request: Request
    since: float
    received: int = 0
    sent: int = 0
    blocks: int = 0
    tasks: dict[int, str] = field(default_factory=dict)
    worker_seconds: float = 0.0


@dataclass
class WorkerAtWork:
    """A worker and what it does.

    Attributes:
        name: of the worker.
        task: what it runs, such as "block"; "" while it is idle.
        since: when it began to, on the clock `time.monotonic`.
        request: for whom; "" for none.
        done: tasks that came back.
        busy_seconds: of all of them.
    """

    name: str
    task: str = ""
    since: float = 0.0
    request: str = ""
    done: int = 0
    busy_seconds: float = 0.0


class Activity:
    """Follows calls and workers through their events."""

    def __init__(self) -> None:
        """Start with nothing in progress."""
        self._calls: dict[int, CallInProgress] = {}
        self._workers: dict[str, WorkerAtWork] = {}
        self.lost = 0
        """Workers lost so far."""

    @property
    def calls(self) -> tuple[CallInProgress, ...]:
        """The calls in progress, the longest first."""
        return tuple(self._calls.values())

    @property
    def workers(self) -> Mapping[str, WorkerAtWork]:
        """The workers by name."""
        return self._workers

    def follow(self, event: Event) -> None:
        """Take note of an event."""
        request = event.request
        call = self._calls.get(request.number) if request else None
        match event:
            case CallBegun() if request is not None:
                self._calls[request.number] = CallInProgress(request, event.at)
            case CallEnded() if request is not None:
                self._calls.pop(request.number, None)
            case BytesReceived() if call is not None:
                call.received += event.size
            case BytesSent() if call is not None:
                call.sent += event.size
            case BlockSent() if call is not None:
                call.blocks += 1
            case TaskBegun():
                worker = self._workers.setdefault(event.worker, WorkerAtWork(event.worker))
                worker.task, worker.since = event.name, event.at
                worker.request = request.id if request else ""
                if call is not None:
                    call.tasks[event.task] = event.name
            case TaskEnded():
                self._task_ended(event, call)
            case WorkerReady():
                self._workers[event.worker] = WorkerAtWork(event.worker)
            case WorkerGone():
                self._workers.pop(event.worker, None)
                self.lost += 1

    def _task_ended(self, event: TaskEnded, call: CallInProgress | None) -> None:
        worker = self._workers.get(event.worker)
        if worker is not None:
            worker.done += 1
            worker.busy_seconds += event.seconds
            worker.task, worker.request = "", ""
        if call is not None:
            call.tasks.pop(event.task, None)
            call.worker_seconds += event.seconds
