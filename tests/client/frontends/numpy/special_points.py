"""Elementwise functions at zeros, kinks and poles and in the tails: values and slopes by mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import scipy.special as sc

Number = Any
Point = tuple[float, ...]

NAN, INF = math.nan, math.inf

TINY = (1e-300, 1e-30, 1e-12, 1e-8, 1e-4, 1e-2)
MIDDLE = (0.1, 0.5, 0.7, 1.0, 2.0, 3.0)
LARGE = (10.0, 20.0, 40.0, 90.0, 200.0, 800.0, 1e5, 1e10)
HUGE = (1e30, 1e155, 1e300)


def both(numbers: Sequence[float]) -> tuple[float, ...]:
    return (*numbers, *(-number for number in numbers))


LINE = both((0.0, *TINY, *MIDDLE, *LARGE, *HUGE))
HALF = (*TINY, *MIDDLE, *LARGE, *HUGE)
UNIT = (*TINY, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-5, 1 - 1e-9, 1 - 1e-15)
NEAR = both((0.0, *TINY, *MIDDLE, 10.0, 20.0, 30.0, 50.0, 90.0, 200.0, 500.0, 800.0))
PERIODIC = both((0.0, *TINY, *MIDDLE, 10.0, 90.0))


@dataclass(frozen=True)
class Elementwise:
    """An elementwise function and what its derivatives are.

    Attributes:
        traced: the function of NumPy or SciPy.
        exact: the same by mpmath, of real numbers, where it is analytic.
        points: where it is tried.
        known: values and slopes at points where they are a convention, or a limit: for each point the value,
            the first derivatives, and the second ones along each argument; None where anything will do.
        wrt: the arguments that it is differentiated in.
        noise: what rounding may leave of a slope that is zero, in units of the dtype's precision.
    """

    traced: Callable[..., Any]
    exact: Callable[..., Number]
    points: Sequence[Point]
    known: Mapping[Point, tuple[Any, Any, Any]] = field(default_factory=dict)
    wrt: tuple[int, ...] = (0,)
    noise: float = 0.0


def one(
    traced: Any, exact: Any, points: Sequence[float] = LINE, known: Any = None, **options: Any
) -> Elementwise:
    given = {(point,): (v, (a,), (b,)) for point, (v, a, b) in (known or {}).items()}
    return Elementwise(traced, exact, [(point,) for point in points], given, **options)


def _logistic(x: Number) -> Number:
    return 1 / (1 + mp.exp(-x))


def _softplus(x: Number) -> Number:
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


def _ndtr(x: Number) -> Number:
    return mp.erfc(-x / mp.sqrt(2)) / 2


ONE: dict[str, Elementwise] = {
    "exp": one(np.exp, mp.exp, NEAR),
    "exp2": one(np.exp2, lambda x: mp.mpf(2) ** x, NEAR),
    "expm1": one(np.expm1, mp.expm1, NEAR),
    "log": one(np.log, mp.log, HALF),
    "log2": one(np.log2, lambda x: mp.log(x, 2), HALF),
    "log10": one(np.log10, mp.log10, HALF),
    "log1p": one(np.log1p, mp.log1p, (*LINE[:9], *HALF, *(-x for x in UNIT))),
    "sqrt": one(np.sqrt, mp.sqrt, HALF, {0.0: (0.0, INF, None)}),
    "cbrt": one(np.cbrt, lambda x: mp.sign(x) * mp.cbrt(abs(x)), both(HALF), {0.0: (0.0, INF, None)}),
    "square": one(np.square, lambda x: x * x, both((0.0, *TINY, *MIDDLE, *LARGE, 1e30, 1e150))),
    "reciprocal": one(np.reciprocal, lambda x: 1 / x, both((1e-90, 1e-30, *TINY[2:], *MIDDLE, *LARGE, 1e90))),
    "absolute": one(np.abs, abs, both(HALF), {0.0: (0.0, 0.0, 0.0)}),
    "fabs": one(np.fabs, abs, both(HALF), {0.0: (0.0, 0.0, 0.0)}),
    "sin": one(np.sin, mp.sin, PERIODIC),
    "cos": one(np.cos, mp.cos, PERIODIC),
    "tan": one(np.tan, mp.tan, both((0.0, *TINY, *MIDDLE))),
    "sinc": one(np.sinc, lambda x: mp.sinc(mp.pi * x), PERIODIC),
    "arcsin": one(np.arcsin, mp.asin, both((0.0, *UNIT[:-1])), {1.0: (math.pi / 2, INF, None)}),
    "arccos": one(np.arccos, mp.acos, both((0.0, *UNIT[:-1])), {1.0: (0.0, -INF, None)}),
    "arctan": one(np.arctan, mp.atan, LINE),
    "sinh": one(np.sinh, mp.sinh, NEAR),
    "cosh": one(np.cosh, mp.cosh, NEAR),
    "tanh": one(np.tanh, mp.tanh, LINE),
    "arcsinh": one(np.arcsinh, mp.asinh, LINE),
    "arccosh": one(np.arccosh, mp.acosh, (1 + 1e-8, 1.001, 1.5, 2.0, 3.0, *LARGE, *HUGE)),
    "arctanh": one(np.arctanh, mp.atanh, both((0.0, *UNIT))),
    "deg2rad": one(np.deg2rad, mp.radians),
    "expit": one(sc.expit, _logistic, NEAR),
    "log_expit": one(sc.log_expit, lambda x: -_softplus(-x), LINE),
    "logit": one(sc.logit, lambda p: mp.log(p) - mp.log1p(-p), UNIT),
    "erf": one(sc.erf, mp.erf, both((0.0, *TINY, *MIDDLE, 6.0, 10.0, 30.0, 1e10))),
    "erfc": one(sc.erfc, mp.erfc, both((0.0, *TINY, *MIDDLE, 6.0, 10.0, 20.0, 1e10))),
    "erfinv": one(sc.erfinv, mp.erfinv, both((0.0, *TINY, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99))),
    "erfcinv": one(sc.erfcinv, lambda p: mp.erfinv(1 - p), (1e-30, 1e-8, 1e-3, 0.1, 0.5, 1.0, 1.5, 1.99)),
    "ndtr": one(sc.ndtr, _ndtr, both((0.0, *TINY, *MIDDLE, 10.0, 30.0))),
    "log_ndtr": one(
        sc.log_ndtr,
        lambda x: mp.log(_ndtr(x)) if x < 0 else mp.log1p(-mp.erfc(x / mp.sqrt(2)) / 2),
        both((0.0, *TINY, *MIDDLE, 10.0, 19.0, 21.0, 90.0)),
    ),
    "ndtri": one(
        sc.ndtri, lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1), (1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.9, 0.999)
    ),
    "gamma": one(sc.gamma, mp.gamma, (*both((1e-8, 1e-3, 0.1, 0.5, 1.5, 2.5)), 1.0, 2.0, 5.0, 20.0, 150.0)),
    "gammaln": one(
        sc.gammaln,
        lambda x: mp.log(abs(mp.gamma(x))),
        (*both((1e-8, 1e-3, 0.1, 0.5, 1.5)), 1.0, 2.0, 5.0, 20.0, 1e5, 1e30),
    ),
    "rgamma": one(
        sc.rgamma,
        mp.rgamma,
        (*both((0.0, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0)), 5.0, 20.0, 150.0),
    ),
    "digamma": one(sc.digamma, mp.digamma, (*both((1e-8, 1e-3, 0.1, 0.5, 1.5)), 1.0, 2.0, 5.0, 20.0, 1e5)),
    "entr": one(sc.entr, lambda x: -x * mp.log(x), HALF[2:-2], {0.0: (0.0, 0.0, None)}),
    "exprel": one(
        sc.exprel,
        lambda x: mp.expm1(x) / x if x else mp.mpf(1),
        both((*TINY, *MIDDLE, 0.099, 0.101, 10.0, 80.0)),
        {0.0: (1.0, 0.5, 1 / 3)},
    ),
    "exp10": one(sc.exp10, lambda x: mp.mpf(10) ** x, both((0.0, *TINY, *MIDDLE, 30.0, 300.0))),
    "cosm1": one(sc.cosm1, lambda x: -2 * mp.sin(x / 2) ** 2, PERIODIC),
    "i0": one(
        sc.i0,
        lambda x: mp.besseli(0, x),
        both((0.0, 1e-300, 1e-8, 1e-3, *MIDDLE, 7.9, 8.1, 20.0, 80.0)),
    ),
    "i1": one(
        sc.i1,
        lambda x: mp.besseli(1, x),
        both((0.0, 1e-300, 1e-8, 1e-3, *MIDDLE, 7.9, 8.1, 20.0, 80.0)),
    ),
    "i0e": one(
        sc.i0e,
        lambda x: mp.besseli(0, x) * mp.exp(-abs(x)),
        both((1e-300, 1e-8, 1e-3, *MIDDLE, 7.9, 8.1, 20.0, 80.0)),
        {0.0: (1.0, 0.0, None)},
    ),
    "i1e": one(
        sc.i1e,
        lambda x: mp.besseli(1, x) * mp.exp(-abs(x)),
        both((1e-300, 1e-8, 1e-3, *MIDDLE, 7.9, 8.1, 20.0, 80.0)),
        {0.0: (0.0, 0.5, None)},
    ),
    "np.i0": one(np.i0, lambda x: mp.besseli(0, x), both((0.0, 1e-300, 1e-8, 1e-3, *MIDDLE, 20.0, 90.0))),
    "sindg": one(sc.sindg, lambda x: mp.sin(mp.radians(x)), both((0.0, *TINY, *MIDDLE, 45.0))),
    "cosdg": one(sc.cosdg, lambda x: mp.cos(mp.radians(x)), both((0.0, *TINY, *MIDDLE, 45.0))),
    "tandg": one(sc.tandg, lambda x: mp.tan(mp.radians(x)), both((0.0, *TINY, *MIDDLE))),
}
"""Functions of one argument."""


def pairs(first: Sequence[float], second: Sequence[float]) -> list[Point]:
    return [(a, b) for a in first for b in second]


def two(traced: Any, exact: Any, points: Sequence[Point], known: Any = None, **options: Any) -> Elementwise:
    return Elementwise(traced, exact, points, known or {}, **{"wrt": (0, 1), **options})


def _logaddexp(a: Number, b: Number, base: Number = None) -> Number:
    base = mp.e if base is None else base
    return max(a, b) + mp.log1p(base ** (min(a, b) - max(a, b))) / mp.log(base)


def _boxcox(x: Number, power: Number) -> Number:
    return mp.expm1(power * mp.log(x)) / power if power else mp.log(x)


def _inv_boxcox(y: Number, power: Number) -> Number:
    return mp.exp(mp.log1p(power * y) / power) if power else mp.exp(y)


def _student(degrees: Number, t: Number) -> Number:
    tail = mp.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True) / 2
    if abs(t) < 0.5:
        scaled = t * mp.gamma((degrees + 1) / 2) / (mp.sqrt(mp.pi * degrees) * mp.gamma(degrees / 2))
        return mp.mpf(0.5) + scaled * mp.hyp2f1(0.5, (degrees + 1) / 2, 1.5, -t * t / degrees)
    return tail if t < 0 else 1 - tail


def _rel_entr(x: Number, y: Number) -> Number:
    return x * mp.log(x / y)


MID = (1e-8, 1e-3, 0.5, 1.0, 2.0, 3.7, 30.0)
AROUND = both((0.0, 1e-300, 1e-8, 0.5, 1.0, 30.0))
TIES = [(x, x) for x in both((0.0, 1e-8, 1.0, 2.5, 800.0, 1e10))]

TWO: dict[str, Elementwise] = {
    "add": two(np.add, lambda a, b: a + b, pairs(AROUND, AROUND)),
    "multiply": two(np.multiply, lambda a, b: a * b, pairs(AROUND, AROUND)),
    "divide": two(np.divide, lambda a, b: a / b, pairs(AROUND, (-2.0, -1e-8, 1e-8, 2.0, 1e30))),
    "hypot": two(
        np.hypot,
        mp.hypot,
        [
            (a, b)
            for a, b in pairs(both((0.0, 1e-8, 1.0, 2.0, 1e10)), both((0.0, 1e-8, 1.0, 2.0, 1e10)))
            if a or b
        ],
        {
            (0.0, 0.0): (0.0, (0.0, 0.0), (0.0, 0.0)),
            (1e-300, 1e-300): (math.sqrt(2) * 1e-300, (math.sqrt(0.5),) * 2, None),
            (1e300, 1e300): (None, (math.sqrt(0.5),) * 2, None),
        },
    ),
    "arctan2": two(
        np.arctan2,
        mp.atan2,
        [(a, b) for a, b in pairs(both((0.0, 1e-8, 1.0, 1e8)), both((1e-8, 1.0, 1e8))) if a or b > 0]
        + [(1.0, 0.0), (-1e-8, 0.0)],
        {(0.0, 0.0): (0.0, (0.0, 0.0), (0.0, 0.0))},
    ),
    "power": two(
        np.power,
        mp.power,
        pairs((1e-8, 0.5, 1.0, 2.0, 30.0), (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 7.0)),
    ),
    "logaddexp": two(
        np.logaddexp, _logaddexp, TIES + pairs(both((0.0, 1e-8, 1.0)), both((0.5, 30.0, 90.0, 800.0, 1e10)))
    ),
    "logaddexp2": two(
        np.logaddexp2,
        lambda a, b: _logaddexp(a, b, mp.mpf(2)),
        TIES + pairs(both((0.0, 1e-8, 1.0)), both((0.5, 30.0, 90.0, 800.0, 1e10))),
    ),
    "xlogy": two(sc.xlogy, lambda x, y: x * mp.log(y), pairs(AROUND, MID), {(0.0, 0.0): (0.0, None, None)}),
    "xlog1py": two(
        sc.xlog1py,
        lambda x, y: x * mp.log1p(y),
        pairs(AROUND, (-0.9, -1e-8, 0.0, 1e-300, 1e-8, 0.5, 30.0)),
        {(0.0, -1.0): (0.0, None, None)},
    ),
    "rel_entr": two(sc.rel_entr, _rel_entr, pairs(MID, MID), {(0.0, 1.0): (0.0, None, None)}),
    "kl_div": two(sc.kl_div, lambda x, y: _rel_entr(x, y) - x + y, pairs(MID, MID), noise=1.0),
    "huber": two(
        sc.huber,
        lambda d, r: r * r / 2 if abs(r) <= d else d * (abs(r) - d / 2),
        [(1.0, r) for r in both((0.0, 1e-8, 0.5, 0.99, 1.01, 30.0))],
    ),
    "pseudo_huber": two(
        sc.pseudo_huber,
        lambda d, r: r * r / (1 + mp.sqrt(1 + (r / d) ** 2)),
        pairs((0.5, 1.0, 20.0), both((0.0, 1e-300, 1e-8, 0.5, 30.0))),
    ),
    "boxcox": two(
        sc.boxcox, _boxcox, pairs((1e-8, 0.5, 1.0, 2.0, 30.0), both((0.0, 1e-300, 1e-8, 1e-3, 0.5, 2.0)))
    ),
    "boxcox1p": two(
        sc.boxcox1p,
        lambda x, p: _boxcox(1 + x, p),
        pairs((-0.5, 0.0, 1e-300, 1e-8, 2.0, 30.0), both((0.0, 1e-300, 1e-8, 1e-3, 0.5, 2.0))),
    ),
    "inv_boxcox": two(
        sc.inv_boxcox,
        _inv_boxcox,
        pairs((-0.4, 0.0, 1e-300, 1e-8, 0.3), both((0.0, 1e-300, 1e-30, 1e-8, 1e-3, 0.5, 2.0))),
    ),
    "inv_boxcox1p": two(
        sc.inv_boxcox1p,
        lambda y, p: _inv_boxcox(y, p) - 1,
        pairs((-0.4, 0.0, 1e-300, 1e-8, 0.3), both((0.0, 1e-300, 1e-30, 1e-8, 1e-3, 0.5, 2.0))),
    ),
    "powm1": two(
        sc.powm1,
        lambda x, y: mp.expm1(y * mp.log(x)),
        pairs((1e-8, 0.5, 1.0, 1 + 1e-8, 2.0, 30.0), both((0.0, 1e-300, 1e-8, 0.5, 2.0))),
    ),
    "beta": two(sc.beta, mp.beta, [(0.125, 0.5), (1.0, 1.0), (2.0, 2.0), (0.5, 20.0)]),
    "betaln": two(
        sc.betaln,
        lambda a, b: mp.log(mp.beta(a, b)),
        [(0.125, 0.5), (1.0, 1.0), (2.0, 2.0), (20.0, 20.0), (0.5, 512.0)],
    ),
    "poch": two(
        sc.poch,
        lambda x, m: mp.gamma(x + m) * mp.rgamma(x),
        [*pairs((-2.25, 0.5, 1.0, 20.0), (0.0, 0.5, 2.0)), (0.0, 1.0), (0.0, 0.5), (-1.0, 3.0), (-2.0, 0.5)],
        noise=1.0,
    ),
    "binom": two(
        sc.binom,
        lambda n, k: mp.gamma(n + 1) * mp.rgamma(k + 1) * mp.rgamma(n - k + 1),
        [*pairs((0.5, 5.0, 20.0), (0.0, 0.5, 2.0)), (2.0, 3.0), (0.0, 0.0), (1.0, -1.0), (-0.5, 2.0)],
        noise=1.0,
    ),
    "gammainc": two(
        sc.gammainc,
        lambda a, x: mp.gammainc(a, 0, x, regularized=True),
        pairs((0.5, 1.0, 2.0, 3.5, 20.0), (1e-8, 1e-3, 0.5, 1.0, 2.0, 20.0)),
        {
            (1.0, 0.0): (0.0, (None, 1.0), (None, -1.0)),
            (2.0, 0.0): (0.0, (None, 0.0), (None, 1.0)),
            (3.0, 0.0): (0.0, (None, 0.0), (None, 0.0)),
            (0.5, 0.0): (0.0, (None, INF), None),
        },
        wrt=(1,),
    ),
    "gammaincc": two(
        sc.gammaincc,
        lambda a, x: mp.gammainc(a, x, mp.inf, regularized=True),
        pairs((0.5, 1.0, 2.0, 3.5, 20.0), (1e-8, 1e-3, 0.5, 1.0, 2.0, 20.0)),
        {
            (1.0, 0.0): (1.0, (None, -1.0), (None, 1.0)),
            (2.0, 0.0): (1.0, (None, 0.0), (None, -1.0)),
            (0.5, 0.0): (1.0, (None, -INF), None),
        },
        wrt=(1,),
    ),
    "chdtr": two(
        sc.chdtr,
        lambda v, x: mp.gammainc(v / 2, 0, x / 2, regularized=True),
        pairs((1.0, 2.0, 4.0), (1e-3, 1.0, 20.0)),
        {(2.0, 0.0): (0.0, (None, 0.5), (None, -0.25))},
        wrt=(1,),
    ),
    "stdtr": two(
        sc.stdtr,
        _student,
        pairs((1.0, 2.0, 3.5, 30.0), both((0.0, 1e-300, 1e-8, 1e-4, 1e-2, 0.3, 0.7, 1.0, 5.0, 30.0))),
        wrt=(1,),
    ),
}
"""Functions of two arguments."""

THREE: dict[str, Elementwise] = {
    "betainc": Elementwise(
        sc.betainc,
        lambda a, b, x: mp.betainc(a, b, 0, x, regularized=True),
        [
            (a, b, x)
            for a in (0.5, 1.0, 2.0, 7.0)
            for b in (0.5, 1.0, 2.0, 7.0)
            for x in (1e-8, 1e-3, 0.3, 0.5, 0.9)
        ],
        {
            (1.0, 1.0, 0.0): (0.0, (None, None, 1.0), (None, None, 0.0)),
            (1.0, 2.0, 0.0): (0.0, (None, None, 2.0), (None, None, -2.0)),
            (2.0, 1.0, 0.0): (0.0, (None, None, 0.0), (None, None, 2.0)),
            (1.0, 1.0, 1.0): (1.0, (None, None, 1.0), (None, None, 0.0)),
            (2.0, 2.0, 1.0): (1.0, (None, None, 0.0), (None, None, -6.0)),
            (0.5, 1.0, 0.0): (0.0, (None, None, INF), None),
        },
        wrt=(2,),
    ),
    "fdtr": Elementwise(
        sc.fdtr,
        lambda n, d, x: mp.betainc(n / 2, d / 2, 0, n * x / (d + n * x), regularized=True),
        [(n, d, x) for n in (1.0, 2.0, 4.0) for d in (1.0, 2.0, 5.0) for x in (1e-3, 0.5, 1.0, 20.0)],
        {(2.0, 2.0, 0.0): (0.0, (None, None, 1.0), (None, None, -2.0))},
        wrt=(2,),
    ),
    "gdtr": Elementwise(
        sc.gdtr,
        lambda a, b, x: mp.gammainc(b, 0, a * x, regularized=True),
        [(a, b, x) for a in (0.5, 2.0) for b in (1.0, 2.5) for x in (1e-3, 0.5, 3.0)],
        {(2.0, 1.0, 0.0): (0.0, (None, None, 2.0), (None, None, -4.0))},
        wrt=(2,),
    ),
}
"""Functions of three arguments."""

ALL = {**ONE, **TWO, **THREE}


@cache
def expected(name: str, point: Point) -> tuple[Any, list[Any], list[Any]]:
    """The value, the first derivative in each of `wrt`, and the second one, by mpmath.

    Derivatives are central differences with so many digits that their error is below any float's.
    """
    case = ALL[name]
    if point in case.known:
        value, *slopes = case.known[point]
        first, second = ([None if part is None else part[index] for index in case.wrt] for part in slopes)
        return value, first, second
    digits = max((abs(int(math.log10(abs(x)))) for x in point if x), default=0)
    with mp.workdps(180 + 2 * digits):
        at = [mp.mpf(x) for x in point]
        value, first, second = case.exact(*at), [], []
        for index in case.wrt:
            step = mp.mpf(10) ** -40 * (min(abs(at[index]), 1) if at[index] else 1)
            after, before = (
                case.exact(*(x + sign * step if place == index else x for place, x in enumerate(at)))
                for sign in (1, -1)
            )
            first.append(_float((after - before) / (2 * step)))
            second.append(_float((after - 2 * value + before) / step**2))
        return _float(value), first, second


def _float(number: Number) -> float:
    try:
        return float(mp.re(number))
    except OverflowError:
        return math.inf if number > 0 else -math.inf
