"""One Accumulate call: batches in, each differentiated by a worker, their sum out.

Workers compute batches side by side. Only one so small that handing it over takes many times longer than
computing it, a few dozen rows of a linear model say, is computed here: by the same executable, so that it
makes no difference to the bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from gradwire_engine.errors import InvalidInput
from gradwire_server.compute.kernel_cache import Executable
from gradwire_server.compute.reduction import Partial, Reduction, nothing, of_batch, rounded
from gradwire_server.compute.scheduler import Scheduler, Share
from gradwire_server.compute.store import Budget, Store
from gradwire_server.compute.workbench import Computed
from gradwire_server.rpc import translate
from gradwire_server.rpc.evaluate import SERVER, Evaluator
from gradwire_server.rpc.incoming_batch import Assembly
from gradwire_server.rpc.objective import Loss, Objective, blaming, objective_from
from gradwire_server.settings import Settings
from gradwire_wire import framing
from gradwire_wire.outputs import add_outputs
from gradwire_wire.v1 import accumulate_pb2

Array = np.ndarray[Any, Any]
Request = accumulate_pb2.AccumulateRequest
Response = accumulate_pb2.AccumulateResponse
Context = grpc.aio.ServicerContext[Request, "Message | bytes"]
R = TypeVar("R")


_LARGE = 1 << 20
"""Bytes from which computing or adding leaves the event loop."""

_MOST_ROWS = 1 << 53
"""Up to here float64 counts rows exactly."""


class _Tally:
    """What was accumulated since the last start or zero, and the batches on their way into it."""

    def __init__(self, objective: Objective, share: Share, sums: Budget) -> None:
        """Nothing yet; raises Overloaded when there is no room for the sums."""
        self.objective = objective
        self.share = share
        self.batches = 0
        self.rows = 0
        self.assembly: Assembly | None = None
        self.adding: dict[asyncio.Task[None], int] = {}
        """Batches under way, and their bytes."""
        self._tree = Reduction()
        self._turn = asyncio.Lock()
        self._sums = sums
        self._reserved = 0
        self._reserve()

    def _reserve(self) -> None:
        """Count what the tree holds, and room for an addition and an answer."""
        wanted = self._tree.nbytes + 2 * self.objective.nbytes
        self._sums.reserve(wanted - self._reserved)
        self._reserved = wanted

    async def add(self, index: int, rows: int, computed: Computed, worker: str) -> None:
        """Add a batch; raises Overloaded when there is no room."""

        def work() -> None:
            weight = rows if self.objective.mean else None
            self._tree.add(index, of_batch(computed.arrays, rows, worker, computed.seconds, weight))

        await self._work(work)
        self._reserve()

    def mark(self) -> None:
        """Keep apart what was sent so far."""
        self._tree.mark(self.batches)

    async def read(self) -> tuple[Partial, tuple[Array, ...]]:
        """The sum up to the mark, and the loss and gradients it makes."""

        def work() -> tuple[Partial, tuple[Array, ...]]:
            types = self.objective.types
            total = self._tree.total() or nothing(types)
            arrays = rounded(total, types, self.objective.mean)
            self._tree.release()
            return total, arrays

        return await self._work(work)

    async def _work(self, work: Callable[[], R]) -> R:
        """Do something with the tree, one at a time and off the event loop if it is large."""
        async with self._turn:
            if self.objective.nbytes > _LARGE:
                return await asyncio.to_thread(work)
            return work()

    def close(self) -> None:
        """Forget everything, and stop what is under way."""
        for task in self.adding:
            task.cancel()
        self.share.close()
        if self.assembly is not None:
            self.assembly.close()
            self.assembly = None
        self._sums.reserve(-self._reserved)
        self._reserved = 0


class Accumulation:
    """One Accumulate call."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        evaluator: Evaluator,
        scheduler: Scheduler,
        sums: Budget,
        context: Context,
    ) -> None:
        """Over the server's store, kernels and workers; ``sums`` bounds what all accumulations hold."""
        self._settings = settings
        self._store = store
        self._evaluator = evaluator
        self._scheduler = scheduler
        self._sums = sums
        self._context = context
        self._tasks = asyncio.TaskGroup()
        self._tally: _Tally | None = None
        self._answer: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        """Take messages until the client closes its side, then answer a last time.

        Raises:
            EngineError, ServiceError: the first refusal, of a message or of a batch that a worker met.
        """
        try:
            async with self._tasks:
                self._tasks.create_task(self._receive())
        except BaseExceptionGroup as group:
            # A status that meets a message on its way is lost, and the client would wait for ever.
            if self._writing is not None:
                await asyncio.gather(self._writing, return_exceptions=True)
            raise group.exceptions[0] from None
        finally:
            if self._tally is not None:
                self._tally.close()

    async def _receive(self) -> None:
        while True:
            request: Any = await self._context.read()
            if request is grpc.aio.EOF:
                break
            await self._take(request)
        await self._read(self._started())

    async def _take(self, request: Request) -> None:
        action = request.WhichOneof("action")
        if action is None:
            raise InvalidInput("a message needs an action: start, batch, chunk, read or zero", "action")
        if action == "start":
            await self._start(request.start)
            return
        tally = self._started()
        if action == "batch":
            await self._batch(tally, request.batch)
        elif action == "chunk":
            self._chunk(tally, request.chunk)
        elif action == "read":
            await self._read(tally)
        else:
            await self._begin(tally.objective)

    def _started(self) -> _Tally:
        if self._tally is None:
            raise InvalidInput("an accumulation begins with start", "action")
        return self._tally

    async def _start(self, start: accumulate_pb2.AccumulateStart) -> None:
        await self._begin(await objective_from(start, self._store, self._evaluator))

    async def _begin(self, objective: Objective) -> None:
        """Begin at nothing; what was accumulated is forgotten once a read before this is answered."""
        await self._answered()
        if self._tally is not None:
            self._tally.close()
        self._tally = None
        self._tally = _Tally(objective, self._scheduler.open(), self._sums)

    async def _batch(self, tally: _Tally, batch: accumulate_pb2.Batch) -> None:
        _check_complete(tally)
        assembly = Assembly(
            tally.batches,
            batch,
            tally.objective,
            await self._loss(tally, batch),
            self._store,
            self._settings.tensor_bytes,
        )
        with assembly.blaming():
            if tally.rows + assembly.rows > _MOST_ROWS:
                raise InvalidInput(
                    f"with its {assembly.rows} rows they come to over {_MOST_ROWS}, more than can be "
                    "counted exactly: begin anew with zero, or say fewer in 'rows'",
                    "rows",
                )
        # Reading no further is what slows the client down.
        await self._room(tally, assembly.nbytes)
        tally.batches += 1
        tally.rows += assembly.rows
        tally.assembly = assembly
        self._submit_if_complete(tally)

    async def _loss(self, tally: _Tally, batch: accumulate_pb2.Batch) -> Loss:
        """The function that a batch is evaluated by."""
        if not batch.HasField("function"):
            return tally.objective.loss
        with blaming(f"batch {tally.batches}", "batch"):
            return await tally.objective.variant(batch.function, self._store, self._evaluator)

    async def _room(self, tally: _Tally, nbytes: int) -> None:
        """Wait until a batch of so many bytes, and its gradient, may be under way."""
        settings, under_way = self._settings, tally.adding
        wanted = nbytes + tally.objective.nbytes
        while under_way and (
            len(under_way) >= settings.window(len(self._scheduler.workers))
            or sum(under_way.values()) + wanted > settings.inflight_bytes
        ):
            await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    def _chunk(self, tally: _Tally, chunk: accumulate_pb2.BatchChunk) -> None:
        if tally.assembly is None:
            raise InvalidInput(
                f"a chunk of input {chunk.input!r} came, but no batch waits for data: the batch before it is "
                "complete, or there is none",
                "chunk",
            )
        tally.assembly.add(chunk)
        self._submit_if_complete(tally)

    def _submit_if_complete(self, tally: _Tally) -> None:
        assembly = tally.assembly
        if assembly is None or assembly.missing:
            return
        tally.assembly = None
        assembly.close()
        task = self._tasks.create_task(self._add(tally, assembly))
        tally.adding[task] = assembly.nbytes + tally.objective.nbytes
        task.add_done_callback(lambda done: tally.adding.pop(done, None))

    async def _add(self, tally: _Tally, assembly: Assembly) -> None:
        with assembly.blaming():
            computed, worker = await self._compute(tally, assembly)
        await tally.add(assembly.index, assembly.rows, computed, worker)

    async def _compute(self, tally: _Tally, assembly: Assembly) -> tuple[Computed, str]:
        """The loss and gradients of a batch, and who computed them."""
        objective, loss, lane = tally.objective, assembly.loss, self._evaluator.lane
        spec = loss.spec(objective.shared + assembly.arguments)
        kernel = await self._evaluator.kernel(loss.graph, spec)
        values = assembly.values()
        if self._tiny(objective, assembly, kernel):
            loaded = await lane.load(loss.graph, kernel)
            arrays, seconds = await lane.run(loaded, await lane.inputs({**objective.values, **values}))
            return Computed(arrays, seconds), SERVER
        piece = tally.share.submit(
            "batch",
            loss.graph,
            spec,
            kernel.facts,
            kernel.box,
            objective.point,
            objective.values,
            values,
            seconds=self._settings.evaluate_seconds,
        )
        return await piece.future, piece.worker

    def _tiny(self, objective: Objective, assembly: Assembly, kernel: Executable) -> bool:
        """Whether a batch, with all that it reads and writes, takes no time that others would notice."""
        shared = sum(value.nbytes for _, value in objective.shared)
        return (
            kernel.facts.cost.flops <= self._settings.inline_flops
            and shared + assembly.nbytes + objective.nbytes <= _LARGE
            and self._evaluator.lane.fits(kernel, assembly.loss.graph.info)
        )

    async def _read(self, tally: _Tally) -> None:
        _check_complete(tally)
        # One answer at a time: a client that does not read them is not asked for more.
        await self._answered()
        tally.mark()
        self._answer = self._tasks.create_task(self._respond(tally, tuple(tally.adding)))

    async def _answered(self) -> None:
        if self._answer is not None:
            await asyncio.wait((self._answer,))

    async def _respond(self, tally: _Tally, before: tuple[asyncio.Task[None], ...]) -> None:
        if before:
            await asyncio.wait(before)
        total, arrays = await tally.read()
        for message in _messages(tally.objective, total, arrays, tally.share.reruns):
            # Not to be broken off: what ends the call waits until the message has left.
            self._writing = asyncio.ensure_future(self._context.write(message))
            await asyncio.shield(self._writing)


def _check_complete(tally: _Tally) -> None:
    if tally.assembly is not None:
        raise InvalidInput(
            f"batch {tally.assembly.index} is incomplete: {tally.assembly.missing}; send the rest in chunks "
            "before any other message",
            "action",
        )


def _messages(
    objective: Objective, total: Partial, arrays: tuple[Array, ...], reruns: int
) -> Iterator[Message | bytes]:
    """An answer; large arrays follow it in chunks."""
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
