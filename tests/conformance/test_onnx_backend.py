"""Runs every offline test of onnx's backend suite against the engine.

The tests that the engine refuses are listed in expected_failures.toml and have to be refused by name: an
unexpected pass fails as much as an unexpected failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import wraps

import pytest

from gradwire_engine.errors import EngineError
from tests.conformance import suite
from tests.conformance.onnx_backend import EngineBackend
from tests.quick_compiling import PLAINLY

TestFunction = Callable[[unittest.TestCase], None]


WRONG_PLAINLY = "*FNUZ*"
"""What XLA's older way computes wrongly: conversions to 8-bit numbers without a negative zero."""

ERRORS = {"EngineError": EngineError, "AssertionError": AssertionError, "TypeError": TypeError}


def _refused(test: TestFunction, expected: suite.Deviation) -> TestFunction:
    @wraps(test)
    def refused(self: unittest.TestCase) -> None:
        try:
            test(self)
        except ERRORS[expected.raises]:
            return
        pytest.fail(f"passes now; take it out of {suite.EXPECTED_FAILURES.name}: {expected.reason}")

    return refused


def _test_case(category: str) -> type[unittest.TestCase]:
    return type(f"Test{category}", (unittest.TestCase,), {"__module__": __name__})


_cases = {category: _test_case(category) for category in suite.CATEGORIES}
for _category, _name, _test in suite.functions(EngineBackend, suite.tolerances()):
    if PLAINLY and fnmatchcase(_name, WRONG_PLAINLY):
        continue
    _expected = suite.expected_failure(_name)
    setattr(_cases[_category], _name, _test if _expected is None else _refused(_test, _expected))
globals().update((case.__name__, case) for case in _cases.values())


@pytest.mark.skipif(not PLAINLY, reason="they run with all others")
def test_what_is_wrong_when_compiled_plainly_is_right_when_compiled_as_for_users() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "FNUZ"]
    environment = {**os.environ, "TEST_GRADWIRE_COMPILE": "users"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    names = [test.name for test in suite.tests() if fnmatchcase(test.name, WRONG_PLAINLY)]
    assert f"{len(names)} passed" in done.stdout and len(names) > 20, done.stdout[-4000:]


def test_every_expected_failure_names_a_test_of_the_suite() -> None:
    names = {test.name for test in suite.tests()}
    unmatched = [
        pattern
        for item in suite.deviations()
        for pattern in item.tests
        if not any(suite.fnmatchcase(name, pattern) for name in names)
    ]
    assert not unmatched, f"no test of the suite is called {unmatched}"


def test_the_suite_is_whole() -> None:
    counts = dict.fromkeys(suite.CATEGORIES, 0)
    for test in suite.tests():
        counts[test.category] += 1
    assert counts["Node"] >= 1884 and sum(counts.values()) >= 2024, counts
