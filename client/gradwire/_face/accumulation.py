"""Accumulates a gradient over batches: what is kept, what a broken stream loses, and how to go on."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, Self

import gradwire_wire as wire
from gradwire._face.batches import Batch, Loss, Start
from gradwire._face.evaluation import Arrays
from gradwire._face.pickling import FUNCTION, refuse
from gradwire._face.structures import unwrapped
from gradwire.errors import CancelledError, DeadlineError, NotFoundError, ServerError
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Selection
from gradwire.results import Accumulated
from gradwire.transport.connection import Connection
from gradwire.transport.gradient_stream import GradientStream, PartialGradient
from gradwire.transport.retry import PASSING, Backoff, Deadline
from gradwire.transport.uploads import Uploaded
from gradwire_wire.v1 import accumulate_pb2

_ZERO = accumulate_pb2.AccumulateRequest(zero=accumulate_pb2.ZeroGradient()).SerializeToString()


class AsyncAccumulator:
    """The gradient of a loss over batches that are sent one after another and never held together.

    Made by `AsyncFunction.accumulator`. As in PyTorch, a gradient is an accumulator: `grad` adds up until
    `zero`. Batches may differ in size:

        async with loss.accumulator(w=w) as acc:
            for x, y in batches:
                await acc.add(x, y)     # returns when the batch is on its way
            print(await acc.value(), await acc.grad())
            await acc.zero(w=w - 0.1 * await acc.grad())  # go on at another point

    It opens one stream with its first batch, which the server reads no faster than its workers compute.
    Calls from several tasks are served in the order in which they were made.
    Batches are added up by a fixed tree over their order, so that the bits do not depend on the number of
    workers.

    An error in a batch is raised by a later call. An error, a timeout or a cancelled call ends the stream and
    the work: what was accumulated is lost, and calls say so until `zero` begins again. After the connection
    broke, batches are sent again only if every one since `zero` consists of arrays that were uploaded
    (`AsyncClient.put`).
    """

    def __init__(
        self,
        connection: Connection,
        loss: Loss,
        start: Start,
        wrt: Selection,
        timeout: float | None,
        beside: Callable[[Model, Mapping[str, wire.Array]], AbstractAsyncContextManager[None]],
    ) -> None:
        """Make the accumulator of a loss; nothing is sent before the first batch.

        Args:
            connection: where it is computed.
            loss: what is accumulated.
            start: the point.
            wrt: what the gradient was asked for.
            timeout: seconds that each call may take.
            beside: compares a traced graph with its function at a point, while a batch is sent.
        """
        Deadline(timeout)  # refuses a wrong timeout now
        self._beside = beside
        self._connection, self._loss, self._start = connection, loss, start
        self._wrt, self._timeout = wrt, timeout
        self._lock = asyncio.Lock()
        self._stream: GradientStream | None = None
        self._closed = False
        # Uploaded arrays are assumed to be there until the server says otherwise, or the stream breaks.
        self._assume_uploaded = True
        self._sent: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self._batches = self._rows = 0
        # The batches to send again after the stream broke; None if not all of them can be.
        self._resendable: list[Batch] | None = []
        self._resent = False
        self._failure: ServerError | None = None
        self._last: Accumulated | None = None

    def __reduce__(self) -> NoReturn:
        refuse(self, FUNCTION.format(address=self._connection.address))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._loss}: {self.batches} batches, {self.rows} rows>"

    @property
    def batches(self) -> int:
        """Batches added since the last `zero`."""
        return self._batches

    @property
    def rows(self) -> int:
        """Rows in the batches added since the last `zero`."""
        return self._rows

    async def add(
        self, /, *args: Any, rows: int | None = None, timeout: float | None = None, **inputs: Any
    ) -> None:
        """Add the gradient of a batch.

        Arrays may be written to again when it returns. A function traced from code is traced again for a
        batch of other extents; a model whose shapes are fixed refuses it.

        Args:
            *args: the inputs that are not shared, in order or as a mapping.
            rows: the weight of the batch in a mean; the leading extent of its arrays by default.
            timeout: seconds; that of the accumulator by default.
            **inputs: inputs that are not shared, by name.

        Raises:
            InvalidArgumentError: an input does not fit; nothing is lost.
            ServerError: of the kind that fits, for this or an earlier batch.
        """
        await self._send(self._loss.batch(args, inputs, rows), timeout)

    async def _send(self, batch: Batch, timeout: float | None) -> None:
        """Add a batch. Its arrays must not change until this returns."""
        async with self._exclusive(timeout) as deadline:
            self._check()
            backoff = Backoff(self._connection.retry, deadline)
            async with self._beside(batch.model or self._loss.model, self._point(batch)):
                while True:
                    try:
                        await self._transmit(await self._opened(deadline), batch, deadline)
                        break
                    except (NotFoundError, *PASSING) as error:
                        await self._recover(error, backoff)
            self._last = None
            self._batches += 1
            self._rows += batch.rows
            if not batch.kept:
                self._resendable = None
            elif self._resendable is not None:
                self._resendable.append(batch)

    def _point(self, batch: Batch) -> dict[str, wire.Array]:
        values = {**self._start.params, **batch.inputs}
        return {name: one.array if isinstance(one, Uploaded) else one for name, one in values.items()}

    async def add_all(
        self, batches: Iterable[Any] | AsyncIterable[Any], *, timeout: float | None = None
    ) -> None:
        """Add every batch of an iterable: tuples or lists of arrays, mappings, or one array each.

        `timeout` is for each of them.
        """
        async for batch in _iterate(batches):
            await self.add(*self._loss.arguments(batch), timeout=timeout)

    async def grad(self, *, timeout: float | None = None) -> Arrays:
        """Wait for the gradient over all batches added so far: an array, or a tuple as `wrt` asked for it.

        Everything is kept, and more batches may be added.
        """
        return (await self.read(timeout=timeout)).grad

    async def value(self, *, timeout: float | None = None) -> wire.Array:
        """Wait for the loss over all batches added so far."""
        return (await self.read(timeout=timeout)).value

    async def read(self, *, timeout: float | None = None) -> Accumulated:
        """Wait for the loss, its gradient, and the shares of the workers.

        Everything is kept, and more batches may be added. Until then, further calls cost nothing.
        """
        async with self._exclusive(timeout) as deadline:
            self._check()
            backoff = Backoff(self._connection.retry, deadline)
            while self._last is None:
                try:
                    stream = await self._opened(deadline)
                    self._last = self._accumulated(await stream.read())
                except (NotFoundError, *PASSING) as error:
                    await self._recover(error, backoff)
            return self._last

    async def zero(self, /, *params: Any, timeout: float | None = None, **inputs: Any) -> None:
        """Discard what was accumulated, and any failure; with parameters, go on at those.

        Parameters are given as to `accumulator`; those that are not given stay as they are.
        """
        start = self._loss.moved(self._start, params, inputs) if params or inputs else None
        await self._restart(start, timeout)

    async def _restart(self, start: Start | None, timeout: float | None) -> None:
        """Discard what was accumulated and go on at `start`; None to stay at the same parameters."""
        async with self._exclusive(timeout) as deadline:
            if self._failure is not None:
                self._drop()
            self._reset()
            self._start = start or self._start
            if self._stream is None:
                return
            try:
                if start is not None:
                    await self._upload_start(deadline)
                await self._stream.write(_ZERO if start is None else start.message)
            except ServerError:
                self._drop()  # nothing is lost: the next call opens another stream

    async def close(self) -> None:
        """Stop the server's work; nothing can be added afterwards."""
        self._closed = True
        self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # One call at a time, and what happens when it fails.

    @asynccontextmanager
    async def _exclusive(self, timeout: float | None) -> AsyncIterator[Deadline]:
        deadline, waiting = Deadline(self._timeout if timeout is None else timeout), True
        seconds = deadline.timeout
        try:
            async with asyncio.timeout(seconds), self._lock:
                waiting = False
                if self._closed:
                    raise RuntimeError("the accumulator is closed: make another with accumulator()")
                try:
                    yield deadline
                except ServerError as error:
                    if self._closed:
                        raise RuntimeError("the accumulator was closed during the call") from None
                    raise self._fail(error) from None
                except BaseException:
                    self._fail(CancelledError("a call was stopped before it had ended"))
                    raise
        except TimeoutError as error:
            if isinstance(error, ServerError):
                raise
            if waiting:
                raise DeadlineError(
                    f"the calls before it took longer than the timeout of {seconds:g} s; nothing was lost"
                ) from None
            late = DeadlineError(f"the call took longer than its timeout of {seconds:g} s and was stopped")
            raise self._with_note(late) from None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: ServerError) -> ServerError:
        """Discard what was accumulated, if anything was; return the error that says so."""
        if error is self._failure:
            return _copied(error, error.message)
        self._drop()
        if self._batches == 0:
            self._reset()
            return error
        self._failure = self._with_note(error)
        return self._failure

    def _with_note(self, error: ServerError) -> ServerError:
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

    # The stream, and how it is reopened.

    async def _opened(self, deadline: Deadline) -> GradientStream:
        if self._stream is not None:
            if self._batches:
                self._stream.check()
            if self._stream.open:
                return self._stream
            self._drop()  # it ended while nothing was accumulated
        connection = self._connection
        await connection.register(self._loss.model, deadline, again=not self._assume_uploaded)
        await self._upload_start(deadline)
        stream = self._stream = GradientStream(connection.stub, connection.address)
        await stream.write(self._start.message)
        await stream.read()  # an error in the start is raised before a batch is sent
        for batch in self._resendable or ():
            await self._transmit(stream, batch, deadline)
        return stream

    async def _upload_start(self, deadline: Deadline) -> None:
        for one in self._start.large:
            await self._connection.upload(one.tensor_id, one.array, deadline)
        await self._upload(self._start.uploads, deadline)

    async def _transmit(self, stream: GradientStream, batch: Batch, deadline: Deadline) -> None:
        model = batch.model
        if model is not None and model.graph_id not in stream.registered:
            # Even if the connection has registered it: NOT_FOUND would now lose everything accumulated.
            await self._connection.register(model, deadline, again=True)
            stream.registered.add(model.graph_id)
        await self._upload(batch.uploads, deadline)
        for message in batch.messages():
            await stream.write(message)

    async def _upload(self, arrays: Iterable[Uploaded], deadline: Deadline) -> None:
        if self._assume_uploaded:
            return
        for one in arrays:
            if one.tensor_id not in self._sent:
                await self._connection.upload(one.tensor_id, one.array, deadline)
                self._sent.add(one.tensor_id)

    async def _recover(self, error: ServerError, backoff: Backoff) -> None:
        """Prepare another attempt; raise the error if it stands or the batches cannot be sent again."""
        stands = self._resent if isinstance(error, NotFoundError) else not error.passing
        if self._resendable is None or stands:
            raise error
        self._drop()
        self._assume_uploaded = False
        self._sent.clear()
        if error.passing:
            await backoff.pause(error)
        else:
            self._resent = True

    def _accumulated(self, received: PartialGradient) -> Accumulated:
        gradient = received.gradient
        if len(received.arrays) != 1 + len(self._loss.wrt) or gradient.batches != self._batches:
            raise ServerError(
                f"the server's answer has {len(received.arrays)} arrays over {gradient.batches} batches, not "
                f"{1 + len(self._loss.wrt)} over {self._batches}; its version may not fit this client",
                code="DATA_LOSS",
            )
        value, *gradients = received.arrays
        return Accumulated(
            value,
            unwrapped(gradients, self._wrt),
            gradient.batches,
            gradient.rows,
            dict(gradient.batches_by_worker),
            gradient.batches_rerun,
            gradient.compute.ToTimedelta().total_seconds(),
        )


async def _iterate(batches: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


def _copied(error: ServerError, message: str) -> ServerError:
    """Copy an error with another message and no traceback."""
    return type(error)(
        message,
        code=error.code,
        violations=error.violations,
        reason=error.reason,
        metadata=error.metadata,
    )
