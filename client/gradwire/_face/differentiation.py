"""How a function's derivatives are asked for and received, in blocks."""

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import gradwire_wire as wire
from gradwire._face.evaluation import BaseFunction, one_output
from gradwire._face.options import Kind, Options
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, select, select_scalar
from gradwire.progress import ProgressReporter
from gradwire.results import Block, Info
from gradwire.transport.connection import Connection
from gradwire.transport.files import ResultFiles
from gradwire.transport.placement import BlockBuffers, ResultArrays, flatten_out
from gradwire.transport.receiver import DerivativeReceiver, DerivativeRequest, public_block
from gradwire.transport.request import tensor_ids, tensors
from gradwire.transport.retry import Deadline
from gradwire_wire.kinds import KIND_NAMES, KINDS
from gradwire_wire.v1 import derivative_pb2


class DerivativeFunction(BaseFunction):
    """A function whose derivatives are received block by block; `AsyncFunction` gives them to users."""

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
        ids = await tensor_ids(arrays)
        message = derivative_pb2.DifferentiateRequest(
            function=self._spec.proto,
            inputs=tensors(arrays, ids) | self._constants,
            kind=KINDS[kind],
            wrt=wrt,
            of=of,
            options=options.plan_options(kind),
            values=values,
        )
        uploads = {ids[name]: arrays[name] for name in ids}
        return DerivativeRequest(message, self._model, arrays, uploads, deadline)

    async def _receive(
        self, request: DerivativeRequest, options: Options
    ) -> tuple[list[wire.Array] | None, Info]:
        """Receive into arrays, or into the sink where there is one."""
        if options.sink is None:
            received = await self._assemble(request, options)
            return received.arrays, received.info
        receiver = self._block_receiver(request, options)
        async with self._beside(request.inputs):
            async for block in receiver.blocks():
                taken = options.sink(public_block(block, receiver.plan))
                if isinstance(taken, Awaitable):
                    await taken
        return None, receiver.info

    async def _assemble(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        reporter = _reporter(request, options)
        files = ResultFiles.of(options.out, request)
        if files is not None:
            async with self._beside(request.inputs):
                return await received_into(files, self._connection, reporter)
        given = flatten_out(options.out)
        receiver = DerivativeReceiver(
            self._connection, request, lambda plan: ResultArrays(plan, given), reporter, restart=True
        )
        async with self._beside(request.inputs):
            await receiver.run()
        return receiver

    def _block_receiver(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        reporter = _reporter(request, options)
        return DerivativeReceiver(self._connection, request, BlockBuffers, reporter, restart=False)

    async def _blocks(
        self, kind: Kind, args: tuple[Any, ...], inputs: Mapping[str, Any], options: Options
    ) -> AsyncIterator[Block]:
        request = await self._request(kind, args, inputs, options)
        receiver = self._block_receiver(request, options)
        blocks = receiver.blocks()
        async with self._beside(request.inputs):
            try:
                async for block in blocks:
                    yield public_block(block, receiver.plan)
            finally:
                await blocks.aclose()


async def received_into(
    files: ResultFiles, connection: Connection, reporter: ProgressReporter
) -> DerivativeReceiver:
    """Receive the blocks of a derivative that are not in its files yet."""
    begun = files.plan_id, frozenset(files.done)
    receiver = DerivativeReceiver(
        connection, files.request, files.allocate, reporter, restart=True, begun=begun
    )
    await receiver.run(files.note)
    await files.finish()
    return receiver


def _reporter(request: DerivativeRequest, options: Options) -> ProgressReporter:
    return ProgressReporter(options.progress, KIND_NAMES[request.message.kind])
