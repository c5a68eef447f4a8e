"""Runs the fuzzer of the wire for a short time; `make fuzz-wire` runs it for long, and watches the delays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.server.fuzz import run
from tests.server.fuzz.requests import generate
from tests.server.fuzz.world import KINDS, begin

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


@pytest.mark.timeout(300)
def test_every_mutated_request_has_an_answer_or_a_named_refusal(server: EmbeddedServer) -> None:
    report = run.run(server.address, server.process_id, 60 * len(KINDS))
    assert not list(report.defects()), "\n".join(run.table(report))
    for method, one in report.calls.items():
        assert len(one.spans) == 60 and one.health, method
        assert one.statuses["OK"] and one.statuses["INVALID_ARGUMENT"], (method, one.statuses)


def test_requests_of_the_fuzzer_are_the_same_in_every_run(channel: grpc.Channel) -> None:
    worlds = begin(channel), begin(channel)
    for method in KINDS:
        assert generate(worlds[0], method, 7) == generate(worlds[1], method, 7)
