"""Compiling without XLA's most expensive optimizations, where a test is about the numbers of one operator.

A test of a rule compiles a dozen small programs and runs each once. What the optimizations themselves do to
numbers is seen by the tests of kernels, plans and whole requests, and by `make derivatives`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import jax
import pytest

FULL = os.environ.get("TEST_GRADWIRE_DERIVATIVES") == "full"

PLAINLY = not FULL and os.environ.get("TEST_GRADWIRE_COMPILE") != "users"
"""Whether this process compiles in XLA's older way."""

_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""XLA's older way from programs to machine code takes half the time for the small programs of tests."""


def compile_plainly() -> None:
    """Have this process alone compile in XLA's older way, unless the full set of cases was asked for.

    Servers that tests start compile as they do for users, and so do processes that tests start with the
    variable TEST_GRADWIRE_COMPILE=users.
    """
    if not PLAINLY:
        return
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} {_FLAGS}"
    jax.jit(lambda x: x)(0).block_until_ready()  # XLA reads its flags once
    if before is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = before


@pytest.fixture(autouse=True)
def quick_compiling() -> Iterator[None]:
    """Compile quickly for the length of a test, unless the full set of cases was asked for."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not FULL)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
