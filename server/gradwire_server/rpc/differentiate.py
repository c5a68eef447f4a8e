"""One Jacobian or Hessian, streamed block by block as workers finish."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from math import ceil, prod
from typing import Any

from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.kernels import BlockSpec, EvaluateSpec
from gradwire_engine.planning.plan import Piece, Plan
from gradwire_engine.values import Block, dtype_of
from gradwire_server.compute.fast_path import Lane, LaneKernel
from gradwire_server.compute.kernel_cache import Executable
from gradwire_server.compute.scheduler import Piece as Work
from gradwire_server.compute.scheduler import Scheduler, Share
from gradwire_server.compute.shared import Box, Registered
from gradwire_server.compute.store import Store
from gradwire_server.compute.workbench import Computed
from gradwire_server.errors import Overloaded, PlanChanged
from gradwire_server.rpc import translate
from gradwire_server.rpc.evaluate import SERVER, Array, Evaluator
from gradwire_server.rpc.values import Beside
from gradwire_server.settings import Settings
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2

Response = derivative_pb2.DifferentiateResponse
_AT_HAND_SECONDS = 2e-3
"""Plans and kernels that took less to get were not made for this request."""
_PROGRESS_SECONDS = 0.05
"""Progress is sent no oftener: small blocks would otherwise pay for a message more each."""


class Differentiation:
    """One Differentiate call."""

    def __init__(self, settings: Settings, store: Store, evaluator: Evaluator, scheduler: Scheduler) -> None:
        """Over the server's store, kernels, lane and workers."""
        self._lane = evaluator.lane
        self._settings = settings
        self._store = store
        self._evaluator = evaluator
        self._scheduler = scheduler

    def _short(self, graph: Registered, plan: Plan, kernels: dict[BlockSpec, Executable]) -> bool:
        """Whether the blocks are small, and no worker could deliver them sooner than this process."""
        return all(
            self._lane.fits(kernels[spec], graph.info)
            and self._lane.worth(kernels[spec], block_bytes(plan, block))
            for spec, block in _first_blocks(plan)
            if spec in kernels
        )

    async def stream(self, request: derivative_pb2.DifferentiateRequest) -> AsyncIterator[bytes]:
        """The responses, serialized. New blocks are begun only as these are taken.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        started = time.perf_counter()
        inputs = translate.inputs_from(request.inputs, self._store)
        graph = self._store.graph(request.function.graph_id)
        problem = translate.problem_from(request, inputs.arguments, self._settings.block_memory_bytes)
        plan = await self._evaluator.plan(graph, problem)
        check_size(plan, self._settings)
        blocks = _wanted(plan, request)
        point = secrets.token_hex(8)
        boxes = {name: _boxed(f"{point} {name}", value) for name, value in inputs.values.items()}
        beside: Beside | None = None
        if request.values:
            own = EvaluateSpec(problem.function, inputs.arguments, (), ())
            beside = Beside(self._evaluator.outputs(graph, own, replace(inputs, values=boxes)))
        try:
            header = derivative_pb2.DifferentiateHeader(plan=translate.plan_message(plan))
            yield Response(header=header).SerializeToString()
            specs = dict.fromkeys(plan.kernel(block) for block in blocks)
            held = await asyncio.gather(*(self._evaluator.kernel(graph, spec) for spec in specs))
            kernels = dict(zip(specs, held, strict=True))
            made = time.perf_counter() - started
            run = await self._begun(graph, plan, kernels, point, boxes)
            done, sent, reported, by_worker = 0, 0, started, Counter[str]()
            async for block, computed, worker in run.results(blocks):
                for message in _block_messages(plan, block, computed, worker):
                    yield message
                done += 1
                sent += sum(array.nbytes for array in computed.arrays)
                by_worker[worker] += 1
                now = time.perf_counter()
                if now - reported >= _PROGRESS_SECONDS or done == len(blocks):
                    reported = now
                    progress = derivative_pb2.Progress(
                        blocks_done=done, blocks_total=len(blocks), bytes_sent=sent
                    )
                    yield Response(progress=progress).SerializeToString()
                if beside is not None:
                    for message in await beside.messages(wait=False):
                        yield message
            if beside is not None:
                for message in await beside.messages(wait=True):
                    yield message
        finally:
            if beside is not None:
                beside.close()
        summary = derivative_pb2.Summary(
            blocks=done,
            elapsed=translate.duration(time.perf_counter() - started),
            compile=translate.duration(made if made > _AT_HAND_SECONDS else 0.0),
            blocks_by_worker=by_worker,
            blocks_rerun=run.reruns,
        )
        yield Response(summary=summary).SerializeToString()

    async def _begun(
        self,
        graph: Registered,
        plan: Plan,
        kernels: dict[BlockSpec, Executable],
        point: str,
        inputs: dict[str, Box],
    ) -> _Run | _LaneRun:
        """Where the blocks will be computed: here if they and their inputs are small, else by workers."""
        # What comes with the request counts as well: large inputs stay in shared memory.
        size = sum(box.nbytes for box in inputs.values())
        if size <= self._settings.lane_memory_bytes and self._short(graph, plan, kernels):
            return _LaneRun(
                self._lane,
                {spec: await self._lane.load(graph, kernel) for spec, kernel in kernels.items()},
                plan,
                await self._lane.place(await self._lane.inputs(inputs)),
            )
        return _Run(self._settings, self._scheduler, graph, plan, kernels, point, inputs)


def _boxed(key: str, value: Array | Box) -> Box:
    return value if isinstance(value, Box) else Box(key, value, nbytes=value.nbytes)


class _LaneRun:
    """Blocks computed in this process, one ahead of the reader."""

    reruns = 0

    def __init__(
        self, lane: Lane, kernels: dict[BlockSpec, LaneKernel], plan: Plan, inputs: Mapping[str, Any]
    ) -> None:
        self._lane = lane
        self._kernels = kernels
        self._plan = plan
        self._inputs = inputs

    async def results(self, blocks: list[Block]) -> AsyncIterator[tuple[Block, Computed, str]]:
        """Blocks in order, and who computed them."""
        todo = iter(blocks)
        ahead = self._begin(next(todo, None))
        try:
            while ahead is not None:
                block, future = ahead
                arrays, seconds = await future
                ahead = self._begin(next(todo, None))
                yield block, Computed(arrays, seconds), SERVER
                del arrays
        finally:
            if ahead is not None:
                ahead[1].cancel()

    def _begin(
        self, block: Block | None
    ) -> tuple[Block, asyncio.Future[tuple[tuple[Array, ...], float]]] | None:
        if block is None:
            return None
        return block, self._lane.begin(self._kernels[self._plan.kernel(block)], self._inputs, block)


class _Run:
    """Blocks handed to workers, a bounded number ahead of the reader."""

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        graph: Registered,
        plan: Plan,
        kernels: dict[BlockSpec, Executable],
        point: str,
        inputs: dict[str, Box],
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._graph = graph
        self._plan = plan
        self._kernels = kernels
        self._point = point
        self._inputs = inputs
        self._share: Share = scheduler.open()

    @property
    def reruns(self) -> int:
        """Blocks begun again because their worker was lost."""
        return self._share.reruns

    async def results(self, blocks: list[Block]) -> AsyncIterator[tuple[Block, Computed, str]]:
        """Blocks in order of completion, and who computed them."""
        todo = iter(blocks)
        pending: dict[asyncio.Future[Computed], tuple[Work, Block]] = {}
        try:
            while True:
                self._begin(todo, pending)
                if not pending:
                    return
                finished, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                # One at a time: those that wait their turn count against the bound.
                first = min(finished, key=lambda future: pending[future][1].index)
                work, block = pending.pop(first)
                computed = first.result()
                del finished, first
                yield block, computed, work.worker
                del computed, work
        finally:
            self._share.close()

    def _begin(
        self, todo: Iterator[Block], pending: dict[asyncio.Future[Computed], tuple[Work, Block]]
    ) -> None:
        while len(pending) < self._window():
            block = next(todo, None)
            if block is None:
                return
            spec = self._plan.kernel(block)
            kernel = self._kernels[spec]
            work = self._share.submit(
                "block",
                self._graph,
                spec,
                kernel.facts,
                kernel.box,
                self._point,
                self._inputs,
                block,
                seconds=self._settings.evaluate_seconds,
            )
            pending[work.future] = (work, block)

    def _window(self) -> int:
        """Blocks under way or waiting to be read."""
        wanted = self._settings.window(len(self._scheduler.workers))
        largest = max((block_bytes(self._plan, block) for block in self._plan.blocks[:1]), default=0)
        return max(1, min(wanted, self._settings.inflight_bytes // max(1, largest)))


def block_bytes(plan: Plan, block: Block) -> int:
    """Bytes of a block's result."""
    return sum(
        _size(piece) * dtype_of(plan.entries[piece.entry].dtype).itemsize for piece in plan.pieces(block)
    )


def _size(piece: Piece) -> int:
    return (piece.row_stop - piece.row_start) * (piece.column_stop - piece.column_start)


def _first_blocks(plan: Plan) -> Iterator[tuple[BlockSpec, Block]]:
    """Each kernel and its first block, which is as large as any."""
    index = 0
    for spec in plan.kernels:
        if spec.seeds:
            yield spec, plan.blocks[index]
            index += ceil(spec.seeds / spec.width)


def check_size(plan: Plan, settings: Settings) -> None:
    """Refuse a plan over a limit; raises Overloaded."""
    if plan.result_bytes > settings.result_bytes:
        raise Overloaded(
            f"the result has {plan.result_bytes} bytes; the limit is {settings.result_bytes}: "
            "choose fewer inputs in wrt or outputs in of",
            "result_bytes",
            settings.result_bytes,
            plan.result_bytes,
        )
    if len(plan.blocks) > settings.plan_blocks:
        raise Overloaded(
            f"the plan has {len(plan.blocks)} blocks; the limit is {settings.plan_blocks}: "
            "ask for wider blocks (block_width)",
            "plan_blocks",
            settings.plan_blocks,
            len(plan.blocks),
        )


def _wanted(plan: Plan, request: derivative_pb2.DifferentiateRequest) -> list[Block]:
    """The blocks that the client does not hold."""
    if request.plan_id and request.plan_id != plan.plan_id:
        raise PlanChanged(
            f"the blocks held are of plan {request.plan_id}, but this server plans {plan.plan_id}; "
            "start the derivative anew"
        )
    skip = set(request.skip)
    unknown = [index for index in skip if index >= len(plan.blocks)]
    if unknown:
        raise InvalidInput(f"skip names block {min(unknown)}; the plan has {len(plan.blocks)} blocks", "skip")
    return [block for block in plan.blocks if block.index not in skip]


def _block_messages(plan: Plan, block: Block, computed: Computed, worker: str) -> Iterator[bytes]:
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
