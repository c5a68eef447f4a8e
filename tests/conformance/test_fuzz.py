"""Runs the fuzzer for a short time; `make fuzz` runs it for long."""

from __future__ import annotations

import pytest

from tests.conformance import fuzz, mutations


@pytest.mark.timeout(900)
def test_every_mutated_model_gives_a_result_or_a_named_error() -> None:
    report = fuzz.run(600)
    assert not report.failures, "\n".join(fuzz.summary(report))
    assert report.outcomes.total() == 600
    accepted = sum(report.outcomes[name] for name in ("registered", "compiled", "differentiated"))
    assert accepted > 30 and report.outcomes["differentiated"] > 3, report.outcomes


def test_inputs_of_the_fuzzer_are_the_same_in_every_run() -> None:
    assert mutations.generate(17) == mutations.generate(17) != mutations.generate(18)
