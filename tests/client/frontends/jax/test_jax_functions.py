"""A table of JAX functions: converted ones have the values, dtypes, shapes and Jacobians of JAX's own."""

from __future__ import annotations

import pytest

from tests.client.frontends.jax.jax_oracle import agree, floating, jacobians_agree
from tests.client.frontends.jax.jax_programs import ROWS
from tests.client.frontends.jax.jax_table import Row

FAMILIES_DIFFERENTIATED = ("indexing", "windows", "linalg", "control flow", "programs")

# JAX has no derivative of a product scattered to repeated places, no forward mode of its odeint, and nobody
# one of the incomplete beta function with respect to its parameters.
WITHOUT_ORACLE = {
    "indexing: divide",
    "indexing: multiply",
    "programs: betainc ab",
    "programs: odeint",
}

DIFFERENTIATED = [
    row
    for row in ROWS
    if row[0].startswith(FAMILIES_DIFFERENTIATED) and row[0] not in WITHOUT_ORACLE and floating(row)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_converted_function_has_the_values_that_calling_it_gives(row: Row) -> None:
    _, fn, arguments = row
    agree(fn, *arguments)


@pytest.mark.parametrize("row", DIFFERENTIATED, ids=lambda row: row[0])
def test_a_converted_function_has_the_jacobian_that_jax_gives(row: Row) -> None:
    _, fn, arguments = row
    jacobians_agree(fn, *arguments)


def test_the_table_has_more_than_400_functions() -> None:
    assert len(ROWS) > 400
    assert len(DIFFERENTIATED) > 90
