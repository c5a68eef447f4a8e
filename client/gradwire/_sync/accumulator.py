"""Gradients that add up over batches: the synchronous face of `AsyncAccumulator`."""

from collections.abc import Iterable
from typing import Any

import gradwire_wire as wire
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.evaluation import Arrays
from gradwire._sync.bridge import Bridge
from gradwire.results import Accumulated


class Accumulator:
    """The gradient of a loss over batches that are sent one after another and never lie in one place.

    Made by `Function.accumulator`. As in PyTorch, a gradient is an accumulator: `grad` adds up until `zero`.

        with loss.accumulator(w=w) as acc:
            for x, y in batches:
                acc.add(x, y)  # returns when the batch is on its way
            acc.value, acc.grad
            acc.zero(w=w - 0.1 * acc.grad)  # forget it all, and go on at another point

    It opens one stream with its first batch, which the server reads no faster than its workers compute. May
    be used from several threads: batches count in the order in which they were added, and are added up by a
    fixed tree over that order, so that the bits do not depend on the number of workers. What goes wrong with
    a batch is raised by a later call. An error, a timeout or Ctrl-C ends the stream and the work: what was
    accumulated is lost, and calls say so until `zero` begins again. Only when every batch since `zero` was
    given by arrays that were uploaded (`Client.put`) are they sent again by themselves, after the connection
    broke.
    """

    def __init__(self, accumulator: AsyncAccumulator, bridge: Bridge) -> None:
        self._accumulator, self._bridge = accumulator, bridge

    def __repr__(self) -> str:
        return repr(self._accumulator).replace("<Async", "<", 1)

    @property
    def grad(self) -> Arrays:
        """The gradient over all batches added so far: an array, or a tuple as `wrt` asked for it.

        Waits for them. Everything stays, and more may be added.
        """
        return self.read().grad

    @property
    def value(self) -> wire.Array:
        """The loss over all batches added so far; waits for them."""
        return self.read().value

    @property
    def batches(self) -> int:
        """Batches added since the last `zero`."""
        return self._accumulator.batches

    @property
    def rows(self) -> int:
        """Rows in them."""
        return self._accumulator.rows

    def add(
        self, /, *args: Any, rows: int | None = None, timeout: float | None = None, **inputs: Any
    ) -> None:
        """Add the gradient of a batch: the inputs that are not shared, in order, by name or as a mapping.

        Arrays may be written to again when it returns. `rows` is what the batch counts in a mean, the leading
        extent of its arrays by default. A function traced from code is traced again for a batch of other
        extents; a model whose shapes are fixed refuses it. `timeout` is in seconds, the accumulator's own by
        default.
        """
        batch = self._accumulator.batch(
            args, inputs, rows
        )  # here, so that code is traced where it is at home
        self._bridge.run(self._accumulator.send(batch, timeout))

    def add_all(self, batches: Iterable[Any], *, timeout: float | None = None) -> None:
        """Add every batch of an iterable: tuples or lists of arrays, mappings, or one array each.

        `timeout` is for each of them.
        """
        for one in batches:
            self.add(*self._accumulator.arguments(one), timeout=timeout)

    def read(self, *, timeout: float | None = None) -> Accumulated:
        """The loss, its gradient, and who computed how much of it; everything stays, and more may be added.

        Asked again before another batch, it costs nothing.
        """
        return self._bridge.run(self._accumulator.read(timeout=timeout))

    def zero(self, /, *params: Any, timeout: float | None = None, **inputs: Any) -> None:
        """Forget what was accumulated, and any failure; with parameters, go on at those.

        Parameters are given as to `accumulator`; those that are not given stay as they are.
        """
        start = self._accumulator.point(params, inputs)
        self._bridge.run(self._accumulator.restart(start, timeout))

    def close(self) -> None:
        """Stop what the server does for it; nothing can be added any more."""
        self._bridge.finish(self._accumulator.close())

    def __enter__(self) -> "Accumulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
