"""Compiling without XLA's most expensive optimizations, where a test is about the numbers of one operator.

A test of a rule compiles a dozen small programs and runs each once. What the optimizations themselves do to
numbers is seen by the tests of kernels, plans and whole requests, and by `make derivatives`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compiling() -> Iterator[None]:
    """Compile quickly for the length of a test, unless the full set of cases was asked for."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", os.environ.get("TEST_GRADWIRE_DERIVATIVES") != "full")
    yield
    jax.config.update("jax_disable_most_optimizations", before)
