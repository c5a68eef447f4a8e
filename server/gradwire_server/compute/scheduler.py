"""Decides which task goes to which worker next.

Every request of a client has a queue of tasks. Workers take tasks from the queues in turn (round robin), so
that a request of a thousand blocks and one of a single block advance alike. A worker that computes a block or
a batch may have one more queued behind it, so that it does not idle while the first result travels. A task
whose worker dies runs again; one that nobody waits for any more is dropped, and a worker that stays busy with
it is replaced. A peer that costs many workers in this way gets them one at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from gradwire_server.access.stopped_workers import StoppedWorkers
from gradwire_server.compute.worker import Worker, WorkerRequest
from gradwire_server.errors import DataLost, Overloaded, TimeLimit, Unavailable, WorkerLost
from gradwire_server.observe.events import (
    Event,
    Request,
    TaskBegun,
    TaskEnded,
    TaskSubmitted,
    WorkerGone,
    current_request,
    unheard,
)

R = TypeVar("R")
_ids = itertools.count()
_log = structlog.get_logger()

_SHORT_SECONDS = 1.0
"""When to look again whether a peer that came last may have a worker, while some are missing."""


@dataclass(eq=False)
class Task(Generic[R]):
    """One call to a worker, from its submission to its result.

    Attributes:
        queue: the queue it belongs to.
        request: the call.
        seconds: how long it may run.
        future: its result; cancelling it drops or abandons the task.
        losses: workers that died while they ran it.
        call: the call in progress, once it was made.
        worker: name of the worker that has it, or had it last.
        id: names it in events.
        since: when it was submitted, or last handed to a worker, on the clock `time.monotonic`.
        served: the client's call that it is for.
    """

    queue: TaskQueue
    request: WorkerRequest[R]
    seconds: float
    future: asyncio.Future[R]
    losses: int = 0
    call: asyncio.Future[R] | None = None
    worker: str = ""
    id: int = field(default_factory=_ids.__next__)
    since: float = field(default_factory=time.monotonic)
    served: Request | None = field(default_factory=current_request)

    @property
    def origin(self) -> str:
        """Who asked for it; "" for the server itself."""
        return self.served.origin if self.served else ""


@dataclass(eq=False)
class TaskQueue:
    """The tasks of one client's request.

    Attributes:
        scheduler: runs them.
        waiting: not yet given to a worker.
        unfinished: waiting or running.
        reruns: tasks that were run again because their worker was lost.
        blamed: whether workers were stopped because of it.
    """

    scheduler: Scheduler
    waiting: deque[Task[Any]] = field(default_factory=deque)
    unfinished: set[Task[Any]] = field(default_factory=set)
    reruns: int = 0
    blamed: bool = False

    def submit(self, request: WorkerRequest[R], *, seconds: float) -> Task[R]:
        """Queue a call that may run for `seconds`; cancelling its future drops or abandons it.

        Raises:
            Overloaded: too many requests wait already.
            Unavailable: there are no workers, and none are being started.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        task = Task(self, request, seconds, future)
        self.scheduler.accept(task)
        return task

    def close(self) -> None:
        """Abandon everything that is not finished."""
        for task in list(self.unfinished):
            task.future.cancel()
        self.waiting.clear()
        self.unfinished.clear()


class Scheduler:
    """The queues that take turns, and the workers."""

    def __init__(self, *, attempts: int, grace: float, queue_length: int) -> None:
        """Start without workers.

        Args:
            attempts: workers that one task may lose before it fails.
            grace: seconds that an abandoned task may go on before its worker is killed.
            queue_length: queues that may wait at once.
        """
        self._attempts = attempts
        self._grace = grace
        self._queue_length = queue_length
        self._turns: deque[TaskQueue] = deque()
        self._idle: deque[Worker] = deque()
        self._workers: dict[Worker, list[Task[Any]]] = {}
        self._retired: set[Worker] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = StoppedWorkers()
        self._reminder: asyncio.TimerHandle | None = None
        self.size = 1
        """How many workers there are when none is missing."""
        self.expecting = True
        """Whether workers are there or being started; tasks are refused otherwise."""
        self.on_lost: Callable[[Worker], None] = lambda worker: None
        """Called when a worker died or was killed, to replace it."""
        self.on_data_lost: Callable[[], None] = lambda: None
        """Called when a node took data with it that was held for clients."""
        self.on_event: Callable[[Event], None] = unheard
        """Called with events of tasks and workers."""

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that take tasks."""
        return tuple(worker for worker in list(self._workers) if worker not in self._retired)

    @property
    def queued(self) -> int:
        """How many requests have tasks that wait for a worker."""
        return len(self._turns)

    def queue(self) -> TaskQueue:
        """Make a queue for one client's request."""
        return TaskQueue(self)

    async def run(self, request: WorkerRequest[R], *, seconds: float) -> tuple[R, str]:
        """Run a single call; return its result and the name of the worker that ran it."""
        task = self.queue().submit(request, seconds=seconds)
        return await task.future, task.worker

    def add(self, worker: Worker) -> None:
        """Let a worker take tasks."""
        self._workers[worker] = []
        self._idle.append(worker)
        self._assign_all()

    def lose(self, worker: Worker, reason: str) -> None:
        """Kill a worker that was found dead or frozen; what it had to do is done again."""
        _log.warning("worker lost", worker=worker.name, reason=reason)
        self._lose(worker, reason)

    def retire(self, worker: Worker) -> None:
        """Let a worker finish what it does, then end it."""
        if worker not in self._workers:
            return
        if not self._workers[worker]:
            self._remove(worker)
            worker.kill()
        else:
            self._retired.add(worker)

    def fail_waiting(self, error: Exception) -> None:
        """Fail every waiting task: no worker will come."""
        for queue in self._turns:
            for task in queue.waiting:
                _fail(task, error)
            queue.waiting.clear()
        self._turns.clear()

    def accept(self, task: Task[Any]) -> None:
        """Queue a task (see `TaskQueue.submit`)."""
        queue = task.queue
        if not self._workers and not self.expecting:
            raise Unavailable("no workers are running; try again later")
        if not queue.waiting and not queue.unfinished and len(self._turns) >= self._queue_length:
            raise Overloaded(
                f"{len(self._turns)} requests wait for workers already; try again later",
                "queue",
                self._queue_length,
                len(self._turns) + 1,
            )
        self._stopped.check(task.origin)
        queue.unfinished.add(task)
        task.future.add_done_callback(lambda _: queue.unfinished.discard(task))
        if not queue.waiting:
            self._turns.append(queue)
        queue.waiting.append(task)
        self.on_event(TaskSubmitted(task=task.id, name=task.request.name, request=task.served))
        self._assign_all()

    def _assign_all(self) -> None:
        """Give tasks to workers as long as there are both."""
        while self._idle and (task := self._next()):
            self._assign(self._idle.popleft(), task)
        while (worker := self._with_room()) and (task := self._next(pipelined=True)):
            self._assign(worker, task)

    def _with_room(self) -> Worker | None:
        """Find a worker that runs one pipelined task, and can have another queued behind it."""
        for worker, tasks in self._workers.items():
            if len(tasks) == 1 and tasks[0].request.pipelined and worker not in self._retired:
                return worker
        return None

    def _assign(self, worker: Worker, task: Task[Any]) -> None:
        tasks = self._workers[worker]
        ahead = tasks[-1].call if tasks else None
        tasks.append(task)
        task.worker = worker.name
        now = time.monotonic()
        waited, task.since = now - task.since, now
        self.on_event(TaskBegun(task.id, task.request.name, worker.name, waited, request=task.served))
        task.call = asyncio.ensure_future(task.request.send(worker))
        running = asyncio.ensure_future(self._run(worker, task, task.call, ahead))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def _next(self, *, pipelined: bool = False) -> Task[Any] | None:
        """Take the task whose turn it is; none if a pipelined one is wanted and it is not.

        Peers that have cost workers come last; those that have to wait keep their place.
        """
        passed: list[TaskQueue] = []
        chosen: TaskQueue | None = None
        while self._turns and chosen is None:
            queue = self._turns[0]
            while queue.waiting and queue.waiting[0].future.done():
                queue.waiting.popleft()
            if queue.waiting and pipelined and not queue.waiting[0].request.pipelined:
                break
            self._turns.popleft()
            if queue.waiting and self._stopped.last(queue.waiting[0].origin):
                passed.append(queue)
            elif queue.waiting:
                chosen = queue
        if chosen is None:
            chosen = next((queue for queue in passed if not self._must_wait(queue.waiting[0].origin)), None)
        self._turns.extendleft(queue for queue in reversed(passed) if queue is not chosen)
        if chosen is None:
            return None
        task = chosen.waiting.popleft()
        if chosen.waiting:
            self._turns.append(chosen)
        return task

    def _must_wait(self, peer: str) -> bool:
        """Tell whether a peer that has cost workers gets none now."""
        if len(self._workers) < min(self.size, 2):
            self._remind_in(_SHORT_SECONDS)
            return True  # the last one is for others
        if not self._stopped.slowed(peer):
            return False
        pause = self._stopped.pause(peer)
        if pause:
            self._remind_in(pause)
        return pause > 0 or any(task.origin == peer for tasks in self._workers.values() for task in tasks)

    def _remind_in(self, seconds: float) -> None:
        if self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(seconds, self._remind)

    def _remind(self) -> None:
        self._reminder = None
        self._assign_all()

    async def _run(
        self, worker: Worker, task: Task[Any], call: asyncio.Future[Any], ahead: asyncio.Future[Any] | None
    ) -> None:
        """Wait for a call to end, within its time, and settle its task.

        Args:
            worker: runs the call.
            task: the call's.
            call: in progress.
            ahead: the call that the worker runs before it, if any.
        """
        future, name = task.future, task.request.name
        if ahead is not None:
            # Its time begins when the call ahead of it ends.
            await asyncio.wait((ahead,))
            await asyncio.sleep(0)
        begun = worker in self._workers
        await asyncio.wait((call, future), timeout=task.seconds, return_when=asyncio.FIRST_COMPLETED)
        if not call.done() and future.done():
            await asyncio.wait((call,), timeout=self._grace)
        if not call.done():
            call.cancel()
            if not future.done():
                limit = f"{name} took over {task.seconds:g} s, the limit of this server; it was stopped"
                future.set_exception(TimeLimit(limit))
            _log.warning("worker stopped: it was busy past its time", worker=worker.name, method=name)
            self._ended(task, worker, "abandoned" if future.cancelled() else "late")
            self._blame(task)
            self._lose(worker, "busy")
            return
        error = call.exception()
        if isinstance(error, WorkerLost):
            _log.warning("worker lost", worker=worker.name, method=name, reason=str(error))
            self._ended(task, worker, "lost")
            self._lose(worker, "died")
            self._run_again(task, begun)
            return
        self._ended(task, worker, "done" if error is None else "failed")
        if isinstance(error, DataLost):
            self.on_data_lost()
        if error is not None:
            _fail(task, error)
        elif not future.done():
            future.set_result(call.result())
        if worker in self._workers:
            self._finish(worker, task)

    def _blame(self, task: Task[Any]) -> None:
        """Note that a task cost a worker, once for all tasks of its queue."""
        if not task.queue.blamed:
            task.queue.blamed = True
            self._stopped.note(task.origin)

    def _ended(self, task: Task[Any], worker: Worker, outcome: str) -> None:
        seconds = time.monotonic() - task.since
        self.on_event(
            TaskEnded(task.id, task.request.name, worker.name, seconds, outcome, request=task.served)
        )

    def _finish(self, worker: Worker, task: Task[Any]) -> None:
        tasks = self._workers[worker]
        tasks.remove(task)
        if not tasks and worker in self._retired:
            self._remove(worker)
            worker.kill()
        elif not tasks:
            self._idle.append(worker)
        self._assign_all()

    def _run_again(self, task: Task[Any], begun: bool) -> None:
        if task.future.done():
            return
        # One that was only queued behind another did not end the worker.
        task.losses += begun
        if task.losses >= self._attempts:
            self._blame(task)
            _fail(
                task,
                WorkerLost(
                    f"{task.request.name} ended {task.losses} workers, probably by running out of memory; "
                    "ask for narrower blocks (block_memory_bytes) or a smaller graph"
                ),
            )
            return
        queue = task.queue
        queue.reruns += 1
        if not queue.waiting:
            self._turns.appendleft(queue)
        queue.waiting.appendleft(task)
        self._assign_all()

    def _lose(self, worker: Worker, reason: str) -> None:
        if worker not in self._workers:
            return
        self.on_event(WorkerGone(worker.name, reason, request=None))
        self._remove(worker)
        worker.kill()
        self.on_lost(worker)

    def _remove(self, worker: Worker) -> None:
        self._workers.pop(worker, None)
        self._retired.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)


def _fail(task: Task[Any], error: BaseException) -> None:
    if not task.future.done():
        task.future.set_exception(error)
