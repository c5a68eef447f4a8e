"""The account of what clients make a server hold: who gets room, who waits, who is refused."""

from __future__ import annotations

import asyncio
import gc

import pytest

from gradwire_server.compute.account import Holding, Purpose
from gradwire_server.errors import Overloaded, TryLater
from gradwire_server.observe.events import Request, serve


def purpose(limit: int = 100, share: float = 0.5, seconds: float = 5.0) -> Purpose:
    return Purpose("things", "things_bytes", limit, share, seconds)


def as_caller(name: str) -> None:
    """Make the rest of this task's work that of a caller."""
    serve(Request("id", "Call", holder=name))


async def waiting(things: Purpose, name: str, nbytes: int) -> Holding:
    """Wait for room in the name of a caller."""
    as_caller(name)
    return await things.wait_for(nbytes)


def test_what_is_held_is_given_back_once_even_by_who_forgets() -> None:
    things = purpose(share=1.0)
    holding = things.take(60)
    holding.resize(80)
    assert things.held().nbytes == 80
    holding.give_back(), holding.give_back()
    assert things.held().nbytes == 0
    forgotten: Holding | None = things.take(70)
    assert things.held().nbytes == 70
    del forgotten
    gc.collect()
    assert things.held().nbytes == 0
    assert things.freed == 150


async def test_one_that_never_fits_is_refused_for_good_and_one_that_does_not_now_may_try_again() -> None:
    things = purpose()
    as_caller("alice")
    with pytest.raises(Overloaded, match="of which one may have 50") as caught:
        things.take(51)
    assert not isinstance(caught.value, TryLater)
    held = [things.take(50)]
    as_caller("bob")
    held.append(things.take(25))
    with pytest.raises(TryLater) as again:
        things.take(5)
    assert (again.value.limit, again.value.allowed, again.value.seconds) == ("things_bytes", 100, 1.0)
    held.clear()
    held.append(things.take(5))


async def test_a_result_waits_until_another_of_its_caller_is_read_and_in_turn() -> None:
    things = purpose()
    first = await waiting(things, "alice", 40)
    order: list[str] = []

    async def one(name: str, nbytes: int) -> Holding:
        holding = await waiting(things, "alice", nbytes)
        order.append(name)
        return holding

    large, small = (asyncio.create_task(one(*ask)) for ask in (("large", 30), ("small", 5)))
    await asyncio.sleep(0.01)
    assert not large.done() and not small.done()
    assert things.take_if_free(1) is None
    bob = await asyncio.create_task(waiting(things, "bob", 20))
    first.give_back()
    held = [await large, await small, bob]
    assert order == ["large", "small"]
    assert things.held().nbytes == sum(holding.nbytes for holding in held) == 55


async def test_whoever_holds_nothing_gets_one_whatever_its_size() -> None:
    things = purpose()
    held = [await asyncio.create_task(waiting(things, name, 500)) for name in ("alice", "bob")]
    assert things.held().nbytes == 1000
    third = asyncio.create_task(waiting(things, "alice", 1))
    await asyncio.sleep(0.01)
    assert not third.done()
    for holding in held:
        holding.give_back()
    assert (await third).nbytes == 1


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    things = purpose()
    first = await waiting(things, "alice", 50)
    given_up = asyncio.create_task(waiting(things, "alice", 50))
    later = asyncio.create_task(waiting(things, "alice", 10))
    await asyncio.sleep(0.01)
    given_up.cancel()
    await asyncio.sleep(0)
    first.give_back()
    kept = await later
    assert things.held().nbytes == kept.nbytes == 10
    # Woken and cancelled at the same moment.
    blocked = await waiting(things, "alice", 30)
    woken = asyncio.create_task(waiting(things, "alice", 40))
    await asyncio.sleep(0.01)
    blocked.give_back()
    woken.cancel()
    await asyncio.gather(woken, return_exceptions=True)
    assert things.held().nbytes == 10


async def test_waiting_ends_with_a_refusal_where_nothing_is_read_and_not_where_something_is() -> None:
    things = purpose(seconds=0.2)
    held = await waiting(things, "alice", 50)
    slow = asyncio.create_task(waiting(things, "alice", 50))
    for size in range(48, 40, -1):
        await asyncio.sleep(0.1)
        held.set(size)
    assert not slow.done()
    with pytest.raises(TryLater, match="try again later"):
        await slow
    assert things.held().nbytes == 41
