"""Runs every offline test of onnx's backend suite against the engine.

The tests that the engine refuses are listed in expected_failures.toml and have to be refused by name: an
unexpected pass fails as much as an unexpected failure.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from functools import wraps

import pytest

from gradwire_engine.errors import EngineError
from tests.conformance import suite
from tests.conformance.onnx_backend import EngineBackend

TestFunction = Callable[[unittest.TestCase], None]


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
    _expected = suite.expected_failure(_name)
    setattr(_cases[_category], _name, _test if _expected is None else _refused(_test, _expected))
globals().update((case.__name__, case) for case in _cases.values())


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
