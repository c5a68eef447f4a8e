"""The round of shares: fairness, losses, limits; with workers that only pretend to work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gradwire_server.compute.scheduler import Scheduler, Worker
from gradwire_server.errors import Overloaded, TimeLimit, Unavailable, WorkerLost


class Pretender:
    """A worker whose method names say what to do."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log
        self.killed = self.dead = False

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self.dead:
            self.log.append("poison's successor")
            raise WorkerLost(self.name)
        self.log.append(arguments[0])
        if arguments[0] == "poison":
            self.dead = True
            await asyncio.sleep(0.001)
            raise WorkerLost(self.name)
        if method == "lose":
            raise WorkerLost(self.name)
        if method == "fail":
            raise ValueError(arguments[0])
        await asyncio.sleep(60 if method == "hang" else 0.001)
        return arguments[0]

    def kill(self) -> None:
        self.killed = True


Make = Callable[..., tuple[Scheduler, list[Any]]]


@pytest.fixture
def make() -> Make:
    def build(workers: int = 1, replace: bool = True, **options: Any) -> tuple[Scheduler, list[Any]]:
        scheduler = Scheduler(**{"attempts": 3, "grace": 0.02, "queue_length": 100, **options})
        log: list[Any] = []
        count = iter(range(1000))

        def lost(worker: Worker) -> None:
            if replace:
                scheduler.add(Pretender(f"w{next(count)}", log))

        scheduler.on_lost = lost
        for _ in range(workers):
            scheduler.add(Pretender(f"w{next(count)}", log))
        return scheduler, log

    return build


async def test_requests_take_turns(make: Make) -> None:
    scheduler, log = make()
    large, small = scheduler.open(), scheduler.open()
    pieces = [large.submit("work", f"large {i}", seconds=9) for i in range(4)]
    pieces += [small.submit("work", f"small {i}", seconds=9) for i in range(2)]
    await asyncio.gather(*(piece.future for piece in pieces))
    assert log == ["large 0", "large 1", "small 0", "large 2", "small 1", "large 3"]


async def test_a_worker_has_one_piece_at_a_time_and_all_workers_have_one(make: Make) -> None:
    scheduler, log = make(workers=2)
    share = scheduler.open()
    pieces = [share.submit("work", index, seconds=9) for index in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [0, 1]
    await pieces[2].future
    assert {piece.worker for piece in pieces} == {"w0", "w1"}


async def test_a_piece_whose_worker_is_lost_runs_again_and_is_counted(make: Make) -> None:
    scheduler, log = make(workers=1, replace=False)
    share = scheduler.open()
    piece = share.submit("lose", "x", seconds=9)
    await asyncio.sleep(0.01)
    assert not piece.future.done()
    piece.method = "work"
    scheduler.add(Pretender("later", log))
    assert await piece.future == "x"
    assert (share.reruns, piece.worker) == (1, "later")


async def test_a_piece_that_loses_every_worker_fails_in_the_end(make: Make) -> None:
    scheduler, log = make()
    with pytest.raises(WorkerLost, match="3 workers"):
        await scheduler.call("lose", "x", seconds=9)
    assert log == ["x"] * 3


async def test_an_error_is_the_callers_and_the_worker_goes_on(make: Make) -> None:
    scheduler, _ = make()
    with pytest.raises(ValueError, match="no good"):
        await scheduler.call("fail", "no good", seconds=9)
    assert await scheduler.call("work", 1, seconds=9) == (1, "w0")


async def test_a_piece_past_its_time_fails_and_its_worker_is_replaced(make: Make) -> None:
    scheduler, _ = make()
    with pytest.raises(TimeLimit, match="took over 0"):
        await scheduler.call("hang", 1, seconds=0.01)
    assert await scheduler.call("work", 2, seconds=9) == (2, "w1")


async def test_closing_a_share_drops_what_waits_and_replaces_a_worker_that_stays_busy(make: Make) -> None:
    scheduler, log = make()
    (worker,) = scheduler.workers
    share = scheduler.open()
    share.submit("hang", "running", seconds=60)
    share.submit("work", "waiting", seconds=60)
    await asyncio.sleep(0.005)
    share.close()
    assert await scheduler.call("work", "next", seconds=9) == ("next", "w1")
    assert log == ["running", "next"]
    assert isinstance(worker, Pretender) and worker.killed


async def test_abandoned_work_that_ends_soon_costs_no_worker(make: Make) -> None:
    scheduler, _ = make(grace=5)
    share = scheduler.open()
    share.submit("work", 1, seconds=9)
    await asyncio.sleep(0)
    share.close()
    assert await scheduler.call("work", 2, seconds=9) == (2, "w0")


async def test_too_many_waiting_requests_are_refused_but_those_begun_go_on(make: Make) -> None:
    scheduler, _ = make(queue_length=2)
    begun = scheduler.open()
    pieces = [begun.submit("work", 0, seconds=9)]
    pieces += [scheduler.open().submit("work", index, seconds=9) for index in (1, 2)]
    with pytest.raises(Overloaded) as caught:
        scheduler.open().submit("work", 3, seconds=9)
    assert (caught.value.limit, caught.value.allowed) == ("queue", 2)
    pieces.append(begun.submit("work", 4, seconds=9))
    assert await asyncio.gather(*(piece.future for piece in pieces)) == [0, 1, 2, 4]


async def test_work_is_refused_when_no_worker_is_to_come(make: Make) -> None:
    scheduler, _ = make(workers=0)
    waiting = scheduler.open().submit("work", 1, seconds=9)
    scheduler.expecting = False
    scheduler.fail_waiting(Unavailable("none"))
    with pytest.raises(Unavailable):
        await waiting.future
    with pytest.raises(Unavailable):
        scheduler.open().submit("work", 1, seconds=9)


async def test_a_retired_worker_finishes_and_takes_no_more(make: Make) -> None:
    scheduler, log = make()
    (first,) = scheduler.workers
    piece = scheduler.open().submit("work", 1, seconds=9)
    await asyncio.sleep(0)
    scheduler.retire(first)
    scheduler.add(Pretender("new", log))
    assert await piece.future == 1
    assert await scheduler.call("work", 2, seconds=9) == (2, "new")
    assert isinstance(first, Pretender) and first.killed


async def test_a_block_or_batch_waits_behind_another_only_when_all_workers_are_busy(make: Make) -> None:
    scheduler, _ = make(workers=2)
    share = scheduler.open()
    pieces = [share.submit(("block", "batch")[index % 2], index, seconds=9) for index in range(5)]
    assert [piece.worker for piece in pieces] == ["w0", "w1", "w0", "w1", ""]
    assert await asyncio.gather(*(piece.future for piece in pieces)) == [0, 1, 2, 3, 4]


async def test_other_work_never_waits_behind_a_block_or_a_block_behind_it(make: Make) -> None:
    scheduler, _ = make()
    share = scheduler.open()
    pieces = [share.submit(method, method, seconds=9) for method in ("block", "work", "block")]
    assert [piece.worker for piece in pieces] == ["w0", "", ""]
    await pieces[1].future
    assert not pieces[2].future.done()
    assert await pieces[2].future == "block"


async def test_a_block_behind_one_that_is_lost_runs_again_and_is_not_blamed(make: Make) -> None:
    scheduler, log = make(attempts=1)
    share = scheduler.open()
    first, second = (share.submit("block", name, seconds=9) for name in ("poison", "innocent"))
    with pytest.raises(WorkerLost):
        await first.future
    assert await second.future == "innocent"
    assert share.reruns == 1
    assert log == ["poison", "poison's successor", "innocent"]
