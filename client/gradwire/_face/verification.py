"""Compares traced functions with the functions that they came from, when they are first used at a point."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from cachetools import LRUCache

import gradwire_wire as wire
from gradwire._face.flat import FlatFunction
from gradwire._face.threads import in_thread
from gradwire.errors import GraphWarning, InvalidArgumentError, NotDifferentiableError, TraceMismatchError
from gradwire.graphs.comparison import Difference, moved_inputs, width_of, worst_difference
from gradwire.graphs.models import Model
from gradwire.graphs.precision import shortest_float
from gradwire.graphs.reference import Product, Reference
from gradwire.graphs.signature import Value

Verify = Literal["first", "always", "never"]
"""When a traced function is compared with the function that it came from."""

Arrays = Sequence[wire.Array]

_PATIENCE_SECONDS = 1.0
_REMEMBERED = 4096
_SEED = 20
_ADVICE = (
    "Likely causes: an argument that has no effect in the graph, a write that the graph lost, or state that "
    "changed since the function was traced. Make the function again, or write what differs in another way; "
    "verify='never' goes on with the graph's numbers"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared and found to agree.

    Attributes:
        outputs: names of the outputs.
        inputs: names of the inputs by which a product with random cotangents was compared.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        products = f", and a product of cotangents by {', '.join(self.inputs)}" if self.inputs else ""
        return f"the value of {', '.join(self.outputs)}{products}"


class Verifier:
    """Keeps what was compared, for the functions of one client.

    Args:
        mode: when functions are compared that do not say so themselves.

    Raises:
        InvalidArgumentError: the mode is none.
    """

    def __init__(self, mode: Verify = "first") -> None:
        self._mode = _checked(mode)
        self._compared: LRUCache[object, Compared | str] = LRUCache(_REMEMBERED)

    def of(self, model: Model, mode: Verify | None) -> "Verification | None":
        """Return the comparison of a graph with the function it came from; None where there is none.

        Raises:
            InvalidArgumentError: the mode is none.
        """
        chosen = self._mode if mode is None else _checked(mode)
        if model.reference is None:
            return None
        if chosen == "never":
            model.reference.release()
            return None
        return Verification(model, model.reference, chosen, self._compared)


def _checked(mode: Verify) -> Verify:
    if mode not in get_args(Verify):
        raise InvalidArgumentError(f"verify is 'first', 'always' or 'never', not {mode!r}")
    return mode


class Verification:
    """Compares one graph with the function that it came from.

    Args:
        model: the graph.
        reference: the function.
        mode: "first", to compare once, or "always".
        compared: what was compared before, or why it could not be, by graph and code.
    """

    def __init__(
        self, model: Model, reference: Reference, mode: Verify, compared: LRUCache[object, Compared | str]
    ) -> None:
        self._model, self._reference, self._mode, self._compared = model, reference, mode, compared
        self._key = (model.graph_id, tuple(c.tensor_id for c in model.bound.values()), reference.code)
        # A graph for all sizes is compared at each.
        self._symbolic = any(
            isinstance(extent, str) for v in model.signature.inputs for extent in v.shape or ()
        )
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._running: asyncio.Task[Compared | str] | None = None
        self._waiting = 0
        self.settled = False
        self._settle()

    def of(self, model: Model) -> "Verification":
        """Return the comparison of the same source traced for other shapes."""
        reference = model.reference or self._reference
        return Verification(model, reference, self._mode, self._compared)

    def __str__(self) -> str:
        name, found = self._reference.name, self._compared.get(self._key)
        if found is None:
            return f"not compared with {name} yet: that happens when it is first used at a point"
        return f"compared with {name}: {found}" if isinstance(found, Compared) else found

    @asynccontextmanager
    async def beside(
        self, graph: FlatFunction, arrays: Mapping[str, wire.Array], batched: Sequence[str] = ()
    ) -> AsyncIterator[None]:
        """Compare at a point while a request travels, and wait for at most a second longer.

        Args:
            graph: the graph on the server.
            arrays: arrays by name, the graph's inputs among them.
            batched: names of those with a leading batch axis; the first of the batch is compared.

        Raises:
            TraceMismatchError: the results differ. If the function takes longer than a second, the first use
                after it has ended raises this.
        """
        if self._running is not None and self._running.done():
            self._end(self._running)
        if self._running is None and not self.settled:
            point = self._point(arrays, batched)
            if point is not None and not self._known(point):
                self._running = asyncio.create_task(self._compare(graph, point))
                self._running.add_done_callback(_retrieved)
        running = self._running
        self._waiting += 1
        try:
            yield
        except BaseException:
            if running is not None and self._waiting == 1:  # another use may wait for the same comparison
                running.cancel()
            raise
        finally:
            self._waiting -= 1
        if running is not None:
            patience = None if self._reference.alone else _PATIENCE_SECONDS
            await asyncio.wait({running}, timeout=patience)
            if running.done():
                self._end(running)

    def _end(self, task: "asyncio.Task[Compared | str]") -> None:
        """Keep what a comparison found, or raise its error."""
        if self._running is task:
            self._running = None
        if not task.cancelled():
            self._compared[self._key] = task.result()
            self._compared[self._key, self._shapes] = task.result()
            self._settle()

    def _settle(self) -> None:
        self.settled = self._mode == "first" and not self._symbolic and self._key in self._compared
        if self.settled:
            self._reference.release()

    def _known(self, point: Arrays) -> bool:
        """Return whether a graph for all sizes was compared at those of a point; note them if not."""
        shapes = tuple(array.shape for array in point)
        if self._symbolic and self._mode == "first" and (self._key, shapes) in self._compared:
            return True
        self._shapes = shapes
        return False

    def _point(
        self, arrays: Mapping[str, wire.Array], batched: Sequence[str]
    ) -> tuple[wire.Array, ...] | None:
        """Copy the graph's inputs, which the caller may write to; None for an empty batch."""
        own = {value.name: arrays[value.name] for value in self._model.signature.inputs}
        if any(name in own and not len(own[name]) for name in batched):
            return None
        return tuple(np.array(array[0] if name in batched else array) for name, array in own.items())

    async def _compare(self, graph: FlatFunction, point: tuple[wire.Array, ...]) -> Compared | str:
        reference, signature = self._reference, self._model.signature
        own = asyncio.ensure_future(in_thread(partial(run_quietly, reference.values, point)))
        try:
            found, products, cotangents = await self._asked(graph, point)
            expected = await own
        except Exception as error:
            own.cancel()
            return self._impossible(error)
        self._compare_shapes(expected, found)
        await self._refuse(signature.outputs, "", reference.values, point, expected, found)
        inputs = [value for value in signature.inputs if value.floating]
        compared: list[Value] = []
        if products and reference.product is not None:
            multiply = partial(_product, reference.product, cotangents)
            try:
                own_products = await in_thread(partial(run_quietly, multiply, point))
            except Exception as error:
                return self._impossible(error)
            places = [place for place, one in enumerate(own_products) if one is not None]
            compared = [inputs[place] for place in places]
            chosen = partial(_chosen, multiply, places)
            await self._refuse(
                compared,
                "the product of cotangents by ",
                chosen,
                point,
                [own_products[place] for place in places],
                [products[place] for place in places],
            )
        return Compared(tuple(v.name for v in signature.outputs), tuple(v.name for v in compared))

    async def _asked(
        self, graph: FlatFunction, point: Arrays
    ) -> tuple[list[wire.Array], list[wire.Array], list[wire.Array]]:
        """Return the graph's values, and its products with cotangents where the framework has them too."""
        values = await graph.values(point)
        outputs = zip(values, self._model.signature.outputs, strict=True)
        floating = [one for one, value in outputs if value.floating]
        if self._reference.product is None or not floating:
            return values, [], []
        random = np.random.default_rng(_SEED)
        cotangents = [np.asarray(random.standard_normal(one.shape)).astype(one.dtype) for one in floating]
        try:
            return values, await graph.products(point, cotangents), cotangents
        except NotDifferentiableError:  # in reverse mode
            return values, [], []

    def _compare_shapes(self, expected: Arrays, found: Arrays) -> None:
        shapes = [[np.shape(one) for one in results] for results in (expected, found)]
        if shapes[0] != shapes[1]:
            raise TraceMismatchError(
                f"{self._reference.name} returns arrays of shapes {shapes[0]} at this point, but its graph "
                f"{shapes[1]}. {_ADVICE}"
            )

    async def _refuse(
        self,
        names: Sequence[Value],
        what: str,
        function: Callable[[Arrays], Sequence[wire.Array]],
        point: Arrays,
        expected: Arrays,
        found: Arrays,
    ) -> None:
        """Raise an error for a difference that rounding does not explain."""
        worst = await in_thread(partial(self._worst, function, point, expected, found))
        if worst is None:
            return
        place = f"[{', '.join(map(str, worst.place))}]" if worst.place else ""
        raise TraceMismatchError(
            f"{what}{names[worst.result].name}{place} is {worst.found:.10g} by the graph and "
            f"{worst.expected:.10g} by {self._reference.name} itself at this point, a relative difference of "
            f"{worst.relative:.2g}. {_ADVICE}"
        )

    def _worst(
        self,
        function: Callable[[Arrays], Sequence[wire.Array]],
        point: Arrays,
        expected: Arrays,
        found: Arrays,
    ) -> Difference | None:
        def moved(width: int) -> list[Arrays]:
            return [run_quietly(function, at) for at in moved_inputs(point, width, _SEED)]

        def difference(width: int) -> Difference | None:
            return worst_difference(expected, found, width, partial(moved, width))

        width = width_of((*point, *expected))
        worst = difference(width)
        if worst is None:
            return None
        shortest = shortest_float(self._model.data)  # parses the graph: for those that differ alone
        return worst if shortest >= width else difference(shortest)

    def _impossible(self, error: Exception) -> str:
        text = (
            f"not compared with {self._reference.name}: {type(error).__name__}: {error} "
            "(verify='never' does without)"
        )
        warnings.warn(text, GraphWarning, stacklevel=2)
        return text


def run_quietly(function: Callable[[Arrays], Sequence[Any]], point: Arrays) -> Sequence[Any]:
    """Run a function on copies, which it may write to, without NumPy's warnings of what it computes."""
    with np.errstate(all="ignore"):
        return function([np.array(array) for array in point])


def _product(product: Product, cotangents: Arrays, point: Arrays) -> Sequence[Any]:
    return product(point, cotangents)


def _chosen(function: Callable[[Arrays], Sequence[Any]], places: Sequence[int], point: Arrays) -> list[Any]:
    results = function(point)
    return [results[place] for place in places]


def _retrieved(task: "asyncio.Task[Compared | str]") -> None:
    """Mark the error of a task as seen: the next use raises it, if there is one."""
    if not task.cancelled():
        task.exception()
