"""Which piece of work goes to which worker next.

Every request has a share. Workers take pieces from the shares in turn, so a request of a thousand blocks
and one of a single block advance alike. A worker that computes a block or a batch may have one more handed
to it meanwhile, lest it idles while the first result travels. Work whose worker dies is run again; work
that nobody waits for any more is dropped, and a worker that stays busy with it is replaced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from gradwire_server.errors import DataLost, Overloaded, TimeLimit, Unavailable, WorkerLost

_log = structlog.get_logger()
_AHEAD = ("block", "batch")
"""Methods of which a request makes many calls, short enough to queue one behind another."""


class Worker(Protocol):
    """A process that computes, one call at a time, in the order they come."""

    @property
    def name(self) -> str:
        """How results and logs call it."""

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Run a method of the workbench there; raises WorkerLost when the process dies."""

    def kill(self) -> None:
        """End the process, whatever it does; no error if it is gone."""


@dataclass(eq=False)
class Piece:
    """One call, from its submission to its result."""

    share: Share
    method: str
    arguments: tuple[Any, ...]
    seconds: float
    future: asyncio.Future[Any]
    losses: int = 0
    call: asyncio.Future[Any] | None = None
    worker: str = ""
    """The worker that has it, or had it last."""


@dataclass(eq=False)
class Share:
    """One request's place in the round."""

    scheduler: Scheduler
    waiting: deque[Piece] = field(default_factory=deque)
    unfinished: set[Piece] = field(default_factory=set)
    reruns: int = 0

    def submit(self, method: str, *arguments: Any, seconds: float) -> Piece:
        """Queue a call that may run for ``seconds``; cancelling its future drops or abandons it.

        Raises:
            Overloaded: too many requests wait already.
            Unavailable: there are no workers, and none are being started.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        piece = Piece(self, method, arguments, seconds, future)
        self.scheduler.accept(piece)
        return piece

    def close(self) -> None:
        """Abandon everything that is not finished."""
        for piece in list(self.unfinished):
            piece.future.cancel()
        self.waiting.clear()
        self.unfinished.clear()


class Scheduler:
    """The round of shares, and the workers at hand."""

    def __init__(self, *, attempts: int, grace: float, queue_length: int) -> None:
        """Start without workers.

        Args:
            attempts: workers that one piece may lose before it fails.
            grace: seconds that abandoned work may go on before its worker is killed.
            queue_length: shares that may wait at once.
        """
        self._attempts = attempts
        self._grace = grace
        self._queue_length = queue_length
        self._round: deque[Share] = deque()
        self._idle: deque[Worker] = deque()
        self._workers: dict[Worker, list[Piece]] = {}
        self._retired: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.expecting = True
        """Whether workers are there or on their way; work is refused otherwise."""
        self.on_lost: Callable[[Worker], None] = lambda worker: None
        """Called when a worker died or was killed, to replace it."""
        self.on_data_lost: Callable[[], None] = lambda: None
        """Called when a node took data with it that was held for clients."""

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that take work."""
        return tuple(worker for worker in self._workers if worker not in self._retired)

    @property
    def queued(self) -> int:
        """Requests that wait for a worker."""
        return len(self._round)

    def open(self) -> Share:
        """A place in the round for one request."""
        return Share(self)

    async def call(self, method: str, *arguments: Any, seconds: float) -> tuple[Any, str]:
        """A request of one piece: its result, and which worker did it."""
        piece = self.open().submit(method, *arguments, seconds=seconds)
        return await piece.future, piece.worker

    def add(self, worker: Worker) -> None:
        """Let a worker take work."""
        self._workers[worker] = []
        self._idle.append(worker)
        self._pump()

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
        """Fail everything that waits: no worker will come."""
        for share in self._round:
            for piece in share.waiting:
                _fail(piece, error)
            share.waiting.clear()
        self._round.clear()

    def accept(self, piece: Piece) -> None:
        """Queue a piece (see Share.submit)."""
        share = piece.share
        if not self._workers and not self.expecting:
            raise Unavailable("no workers are running; try again later")
        if not share.waiting and not share.unfinished and len(self._round) >= self._queue_length:
            raise Overloaded(
                f"{len(self._round)} requests wait for workers already; try again later",
                "queue",
                self._queue_length,
                len(self._round) + 1,
            )
        share.unfinished.add(piece)
        piece.future.add_done_callback(lambda _: share.unfinished.discard(piece))
        if not share.waiting:
            self._round.append(share)
        share.waiting.append(piece)
        self._pump()

    def _pump(self) -> None:
        while self._idle and (piece := self._next()):
            self._assign(self._idle.popleft(), piece)
        while (worker := self._with_room()) and (piece := self._next(_AHEAD)):
            self._assign(worker, piece)

    def _with_room(self) -> Worker | None:
        """A worker that computes one block or batch, and can have another queued."""
        for worker, pieces in self._workers.items():
            if len(pieces) == 1 and pieces[0].method in _AHEAD and worker not in self._retired:
                return worker
        return None

    def _assign(self, worker: Worker, piece: Piece) -> None:
        pieces = self._workers[worker]
        ahead = pieces[-1].call if pieces else None
        pieces.append(piece)
        piece.worker = worker.name
        piece.call = asyncio.ensure_future(worker.call(piece.method, piece.arguments))
        task = asyncio.ensure_future(self._run(worker, piece, piece.call, ahead))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self, methods: tuple[str, ...] = ()) -> Piece | None:
        """The piece whose turn it is; none if methods are given and it is of another."""
        while self._round:
            share = self._round[0]
            while share.waiting and share.waiting[0].future.done():
                share.waiting.popleft()
            if share.waiting and methods and share.waiting[0].method not in methods:
                return None
            self._round.popleft()
            if not share.waiting:
                continue
            piece = share.waiting.popleft()
            if share.waiting:
                self._round.append(share)
            return piece
        return None

    async def _run(
        self, worker: Worker, piece: Piece, call: asyncio.Future[Any], ahead: asyncio.Future[Any] | None
    ) -> None:
        future = piece.future
        if ahead is not None:
            # Its time begins when the piece before it ends.
            await asyncio.wait((ahead,))
            await asyncio.sleep(0)
        begun = worker in self._workers
        await asyncio.wait((call, future), timeout=piece.seconds, return_when=asyncio.FIRST_COMPLETED)
        if not call.done() and future.done():
            await asyncio.wait((call,), timeout=self._grace)
        if not call.done():
            call.cancel()
            if not future.done():
                limit = (
                    f"{piece.method} took over {piece.seconds:g} s, the limit of this server; it was stopped"
                )
                future.set_exception(TimeLimit(limit))
            _log.warning("worker stopped: it was busy past its time", worker=worker.name, method=piece.method)
            self._lose(worker)
            return
        error = call.exception()
        if isinstance(error, WorkerLost):
            _log.warning("worker lost", worker=worker.name, method=piece.method, reason=str(error))
            self._lose(worker)
            self._again(piece, begun)
            return
        if isinstance(error, DataLost):
            self.on_data_lost()
        if error is not None:
            _fail(piece, error)
        elif not future.done():
            future.set_result(call.result())
        if worker in self._workers:
            self._finish(worker, piece)

    def _finish(self, worker: Worker, piece: Piece) -> None:
        pieces = self._workers[worker]
        pieces.remove(piece)
        if not pieces and worker in self._retired:
            self._remove(worker)
            worker.kill()
        elif not pieces:
            self._idle.append(worker)
        self._pump()

    def _again(self, piece: Piece, begun: bool) -> None:
        if piece.future.done():
            return
        # One that only waited behind another is not to blame.
        piece.losses += begun
        if piece.losses >= self._attempts:
            _fail(
                piece,
                WorkerLost(
                    f"{piece.method} ended {piece.losses} workers, probably by running out of memory; "
                    "ask for narrower blocks (block_memory_bytes) or a smaller graph"
                ),
            )
            return
        share = piece.share
        share.reruns += 1
        if not share.waiting:
            self._round.appendleft(share)
        share.waiting.appendleft(piece)
        self._pump()

    def _lose(self, worker: Worker) -> None:
        if worker not in self._workers:
            return
        self._remove(worker)
        worker.kill()
        self.on_lost(worker)

    def _remove(self, worker: Worker) -> None:
        self._workers.pop(worker, None)
        self._retired.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)


def _fail(piece: Piece, error: BaseException) -> None:
    if not piece.future.done():
        piece.future.set_exception(error)
