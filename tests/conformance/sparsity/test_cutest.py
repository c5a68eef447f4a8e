"""Thirty small problems of CUTEst: no entry of a Hessian or of a constraint's Jacobian is missed.

All of them, with asdex's opinion beside: `make sparsity`.
"""

from __future__ import annotations

import pytest

from tests.conformance.sparsity.table import lines_of

THIRTY = {
    "_bounded_minimisation": ["camel6", "himmelp1", "jnlbrng1", "logros", "palmer8a"],
    "_constrained_minimisation": [
        "batch",
        "bt11",
        "cresc4",
        "hs100",
        "hs104",
        "hs116",
        "hs67",
        "hs83",
        "hs93",
        "hs99exp",
        "oet2",
        "polak3",
        "portfl2",
        "tenbars1",
    ],
    "_nonlinear_equations": ["heart6", "box3ne", "daniwood", "gottfr", "powellse"],
    "_quadratic_problems": ["cvxqp1", "hatfldh"],
    "_unconstrained_minimisation": ["allinitu", "rosenbr", "watson", "woods"],
}
"""Modules of sif2jax, by group: between 2 and some hundred variables."""

EXPLAINED: dict[str, str] = {}
"""Primitives that may be taken for dense, with the reason."""


@pytest.mark.parametrize("name", [f"{group}.{name}" for group, names in THIRTY.items() for name in names])
def test_no_entry_of_a_problems_derivatives_is_missed(name: str) -> None:
    lines = list(lines_of(name, opinion=False))
    assert lines
    for line in lines:
        assert line.found is not None, line
        assert not line.found.missed, line
        assert set(line.found.dense_primitives) <= EXPLAINED.keys(), line
