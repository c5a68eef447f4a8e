"""Gradients that add up over batches: what is kept, what is lost when a stream breaks, and how to go on."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import gradwire_wire as wire
from gradwire._face.batches import Batch, Loss, Start
from gradwire._face.evaluation import Arrays, unwrapped
from gradwire.errors import CancelledError, DeadlineError, NotFoundError, ServerError, UnavailableError
from gradwire.graphs.signature import Selection
from gradwire.results import Accumulated
from gradwire.transport.connection import Connection
from gradwire.transport.gradient_stream import GradientStream, Incoming
from gradwire.transport.retry import Backoff, Deadline
from gradwire.transport.uploads import Uploaded
from gradwire_wire.v1 import accumulate_pb2

_ZERO = accumulate_pb2.AccumulateRequest(zero=accumulate_pb2.ZeroGradient()).SerializeToString()


class AsyncAccumulator:
    """The gradient of a loss over batches that are sent one after another and never lie in one place.

    Made by `AsyncFunction.accumulator`; batches are counted from 0 and may differ in size:

        async with loss.accumulator(w=w) as acc:
            for x, y in batches:
                await acc.add(x, y)     # returns when the batch is on its way
            print(await acc.value(), await acc.grad())
            await acc.zero(w=w - 0.1 * await acc.grad())

    It opens one stream with its first batch, which the server reads no faster than its workers compute. Calls
    from several tasks are served in the order in which they were made. What goes wrong with a batch is raised
    by a later call. An error, a timeout or a cancelled call ends the stream and the work: what was
    accumulated is lost, and calls say so until `zero` begins again. Only when every batch since `zero` was
    given by arrays that were uploaded (`AsyncClient.put`) are they sent again by themselves, after the
    connection broke.
    """

    def __init__(
        self, connection: Connection, loss: Loss, start: Start, wrt: Selection, timeout: float | None
    ) -> None:
        Deadline(timeout)  # says now what would be wrong with it
        self._connection, self._loss, self._start = connection, loss, start
        self._wrt, self._timeout = wrt, timeout
        self._turn = asyncio.Lock()
        self._stream: GradientStream | None = None
        self._closed = False
        # Arrays uploaded before are believed to be there until the server says otherwise, or breaks off.
        self._trusting = True
        self._sent: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._batches = self._rows = 0
        self._journal: (
            list[Batch] | None
        ) = []  # what would have to be sent again; None when not all of it can
        self._resent = False
        self._failure: ServerError | None = None
        self._last: Accumulated | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._loss}: {self.batches} batches, {self.rows} rows>"

    @property
    def batches(self) -> int:
        """Batches added since the last `zero`."""
        return self._batches

    @property
    def rows(self) -> int:
        """Rows in them."""
        return self._rows

    async def add(
        self, /, *args: Any, rows: int | None = None, timeout: float | None = None, **inputs: Any
    ) -> None:
        """Add the gradient of a batch: the inputs that are not shared, in order, by name or as a mapping.

        Arrays may be written to again when it returns. `rows` is what the batch counts in a mean, the leading
        extent of its arrays by default. A function traced from code is traced again for a batch of other
        extents; a model whose shapes are fixed refuses it. `timeout` is in seconds, the accumulator's own by
        default.
        """
        await self.send(self.batch(args, inputs, rows), timeout)

    def batch(self, args: tuple[Any, ...], inputs: Mapping[str, Any], rows: int | None = None) -> Batch:
        """The batch of these arguments, for `send`; raises what is wrong with them. Sends nothing."""
        return self._loss.batch(args, inputs, rows)

    async def send(self, batch: Batch, timeout: float | None = None) -> None:
        """Add a batch that `batch` made. Its arrays must stay as they are until this returns."""
        async with self._my_turn(timeout) as deadline:
            self._check()
            backoff = Backoff(self._connection.retry, deadline)
            while True:
                try:
                    await self._transmit(await self._opened(deadline), batch, deadline)
                    break
                except (NotFoundError, UnavailableError) as error:
                    await self._recover(error, backoff)
            self._last = None
            self._batches += 1
            self._rows += batch.rows
            if not batch.kept:
                self._journal = None
            elif self._journal is not None:
                self._journal.append(batch)

    async def add_all(
        self, batches: Iterable[Any] | AsyncIterable[Any], *, timeout: float | None = None
    ) -> None:
        """Add every batch of an iterable: tuples or lists of arrays, mappings, or one array each.

        `timeout` is for each of them.
        """
        if isinstance(batches, AsyncIterable):
            async for one in batches:
                await self.add(*self.arguments(one), timeout=timeout)
        else:
            for one in batches:
                await self.add(*self.arguments(one), timeout=timeout)

    def arguments(self, batch: Any) -> tuple[Any, ...]:
        """The arguments of `add` for one item of an iterable. Loaders of data give lists for tuples."""
        several = isinstance(batch, list) and len(self._loss.batched) > 1
        return tuple(batch) if several else (batch,)

    async def grad(self, *, timeout: float | None = None) -> Arrays:
        """The gradient over all batches added so far: an array, or a tuple as `wrt` asked for it."""
        return (await self.read(timeout=timeout)).grad

    async def value(self, *, timeout: float | None = None) -> wire.Array:
        """The loss over all batches added so far."""
        return (await self.read(timeout=timeout)).value

    async def read(self, *, timeout: float | None = None) -> Accumulated:
        """The loss, its gradient, and who computed how much of it; everything stays, and more may be added.

        Asked again before another batch, it costs nothing.
        """
        async with self._my_turn(timeout) as deadline:
            self._check()
            backoff = Backoff(self._connection.retry, deadline)
            while self._last is None:
                try:
                    stream = await self._opened(deadline)
                    self._last = self._accumulated(await stream.ask())
                except (NotFoundError, UnavailableError) as error:
                    await self._recover(error, backoff)
            return self._last

    async def zero(self, /, *params: Any, timeout: float | None = None, **inputs: Any) -> None:
        """Forget what was accumulated, and any failure; with parameters, go on at those.

        Parameters are given as to `accumulator`; those that are not given stay as they are.
        """
        await self.restart(self.point(params, inputs), timeout)

    def point(self, params: tuple[Any, ...], inputs: Mapping[str, Any]) -> Start | None:
        """Where `zero` goes on with these arguments, for `restart`; None to stay. Sends nothing."""
        return self._loss.moved(self._start, params, inputs) if params or inputs else None

    async def restart(self, start: Start | None, timeout: float | None = None) -> None:
        """Do what `zero` does, with parameters that `point` made ready."""
        async with self._my_turn(timeout) as deadline:
            if self._failure is not None:
                self._drop()
            self._forget()
            self._start = start or self._start
            if self._stream is None:
                return
            try:
                if start is not None:
                    await self._upload_start(deadline)
                await self._stream.write(_ZERO if start is None else start.message)
            except ServerError:
                self._drop()  # nothing is lost, and the next call opens another

    async def close(self) -> None:
        """Stop what the server does for it; nothing can be added any more."""
        self._closed = True
        self._drop()

    async def __aenter__(self) -> "AsyncAccumulator":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # What keeps calls apart, and what becomes of a call that fails.

    @asynccontextmanager
    async def _my_turn(self, timeout: float | None) -> AsyncIterator[Deadline]:
        seconds = self._timeout if timeout is None else timeout
        deadline, waiting = Deadline(seconds), True
        try:
            async with asyncio.timeout(seconds), self._turn:
                waiting = False
                if self._closed:
                    raise RuntimeError("the accumulator is closed: make another with accumulator()")
                try:
                    yield deadline
                except ServerError as error:
                    if self._closed:
                        raise RuntimeError("the accumulator was closed during the call") from None
                    raise self._lose(error) from None
                except BaseException:
                    self._lose(CancelledError("a call was stopped before it had ended"))
                    raise
        except TimeoutError as error:
            if isinstance(error, ServerError):
                raise
            if waiting:
                raise DeadlineError(
                    f"the calls before it took longer than the timeout of {seconds:g} s; nothing was lost"
                ) from None
            late = DeadlineError(f"the call took longer than its timeout of {seconds:g} s and was stopped")
            raise self._noted(late) from None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _lose(self, error: ServerError) -> ServerError:
        """Give up what was accumulated, if that was anything; the error that says so."""
        if error is self._failure:
            return _copied(error, error.message)
        self._drop()
        if self._batches == 0:
            self._forget()
            return error
        self._failure = self._noted(error)
        return self._failure

    def _noted(self, error: ServerError) -> ServerError:
        if self._batches == 0:
            return error
        batches = f"{self._batches} batch{'es' * (self._batches > 1)}"
        return _copied(
            error,
            f"{error.message}; the gradient of the {batches} added so far is lost: call zero() and add the "
            "batches again",
        )

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    # The stream, and how to open another.

    async def _opened(self, deadline: Deadline) -> GradientStream:
        if self._stream is not None:
            if self._batches:
                self._stream.check()
            if self._stream.open:
                return self._stream
            self._drop()  # it ended over batches that are forgotten
        connection = self._connection
        await connection.register(self._loss.model, deadline, again=not self._trusting)
        await self._upload_start(deadline)
        stream = self._stream = GradientStream(connection.stub, connection.address)
        await stream.write(self._start.message)
        await stream.ask()  # what is wrong with the start is said before a batch is risked
        for batch in self._journal or ():
            await self._transmit(stream, batch, deadline)
        return stream

    async def _upload_start(self, deadline: Deadline) -> None:
        for one in self._start.large:
            await self._connection.upload(one.tensor_id, one.array, deadline)
        await self._upload(self._start.uploads, deadline)

    async def _transmit(self, stream: GradientStream, batch: Batch, deadline: Deadline) -> None:
        model = batch.model
        if model is not None and model.graph_id not in stream.registered:
            # Whatever the connection knows: a NOT_FOUND now would cost everything accumulated.
            await self._connection.register(model, deadline, again=True)
            stream.registered.add(model.graph_id)
        await self._upload(batch.uploads, deadline)
        for message in batch.messages():
            await stream.write(message)

    async def _upload(self, arrays: Iterable[Uploaded], deadline: Deadline) -> None:
        if self._trusting:
            return
        for one in arrays:
            if one.tensor_id not in self._sent:
                await self._connection.upload(one.tensor_id, one.array, deadline)
                self._sent.add(one.tensor_id)

    async def _recover(self, error: NotFoundError | UnavailableError, backoff: Backoff) -> None:
        """Make ready for another attempt; raises the error where what was accumulated cannot be had again."""
        if self._journal is None or (self._resent and isinstance(error, NotFoundError)):
            raise error
        self._drop()
        self._trusting = False
        self._sent.clear()
        if isinstance(error, UnavailableError):
            await backoff.pause(error)
        else:
            self._resent = True

    def _accumulated(self, incoming: Incoming) -> Accumulated:
        gradient = incoming.gradient
        if len(incoming.arrays) != 1 + len(self._loss.wrt) or gradient.batches != self._batches:
            raise ServerError(
                f"the server's answer has {len(incoming.arrays)} arrays over {gradient.batches} batches, not "
                f"{1 + len(self._loss.wrt)} over {self._batches}; its version may not fit this client",
                code="DATA_LOSS",
            )
        value, *gradients = incoming.arrays
        return Accumulated(
            value,
            unwrapped(gradients, self._wrt),
            gradient.batches,
            gradient.rows,
            dict(gradient.batches_by_worker),
            gradient.batches_rerun,
            gradient.compute.ToTimedelta().total_seconds(),
        )


def _copied(error: ServerError, message: str) -> ServerError:
    """The error with another message, and no traceback yet."""
    return type(error)(
        message,
        code=error.code,
        violations=error.violations,
        reason=error.reason,
        metadata=error.metadata,
    )
