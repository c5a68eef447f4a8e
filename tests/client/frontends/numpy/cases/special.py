"""SciPy's special functions, and those of `gradwire.special`."""

from __future__ import annotations

import numpy as np
import scipy.special

from tests.client.frontends.numpy.cases.case import Case

RNG = np.random.default_rng(13)
ANY = np.array([-30.0, -2.3, -0.4, 0.3, 1.7, 9.2])
POSITIVE = np.array([0.1, 0.5, 1.2, 2.4, 7.0, 30.0])
OTHER = np.array([0.3, 0.52, 2.0, 1.9, 6.9, 31.5])
UNIT = np.array([0.01, 0.3, 0.499, 0.51, 0.7, 0.99])

OF_ANY = """
    erf erfc expit log_expit ndtr log_ndtr exp10 cosm1 sindg cosdg tandg i0 i1 i0e i1e exprel softplus round
    exp2 cbrt
""".split()  # noqa: SIM905
OFF_POLES = np.array([-3.7, -2.3, -0.4, 0.3, 1.7, 9.2])
OF_ALL_BUT_POLES = "gamma gammasgn rgamma".split()  # noqa: SIM905
OF_POSITIVE = "gammaln loggamma psi digamma entr gamma i0 i1 log1p".split()  # noqa: SIM905
OF_UNIT = "erfinv erfcinv logit ndtri expm1".split()  # noqa: SIM905
OF_TWO = """
    beta betaln binom poch gammainc gammaincc xlogy xlog1py rel_entr kl_div huber pseudo_huber boxcox boxcox1p
    inv_boxcox inv_boxcox1p powm1 chdtr chdtrc
""".split()  # noqa: SIM905


def _of_the_last(name: str, *fixed: np.ndarray) -> Case:
    """A function that has a derivative with respect to its last argument only."""
    function = getattr(scipy.special, name)
    return Case(lambda x: function(*fixed, x), (UNIT,))


CASES: dict[str, Case] = {
    **{name: Case(getattr(scipy.special, name), (OFF_POLES,)) for name in OF_ALL_BUT_POLES},
    **{name: Case(getattr(scipy.special, name), (ANY,)) for name in OF_ANY},
    **{
        f"{name} of positive numbers": Case(getattr(scipy.special, name), (POSITIVE,)) for name in OF_POSITIVE
    },
    **{f"{name} of shares": Case(getattr(scipy.special, name), (UNIT,)) for name in OF_UNIT},
    **{name: Case(getattr(scipy.special, name), (POSITIVE, OTHER)) for name in OF_TWO},
    "betainc": _of_the_last("betainc", POSITIVE, OTHER),
    "betaincc": _of_the_last("betaincc", POSITIVE, OTHER),
    "fdtr": _of_the_last("fdtr", POSITIVE, OTHER),
    "stdtr": _of_the_last("stdtr", POSITIVE),
    "gdtr": Case(scipy.special.gdtr, (POSITIVE, OTHER, UNIT)),
    "gdtrc": Case(scipy.special.gdtrc, (POSITIVE, OTHER, UNIT)),
    "radian": Case(scipy.special.radian, (POSITIVE, OTHER, UNIT)),
    "beta of negative numbers": Case(
        scipy.special.beta, (np.array([-0.5, -1.3, 2.5]), np.array([2.2, 3.1, -0.7]))
    ),
    "binom of large numbers": Case(
        scipy.special.binom, (np.array([-0.5, 5.0, 50.0, 5.5]), np.array([2.2, 3.0, 20.0, 2.0]))
    ),
}
"""Rounding and signs have derivative zero, which is checked like any other."""
