"""NumPy's ufuncs, each at points off its kinks."""

from __future__ import annotations

import numpy as np

from tests.client.frontends.numpy.cases.case import Case

RNG = np.random.default_rng(16)
X = RNG.uniform(0.15, 0.35, size=(3, 4)) + RNG.integers(-3, 3, size=(3, 4))
Y = RNG.uniform(0.4, 0.48, size=(3, 4)) + RNG.integers(-2, 2, size=(3, 4))
UNIT = RNG.uniform(0.05, 0.95, size=(3, 4))
POSITIVE = UNIT * 4
INTS, SMALL = np.array([12, 5, 100, 3]), np.array([1, 2, 3, 0])
M = RNG.normal(size=(2, 3, 4))

SMOOTH = """
    sin cos tan arctan sinh cosh tanh arcsinh exp exp2 expm1 square absolute fabs negative positive sign floor
    ceil rint trunc cbrt deg2rad rad2deg degrees radians conjugate
    modf
""".split()  # noqa: SIM905
ON_UNIT = "arcsin arccos arctanh sqrt log log2 log10 log1p reciprocal".split()  # noqa: SIM905
OF_TWO = """
    add subtract multiply divide maximum minimum fmax fmin arctan2 hypot logaddexp logaddexp2 remainder fmod
    floor_divide copysign heaviside divmod
""".split()  # noqa: SIM905
LOGICAL = """
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor
""".split()  # noqa: SIM905
TESTS = "isnan isinf isfinite signbit logical_not".split()  # noqa: SIM905
BITS = "bitwise_and bitwise_or bitwise_xor left_shift right_shift".split()  # noqa: SIM905

CASES: dict[str, Case] = {
    **{name: Case(getattr(np, name), (X,)) for name in SMOOTH},
    **{f"{name} of shares": Case(getattr(np, name), (UNIT,)) for name in ON_UNIT},
    **{name: Case(getattr(np, name), (X, Y)) for name in OF_TWO},
    **{name: Case(getattr(np, name), (X, Y), slope_rtol=None) for name in LOGICAL},
    **{name: Case(getattr(np, name), (X,), slope_rtol=None) for name in TESTS},
    **{name: Case(getattr(np, name), (INTS, SMALL), slope_rtol=None) for name in BITS},
    "invert": Case(np.invert, (INTS,), slope_rtol=None),
    "arccosh": Case(np.arccosh, (POSITIVE + 1.1,)),
    "power": Case(lambda x, y: (np.power(x, y), np.float_power(x, y), x**3, x**-0.5), (POSITIVE, Y)),
    "ldexp": Case(lambda x: np.ldexp(x, 3), (X,)),
    "matmul": Case(lambda a, b: (np.matmul(a, b), np.matvec(a, b[:, 0]), np.vecdot(a, b.T)), (M, M[0].T)),
    "vecmat": Case(lambda v, a: np.vecmat(v, a), (X[:, 0], M)),
}
