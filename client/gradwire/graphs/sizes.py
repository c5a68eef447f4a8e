"""Extents of axes that are not known when a function is traced: names, and sums of their products.

A `Size` takes the place of an integer in a shape. What can be said for every value of the names is an answer:
`n + 1 == n` is false, `n - 1 < n` is true. Everything else raises, so that no graph can depend on a guess.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from gradwire.errors import TraceError
from gradwire.graphs.refusals import refuse

if TYPE_CHECKING:
    from gradwire.graphs.builder import GraphBuilder
    from gradwire.graphs.nodes import GraphValue

_Terms = Mapping[tuple[str, ...], int]

refused: ContextVar[TraceError | None] = ContextVar("gradwire_refused_size", default=None)
"""The last refusal of a size: NumPy replaces some errors that it meets in converting a shape."""


class Size:
    """An extent such as `n`, `n - 1` or `3*n*m`: a polynomial in names that each stand for one or more."""

    __slots__ = ("terms",)
    arithmetic: ClassVar[Callable[..., Any]]
    """What NumPy's ufuncs do with a size among their operands; the NumPy front-end says it."""

    def __init__(self, terms: _Terms) -> None:
        self.terms = dict(sorted(terms.items()))

    def __repr__(self) -> str:
        ordered = sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0]))
        text = " + ".join(_product(names, factor) for names, factor in ordered)
        return text.replace("+ -", "- ")

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return {name for product in self.terms for name in product}

    def renamed(self, names: Mapping[str, str]) -> int:
        """Return it with other names."""
        terms = {tuple(sorted(names.get(one, one) for one in key)): n for key, n in self.terms.items()}
        return cast(int, _made(terms))

    # What holds for all values of the names

    def bounds(self) -> tuple[int | None, int | None]:
        """Return the least and the largest value that it has; None where there is none that is known."""
        factors = [factor for product, factor in self.terms.items() if product]
        at_one = sum(self.terms.values())
        low = at_one if all(factor > 0 for factor in factors) else None
        high = at_one if all(factor < 0 for factor in factors) else None
        return low, high

    def _minus(self, other: Any) -> Any:
        return NotImplemented if _terms(other) is None else self - other

    def __eq__(self, other: object) -> Any:
        difference = self._minus(other)
        if difference is NotImplemented:
            return False if not hasattr(other, "__array_ufunc__") else NotImplemented
        if not isinstance(difference, Size):
            return difference == 0
        low, high = difference.bounds()
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        raise self._unknown(f"whether {self} is {other}")

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def _above(self, other: Any, least: int) -> Any:
        """Whether it is at least `least` more than another."""
        difference = self._minus(other)
        if not isinstance(difference, Size):
            return difference if difference is NotImplemented else difference >= least
        low, high = difference.bounds()
        if low is not None and low >= least:
            return True
        if high is not None and high < least:
            return False
        raise self._unknown(f"whether {self} is {'more than' if least else 'at least'} {other}")

    def __gt__(self, other: Any) -> Any:
        return self._above(other, 1)

    def __ge__(self, other: Any) -> Any:
        return self._above(other, 0)

    def __lt__(self, other: Any) -> Any:
        above = self._above(other, 0)
        return above if above is NotImplemented else not above

    def __le__(self, other: Any) -> Any:
        above = self._above(other, 1)
        return above if above is NotImplemented else not above

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __hash__(self) -> int:
        return hash(("Size", tuple(self.terms.items())))

    # Arithmetic with integers and other sizes gives extents, and everything else values of the graph

    def __add__(self, other: Any) -> Any:
        terms = _terms(other)
        return self._call(np.add, other) if terms is None else _sum(self.terms, terms)

    def __sub__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return self._call(np.subtract, other)
        return _sum(self.terms, {product: -factor for product, factor in terms.items()})

    def __mul__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return self._call(np.multiply, other)
        result: dict[tuple[str, ...], int] = {}
        for first, factor in self.terms.items():
            for second, other_factor in terms.items():
                key = tuple(sorted((*first, *second)))
                result[key] = result.get(key, 0) + factor * other_factor
        return _made(result)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Size:
        return self

    def __rsub__(self, other: Any) -> Any:
        return self._call(np.subtract, other, swapped=True) if _terms(other) is None else -self + other

    def __pow__(self, other: Any) -> Any:
        return self._call(np.power, other)

    def __rpow__(self, other: Any) -> Any:
        return self._call(np.power, other, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return self._call(np.true_divide, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._call(np.true_divide, other, swapped=True)

    def _call(self, ufunc: np.ufunc, other: Any, swapped: bool = False) -> Any:
        if not isinstance(other, int | float | np.generic | Size):
            return NotImplemented
        return self.arithmetic(ufunc, "__call__", *((other, self) if swapped else (self, other)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return self.arithmetic(ufunc, method, *inputs, **kwargs)

    # What needs the number

    def _number(self, what: str) -> TraceError:
        return self._unknown(f"the size {self} {what}")

    def __index__(self) -> int:
        raise self._number("as an integer (len, range, np.zeros, np.arange, a loop)")

    def __int__(self) -> int:
        raise self._number("in int()")

    def __float__(self) -> float:
        raise self._number("in float()")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self._number("in an array")

    def __floordiv__(self, other: Any) -> Any:
        raise self._number("in a quotient of integers")

    def __mod__(self, other: Any) -> Any:
        raise self._number("in a remainder")

    def __divmod__(self, other: Any) -> Any:
        raise self._number("in divmod()")

    __rfloordiv__, __rmod__, __rdivmod__ = __floordiv__, __mod__, __divmod__

    def _unknown(self, what: str) -> TraceError:
        error = refuse(
            what,
            "give the size as a number: gw.spec(100) for gw.spec('n'). What needs none: x.shape[0] in "
            "arithmetic for len(x), np.zeros_like(x) or gw.zeros(x.shape) for np.zeros, one name for axes of "
            "one size",
        )
        refused.set(error)
        return error


def symbol(name: str) -> int:
    """Return the size of a name; it takes the place of an `int` in shapes."""
    return cast(int, Size({(name,): 1}))


def is_symbolic(extent: object) -> bool:
    """Return whether an extent is a `Size`."""
    return isinstance(extent, Size)


def any_symbolic(extents: Sequence[object]) -> bool:
    """Return whether one of the extents is a `Size`."""
    return any(isinstance(extent, Size) for extent in extents)


def surely_equal(a: int, b: int) -> bool:
    """Return whether two extents are known to be equal for all values of their names."""
    if is_symbolic(a) or is_symbolic(b):
        return _terms(a) == _terms(b)
    return a == b


def surely_same(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two shapes are known to be equal for all values of the names in them."""
    return len(shape) == len(other) and all(map(surely_equal, shape, other))


def as_extent(given: Any) -> int:
    """Return an extent as an integer or a size.

    Raises:
        TypeError: it is neither.
    """
    return cast(int, given) if isinstance(given, Size) else operator.index(given)


def broadcast_shapes(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Broadcast shapes with sizes: axes of the same size, or of one element.

    Raises:
        TraceError: whether two extents are equal is unknown.
        ValueError: they are not.
    """
    rank = max(map(len, shapes))
    result: list[int] = [1] * rank
    for shape in shapes:
        for axis, extent in enumerate(shape, rank - len(shape)):
            known = result[axis]
            if not is_symbolic(known) and known == 1:
                result[axis] = extent
            elif (is_symbolic(extent) or extent != 1) and known != extent:
                raise ValueError(
                    f"shapes {' and '.join(map(str, map(tuple, shapes)))} could not be broadcast together"
                )
    return tuple(result)


def is_long(extent: int) -> bool:
    """Return whether an axis may have more than one element."""
    return is_symbolic(extent) or extent > 1


def quotient(size: int, by: int) -> int | None:
    """Return a size divided by another, or None where it is no multiple of it for all values of the names."""
    terms, divisor = _terms(size), _terms(by)
    assert terms is not None and divisor is not None
    if len(divisor) != 1:
        return 1 if terms == divisor else None
    ((names, factor),) = divisor.items()
    result: dict[tuple[str, ...], int] = {}
    for product, own in terms.items():
        left = list(product)
        for name in names:
            if name not in left:
                return None
            left.remove(name)
        if own % factor:
            return None
        result[tuple(left)] = own // factor
    return cast(int, _made(result))


def at_least(size: int) -> tuple[str, int]:
    """Return a name, and how large it has to be for a size to be zero or more.

    Raises:
        TraceError: this depends on several names.
    """
    assert isinstance(size, Size)
    constant, factors = size.terms.get((), 0), {key: n for key, n in size.terms.items() if key}
    names, factor = next(iter(factors.items()))
    if len(factors) > 1 or len(names) > 1 or factor < 1:
        low, _ = size.bounds()
        if low is not None and low >= 0:
            return names[0], 1
        raise size._unknown(f"a part of an axis whose size is {size} with a constant,")
    return names[0], -(constant // factor)


def vector(graph: GraphBuilder, extents: Sequence[int]) -> GraphValue:
    """Return extents as a one-dimensional int64 value, computed from the shapes of the inputs."""
    parts: list[GraphValue] = []
    numbers: list[int] = []
    for extent in (*extents, None):
        if extent is not None and not is_symbolic(extent):
            numbers.append(extent)
            continue
        if numbers:
            parts.append(graph.ints(numbers))
            numbers = []
        if isinstance(extent, Size):
            graph.require(cast(int, extent))
            parts.append(_element(graph, extent))
    if len(parts) == 1:
        return parts[0]
    return graph.one("Concat", parts, (len(extents),), np.dtype(np.int64), axis=0)


def scalar(graph: GraphBuilder, size: Size) -> GraphValue:
    """Return a size as an int64 value without axes."""
    return graph.one("Reshape", [_element(graph, size), graph.ints(())], (), np.dtype(np.int64))


def _element(graph: GraphBuilder, size: Size) -> GraphValue:
    total: GraphValue | None = None
    for names, factor in size.terms.items():
        term = graph.ints([factor])
        for place, name in enumerate(names):
            extent = graph.extent(name)
            term = extent if place == 0 and factor == 1 else _combine(graph, "Mul", term, extent)
        total = term if total is None else _combine(graph, "Add", total, term)
    assert total is not None
    return total


def _combine(graph: GraphBuilder, op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    return graph.one(op, [a, b], (1,), np.dtype(np.int64))


def _terms(given: Any) -> dict[tuple[str, ...], int] | None:
    """Return an integer or a size as terms; None for anything else."""
    if isinstance(given, Size):
        return given.terms
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return {(): int(given)} if given else {}
    return None


def _sum(first: _Terms, second: _Terms) -> Any:
    result = dict(first)
    for product, factor in second.items():
        result[product] = result.get(product, 0) + factor
    return _made(result)


def _made(terms: _Terms) -> Any:
    left = {product: factor for product, factor in terms.items() if factor}
    return left.get((), 0) if set(left) <= {()} else Size(left)


def _product(names: Sequence[str], factor: int) -> str:
    text = "*".join(names)
    if not names or factor == 1:
        return text or str(factor)
    return f"-{text}" if factor == -1 else f"{factor}*{text}"
