# Generated from _face/accumulation.py
# by `python scripts/generate_sync.py`: do not edit.
"""The synchronous accumulator."""

from collections.abc import Iterable
from typing import Any, Self

from gradwire._sync.bases import AccumulatorBase
from gradwire.results import Accumulated


class Accumulator(AccumulatorBase):
    """The gradient of a loss over batches that are sent one after another and never held together.

    Made by `Function.accumulator`. As in PyTorch, a gradient is an accumulator: `grad` adds up until
    `zero`. Batches may differ in size:

        with loss.accumulator(w=w) as acc:
            for x, y in batches:
                acc.add(x, y)     # returns when the batch is on its way
            print(acc.value, acc.grad)
            acc.zero(w=w - 0.1 * acc.grad)  # go on at another point

    It opens one stream with its first batch, which the server reads no faster than its workers compute.
    It may be used from several threads: batches count in the order in which they were added.
    Batches are added up by a fixed tree over their order, so that the bits do not depend on the number of
    workers.

    An error in a batch is raised by a later call. An error, a timeout or Ctrl-C ends the stream and
    the work: what was accumulated is lost, and calls say so until `zero` begins again. After the connection
    broke, batches are sent again only if every one since `zero` consists of arrays that were uploaded
    (`Client.put`).
    """

    @property
    def batches(self) -> int:
        """Batches added since the last `zero`."""
        return self._accumulator.batches

    @property
    def rows(self) -> int:
        """Rows in the batches added since the last `zero`."""
        return self._accumulator.rows

    def add(
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
        self._send(self._loss.batch(args, inputs, rows), timeout)

    def add_all(self, batches: Iterable[Any], *, timeout: float | None = None) -> None:
        """Add every batch of an iterable: tuples or lists of arrays, mappings, or one array each.

        `timeout` is for each of them.
        """
        for batch in iter(batches):
            self.add(*self._loss.arguments(batch), timeout=timeout)

    def read(self, *, timeout: float | None = None) -> Accumulated:
        """Wait for the loss, its gradient, and the shares of the workers.

        Everything is kept, and more batches may be added. Until then, further calls cost nothing.
        """
        return self._bridge.run(self._accumulator.read(timeout=timeout))

    def zero(self, /, *params: Any, timeout: float | None = None, **inputs: Any) -> None:
        """Discard what was accumulated, and any failure; with parameters, go on at those.

        Parameters are given as to `accumulator`; those that are not given stay as they are.
        """
        start = self._loss.moved(self._start, params, inputs) if params or inputs else None
        self._restart(start, timeout)

    def close(self) -> None:
        """Stop the server's work; nothing can be added afterwards."""
        self._bridge.finish(self._accumulator.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
