"""Differentiate: one Jacobian or Hessian, streamed block by block as workers finish."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from math import ceil, prod
from typing import Protocol

from gradwire_engine.planning.kernels import DerivativeSpec, EvaluateSpec
from gradwire_engine.planning.plan import Piece, Plan
from gradwire_engine.values import Block, Blocks, dtype_of
from gradwire_server.compute.account import Holding, Purpose
from gradwire_server.compute.fast_path import BlockInputs, FastPath, LoadedKernel
from gradwire_server.compute.scheduler import Task
from gradwire_server.compute.shared_values import HeldPlan, RegisteredGraph
from gradwire_server.compute.worker import BlockRequest, Computed, Executable, LoadableKernel, Point
from gradwire_server.errors import NotBuilt
from gradwire_server.observe.events import BlockSent
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.evaluate import SERVER, Evaluator
from gradwire_server.rpc.patterns.check import PatternCheck, pattern_check
from gradwire_server.rpc.patterns.exchange import check_pattern_options, pattern_messages
from gradwire_server.rpc.plan import known_inputs, plan_for
from gradwire_server.rpc.resuming import resume_id, wanted_blocks
from gradwire_server.rpc.values import ValueMessages
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2

Response = derivative_pb2.DifferentiateResponse
_CACHED_SECONDS = 2e-3
"""Plans and kernels that took less to get were cached, not compiled for this request."""
_PROGRESS_SECONDS = 0.05
"""Progress is sent at most so often: else small blocks would pay for one more message each."""


async def differentiate(
    backend: Backend, evaluator: Evaluator, request: derivative_pb2.DifferentiateRequest
) -> AsyncGenerator[bytes, None]:
    """Answer Differentiate: serialized responses. New blocks are started only as these are taken.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    started = time.perf_counter()
    _refuse_unbuilt(request)
    if request.pattern_only:
        async for message in _pattern_alone(backend, request, started):
            yield message
        return
    inputs = translate.inputs_from(request.inputs, backend.store)
    known = known_inputs(request.inputs, backend.store)
    graph, held_plan = await plan_for(backend, request, inputs.arguments, known)
    plan, structure = held_plan.plan, held_plan.structure
    check_pattern_options(request, structure)
    resume = await resume_id(plan.plan_id, request.inputs)
    wanted = wanted_blocks(request, plan.plan_id, resume, len(plan.blocks))
    blocks = plan.blocks.chosen(wanted)
    point = inputs.point()
    values: ValueMessages | None = None
    if request.values:
        own = EvaluateSpec(plan.problem.function, inputs.arguments, (), ())
        values = ValueMessages(evaluator.outputs(graph, own, replace(inputs, values=point.inputs)))
    check: PatternCheck | None = None
    begun: asyncio.Future[_Computation] | None = None
    try:
        beside = replace(inputs, values=point.inputs)
        check = await _check(backend, evaluator, request, graph, held_plan, beside)
        # A pattern is checked with all blocks, those that the client holds already too.
        computing = blocks if check is None else plan.blocks
        # The first blocks are computed while the header travels.
        begun = asyncio.ensure_future(_begin(backend, graph, held_plan, computing, point))
        header = derivative_pb2.DifferentiateHeader(plan=translate.plan_message(plan), resume_id=resume)
        yield Response(header=header).SerializeToString()
        if structure is not None:
            async for message in pattern_messages(request, structure):
                yield message
        computation = await begun
        compiling = computation.begun - started
        if blocks and compiling > _CACHED_SECONDS:
            first = derivative_pb2.Progress(blocks_total=len(blocks))
            yield Response(progress=first).SerializeToString()
        done, sent, reported, by_worker = 0, 0, started, Counter[str]()
        async for block, computed, worker in computation.results():
            if check is not None:
                await check.add(block, computed)
                if not wanted[block.index]:
                    continue
            for message in _block_messages(plan, block, computed, worker):
                yield message
            done += 1
            sent += sum(array.nbytes for array in computed.arrays)
            by_worker[worker] += 1
            backend.events(BlockSent(block.index, worker, computed.seconds))
            now = time.perf_counter()
            if now - reported >= _PROGRESS_SECONDS:
                reported = now
                progress = derivative_pb2.Progress(
                    blocks_done=done, blocks_total=len(blocks), bytes_sent=sent
                )
                yield Response(progress=progress).SerializeToString()
            if values is not None:
                for message in await values.take(wait=False):
                    yield message
        if values is not None:
            for message in await values.take(wait=True):
                yield message
        verified = check is not None and await check.finish()
        if verified:
            backend.verified[plan.plan_id] = True
    finally:
        if begun is not None:
            _end(begun)
        for evaluation in (values, check):
            if evaluation is not None:
                evaluation.close()
    summary = derivative_pb2.Summary(
        blocks=done,
        elapsed=translate.duration(time.perf_counter() - started),
        compile=translate.duration(compiling if compiling > _CACHED_SECONDS else 0.0),
        blocks_by_worker=by_worker,
        blocks_rerun=computation.reruns,
        pattern_verified=verified,
    )
    yield Response(summary=summary).SerializeToString()


async def _check(
    backend: Backend,
    evaluator: Evaluator,
    request: derivative_pb2.DifferentiateRequest,
    graph: RegisteredGraph,
    held: HeldPlan,
    inputs: translate.Inputs,
) -> PatternCheck | None:
    """Start to check the pattern that a client gave, unless it vouches for it or it was checked before."""
    plan, structure = held.plan, held.structure
    trusted = request.options.pattern_trusted or not plan.problem.options.pattern
    if structure is None or trusted or plan.plan_id in backend.verified:
        return None
    return await pattern_check(backend, evaluator, graph, plan, structure, inputs)


async def _pattern_alone(
    backend: Backend, request: derivative_pb2.DifferentiateRequest, started: float
) -> AsyncGenerator[bytes, None]:
    known = known_inputs(request.inputs, backend.store)
    arguments = translate.argument_types(request.inputs)
    _, held = await plan_for(backend, request, arguments, known)
    check_pattern_options(request, held.structure)
    assert held.structure is not None
    header = derivative_pb2.DifferentiateHeader(plan=translate.plan_message(held.plan))
    yield Response(header=header).SerializeToString()
    async for message in pattern_messages(request, held.structure):
        yield message
    elapsed = translate.duration(time.perf_counter() - started)
    yield Response(summary=derivative_pb2.Summary(elapsed=elapsed)).SerializeToString()


class _Computation(Protocol):
    """How the blocks of one derivative are computed; they are under way when it is made."""

    begun: float
    """When they were begun, in the time of `perf_counter`."""

    @property
    def reruns(self) -> int:
        """Blocks that were computed again because their worker was lost."""

    def results(self) -> AsyncIterator[tuple[Block, Computed, str]]:
        """Yield the blocks, a bounded number of them computed ahead of the reader, and who computed each."""

    def close(self) -> None:
        """Abandon what is not finished."""


async def _begin(
    backend: Backend, graph: RegisteredGraph, held: HeldPlan, blocks: Blocks, point: Point
) -> _Computation:
    """Get the kernels, compiled now if they are not held, and begin to compute blocks.

    They are computed here if they and their inputs are small, else by workers.

    Args:
        backend: the server's parts.
        graph: the function's.
        held: the plan of the derivative and its structure.
        blocks: those wanted.
        point: where to differentiate.
    """
    fast_path, plan = backend.fast_path, held.plan
    specs = dict.fromkeys(plan.kernels[array] for array in blocks.arrays)
    made = await asyncio.gather(*(backend.kernels.kernel(graph, spec) for spec in specs))
    kernels = dict(zip(specs, made, strict=True))
    # What comes with the request counts as well: large inputs stay in shared memory.
    size = sum(value.nbytes for value in point.inputs.values())
    small = size <= backend.settings.fast_path_memory_bytes and all(
        fast_path.fits(kernels[spec], graph.info) and fast_path.pays(kernels[spec], _block_bytes(plan, block))
        for spec, block in _first_blocks(plan)
        if spec in kernels
    )
    if held.structure is not None:
        point = replace(point, inputs={**point.inputs, **held.structure.inputs})
    if not small:
        return _OnWorkers(backend, graph, plan, kernels, point, blocks)
    loaded = {spec: await fast_path.load(graph, kernel) for spec, kernel in kernels.items()}
    inputs = BlockInputs(await fast_path.inputs(point.inputs))
    return _OnFastPath(fast_path, loaded, plan, inputs, blocks, backend.account.results)


def _end(begun: asyncio.Future[_Computation]) -> None:
    """Abandon a computation, whether it has begun or not."""
    if not begun.cancel() and not begun.cancelled() and begun.exception() is None:
        begun.result().close()


_Ahead = tuple[Block, "asyncio.Future[Computed]", Holding]
"""A block that is being computed, its result, and the bytes that it will have."""


class _OnFastPath:
    """Blocks computed in this process, in order, one ahead of the reader."""

    reruns = 0

    def __init__(
        self,
        fast_path: FastPath,
        kernels: Mapping[DerivativeSpec, LoadedKernel],
        plan: Plan,
        inputs: BlockInputs,
        blocks: Iterable[Block],
        results: Purpose,
    ) -> None:
        self._fast_path = fast_path
        self._kernels = kernels
        self._plan = plan
        self._inputs = inputs
        self._results = results
        self._todo = iter(blocks)
        self._next = next(self._todo, None)
        self.begun = time.perf_counter()
        self._ahead = self._start()

    async def results(self) -> AsyncIterator[tuple[Block, Computed, str]]:
        while (ahead := self._ahead or await self._start_when_free()) is not None:
            block, future, holding = ahead
            self._ahead = None
            computed = await future
            self._ahead = self._start()
            yield block, computed, SERVER
            del computed, future, ahead
            holding.give_back()

    def _start(self) -> _Ahead | None:
        """Start the next block if there is room for it."""
        if self._next is None:
            return None
        holding = self._results.take_if_free(_block_bytes(self._plan, self._next))
        return self._started(self._next, holding) if holding is not None else None

    async def _start_when_free(self) -> _Ahead | None:
        if self._next is None:
            return None
        return self._started(self._next, await self._results.wait_for(_block_bytes(self._plan, self._next)))

    def _started(self, block: Block, holding: Holding) -> _Ahead:
        self._next = next(self._todo, None)
        future = self._fast_path.start(self._kernels[self._plan.kernel(block)], self._inputs, block)
        return block, future, holding

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None


class _OnWorkers:
    """Blocks computed by workers, in the order in which they finish."""

    def __init__(
        self,
        backend: Backend,
        graph: RegisteredGraph,
        plan: Plan,
        kernels: Mapping[DerivativeSpec, Executable],
        point: Point,
        blocks: Iterable[Block],
    ) -> None:
        self._settings = backend.settings
        self._scheduler = backend.scheduler
        self._kernels = {spec: LoadableKernel(graph, kernel) for spec, kernel in kernels.items()}
        self._plan = plan
        self._point = point
        self._queue = backend.scheduler.queue()
        self._results = backend.account.results
        self._todo = iter(blocks)
        self._next = next(self._todo, None)
        self._pending: dict[asyncio.Future[Computed], tuple[Task[Computed], Block, Holding]] = {}
        self.begun = time.perf_counter()
        self._submit_what_fits()

    @property
    def reruns(self) -> int:
        return self._queue.reruns

    async def results(self) -> AsyncIterator[tuple[Block, Computed, str]]:
        while self._pending or self._next is not None:
            if not self._pending and self._next is not None:
                self._submit(self._next, await self._results.wait_for(_block_bytes(self._plan, self._next)))
            finished, _ = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            # One at a time: finished blocks that are not taken yet count against the bound.
            first = min(finished, key=lambda future: self._pending[future][1].index)
            task, block, holding = self._pending.pop(first)
            computed = first.result()
            del finished, first
            yield block, computed, task.worker
            del computed, task
            holding.give_back()
            self._submit_what_fits()

    def _submit_what_fits(self) -> None:
        while self._next is not None and len(self._pending) < self._window():
            holding = self._results.take_if_free(_block_bytes(self._plan, self._next))
            if holding is None:
                return
            self._submit(self._next, holding)

    def _submit(self, block: Block, holding: Holding) -> None:
        self._next = next(self._todo, None)
        request = BlockRequest(self._kernels[self._plan.kernel(block)], self._point, block)
        task = self._queue.submit(request, seconds=self._settings.evaluate_seconds)
        self._pending[task.future] = (task, block, holding)

    def _window(self) -> int:
        """Return how many blocks may be computed or wait to be read."""
        wanted = self._settings.window(len(self._scheduler.workers))
        largest = max((_block_bytes(self._plan, block) for block in self._plan.blocks[:1]), default=0)
        return max(1, min(wanted, self._settings.inflight_bytes // max(1, largest)))

    def close(self) -> None:
        self._queue.close()
        self._pending.clear()


def _block_bytes(plan: Plan, block: Block) -> int:
    """Return the bytes of a block's result."""
    if plan.sparse is not None:
        return (block.last_value - block.first_value) * dtype_of(plan.sparse.dtype).itemsize
    return sum(
        _size(piece) * dtype_of(plan.entries[piece.entry].dtype).itemsize for piece in plan.pieces(block)
    )


def _size(piece: Piece) -> int:
    return (piece.row_stop - piece.row_start) * (piece.column_stop - piece.column_start)


def _first_blocks(plan: Plan) -> Iterator[tuple[DerivativeSpec, Block]]:
    """Yield each kernel with its first block, which takes as long as any."""
    index = 0
    for spec in plan.kernels:
        if spec.seeds:
            yield spec, plan.blocks[index]
            index += ceil(spec.seeds / spec.width)


def _refuse_unbuilt(request: derivative_pb2.DifferentiateRequest) -> None:
    for field, what in (
        ("rows", "selected rows of a derivative"),
        ("columns", "selected columns of a derivative"),
        ("reduction", "reductions of a derivative"),
    ):
        if request.HasField(field) if field == "reduction" else getattr(request, field):
            raise NotBuilt(what, field)


def _block_messages(plan: Plan, block: Block, computed: Computed, worker: str) -> Iterator[bytes]:
    if plan.sparse is not None:
        (values,) = computed.arrays
        sparse_start = derivative_pb2.BlockStart(
            block=block.index,
            values_start=block.first_value,
            values_stop=block.last_value,
            worker=worker,
            compute=translate.duration(computed.seconds),
        )
        yield Response(block_start=sparse_start).SerializeToString()
        yield from framing.block_chunks(block.index, 0, values)
        return
    pieces = plan.pieces(block)
    start = derivative_pb2.BlockStart(
        block=block.index,
        pieces=[
            derivative_pb2.Piece(
                entry=piece.entry,
                row_start=piece.row_start,
                row_stop=piece.row_stop,
                column_start=piece.column_start,
                column_stop=piece.column_stop,
            )
            for piece in pieces
        ],
        worker=worker,
        compute=translate.duration(computed.seconds),
    )
    yield Response(block_start=start).SerializeToString()
    for index, (piece, array) in enumerate(zip(pieces, computed.arrays, strict=True)):
        assert prod(array.shape) == _size(piece), "a kernel's array does not fit its piece"
        yield from framing.block_chunks(block.index, index, array)
