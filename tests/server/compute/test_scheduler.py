"""The queues that take turns: fairness, losses, limits; with workers that only pretend to work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.compute.worker import Worker
from gradwire_server.errors import Overloaded, TimeLimit, Unavailable, WorkerLost
from gradwire_server.observe import events


@dataclass
class Act:
    """A request whose name says what the worker does with `what`."""

    name: str
    what: Any

    @property
    def pipelined(self) -> bool:
        return self.name in ("block", "batch")

    async def send(self, worker: Any) -> Any:
        return await worker.act(self.name, self.what)


class Pretender:
    """A worker that acts."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log
        self.killed = self.dead = False

    async def act(self, name: str, what: Any) -> Any:
        if self.dead:
            self.log.append("poison's successor")
            raise WorkerLost(self.name)
        self.log.append(what)
        if what == "poison":
            self.dead = True
            await asyncio.sleep(0.001)
            raise WorkerLost(self.name)
        if name == "lose":
            raise WorkerLost(self.name)
        if name == "fail":
            raise ValueError(what)
        await asyncio.sleep(60 if name == "hang" else 0.001)
        return what

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
    large, small = scheduler.queue(), scheduler.queue()
    tasks = [large.submit(Act("work", f"large {i}"), seconds=9) for i in range(4)]
    tasks += [small.submit(Act("work", f"small {i}"), seconds=9) for i in range(2)]
    await asyncio.gather(*(task.future for task in tasks))
    assert log == ["large 0", "large 1", "small 0", "large 2", "small 1", "large 3"]


async def test_a_worker_has_one_piece_at_a_time_and_all_workers_have_one(make: Make) -> None:
    scheduler, log = make(workers=2)
    queue = scheduler.queue()
    tasks = [queue.submit(Act("work", index), seconds=9) for index in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [0, 1]
    await tasks[2].future
    assert {task.worker for task in tasks} == {"w0", "w1"}


async def test_a_piece_whose_worker_is_lost_runs_again_and_is_counted(make: Make) -> None:
    scheduler, log = make(workers=1, replace=False)
    queue = scheduler.queue()
    task = queue.submit(Act("lose", "x"), seconds=9)
    await asyncio.sleep(0.01)
    assert not task.future.done()
    task.request = Act("work", "x")
    scheduler.add(Pretender("later", log))
    assert await task.future == "x"
    assert (queue.reruns, task.worker) == (1, "later")


async def test_a_piece_that_loses_every_worker_fails_in_the_end(make: Make) -> None:
    scheduler, log = make()
    with pytest.raises(WorkerLost, match="3 workers"):
        await scheduler.run(Act("lose", "x"), seconds=9)
    assert log == ["x"] * 3


async def test_an_error_is_the_callers_and_the_worker_goes_on(make: Make) -> None:
    scheduler, _ = make()
    with pytest.raises(ValueError, match="no good"):
        await scheduler.run(Act("fail", "no good"), seconds=9)
    assert await scheduler.run(Act("work", 1), seconds=9) == (1, "w0")


async def test_a_piece_past_its_time_fails_and_its_worker_is_replaced(make: Make) -> None:
    scheduler, _ = make()
    with pytest.raises(TimeLimit, match="took over 0"):
        await scheduler.run(Act("hang", 1), seconds=0.01)
    assert await scheduler.run(Act("work", 2), seconds=9) == (2, "w1")


async def test_closing_a_share_drops_what_waits_and_replaces_a_worker_that_stays_busy(make: Make) -> None:
    scheduler, log = make()
    (worker,) = scheduler.workers
    queue = scheduler.queue()
    queue.submit(Act("hang", "running"), seconds=60)
    queue.submit(Act("work", "waiting"), seconds=60)
    await asyncio.sleep(0.005)
    queue.close()
    assert await scheduler.run(Act("work", "next"), seconds=9) == ("next", "w1")
    assert log == ["running", "next"]
    assert isinstance(worker, Pretender) and worker.killed


async def test_abandoned_work_that_ends_soon_costs_no_worker(make: Make) -> None:
    scheduler, _ = make(grace=5)
    queue = scheduler.queue()
    queue.submit(Act("work", 1), seconds=9)
    await asyncio.sleep(0)
    queue.close()
    assert await scheduler.run(Act("work", 2), seconds=9) == (2, "w0")


async def test_too_many_waiting_requests_are_refused_but_those_begun_go_on(make: Make) -> None:
    scheduler, _ = make(queue_length=2)
    begun = scheduler.queue()
    tasks = [begun.submit(Act("work", 0), seconds=9)]
    tasks += [scheduler.queue().submit(Act("work", index), seconds=9) for index in (1, 2)]
    with pytest.raises(Overloaded) as caught:
        scheduler.queue().submit(Act("work", 3), seconds=9)
    assert (caught.value.limit, caught.value.allowed) == ("queue", 2)
    tasks.append(begun.submit(Act("work", 4), seconds=9))
    assert await asyncio.gather(*(task.future for task in tasks)) == [0, 1, 2, 4]


async def test_work_is_refused_when_no_worker_is_to_come(make: Make) -> None:
    scheduler, _ = make(workers=0)
    waiting = scheduler.queue().submit(Act("work", 1), seconds=9)
    scheduler.expecting = False
    scheduler.fail_waiting(Unavailable("none"))
    with pytest.raises(Unavailable):
        await waiting.future
    with pytest.raises(Unavailable):
        scheduler.queue().submit(Act("work", 1), seconds=9)


async def test_a_retired_worker_finishes_and_takes_no_more(make: Make) -> None:
    scheduler, log = make()
    (first,) = scheduler.workers
    task = scheduler.queue().submit(Act("work", 1), seconds=9)
    await asyncio.sleep(0)
    scheduler.retire(first)
    scheduler.add(Pretender("new", log))
    assert await task.future == 1
    assert await scheduler.run(Act("work", 2), seconds=9) == (2, "new")
    assert isinstance(first, Pretender) and first.killed


async def test_a_block_or_batch_waits_behind_another_only_when_all_workers_are_busy(make: Make) -> None:
    scheduler, _ = make(workers=2)
    queue = scheduler.queue()
    tasks = [queue.submit(Act(("block", "batch")[index % 2], index), seconds=9) for index in range(5)]
    assert [task.worker for task in tasks] == ["w0", "w1", "w0", "w1", ""]
    assert await asyncio.gather(*(task.future for task in tasks)) == [0, 1, 2, 3, 4]


async def test_other_work_never_waits_behind_a_block_or_a_block_behind_it(make: Make) -> None:
    scheduler, _ = make()
    queue = scheduler.queue()
    tasks = [queue.submit(Act(name, name), seconds=9) for name in ("block", "work", "block")]
    assert [task.worker for task in tasks] == ["w0", "", ""]
    await tasks[1].future
    assert not tasks[2].future.done()
    assert await tasks[2].future == "block"


async def test_a_block_behind_one_that_is_lost_runs_again_and_is_not_blamed(make: Make) -> None:
    scheduler, log = make(attempts=1)
    queue = scheduler.queue()
    first, second = (queue.submit(Act("block", name), seconds=9) for name in ("poison", "innocent"))
    with pytest.raises(WorkerLost):
        await first.future
    assert await second.future == "innocent"
    assert queue.reruns == 1
    assert log == ["poison", "poison's successor", "innocent"]


def test_a_request_comes_from_a_tenant_or_an_address_without_its_port() -> None:
    def origin(peer: str, tenant: str = "") -> str:
        return events.Request("id", "Plan", tenant, peer).origin

    assert origin("ipv4:10.0.0.1:5000", "alice") == "tenant alice"
    assert origin("ipv4:10.0.0.1:5000") == "ipv4:10.0.0.1"
    assert origin("ipv6:[::1]:5000") == "ipv6:[::1]"
    assert origin("unix:/a:1") == "unix:/a:1"


async def test_a_peer_that_cost_many_workers_gets_one_at_a_time_and_others_all_the_rest(make: Make) -> None:
    scheduler, _ = make(workers=3, grace=0)

    def ask(tenant: str, name: str) -> Any:
        events.serve(events.Request("id", "Evaluate", tenant=tenant))
        return scheduler.queue().submit(Act(name, tenant), seconds=60)

    for _ in range(4):
        ask("hasty", "hang").future.cancel()
        await asyncio.sleep(0.005)
    hasty = [ask("hasty", "work") for _ in range(3)]
    assert [task.worker for task in hasty] == ["", "", ""]  # it waits for a second
    began = asyncio.get_running_loop().time()
    others = [ask("other", "work") for _ in range(20)]
    await asyncio.gather(*(task.future for task in others))
    assert asyncio.get_running_loop().time() - began < 0.5
    assert [task.worker for task in hasty] == ["", "", ""]
    first, *rest = hasty
    assert await asyncio.wait_for(first.future, 5) == "hasty"
    assert asyncio.get_running_loop().time() - began > 0.8
    assert await asyncio.gather(*(task.future for task in rest)) == ["hasty", "hasty"]
