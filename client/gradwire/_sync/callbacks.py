"""Callbacks for SciPy's solvers and others like them: values and derivatives by one vector.

A solver asks for the value at a point and then, in a call of its own, for a derivative at the same point.
Here the first call fetches both in one round trip to the server, and the second reads them from a cache. The
cache holds one point: solvers go from point to point and do not return.
"""

import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from functools import cached_property
from importlib.util import find_spec
from math import prod
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

import gradwire_wire as wire
from gradwire._face.arguments import given_values
from gradwire._face.function import AsyncFunction
from gradwire._face.options import FoundSparsity, found_sparsity
from gradwire._face.pickling import FUNCTION, refuse
from gradwire._sync.bridge import Bridge
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Value, select, select_scalar
from gradwire.graphs.trees import flatten
from gradwire.transport.retry import seconds_of

Floats = npt.NDArray[np.float64]
Prefetch = Literal["auto", "grad", "jacobian", "hessian", "nothing"]
Part = Literal["value", "grad", "jacobian", "hessian"]
Parts = Mapping[str, Any]
"""Arrays, or sparse matrices, by part."""

_PREFETCHED: dict[str, tuple[Part, ...]] = {
    "nothing": ("value",),
    "grad": ("value", "grad"),
    "jacobian": ("value", "jacobian"),
    "hessian": ("value", "grad", "hessian"),
}


class _Point:
    """A point and its parts; each is in a round trip that may still be in progress."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.fetches: dict[Part, Future[Parts]] = {}


class Callbacks:
    """Value and derivatives of one output by one input, in the form that numerical solvers take.

    Made by `Function.callbacks`. Every method takes the function's inputs in order (so that a solver's
    `args=` go where they belong), or by name (a solver's `kwargs=`); the input that is varied may be flat, as
    solvers have it, where its shape is known. Results are float64 whatever the graph computes in: a number
    for an output of rank 0, else arrays of at most two axes, `(outputs, inputs)`, and they belong to the
    caller, who may write to them. With `sparse`, Jacobians and Hessians are matrices of `scipy.sparse`.

    With the value, the derivatives that `along` names are fetched in the same round trip. Points are compared
    bit by bit. May be used from several threads, which share a round trip when they ask for the same point at
    the same time.
    """

    def __init__(
        self,
        function: AsyncFunction,
        bridge: Bridge,
        wrt: str | int | None,
        of: str | int | None,
        along: Prefetch,
        sparse: FoundSparsity,
        timeout: float | None,
    ) -> None:
        signature = function.signature
        self._function, self._bridge, self._timeout = function, bridge, seconds_of(timeout)
        self._wrt = select(signature.inputs, wrt, "input", "wrt")[0]
        self._of = select(signature.outputs, of, "output", "of")[0]
        self._input = _named(signature.inputs, self._wrt)
        self._position = signature.inputs.index(self._input)
        output = _named(signature.outputs, self._of)
        self._output = signature.outputs.index(output)
        chosen = ("grad" if _one_number(output) else "jacobian") if along == "auto" else along
        if chosen not in _PREFETCHED:
            raise InvalidArgumentError(f"along is 'auto' or one of {', '.join(_PREFETCHED)}; it is {along!r}")
        if chosen in ("grad", "hessian"):
            select_scalar(signature.outputs, self._of)
        self._along = _PREFETCHED[chosen]
        self._sparse = found_sparsity(sparse)
        if sparse:
            _require_scipy()
        self._lock = threading.Lock()
        self._last = _Point(None)

    def __repr__(self) -> str:
        function = repr(self._function).replace("<Async", "<", 1)
        return f"<Callbacks of {self._of} by {self._wrt}: {' + '.join(self._along)}, {function}>"

    def __reduce__(self) -> NoReturn:
        refuse(self, FUNCTION.format(address=self._function._connection.address))

    def __call__(self, /, *args: Any, **inputs: Any) -> float | Floats:
        """Return the value; the same as `value`."""
        return self.value(*args, **inputs)

    def value(self, /, *args: Any, **inputs: Any) -> float | Floats:
        """Return the output: a number if its rank is 0, else of shape (outputs,)."""
        value = self._part("value", self._in_order(args, inputs))
        return float(value) if value.ndim == 0 else _floats(value, -1)

    def grad(self, /, *args: Any, **inputs: Any) -> Floats:
        """Return the gradient of a one-element output, of shape (inputs,); () at a point of rank 0."""
        args = self._in_order(args, inputs)
        gradient: Floats = self._like_point(args, _floats(self._part("grad", args), -1))
        return gradient

    def jacobian(self, /, *args: Any, **inputs: Any) -> Any:
        """Return the Jacobian, of shape (outputs, inputs)."""
        args = self._in_order(args, inputs)
        return self._matrix(self._part("jacobian", args), args)

    def hessian(self, /, *args: Any, **inputs: Any) -> Any:
        """Return the Hessian of a one-element output, of shape (inputs, inputs); () at a point of rank 0."""
        args = self._in_order(args, inputs)
        return self._like_point(args, self._matrix(self._part("hessian", args), args))

    @cached_property
    def jac_sparsity(self) -> Any:
        """Where the Jacobian may be non-zero at any point: a `scipy.sparse.csr_array` of booleans.

        `least_squares` and `solve_ivp` take it as `jac_sparsity`, to group their own differences.

        Raises:
            InvalidArgumentError: the signature leaves a size open.
        """
        _require_scipy()
        work = self._function.sparsity(wrt=self._wrt, of=self._of, timeout=self._timeout)
        return self._bridge.run(work).boolean()

    def hvp(self, /, *args: Any, **inputs: Any) -> Floats:
        """Multiply the Hessian by a vector, which follows the varied input: `hvp(x, p, *args)`."""
        args, vector = self._split(args, "a vector")
        point = self._arguments(self._in_order(args, inputs))
        direction = np.reshape(vector, np.shape(point[self._position]))
        work = self._function.hvp(
            self._named(point), direction, wrt=self._wrt, of=self._of, timeout=self._timeout
        )
        return _floats(self._bridge.run(work), -1)

    def weighted_hessian(self, /, *args: Any, **inputs: Any) -> Any:
        """Return the weighted sum of the outputs' Hessians: `weighted_hessian(x, v, *args)`.

        `scipy.optimize.NonlinearConstraint` takes it as `hess`. The shape is (inputs, inputs).
        """
        args, weights = self._split(args, "one weight for each output")
        args = self._in_order(args, inputs)
        pullback = self._function.as_vjp(self._wrt, self._of)
        seed = pullback.signature.inputs[-1]
        work = pullback.jacobian(
            {**self._named(self._arguments(args)), seed.name: _shaped(seed, weights)},
            wrt=self._wrt,
            sparse=self._sparse,
            timeout=self._timeout,
        )
        return self._matrix(self._bridge.run(work), args)

    def _matrix(self, found: Any, args: tuple[Any, ...]) -> Any:
        """Return a derivative as (outputs, inputs), in memory that the caller may write to."""
        if isinstance(found, np.ndarray):
            return _floats(found, -1, self._inputs(args))
        return found.astype(np.float64, copy=True)

    def _in_order(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Append inputs that are given by name, as solvers' `kwargs=` are, in the function's order."""
        if not inputs:
            return args
        names = [value.name for value in self._function.signature.inputs]
        given = given_values(self._function.signature.inputs, args, inputs)
        missing = [name for name in names if name not in given]
        if missing:
            raise InvalidArgumentError(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing)}")
        return tuple(given[name] for name in names)

    def _named(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """Return arguments by name: the leaves of nested ones have no place of their own among them."""
        names = [value.name for value in self._function.signature.inputs]
        if len(arguments) > len(names):
            raise InvalidArgumentError(
                f"{len(arguments)} arguments given, but the function has {len(names)}: {', '.join(names)}"
            )
        return dict(zip(names, arguments, strict=False))

    def _split(self, args: tuple[Any, ...], what: str) -> tuple[tuple[Any, ...], Any]:
        after = self._position + 1
        if len(args) <= after:
            raise InvalidArgumentError(f"{what} is missing: pass it after input {self._wrt!r}")
        return args[:after] + args[after + 1 :], args[after]

    def _like_point(self, args: tuple[Any, ...], derivative: Any) -> Any:
        # Solvers of one variable, such as root_scalar, have points without axes and expect the same back.
        scalar = np.ndim(args[self._position]) == 0 and isinstance(derivative, np.ndarray)
        return derivative.reshape(()) if scalar else derivative

    def _inputs(self, args: tuple[Any, ...]) -> int:
        return int(np.size(args[self._position]))

    def _arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(args) <= self._position:
            raise InvalidArgumentError(f"input {self._input} is missing")
        at = self._position
        return (*args[:at], _shaped(self._input, args[at]), *args[at + 1 :])

    def _part(self, part: Part, args: tuple[Any, ...]) -> Any:
        arguments = self._arguments(args)
        self._bridge.refuse_to_wait()
        key = tuple(_key(argument) for argument in arguments)
        with self._lock:
            point = self._last
            if point.key != key:
                point = self._last = _Point(key)
            fetch = point.fetches.get(part)
            if fetch is None:
                fetch = self._fetch(part, point, arguments)
        try:
            found = fetch.result()[part]
        except BaseException:  # Ctrl-C too: the next call tries again
            fetch.cancel()
            with self._lock:
                if self._last is point:
                    self._last = _Point(None)
            raise
        return found

    def _fetch(self, part: Part, point: _Point, arguments: tuple[Any, ...]) -> Future[Parts]:
        """Start the round trip that fetches a part, with the prefetched ones at a new point."""
        parts: tuple[Part, ...] = (part,)
        if not point.fetches and part in self._along:
            parts = self._along
        copies = tuple(np.array(argument) for argument in arguments)  # the solver may write to its own
        fetch = self._bridge.submit(self._round_trip(parts, copies))
        point.fetches |= dict.fromkeys(parts, fetch)
        return fetch

    async def _round_trip(self, parts: tuple[Part, ...], arguments: tuple[Any, ...]) -> Parts:
        results = await self._call(parts, arguments)
        return dict(zip(parts, results, strict=True))

    async def _call(self, parts: tuple[Part, ...], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        f, timeout, point = self._function, self._timeout, self._named(arguments)
        chosen: dict[str, Any] = {"wrt": self._wrt, "of": self._of, "timeout": timeout}
        if parts == ("value",):
            return (self._chosen_output(await f.value(point, timeout=timeout)),)
        if parts[-1] in ("jacobian", "hessian"):
            chosen["sparse"] = self._sparse
        if len(parts) == 1:
            calls: dict[Part, Any] = {"grad": f.grad, "jacobian": f.jacobian, "hessian": f.hessian}
            return (await calls[parts[0]](point, **chosen),)
        both: dict[str, Any] = {
            "grad": f.value_and_grad,
            "jacobian": f.value_and_jacobian,
            "hessian": f.value_grad_and_hessian,
        }
        work: Coroutine[Any, Any, tuple[Any, ...]] = both[parts[-1]](point, **chosen)
        value, *derivatives = await work
        return self._chosen_output(value), *derivatives

    def _chosen_output(self, value: Any) -> wire.Array:
        """Pick the chosen output among all of them."""
        chosen: wire.Array = flatten(value)[1][self._output]
        return chosen


def _require_scipy() -> None:
    if find_spec("scipy") is None:
        raise ModuleNotFoundError(
            "sparse callbacks give matrices of scipy.sparse, for SciPy's solvers: pip install scipy",
            name="scipy",
        )


def _named(values: tuple[Value, ...], name: str) -> Value:
    return next(value for value in values if value.name == name)


def _one_number(output: Value) -> bool:
    return output.shape is not None and all(extent == 1 for extent in output.shape)


def _shaped(value: Value, given: Any) -> Any:
    """Reshape a flat vector to the shape of its input, where that is known."""
    array, shape = np.asarray(given), value.shape
    if shape is None or array.ndim == len(shape) or array.ndim > 1:
        return array
    extents = [extent for extent in shape if isinstance(extent, int)]
    if len(extents) == len(shape) and prod(extents) == array.size:
        return array.reshape(extents)
    return array


def _key(argument: Any) -> object:
    array = np.asarray(argument)
    return array.dtype.str, array.shape, array.tobytes()


def _floats(array: wire.Array, *shape: int) -> Floats:
    """Copy to float64: a solver may scale it in place, as `least_squares` does residuals and Jacobians."""
    return np.array(array, np.float64).reshape(shape)
