"""How a function's derivatives are asked for and received, in blocks."""

import warnings
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from cachetools import LRUCache

import gradwire_wire as wire
from gradwire._face.arguments import abstract, batched_names, bind, fixed_type
from gradwire._face.evaluation import Arrays, BaseFunction, nested, one_output
from gradwire._face.options import Kind, Options
from gradwire._face.structures import Choice
from gradwire.errors import GraphWarning, InvalidArgumentError
from gradwire.graphs.signature import Selection, select, select_scalar
from gradwire.graphs.spec import ArraySpec
from gradwire.progress import ProgressReporter
from gradwire.results import Block, Info, Plan
from gradwire.sparse import Colors, SparsityPattern, blocks_of
from gradwire.transport.connection import Connection
from gradwire.transport.files import ResultFiles
from gradwire.transport.placement import BlockBuffers, ResultArrays, SparseValues, flatten_out
from gradwire.transport.receiver import DerivativeReceiver, DerivativeRequest, public_block
from gradwire.transport.request import tensor_ids, tensors
from gradwire.transport.retry import Deadline
from gradwire_wire.kinds import KIND_NAMES, KINDS
from gradwire_wire.v1 import derivative_pb2


class DerivativeFunction(BaseFunction):
    """A function whose derivatives are received block by block; `AsyncFunction` gives them to users."""

    @cached_property
    def _patterns(self) -> LRUCache[object, SparsityPattern]:
        """The patterns that calls brought, so that later ones get values alone."""
        return LRUCache(_PATTERNS)

    def _choose(self, kind: Kind, wrt: Selection, of: Selection) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if kind not in KINDS:
            raise InvalidArgumentError(f"kind is 'jacobian' or 'hessian', not {kind!r}")
        outputs = self.signature.outputs
        if kind == "hessian":
            chosen: tuple[str, ...] = (select_scalar(outputs, one_output(of)),)
        else:
            chosen = select(outputs, of, "output", "of")
        return select(self.signature.inputs, wrt, "input", "wrt"), chosen

    async def _request(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        options: Options,
        values: bool = False,
    ) -> DerivativeRequest:
        deadline = Deadline(options.timeout)
        arrays = self._bind(args, inputs)
        wrt, of = self._choose(kind, options.wrt, options.of)
        ids = await tensor_ids(arrays, self._connection.sightings)
        message = derivative_pb2.DifferentiateRequest(
            function=self._spec.proto,
            inputs=tensors(arrays, ids) | self._constants,
            kind=KINDS[kind],
            wrt=wrt,
            of=of,
            options=options.plan_options(kind),
            values=values,
            batched=batched_names(self.signature, options.batched),
        )
        uploads = {ids[name]: arrays[name] for name in ids}
        uploads |= await self._give_pattern(message.options, options)
        return DerivativeRequest(message, self._model, arrays, uploads, deadline)

    async def _receive(
        self, request: DerivativeRequest, options: Options
    ) -> tuple[list[wire.Array] | None, Info]:
        """Receive into arrays or matrices, or into the sink where there is one."""
        if options.sink is None:
            received = await self._assemble(request, options)
            return results_of(received, options), received.info
        receiver = self._block_receiver(request, options)
        async with self._beside(request.inputs, request.message.batched):
            async for block in receiver.blocks():
                taken = options.sink(public_block(block, receiver.plan))
                if isinstance(taken, Awaitable):
                    await taken
        return None, receiver.info

    def _nested(
        self,
        arrays: list[Any] | None,
        rows: Choice,
        columns: Choice,
        request: DerivativeRequest,
        options: Options,
    ) -> Arrays:
        """Nest the parts of a result as they were asked for; a joined matrix stands alone."""
        if arrays is None:
            return None
        if options.joined:
            return arrays[0]
        return nested(arrays, rows, columns, request.columns)

    async def _assemble(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        reporter = _reporter(request, options)
        files = ResultFiles.of(options.out, request)
        if files is not None:
            async with self._beside(request.inputs, request.message.batched):
                return await received_into(files, self._connection, reporter)
        given = flatten_out(options.out)
        held = self._held_pattern(request) if options.is_sparse else None

        def allocate(plan: Plan) -> ResultArrays | SparseValues:
            return ResultArrays(plan, given) if plan.sparse is None else self._sparse_values(plan, held)

        receiver = DerivativeReceiver(self._connection, request, allocate, reporter, restart=True)
        async with self._beside(request.inputs, request.message.batched):
            await receiver.run()
        self._hold_pattern(request, receiver)
        return receiver

    def _held_pattern(self, request: DerivativeRequest) -> SparsityPattern | None:
        """Return the pattern that an earlier call of this kind brought, and name it in the request."""
        held = self._patterns.get(_problem(request))
        request.message.pattern_id = held.pattern_id if held is not None else ""
        return held

    def _sparse_values(self, plan: Plan, held: SparsityPattern | None, colored: bool = False) -> SparseValues:
        assert plan.sparse is not None
        self._warn_of_dense(plan)
        known = held is not None and held.pattern_id == plan.sparse.pattern_id
        return SparseValues(plan, held if known else None, colored)

    @cached_property
    def _told(self) -> set[str]:
        """Operators that a warning has named: each is told once."""
        return set()

    def _warn_of_dense(self, plan: Plan) -> None:
        """Tell which operators a pattern could not be followed through."""
        names = plan.sparse.dense_operators if plan.sparse is not None else ()
        if not self._told.issuperset(names):
            self._told.update(names)
            warnings.warn(
                f"the sparsity pattern is dense in what depends on {', '.join(names)}: there is no rule of "
                "detection for it. The derivative is right, but takes more seeds and holds zeros",
                GraphWarning,
                stacklevel=2,
            )

    def _hold_pattern(self, request: DerivativeRequest, receiver: DerivativeReceiver) -> None:
        if isinstance(receiver.destination, SparseValues) and receiver.destination.pattern is not None:
            self._patterns[_problem(request)] = receiver.destination.pattern

    async def _pattern(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        options: Options,
        colored: bool = False,
    ) -> tuple[Plan, SparsityPattern, Colors | None]:
        """Return plan and pattern of a sparse derivative, and its colors if they are wished for."""
        wrt, of = self._choose(kind, options.wrt, options.of)
        arrays = self._abstract(args, inputs)
        message = derivative_pb2.DifferentiateRequest(
            function=self._spec.proto,
            inputs={name: wire.tensor_type(one.dtype, one.shape) for name, one in arrays.items()}
            | self._constants,
            kind=KINDS[kind],
            wrt=wrt,
            of=of,
            options=options.plan_options(kind),
            pattern_only=True,
            pattern_colors=colored,
        )
        uploads = await self._give_pattern(message.options, options)
        request = DerivativeRequest(message, self._model, {}, uploads, Deadline(options.timeout))
        held = self._held_pattern(request)

        def allocate(plan: Plan) -> SparseValues:
            return self._sparse_values(plan, held, colored)

        reporter = ProgressReporter(False, kind)
        receiver = DerivativeReceiver(self._connection, request, allocate, reporter, restart=True)
        await receiver.run()
        self._hold_pattern(request, receiver)
        pattern = receiver.sparse.pattern
        assert pattern is not None
        return receiver.plan, pattern, receiver.sparse.colors

    async def _give_pattern(
        self, message: derivative_pb2.PlanOptions, options: Options
    ) -> Mapping[str, wire.Array]:
        """Add a pattern of the caller's own to a request; return what must be uploaded for it."""
        if options.pattern is None:
            return {}
        arrays = dict(zip(("rows", "columns"), map(_indices, options.pattern), strict=True))
        ids = await tensor_ids(arrays, self._connection.sightings)
        for name, tensor in tensors(arrays, ids).items():
            getattr(message.pattern, name).CopyFrom(tensor)
        return {ids[name]: arrays[name] for name in ids}

    def _abstract(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a type for each input: of what is given, else of the signature where that fixes it."""
        own = self.signature.inputs
        given = self._leaves(tuple(map(abstract, args)), {n: abstract(one) for n, one in inputs.items()})
        for value in own:
            if value.name not in given:
                given[value.name] = abstract(ArraySpec(*fixed_type(value)))
        return bind(own, (given,), {})

    def _block_receiver(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        reporter = _reporter(request, options)
        return DerivativeReceiver(self._connection, request, BlockBuffers, reporter, restart=False)

    async def _blocks(
        self, kind: Kind, args: tuple[Any, ...], inputs: Mapping[str, Any], options: Options
    ) -> AsyncIterator[Block]:
        request = await self._request(kind, args, inputs, options)
        receiver = self._block_receiver(request, options)
        blocks = receiver.blocks()
        async with self._beside(request.inputs, request.message.batched):
            try:
                async for block in blocks:
                    yield public_block(block, receiver.plan)
            finally:
                await blocks.aclose()


def _indices(index: wire.Array) -> wire.Array:
    """Return indices as they travel: int32 where they fit."""
    if index.dtype.kind not in "iu":
        raise InvalidArgumentError(f"coordinates of a pattern are integers, not {index.dtype.name}")
    fits = not index.size or (index.min() >= -(2**31) and index.max() < 2**31)
    return np.ascontiguousarray(index, np.int32 if fits else np.int64)


_PATTERNS = 16
"""Patterns that a function keeps, of its different derivatives and shapes."""


def _problem(request: DerivativeRequest) -> object:
    """Return what a pattern depends on, as far as it is known before a server is asked."""
    message = request.message
    types = tuple(
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(message.inputs.items())
    )
    options = message.options.SerializeToString()
    return message.kind, tuple(message.wrt), tuple(message.of), options, types


def results_of(received: DerivativeReceiver, options: Options) -> list[Any]:
    """Return the arrays of a result, or its matrices if it is sparse: one if they are joined."""
    plan = received.plan
    if plan.sparse is None:
        return [_joined(plan, received.arrays)] if options.joined else received.arrays
    pattern = received.sparse.pattern
    assert pattern is not None
    joint = pattern.matrix(received.sparse.values)
    if options.joined:
        return [joint]
    parts = blocks_of(joint, plan.heights, plan.widths)
    return [
        part if part.dtype == entry.dtype else part.astype(entry.dtype)
        for part, entry in zip(parts, plan.entries, strict=True)
    ]


def _joined(plan: Plan, arrays: Sequence[wire.Array]) -> wire.Array:
    """Put the arrays of a dense result together to the matrix of all outputs by all inputs."""
    matrices = [array.reshape(entry.matrix_shape) for entry, array in zip(plan.entries, arrays, strict=True)]
    across = len(plan.widths)
    return np.block([matrices[start : start + across] for start in range(0, len(matrices), across)])


async def received_into(
    files: ResultFiles, connection: Connection, reporter: ProgressReporter
) -> DerivativeReceiver:
    """Receive the blocks of a derivative that are not in its files yet."""
    receiver = DerivativeReceiver(
        connection, files.request, files.allocate, reporter, restart=True, begun=files.begun
    )
    await receiver.run(files.note)
    await files.finish()
    return receiver


def _reporter(request: DerivativeRequest, options: Options) -> ProgressReporter:
    return ProgressReporter(options.progress, KIND_NAMES[request.message.kind])
