"""What the server remembers, for how long, and what it makes only flights."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cachetools import LRUCache

from gradwire_engine.limits import Limits
from gradwire_engine.values import ArrayType
from gradwire_server.compute.account import Purpose
from gradwire_server.compute.caches.disk import Disk
from gradwire_server.compute.caches.kernel_cache import KernelCache
from gradwire_server.compute.caches.lru import lru_of_bytes
from gradwire_server.compute.caches.store import Store, StoredTensor, Stores
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue, registered
from gradwire_server.compute.single_flight import SingleFlight
from gradwire_server.compute.workbench import Workbench
from gradwire_server.compute.worker import RegisterRequest
from gradwire_server.errors import Overloaded, UnknownId


def test_an_lru_forgets_the_least_recently_used_until_the_rest_fits() -> None:
    cache: LRUCache[str, int] = lru_of_bytes(10, lambda value: value)
    cache["a"] = cache["b"] = 4
    assert cache.get("a") == 4
    cache["c"] = 4
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert cache.currsize == 8


def test_an_lru_keeps_the_newest_whatever_it_weighs() -> None:
    cache: LRUCache[str, int] = lru_of_bytes(10, lambda value: value)
    cache["a"], cache["b"] = 1, 99
    assert len(cache) == 1 and cache.get("b") == 99


def test_an_lru_counts_a_replaced_value_flights() -> None:
    cache: LRUCache[str, int] = lru_of_bytes(10, lambda value: value)
    cache["a"] = 4
    cache["a"] = 5
    assert cache.currsize == 5
    cache.pop("a"), cache.pop("a", None)
    assert cache.currsize == 0


async def test_who_asks_while_it_is_made_gets_the_same() -> None:
    flights: SingleFlight[str, object] = SingleFlight(1)
    made = []

    async def make() -> object:
        await asyncio.sleep(0.01)
        made.append(object())
        return made[-1]

    first, second = await asyncio.gather(flights.run("k", make), flights.run("k", make))
    assert first is second and len(made) == 1
    assert await flights.run("k", make) is not first


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    flights: SingleFlight[str, int] = SingleFlight(1)

    async def fail() -> int:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def succeed() -> int:
        return 1

    results = await asyncio.gather(flights.run("k", fail), flights.run("k", fail), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError]
    assert await flights.run("k", succeed) == 1


async def test_work_goes_on_for_nobody_is_found_by_the_next_caller_and_so_much_of_it_no_more() -> None:
    flights: SingleFlight[str, str] = SingleFlight(1)
    ended: list[str] = []

    async def make(key: str) -> str:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            ended.append(f"{key} cancelled")
            raise
        ended.append(key)
        return key

    async def leave(key: str) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await flights.run(key, lambda: make(key))

    await leave("a")
    await leave("b")
    await asyncio.sleep(0)
    assert ended == ["b cancelled"]
    assert await flights.run("a", lambda: make("a again")) == "a"
    assert await flights.run("b", lambda: make("b")) == "b"
    assert ended == ["b cancelled", "a", "b"]


def store(**bounds: int) -> Store:
    return stores(**bounds).of("")


def stores(**bounds: int) -> Stores:
    given = {"graph_bytes": 100, "tensor_bytes": 100, "upload_bytes": 100, **bounds}
    uploads = Purpose("uploads", "upload_bytes", given.pop("upload_bytes"), 1.0, 1.0)
    return Stores(**given, uploads=uploads)


def test_a_forgotten_tensor_is_an_unknown_id() -> None:
    held = store(tensor_bytes=16)
    for name in ("a", "b"):
        held.add_tensor(name, StoredTensor(ArrayType("float64", (2,)), SharedValue(name, nbytes=16)))
    assert held.tensor("b")
    with pytest.raises(UnknownId, match="no tensor with id a"):
        held.tensor("a")


def test_a_tenant_that_fills_the_store_loses_its_own() -> None:
    held = stores(tensor_bytes=64)
    alice, bob = held.of("alice"), held.of("bob")
    alice.add_tensor("a", StoredTensor(ArrayType("float64", (2,)), SharedValue("a", nbytes=16)))
    for name in "bcdefgh":
        bob.add_tensor(name, StoredTensor(ArrayType("float64", (2,)), SharedValue(name, nbytes=16)))
    assert alice.tensor("a") and bob.tensor("h") and held.of("bob").tensor("f")
    for forgotten in "bcde":
        with pytest.raises(UnknownId):
            bob.tensor(forgotten)


def test_times_of_use_are_kept_of_what_is_held_alone() -> None:
    held = stores(tensor_bytes=64)
    alice, bob = held.of("alice"), held.of("bob")
    held.bound("alice", 40)
    for number in range(20):
        for tenant in (alice, bob):
            tenant.add_tensor(
                str(number), StoredTensor(ArrayType("float64", (2,)), SharedValue("a", nbytes=16))
            )
    for tenant in (alice, bob):
        assert len(tenant._tensors._used) == len(tenant._tensors) > 0
    assert alice.expire(1000) == ([], []) and len(alice.expire(0)[1]) == 2


def test_tenants_have_ids_of_their_own() -> None:
    held = stores()
    held.of("alice").add_tensor("a", StoredTensor(ArrayType("float64", ()), SharedValue("a", nbytes=8)))
    with pytest.raises(UnknownId):
        held.of("bob").tensor("a")
    assert len({held.of(tenant).scoped("a") for tenant in ("", "alice", "bob")}) == 3
    assert held.of("").scoped("a") == "a"


def test_an_upload_is_stopped_as_soon_as_it_is_too_large() -> None:
    with store().upload("graph_bytes", 10) as upload:
        upload.add(b"12345")
        with pytest.raises(Overloaded) as caught:
            upload.add(b"6789ab")
    assert (caught.value.limit, caught.value.allowed, caught.value.requested) == ("graph_bytes", 10, 11)


def test_uploads_share_a_bound_and_give_back_what_they_held() -> None:
    held = store(upload_bytes=10)
    with held.upload("graph_bytes", 100) as one, held.upload("graph_bytes", 100) as other:
        one.add(bytes(6))
        with pytest.raises(Overloaded, match="all clients"):
            other.add(bytes(6))
    with held.upload("graph_bytes", 100) as later:
        later.add(bytes(10))
        assert later.joined() == bytes(10)


class Counting:
    """A compiler that registers in this process, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    async def register(self, request: RegisterRequest) -> RegisteredGraph:
        self.count += 1
        data = await request.data.inline()
        info, model, weights = Workbench(Limits(), 1 << 30).register(
            data, request.text, None, request.graph_id
        )
        return registered(info, model, weights)


def cache_at(folder: Path, compiler: Counting, conditions: str = "") -> KernelCache:
    return KernelCache(compiler, conditions, 1 << 20, 4, 1 << 20, Disk(folder, 1 << 20))  # type: ignore[arg-type]


async def test_a_graph_is_not_parsed_again_after_a_restart(tmp_path: Path) -> None:
    compiler = Counting()
    text = (
        b'<ir_version: 10, opset_import: ["": 21]> g (double[2] x) => (double[2] y) <double[2] w = {3, 4}> '
    )
    request = RegisterRequest(SharedValue("graph", text + b"{ y = Mul(x, w) }"), True, None, "known")
    first = cache_at(tmp_path, compiler)
    made = await first.register(request)
    await asyncio.gather(*first._saving)
    found = await cache_at(tmp_path, compiler).register(request)
    assert compiler.count == 1
    assert found.info == made.info and found.nbytes == made.nbytes
    assert await found.model.value() == await made.model.value()
    assert (await found.weights.value()).keys() == (await made.weights.value()).keys()
    await cache_at(tmp_path, compiler, "other limits").register(request)
    await first.register(replace(request, graph_id="another"))
    assert compiler.count == 3
