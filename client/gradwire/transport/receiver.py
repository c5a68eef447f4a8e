"""Receives a Jacobian or Hessian block by block, and resumes a stream that broke."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import prod

import grpc.aio

import gradwire_wire as wire
from gradwire.errors import NotFoundError, PreconditionError, ServerError
from gradwire.graphs.models import Model
from gradwire.progress import Phase, ProgressReporter
from gradwire.results import Block, Info, Piece, Plan, Summary
from gradwire.transport.connection import Connection, Recovery
from gradwire.transport.placement import Destination, OpenBlock, ResultArrays, SparseValues, slices
from gradwire.transport.retry import PASSING, Deadline
from gradwire.transport.status import PLAN_CHANGED, translated
from gradwire_wire.framing import Chunk, FramingError, block_chunk, pattern_chunk, value_chunk
from gradwire_wire.outputs import fill_output, output_arrays
from gradwire_wire.v1 import derivative_pb2, function_pb2


@dataclass(frozen=True, slots=True)
class DerivativeRequest:
    """A derivative to be computed, and what must be sent for it.

    Attributes:
        message: what is sent.
        model: the graph that it refers to.
        inputs: the point.
        uploads: the large arrays that it refers to, by id.
        deadline: when it must be over.
    """

    message: derivative_pb2.DifferentiateRequest
    model: Model
    inputs: Mapping[str, wire.Array]
    uploads: Mapping[str, wire.Array]
    deadline: Deadline

    @property
    def columns(self) -> int:
        """How many inputs it is by."""
        return len(self.message.wrt)


@dataclass(frozen=True, slots=True)
class Begun:
    """A derivative of which blocks are held already.

    Attributes:
        plan_id: of the plan that they are of; "" if nothing has been received.
        resume_id: what the server calls that plan and the point, to resume by.
        blocks: their numbers.
    """

    plan_id: str = ""
    resume_id: str = ""
    blocks: frozenset[int] = frozenset()


class DerivativeReceiver:
    """Receives the blocks of one derivative, and resumes the stream when it breaks.

    Args:
        connection: where to ask for it.
        request: what to ask for.
        allocate: gives the memory that blocks are written to, once the plan is known.
        reporter: is told how much has arrived.
        restart: when the server would plan the rest of a broken stream differently, ask for everything
            again; without it, that is an error.
        begun: what is in the destination already.
    """

    def __init__(
        self,
        connection: Connection,
        request: DerivativeRequest,
        allocate: Callable[[Plan], Destination],
        reporter: ProgressReporter,
        restart: bool,
        begun: Begun | None = None,
    ) -> None:
        self._connection, self._request, self._deadline = connection, request, request.deadline
        self._allocate, self._reporter, self._restart = allocate, reporter, restart
        begun = begun or Begun()
        self._plan_id, self._done = begun.plan_id, set(begun.blocks)
        self.resume_id = begun.resume_id
        self._open: dict[int, OpenBlock] = {}
        self._bytes = 0
        self._values = _Values() if request.message.values else None
        self._plan: Plan | None = None
        self._destination: Destination | None = None
        self._summary: Summary | None = None
        self._resumed = 0
        # The pattern that the client held before, and whether it asks for colors.
        self._held_pattern, self._colors = request.message.pattern_id, request.message.pattern_colors
        self._started = time.monotonic()

    @property
    def plan(self) -> Plan:
        """How the derivative is cut into blocks; known before the first block arrives."""
        if self._plan is None:
            raise _incomplete("no plan")
        return self._plan

    @property
    def destination(self) -> Destination:
        """The memory that the blocks were written to."""
        if self._destination is None:
            raise _incomplete("no plan")
        return self._destination

    @property
    def arrays(self) -> list[wire.Array]:
        """One array for each entry of the plan, when blocks are written to `ResultArrays`."""
        assert isinstance(self.destination, ResultArrays)
        return self.destination.arrays

    @property
    def sparse(self) -> SparseValues:
        """The values and the pattern of a sparse derivative."""
        assert isinstance(self.destination, SparseValues)
        return self.destination

    @property
    def values(self) -> list[wire.Array]:
        """The function's own outputs, if the request asks for them; only once everything has arrived."""
        if self._values is None or not self._values.complete:
            raise _incomplete("no values; its version may not fit this client")
        return self._values.arrays

    @property
    def info(self) -> Info:
        """The plan and what the server did; only once everything has arrived."""
        if self._summary is None:
            raise _incomplete("no summary")
        return Info(self.plan, self._summary, time.monotonic() - self._started, self._resumed)

    async def blocks(self) -> AsyncGenerator[OpenBlock, None]:
        """Yield every block once, as soon as it is complete."""
        model, uploads = self._request.model, self._reporter.uploads()
        await self._connection.register(model, self._deadline, uploads=uploads)
        recovery = Recovery(self._connection, model, self._request.uploads, self._deadline, uploads)
        try:
            while True:
                tick = self._connection.uploads.tick
                try:
                    async for block in self._one_stream():
                        yield block
                    break
                except (NotFoundError, *PASSING) as error:
                    await recovery.handle(error, tick, len(self._done) + self._has_values)
                    self._resumed += self._plan is not None
                except PreconditionError as error:
                    if error.reason != PLAN_CHANGED or not self._restart or not self._done:
                        raise
                    self._forget()
            destination = self._destination
            if isinstance(destination, SparseValues) and not destination.complete:
                raise _incomplete("a part of the pattern")
            if self._request.message.pattern_only:
                return
            if self._plan is None or len(self._done) != self._plan.blocks:
                raise _incomplete(f"{len(self._done)} blocks of {self._plan.blocks if self._plan else '?'}")
        finally:
            self._reporter.close()

    async def run(self, note: Callable[[int, str], Awaitable[None]] | None = None) -> None:
        """Receive everything into the destination.

        Args:
            note: awaited with the number of each block, and what to resume it by.
        """
        async for block in self.blocks():
            if note is not None:
                await note(block.start.block, self.resume_id)

    def _forget(self) -> None:
        self._done.clear()
        self._bytes, self._plan, self._destination = 0, None, None

    async def _one_stream(self) -> AsyncIterator[OpenBlock]:
        message = self._request.message
        message.skip[:] = sorted(self._done)
        message.resume_id = self.resume_id if self._done else ""
        # Blocks come after the pattern: with blocks at hand it is complete, without it is received anew.
        destination = self._destination if self._done else None
        pattern = destination.pattern if isinstance(destination, SparseValues) else None
        message.pattern_id = pattern.pattern_id if pattern is not None else self._held_pattern
        message.pattern_colors = self._colors and pattern is None
        message.values = self._values is not None and not self._has_values
        if message.values:
            self._values = _Values()  # those of the broken stream are incomplete
        self._bytes -= sum(block.received for block in self._open.values())  # sent again from the start
        self._open.clear()
        address, timeout = self._connection.address, self._deadline.timeout
        call = self._connection.stub.differentiate(message.SerializeToString(), self._deadline.remaining())
        try:
            while True:
                with translated(address, timeout):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    return
                chunk = _read(block_chunk, answer)
                block = self._event(answer) if chunk is None else self._write(chunk)
                if block is not None:
                    yield block
        finally:
            call.cancel()

    @property
    def _has_values(self) -> bool:
        return self._values is not None and self._values.complete

    def _event(self, message: bytes) -> OpenBlock | None:
        coordinates = _read(pattern_chunk, message)
        if coordinates is not None and isinstance(self._destination, SparseValues):
            self._destination.write_pattern(coordinates)
            return None
        part = _read(value_chunk, message)
        if part is not None and self._values is not None:
            self._values.write(part)
            return None
        response = derivative_pb2.DifferentiateResponse.FromString(message)
        kind = response.WhichOneof("event")
        if kind == "header":
            self._begin(
                Plan.from_proto(response.header.plan, self._request.message.of), response.header.resume_id
            )
        elif kind == "block_start" and self._plan is not None:
            block = OpenBlock(response.block_start, self._plan, self.destination)
            self._open[response.block_start.block] = block
            return self._close_if_complete(block)
        elif kind == "values" and self._values is not None:
            self._values.begin(output_arrays(response.values), _missing(response.values))
        elif kind == "progress":  # the first comes when everything is compiled
            self._report("computing")
        elif kind == "summary":
            self._summary = Summary.from_proto(response.summary)
        return None

    def _begin(self, plan: Plan, resume_id: str) -> None:
        if self._plan is None or not self._done:
            self._plan, self._destination = plan, self._allocate(plan)
            self._plan_id, self.resume_id = plan.plan_id, resume_id
            self._bytes = plan.result_bytes * len(self._done) // max(plan.blocks, 1)
            self._report("compiling")
        elif plan.plan_id != self._plan_id:
            raise PreconditionError(
                "the server planned the rest of a broken stream differently; ask again",
                reason=PLAN_CHANGED,
            )

    def _write(self, chunk: Chunk) -> OpenBlock | None:
        index, piece, offset = chunk.numbers
        block = self._open.get(index)
        if block is None:
            raise ServerError(f"the server sent a chunk of block {index}, which it had not started")
        block.write(piece, offset, chunk.data)
        self._bytes += len(chunk.data)
        closed = self._close_if_complete(block)
        self._report("computing")
        return closed

    def _close_if_complete(self, block: OpenBlock) -> OpenBlock | None:
        index = block.start.block
        if not block.complete:
            return None
        del self._open[index]
        if index in self._done:
            raise ServerError(f"the server sent block {index} twice")
        self._done.add(index)
        return block

    def _report(self, phase: Phase) -> None:
        if self._plan is not None:
            self._reporter.update(
                phase, (len(self._done), self._plan.blocks), (self._bytes, self._plan.result_bytes)
            )


class _Values:
    """The function's own outputs, with the number of bytes of each that have not arrived yet."""

    def __init__(self) -> None:
        self.arrays: list[wire.Array] = []
        self._missing: list[int] | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived."""
        return self._missing is not None and not any(self._missing)

    def begin(self, arrays: list[wire.Array], missing: list[int]) -> None:
        """Set the outputs; those with missing bytes are filled by chunks."""
        if self._missing is not None:
            raise ServerError("the server sent the function's outputs twice", code="DATA_LOSS")
        self.arrays, self._missing = arrays, missing

    def write(self, chunk: Chunk) -> None:
        """Write a chunk of an output; chunks of an output must come in order."""
        output, offset, _ = chunk.numbers
        missing = self._missing or []
        if output >= len(missing) or offset != self.arrays[output].nbytes - missing[output]:
            raise ServerError(
                f"the server sent bytes {offset} and on of output {output}, which are not what comes next",
                code="DATA_LOSS",
            )
        fill_output(self.arrays, chunk)
        missing[output] -= len(chunk.data)


def _missing(values: function_pb2.EvaluateResponse) -> list[int]:
    """Return how many bytes of each output are not in the message itself."""
    return [
        0 if tensor.WhichOneof("content") else wire.numpy_dtype(tensor.dtype).itemsize * prod(tensor.shape)
        for tensor in (named.tensor for named in values.outputs)
    ]


def _read(find: Callable[[bytes], Chunk | None], message: bytes) -> Chunk | None:
    try:
        return find(message)
    except FramingError as error:
        raise ServerError(f"the server's answer cannot be read: {error}", code="DATA_LOSS") from None


def _incomplete(what: str) -> ServerError:
    return ServerError(f"the server ended the stream after {what}", code="DATA_LOSS")


def public_block(block: OpenBlock, plan: Plan) -> Block:
    """Return a complete block in the form that users get."""
    pieces = tuple(
        Piece(
            piece.entry,
            plan.entries[piece.entry].row,
            plan.entries[piece.entry].column,
            *slices(piece),
            buffer.values,
            plan.of,
        )
        for piece, buffer in zip(block.start.pieces, block.buffers, strict=True)
    )
    compute = block.start.compute.ToTimedelta().total_seconds()
    return Block(block.start.block, pieces, block.start.worker, compute)
