"""Peers that cost workers: slowed after a few, refused when they go on, forgiven later; others never."""

from __future__ import annotations

import pytest

from gradwire_server.access.stopped_workers import StoppedWorkers
from gradwire_server.errors import TryLater

ALICE, BOB = "tenant alice", "ipv4:10.0.0.1"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_is_free_two_come_last_more_than_three_slow_a_peer_and_time_forgives() -> None:
    clock = Clock()
    stopped = StoppedWorkers(clock)
    stopped.note(ALICE)
    assert not stopped.last(ALICE)
    for _ in range(2):
        stopped.note(ALICE)
    assert stopped.last(ALICE) and not stopped.last(BOB)
    assert not stopped.slowed(ALICE) and stopped.pause(ALICE) == 0
    stopped.note(ALICE)
    assert stopped.slowed(ALICE) and stopped.pause(ALICE) == 1.0
    assert not stopped.slowed(BOB) and stopped.pause(BOB) == 0
    for _ in range(9):
        stopped.note(ALICE)
    assert stopped.pause(ALICE) == 4.0
    clock.now += 3
    assert stopped.slowed(ALICE) and stopped.pause(ALICE) == 1.0
    clock.now += 8
    assert not stopped.slowed(ALICE)


def test_a_peer_that_goes_on_is_refused_and_told_when_to_come_again() -> None:
    clock = Clock()
    stopped = StoppedWorkers(clock)
    for _ in range(20):
        stopped.check(ALICE)
        stopped.note(ALICE)
        clock.now += 1
    with pytest.raises(TryLater, match="20 times within 60 s") as caught:
        stopped.check(ALICE)
    stopped.check(BOB)
    stopped.check("")
    stopped.note("")
    assert not stopped.last("")
    clock.now += caught.value.seconds
    stopped.check(ALICE)
