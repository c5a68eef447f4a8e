"""Which processes count as frozen: those that the system runs no thread of, and no others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from gradwire_server.process.heartbeat import Activity, Gone, Place, Watch, activity_of

BUSY_WITH_THE_LOCK = """
from gradwire_server.process.heartbeat import beat
beat()
print("ready", flush=True)
import re
re.match("(a?){29}a{29}", "a" * 29)  # minutes in C, with Python's lock
"""
IDLE = """
from gradwire_server.process.heartbeat import beat
beat()
print("ready", flush=True)
import sys
sys.stdin.read()
"""


def watched(program: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_stopped_process_is_frozen_and_an_idle_one_and_one_that_keeps_the_lock_are_not() -> None:
    with watched(BUSY_WITH_THE_LOCK) as busy, watched(IDLE) as idle, watched(IDLE) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        watch, found = Watch(2.5), dict[int, str]()
        began = time.monotonic()
        while not found and time.monotonic() < began + 20:
            time.sleep(0.5)
            found = watch.look((busy.pid, idle.pid, stopped.pid), time.monotonic())
        assert found == {stopped.pid: "frozen"}
        places = [Place.of(process.pid) for process in (busy, idle, stopped)]
        for place in places:
            assert place.is_here
            place.kill()
        for process in (busy, idle, stopped):
            assert process.wait(5) == -signal.SIGKILL
        with pytest.raises(Gone):
            activity_of(stopped.pid)


def test_a_place_kills_no_other_process_that_got_its_id() -> None:
    with watched(IDLE) as process:
        place = Place.of(process.pid)
        Place(process.pid, place.machine, b"1").kill()
        Place(process.pid, "elsewhere", place.started).kill()
        time.sleep(0.1)
        assert process.poll() is None
        place.kill()


def test_a_process_that_is_runnable_or_not_counted_is_not_frozen_and_a_late_look_tells_nothing() -> None:
    counts: dict[int, Activity | None] = {1: Activity(5, True), 2: None, 3: Activity(5, False)}
    watch = Watch(10.0, counts.__getitem__)
    assert watch.look((1, 2, 3), 100.0) == {}
    assert watch.look((1, 2, 3), 109.0) == {}
    assert watch.look((1, 2, 3), 110.0) == {3: "frozen"}
    assert watch.look((1, 2, 3), 130.0) == {}  # the one who looks was frozen itself
    counts[3] = Activity(6, False)
    assert watch.look((3,), 139.0) == {}
    assert watch.look((3,), 148.0) == {}
    assert watch.look((3,), 149.0) == {3: "frozen"}


def test_a_process_that_has_ended_is_found_at_the_next_look() -> None:
    def gone(process_id: int) -> Activity | None:
        raise Gone

    assert Watch(10.0, gone).look((1,), 5.0) == {1: "died"}
