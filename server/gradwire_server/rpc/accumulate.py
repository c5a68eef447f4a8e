"""Accumulate: batches in, each differentiated by a worker, their sum out.

Workers compute batches in parallel. Only a batch so small that handing it over takes many times longer than
computing it, such as a few dozen rows of a linear model, is computed here: by the same executable, so that
the bits are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from gradwire_engine.errors import InvalidInput
from gradwire_server.compute.account import Purpose
from gradwire_server.compute.accumulation import PartialSum, SummationTree, batch_sum, empty_sum, rounded
from gradwire_server.compute.scheduler import TaskQueue
from gradwire_server.compute.worker import BatchRequest, Computed, Executable, LoadableKernel
from gradwire_server.errors import Stalled
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.evaluate import SERVER
from gradwire_server.rpc.incoming.batch import IncomingBatch
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.rpc.incoming.stalls import write
from gradwire_server.rpc.objective import LossFunction, Objective, objective_from, refusals_about
from gradwire_wire import framing
from gradwire_wire.outputs import add_outputs
from gradwire_wire.v1 import accumulate_pb2

Array = np.ndarray[Any, Any]
Request = accumulate_pb2.AccumulateRequest
Response = accumulate_pb2.AccumulateResponse
Context = grpc.aio.ServicerContext[Request, "Message | bytes"]
R = TypeVar("R")

_LARGE = 1 << 20
"""Bytes up to which batches are computed, and sums added, on the event loop."""

_MOST_ROWS = 1 << 53
"""Up to here float64 counts rows exactly."""


class _RunningSum:
    """The sum since the last start or zero, and the batches that are being added to it."""

    def __init__(self, objective: Objective, queue: TaskQueue, sums: Purpose) -> None:
        """Start at zero; raise `Overloaded` when `sums` has no room for it."""
        self.objective = objective
        self.queue = queue
        self.batches = 0
        self.rows = 0
        self.incoming: IncomingBatch | None = None
        """The batch whose tensors are arriving."""
        self.adding: dict[asyncio.Task[None], int] = {}
        """Batches being computed or added, and their bytes."""
        self._tree = SummationTree()
        self._lock = asyncio.Lock()
        self._holding = sums.open()
        self._reserve()

    def _reserve(self) -> None:
        """Count the bytes that the tree holds, and room for an addition and an answer."""
        self._holding.resize(self._tree.nbytes + 2 * self.objective.nbytes)

    async def add(self, index: int, rows: int, computed: Computed, worker: str) -> None:
        """Add a batch.

        Args:
            index: of the batch.
            rows: that it counts.
            computed: its loss and gradients.
            worker: name of the process that computed it.

        Raises:
            Overloaded: there is no room for its sums.
        """

        def work() -> None:
            weight = rows if self.objective.mean else None
            self._tree.add(index, batch_sum(computed.arrays, rows, worker, computed.seconds, weight))

        await self._work(work)
        self._reserve()

    def mark(self) -> None:
        """Mark the batches sent so far as those that the next `read` sums."""
        self._tree.mark(self.batches)

    async def read(self) -> tuple[PartialSum, tuple[Array, ...]]:
        """Return the sum up to the mark, and the loss and gradients that it makes."""

        def work() -> tuple[PartialSum, tuple[Array, ...]]:
            types = self.objective.types
            total = self._tree.total() or empty_sum(types)
            arrays = rounded(total, types, self.objective.mean)
            self._tree.release()
            return total, arrays

        return await self._work(work)

    async def _work(self, work: Callable[[], R]) -> R:
        """Work on the tree, one at a time, and off the event loop if the sums are large."""
        async with self._lock:
            if self.objective.nbytes > _LARGE:
                return await asyncio.to_thread(work)
            return work()

    def close(self) -> None:
        """Drop the sum, and stop the batches that are being added."""
        for task in self.adding:
            task.cancel()
        self.queue.close()
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None
        self._holding.give_back()


class AccumulateCall:
    """One Accumulate call."""

    def __init__(self, backend: Backend, sums: Purpose, context: Context, reader: Reader[Request]) -> None:
        """Serve a call with the parts of a server; `sums` bounds what all accumulations hold."""
        self._reader = reader
        self._backend = backend
        self._settings = backend.settings
        self._sums = sums
        self._context = context
        self._tasks = asyncio.TaskGroup()
        self._sum: _RunningSum | None = None
        self._answer: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        """Handle messages until the client closes its side, then answer a last time.

        Raises:
            EngineError, ServiceError: the first refusal, of a message or by the computation of a batch.
        """
        try:
            async with self._tasks:
                self._tasks.create_task(self._receive())
        except BaseExceptionGroup as group:
            # A status must not overtake a message: that message is lost, and the client waits for ever.
            if self._writing is not None:
                await asyncio.gather(self._writing, return_exceptions=True)
            raise group.exceptions[0] from None
        finally:
            if self._sum is not None:
                self._sum.close()

    async def _receive(self) -> None:
        while (request := await self._next()) is not None:
            self._reader.check(request)
            await self._handle(request)
        await self._read(self._started())

    async def _next(self) -> Request | None:
        """Return the next message; None at the end.

        Raises:
            Stalled: none came for long, nor is anything computed or read.
        """
        running = self._sum
        if running is not None and running.incoming is not None:
            seconds, name = self._settings.stalled_seconds, "stalled_seconds"
        else:
            seconds, name = self._settings.idle_seconds, "idle_seconds"
        next_message = asyncio.ensure_future(self._reader.next(self._context))
        try:
            while not (await asyncio.wait((next_message,), timeout=seconds))[0]:
                if not (running is not None and running.adding) and (
                    self._answer is None or self._answer.done()
                ):
                    raise Stalled(f"nothing came for {seconds:g} s ({name} of this server): begin anew")
            return next_message.result()
        finally:
            next_message.cancel()

    async def _handle(self, request: Request) -> None:
        action = request.WhichOneof("action")
        if action is None:
            raise InvalidInput("a message needs an action: start, batch, chunk, read or zero", "action")
        if action == "start":
            await self._start(request.start)
            return
        running = self._started()
        if action == "batch":
            await self._batch(running, request.batch)
        elif action == "chunk":
            self._chunk(running, request.chunk)
        elif action == "read":
            await self._read(running)
        else:
            await self._begin(running.objective)

    def _started(self) -> _RunningSum:
        if self._sum is None:
            raise InvalidInput("an accumulation begins with start", "action")
        return self._sum

    async def _start(self, start: accumulate_pb2.AccumulateStart) -> None:
        await self._begin(await objective_from(start, self._backend))

    async def _begin(self, objective: Objective) -> None:
        """Begin at zero; what was accumulated is dropped once a read before this is answered."""
        await self._answered()
        if self._sum is not None:
            self._sum.close()
        self._sum = None
        self._sum = _RunningSum(objective, self._backend.scheduler.queue(), self._sums)

    async def _batch(self, running: _RunningSum, message: accumulate_pb2.Batch) -> None:
        _check_complete(running)
        batch = IncomingBatch(
            running.batches,
            message,
            running.objective,
            await self._loss(running, message),
            self._backend.store,
            self._settings.tensor_bytes,
        )
        with batch.refusals():
            if running.rows + batch.rows > _MOST_ROWS:
                raise InvalidInput(
                    f"with its {batch.rows} rows they come to over {_MOST_ROWS}, more than can be "
                    "counted exactly: begin anew with zero, or say fewer in 'rows'",
                    "rows",
                )
        # Backpressure: the client is slowed down by not being read.
        await self._room(running, batch.nbytes)
        batch.held = await self._backend.account.results.wait_for(batch.nbytes + running.objective.nbytes)
        running.batches += 1
        running.rows += batch.rows
        running.incoming = batch
        self._submit_if_complete(running)

    async def _loss(self, running: _RunningSum, message: accumulate_pb2.Batch) -> LossFunction:
        """Return the function that a batch is evaluated by."""
        if not message.HasField("function"):
            return running.objective.loss
        with refusals_about(f"batch {running.batches}", "batch"):
            return await running.objective.variant(message.function, self._backend)

    async def _room(self, running: _RunningSum, nbytes: int) -> None:
        """Wait until a batch of so many bytes, with its gradient, may be in flight with the others."""
        settings, adding = self._settings, running.adding
        wanted = nbytes + running.objective.nbytes
        while adding and (
            len(adding) >= settings.window(len(self._backend.scheduler.workers))
            or sum(adding.values()) + wanted > settings.inflight_bytes
        ):
            await asyncio.wait(adding, return_when=asyncio.FIRST_COMPLETED)

    def _chunk(self, running: _RunningSum, chunk: accumulate_pb2.BatchChunk) -> None:
        if running.incoming is None:
            raise InvalidInput(
                f"a chunk of input {chunk.input!r} came, but no batch waits for data: the batch before it is "
                "complete, or there is none",
                "chunk",
            )
        running.incoming.add(chunk)
        self._submit_if_complete(running)

    def _submit_if_complete(self, running: _RunningSum) -> None:
        batch = running.incoming
        if batch is None or batch.missing:
            return
        running.incoming = None
        batch.close()
        task = self._tasks.create_task(self._add(running, batch))
        running.adding[task] = batch.nbytes + running.objective.nbytes
        task.add_done_callback(lambda done: running.adding.pop(done, None))

    async def _add(self, running: _RunningSum, batch: IncomingBatch) -> None:
        with batch.refusals():
            computed, worker = await self._compute(running, batch)
        await running.add(batch.index, batch.rows, computed, worker)
        if batch.held is not None:
            batch.held.give_back()

    async def _compute(self, running: _RunningSum, batch: IncomingBatch) -> tuple[Computed, str]:
        """Return the loss and gradients of a batch, and who computed them."""
        objective, loss, fast_path = running.objective, batch.loss, self._backend.fast_path
        spec = loss.spec(objective.shared + batch.arguments)
        executable = await self._backend.kernels.kernel(loss.graph, spec)
        values = batch.values()
        if self._is_tiny(objective, batch, executable):
            loaded = await fast_path.load(loss.graph, executable)
            inputs = await fast_path.inputs({**objective.point.inputs, **values})
            return await fast_path.run(loaded, inputs), SERVER
        request = BatchRequest(LoadableKernel(loss.graph, executable), objective.point, values)
        task = running.queue.submit(request, seconds=self._settings.evaluate_seconds)
        return await task.future, task.worker

    def _is_tiny(self, objective: Objective, batch: IncomingBatch, executable: Executable) -> bool:
        """Tell whether a batch, with all that it reads and writes, delays no other call noticeably."""
        shared = sum(value.nbytes for _, value in objective.shared)
        return (
            executable.facts.cost.flops <= self._settings.inline_flops
            and shared + batch.nbytes + objective.nbytes <= _LARGE
            and self._backend.fast_path.fits(executable, batch.loss.graph.info)
        )

    async def _read(self, running: _RunningSum) -> None:
        _check_complete(running)
        # One answer at a time: a client that does not read them is not read from either.
        await self._answered()
        running.mark()
        self._answer = self._tasks.create_task(self._respond(running, tuple(running.adding)))

    async def _answered(self) -> None:
        if self._answer is not None:
            await asyncio.wait((self._answer,))

    async def _respond(self, running: _RunningSum, before: tuple[asyncio.Task[None], ...]) -> None:
        """Answer a read once the batches `before` it are added."""
        if before:
            await asyncio.wait(before)
        total, arrays = await running.read()
        for message in _messages(running.objective, total, arrays, running.queue.reruns):
            # Not to be cancelled: what ends the call waits until the message has left.
            self._writing = asyncio.ensure_future(
                write(self._context, message, self._settings.unread_seconds)
            )
            # The client may have gone: the call ends with that, whether or not anybody waits here still.
            self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.shield(self._writing)


def _check_complete(running: _RunningSum) -> None:
    if running.incoming is not None:
        raise InvalidInput(
            f"batch {running.incoming.index} is incomplete: {running.incoming.missing}; send the rest in "
            "chunks before any other message",
            "action",
        )


def _messages(
    objective: Objective, total: PartialSum, arrays: tuple[Array, ...], reruns: int
) -> Iterator[Message | bytes]:
    """Yield the messages of an answer: large arrays follow it in chunks.

    Args:
        objective: what the accumulation is of.
        total: the sum.
        arrays: the loss and gradients that it makes.
        reruns: batches that were computed again because their worker was lost.
    """
    gradient = accumulate_pb2.Gradient(
        batches=total.batches,
        rows=total.rows,
        batches_by_worker=total.by_worker,
        batches_rerun=reruns,
        compute=translate.duration(total.seconds),
    )
    chunked = add_outputs(gradient, objective.loss.names, arrays, whole=False)
    yield Response(gradient=gradient)
    for index in chunked:
        yield from framing.gradient_chunks(index, arrays[index])
