"""Rules that write SciPy's special functions as operators, by name, so that SciPy is not imported.

Where a formula is not finite everywhere, its argument is replaced beforehand and not its result afterwards:
the derivative of a branch that is not taken must be finite too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gradwire.graphs.nodes import GraphValue
from gradwire.graphs.operators import binary, compare, constant_like, predicate, sci, unary, where


def _scaled(factor: float, x: GraphValue) -> GraphValue:
    return binary("Mul", x, constant_like(x, factor))


def _shifted(x: GraphValue, amount: float) -> GraphValue:
    return binary("Add", x, constant_like(x, amount))


def _less(x: GraphValue, number: float) -> GraphValue:
    return compare("Less", x, constant_like(x, number))


def _at_most(x: GraphValue, number: float) -> GraphValue:
    return compare("LessOrEqual", x, constant_like(x, number))


def _is(x: GraphValue, number: float) -> GraphValue:
    return compare("Equal", x, constant_like(x, number))


def _guarded(taken: GraphValue, x: GraphValue, substitute: float) -> GraphValue:
    """Return `x` where `taken` holds, otherwise a substitute at which the formula is finite."""
    return where(taken, x, constant_like(x, substitute))


def _not(x: GraphValue) -> GraphValue:
    return predicate("Not", x)


def _sign_of_gamma(x: GraphValue) -> GraphValue:
    """Return the sign of gamma, which alternates between negative integers, -1 on (-1, 0)."""
    whole = unary("Floor", x)
    half = _scaled(0.5, whole)
    odd = compare("And", _less(x, 0), _not(compare("Equal", unary("Floor", half), half)))
    return where(odd, constant_like(x, -1), constant_like(x, 1))


def _sign_or_nan(x: GraphValue) -> GraphValue:
    """Return the sign of gamma, NaN at its poles."""
    pole = compare("And", _less(x, 0), compare("Equal", unary("Floor", x), x))
    return where(pole, constant_like(x, math.nan), _sign_of_gamma(x))


def _gamma(x: GraphValue) -> GraphValue:
    return binary("Mul", _sign_or_nan(x), unary("Exp", sci("Lgamma", x)))


def _sine_of_pi(x: GraphValue) -> GraphValue:
    """Compute sin(pi x), exactly 0 at integers."""
    whole = unary("Round", x)
    half = _scaled(0.5, whole)
    odd = _not(compare("Equal", unary("Floor", half), half))
    sine = unary("Sin", _scaled(math.pi, binary("Sub", x, whole)))
    return where(odd, unary("Neg", sine), sine)


def _reciprocal_gamma(x: GraphValue) -> GraphValue:
    """Compute 1 / gamma, analytic everywhere: below 1/2 by reflection, as gamma(1 - x) sin(pi x) / pi."""
    left = _less(x, 0.5)
    sine = _sine_of_pi(x)
    reflected = sci("Lgamma", binary("Sub", constant_like(x, 1), _guarded(left, x, 0.25)))
    # At integers the sine is 0 also where the other factor overflows.
    bounded = where(_is(sine, 0), binary("Min", reflected, constant_like(x, _largest_exponent(x))), reflected)
    below = _scaled(1 / math.pi, binary("Mul", unary("Exp", bounded), sine))
    above = unary("Exp", unary("Neg", sci("Lgamma", _guarded(_not(left), x, 1))))
    return where(left, below, above)


def _largest_exponent(x: GraphValue) -> float:
    """Return a number whose exponential is just finite in the dtype of `x`."""
    return math.floor(math.log(float(np.finfo(x.dtype).max)))


def _beta(a: GraphValue, b: GraphValue) -> GraphValue:
    """Compute the beta function, by gamma functions with their signs where an argument is negative."""
    positive = _not(compare("Or", _less(a, 0), _less(b, 0)))
    logarithm = sci("Betaln", _guarded(positive, a, 1), _guarded(positive, b, 1))
    total = binary("Add", a, b)
    sign = binary("Mul", binary("Mul", _sign_of_gamma(a), _sign_of_gamma(b)), _sign_of_gamma(total))
    rest = binary("Sub", binary("Add", sci("Lgamma", a), sci("Lgamma", b)), sci("Lgamma", total))
    return where(positive, unary("Exp", logarithm), binary("Mul", sign, unary("Exp", rest)))


def _betaln(a: GraphValue, b: GraphValue) -> GraphValue:
    positive = _not(compare("Or", _less(a, 0), _less(b, 0)))
    logarithm = sci("Betaln", _guarded(positive, a, 1), _guarded(positive, b, 1))
    total = binary("Add", a, b)
    rest = binary("Sub", binary("Add", sci("Lgamma", a), sci("Lgamma", b)), sci("Lgamma", total))
    return where(positive, logarithm, rest)


def _pochhammer(x: GraphValue, m: GraphValue) -> GraphValue:
    """Compute gamma(x + m) / gamma(x), at poles of both by reflection."""
    total = binary("Add", x, m)
    positive = _not(compare("Or", _at_most(x, 0), _at_most(total, 0)))
    p, q = _guarded(positive, total, 1), _guarded(positive, x, 1)
    ratio = unary("Exp", binary("Sub", sci("Lgamma", p), sci("Lgamma", q)))
    whole = compare("And", compare("Equal", unary("Floor", m), m), compare("Equal", unary("Floor", x), x))
    both = compare("And", whole, compare("And", _at_most(x, 0), _at_most(total, 0)))
    half = _scaled(0.5, m)
    sign = where(compare("Equal", unary("Floor", half), half), constant_like(m, 1), constant_like(m, -1))
    a, b = (binary("Sub", constant_like(x, 1), _guarded(both, item, 0)) for item in (x, total))
    reflected = binary("Mul", sign, unary("Exp", binary("Sub", sci("Lgamma", a), sci("Lgamma", b))))
    either = _not(compare("Or", positive, both))
    product = binary("Mul", _gamma(_guarded(either, total, 1)), _reciprocal_gamma(_guarded(either, x, 1)))
    return where(positive, ratio, where(both, reflected, product))


def _binomial(n: GraphValue, k: GraphValue) -> GraphValue:
    """Compute the binomial coefficient as 1 / ((n + 1) B(n - k + 1, k + 1)), or by gamma functions."""
    upper, first, second = _shifted(n, 1), _shifted(binary("Sub", n, k), 1), _shifted(k, 1)
    zero = constant_like(n, 0)
    positive = compare("And", compare("Greater", first, zero), compare("Greater", second, zero))
    usual = compare("And", positive, compare("Greater", upper, zero))
    a, b, c = (_guarded(usual, item, 1) for item in (upper, first, second))
    regular = unary("Reciprocal", binary("Mul", a, unary("Exp", sci("Betaln", b, c))))
    a, b, c = (_guarded(_not(usual), item, 1) for item in (upper, first, second))
    other = binary("Mul", _gamma(a), binary("Mul", _reciprocal_gamma(b), _reciprocal_gamma(c)))
    return where(usual, regular, other)


def _logit(p: GraphValue) -> GraphValue:
    """Compute the logit, near 1/2 from the distance to 1/2, where log(p) and log(1 - p) would cancel."""
    middle = compare("Less", unary("Abs", _shifted(p, -0.5)), constant_like(p, 0.25))
    distance = _scaled(2, _shifted(_guarded(middle, p, 0.5), -0.5))
    near = binary("Sub", sci("Log1p", distance), sci("Log1p", unary("Neg", distance)))
    return where(middle, near, binary("Sub", unary("Log", p), sci("Log1p", unary("Neg", p))))


def _log_expit(x: GraphValue) -> GraphValue:
    return unary("Neg", _softplus(unary("Neg", x)))


def _softplus(x: GraphValue) -> GraphValue:
    return sci("LogAddExp", constant_like(x, 0), x)


def _ndtr(x: GraphValue) -> GraphValue:
    """Compute the distribution function of the standard normal."""
    return _scaled(0.5, sci("Erfc", _scaled(-math.sqrt(0.5), x)))


def _erfcinv(x: GraphValue) -> GraphValue:
    return _scaled(-math.sqrt(0.5), sci("Ndtri", _scaled(0.5, x)))


def _xlog1py(x: GraphValue, y: GraphValue) -> GraphValue:
    """Compute x log1p(y), 0 with derivative 0 where x is 0 and log1p(y) is not finite."""
    improper = compare("Or", compare("LessOrEqual", y, constant_like(y, -1)), _is(y, math.inf))
    vanishes = compare("And", _is(x, 0), improper)
    return binary("Mul", x, sci("Log1p", where(vanishes, constant_like(y, 0), y)))


def _entropy(x: GraphValue) -> GraphValue:
    below = _less(x, 0)
    kept = _guarded(_not(below), x, 1)
    return where(below, constant_like(x, -math.inf), unary("Neg", sci("Xlogy", kept, kept)))


def _relative_entropy(x: GraphValue, y: GraphValue) -> GraphValue:
    """Compute x log(x / y), by log1p near x = y, where the logarithms of x and y cancel."""
    zero = constant_like(x, 0)
    both = compare("And", compare("Greater", x, zero), compare("Greater", y, zero))
    gap = binary("Sub", x, y)
    close = compare("Less", unary("Abs", gap), binary("Mul", constant_like(y, 0.5), y))
    near = compare("And", both, close)
    safe = where(near, y, constant_like(y, 1))
    by_gap = binary("Mul", x, sci("Log1p", binary("Div", where(near, gap, zero), safe)))
    far = compare("And", both, _not(close))
    x_far, y_far = where(far, x, constant_like(x, 1)), where(far, y, constant_like(y, 1))
    logarithms = binary("Sub", unary("Log", x_far), unary("Log", y_far))
    value = where(near, by_gap, binary("Mul", x, logarithms))
    nothing = compare("And", _is(x, 0), compare("GreaterOrEqual", y, zero))
    invalid = where(
        compare("Or", predicate("IsNaN", x), predicate("IsNaN", y)), gap, constant_like(x, math.inf)
    )
    return where(both, value, where(nothing, zero, invalid))


def _kl_divergence(x: GraphValue, y: GraphValue) -> GraphValue:
    return binary("Add", binary("Sub", _relative_entropy(x, y), x), y)


def _huber(delta: GraphValue, r: GraphValue) -> GraphValue:
    """Compute the Huber loss: quadratic up to delta, linear beyond, infinite for a negative delta."""
    size = unary("Abs", r)
    half = constant_like(r, 0.5)
    inside = binary("Mul", half, binary("Mul", r, r))
    outside = binary("Mul", delta, binary("Sub", size, binary("Mul", half, delta)))
    value = where(compare("LessOrEqual", size, delta), inside, outside)
    return where(_less(delta, 0), constant_like(r, math.inf), value)


def _pseudo_huber(delta: GraphValue, r: GraphValue) -> GraphValue:
    """Compute delta^2 (sqrt(1 + (r / delta)^2) - 1) without cancellation for small r."""
    unusable = compare("LessOrEqual", delta, constant_like(delta, 0))
    width = where(unusable, constant_like(delta, 1), delta)
    ratio = binary("Div", r, width)
    root = sci("Hypot", constant_like(r, 1), ratio)
    value = binary("Div", binary("Mul", r, r), _shifted(root, 1))
    at_zero = where(_is(delta, 0), constant_like(r, 0), constant_like(r, math.inf))
    return where(unusable, at_zero, value)


def _by_series(
    x: GraphValue, bound: float, coefficients: Sequence[float], formula: Callable[[GraphValue], GraphValue]
) -> GraphValue:
    """Evaluate a power series near 0 and a formula elsewhere, with the derivatives of each."""
    small = compare("Less", unary("Abs", x), constant_like(x, bound))
    t = _guarded(small, x, 0)
    series = constant_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        series = binary("Add", binary("Mul", series, t), constant_like(x, coefficient))
    return where(small, series, formula(where(small, constant_like(x, 1), x)))


_EXPREL = [1 / math.factorial(n) for n in range(1, 13)]
_LOG1P = [(-1) ** n / (n + 1) for n in range(18)]


def _exprel(x: GraphValue) -> GraphValue:
    """Compute (exp(x) - 1) / x."""
    return _by_series(x, 0.1, _EXPREL, lambda away: binary("Div", sci("Expm1", away), away))


def _boxcox(x: GraphValue, power: GraphValue) -> GraphValue:
    """Compute (x^power - 1) / power, the logarithm for power 0."""
    return _power_transform(unary("Log", x), power)


def _boxcox1p(x: GraphValue, power: GraphValue) -> GraphValue:
    return _power_transform(sci("Log1p", x), power)


def _power_transform(logarithm: GraphValue, power: GraphValue) -> GraphValue:
    """Compute (exp(power logarithm) - 1) / power, by exprel only near 0: its slope would cancel elsewhere."""
    exponent = binary("Mul", power, logarithm)
    near = compare("Less", unary("Abs", exponent), constant_like(exponent, 1))
    close = binary("Mul", logarithm, _exprel(_guarded(near, exponent, 0)))
    safe = where(near, constant_like(power, 1), power)
    far = binary(
        "Div", sci("Expm1", where(near, constant_like(exponent, 1), binary("Mul", safe, logarithm))), safe
    )
    return where(near, close, far)


def _inverse_boxcox(y: GraphValue, power: GraphValue) -> GraphValue:
    return unary("Exp", _log1p_over(y, power))


def _inverse_boxcox1p(y: GraphValue, power: GraphValue) -> GraphValue:
    return sci("Expm1", _log1p_over(y, power))


def _log1p_over(y: GraphValue, power: GraphValue) -> GraphValue:
    """Compute log(1 + power y) / power, y for power 0, as y times log(1 + z) / z at z = power y."""
    ratio = _by_series(
        binary("Mul", power, y), 0.1, _LOG1P, lambda away: binary("Div", sci("Log1p", away), away)
    )
    return binary("Mul", y, ratio)


def _exp10(x: GraphValue) -> GraphValue:
    return binary("Pow", constant_like(x, 10), x)


def _cosm1(x: GraphValue) -> GraphValue:
    """Compute cos(x) - 1 without cancellation, as -2 sin^2(x / 2)."""
    sine = unary("Sin", _scaled(0.5, x))
    return _scaled(-2, binary("Mul", sine, sine))


def _powm1(x: GraphValue, y: GraphValue) -> GraphValue:
    return sci("Expm1", sci("Xlogy", y, x))


def _chi_square(op: str, degrees: GraphValue, x: GraphValue) -> GraphValue:
    return sci(op, _scaled(0.5, degrees), _scaled(0.5, x))


def _gamma_distribution(op: str, rate: GraphValue, shape: GraphValue, x: GraphValue) -> GraphValue:
    return sci(op, shape, binary("Mul", rate, x))


def _betainc_complement(a: GraphValue, b: GraphValue, x: GraphValue) -> GraphValue:
    return sci("Betainc", b, a, binary("Sub", constant_like(x, 1), x))


def _student(degrees: GraphValue, t: GraphValue) -> GraphValue:
    """Compute the distribution function of Student's t, in the middle as that of a beta variable.

    With u = t / sqrt(degrees + t^2) it is I((1 + u) / 2; degrees / 2, degrees / 2), smooth at 0.
    """
    square = binary("Mul", t, t)
    half = _scaled(0.5, degrees)
    middle = compare("Less", square, degrees)
    near = _guarded(middle, t, 0)
    root = unary("Sqrt", binary("Add", degrees, binary("Mul", near, near)))
    inner = sci("Betainc", half, half, _shifted(_scaled(0.5, binary("Div", near, root)), 0.5))
    share = binary("Div", degrees, binary("Add", degrees, where(middle, degrees, square)))
    tail = _scaled(0.5, sci("Betainc", half, constant_like(t, 0.5), share))
    outer = where(_less(t, 0), tail, binary("Sub", constant_like(t, 1), tail))
    return where(middle, inner, outer)


def _fisher(dfn: GraphValue, dfd: GraphValue, x: GraphValue) -> GraphValue:
    """Compute the distribution function of Fisher's F."""
    part = binary("Mul", dfn, x)
    share = binary("Div", part, binary("Add", dfd, part))
    return sci("Betainc", _scaled(0.5, dfn), _scaled(0.5, dfd), share)


def _degrees(op: str, x: GraphValue) -> GraphValue:
    return unary(op, _scaled(math.pi / 180, x))


def _radian(degrees: GraphValue, minutes: GraphValue, seconds: GraphValue) -> GraphValue:
    total = binary("Add", binary("Add", degrees, _scaled(1 / 60, minutes)), _scaled(1 / 3600, seconds))
    return _scaled(math.pi / 180, total)


_SCI = {
    "gammaln": "Lgamma", "loggamma": "Lgamma", "psi": "Digamma", "digamma": "Digamma", "erfc": "Erfc",
    "erfinv": "Erfinv", "expit": "Expit", "xlogy": "Xlogy", "gammainc": "Igamma", "gammaincc": "Igammac",
    "betainc": "Betainc", "i0": "BesselI0", "i1": "BesselI1", "i0e": "BesselI0e", "i1e": "BesselI1e",
    "log_ndtr": "LogNdtr", "ndtri": "Ndtri",
}  # fmt: skip

SPECIAL: dict[str, Callable[..., GraphValue | tuple[GraphValue, ...]]] = {
    **{name: partial(sci, op) for name, op in _SCI.items()},
    "erf": partial(unary, "Erf"),
    "gamma": _gamma,
    "gammasgn": _sign_or_nan,
    "rgamma": _reciprocal_gamma,
    "beta": _beta,
    "betaln": _betaln,
    "betaincc": _betainc_complement,
    "poch": _pochhammer,
    "binom": _binomial,
    "logit": _logit,
    "log_expit": _log_expit,
    "softplus": _softplus,
    "ndtr": _ndtr,
    "erfcinv": _erfcinv,
    "xlog1py": _xlog1py,
    "entr": _entropy,
    "rel_entr": _relative_entropy,
    "kl_div": _kl_divergence,
    "huber": _huber,
    "pseudo_huber": _pseudo_huber,
    "exprel": _exprel,
    "boxcox": _boxcox,
    "boxcox1p": _boxcox1p,
    "inv_boxcox": _inverse_boxcox,
    "inv_boxcox1p": _inverse_boxcox1p,
    "exp10": _exp10,
    "cosm1": _cosm1,
    "powm1": _powm1,
    "chdtr": partial(_chi_square, "Igamma"),
    "chdtrc": partial(_chi_square, "Igammac"),
    "gdtr": partial(_gamma_distribution, "Igamma"),
    "gdtrc": partial(_gamma_distribution, "Igammac"),
    "stdtr": _student,
    "fdtr": _fisher,
    "sindg": partial(_degrees, "Sin"),
    "cosdg": partial(_degrees, "Cos"),
    "tandg": partial(_degrees, "Tan"),
    "radian": _radian,
    "round": partial(unary, "Round"),
}
"""Rules by the ufunc's name; operands have the dtypes of SciPy's loop for them."""
