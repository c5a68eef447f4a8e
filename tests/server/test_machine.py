"""How much memory there is, and how settings divide it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from gradwire_server import machine
from gradwire_server.rpc.server_info import limits_of
from gradwire_server.settings import Settings

MIB = 1 << 20


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}, 1024 * MIB),
        ("0::/kubepods/pod1/abc\n", {"memory.max": "536870912\n"}, 512 * MIB),
        ("0::/a/b\n", {"a/memory.max": "268435456\n", "a/b/memory.max": "max\n"}, 256 * MIB),
        ("0::/a/b\n", {"a/memory.max": "99999999\n", "a/b/memory.max": "268435456\n"}, 99_999_999),
        ("5:memory:/docker/x\n1:cpu:/\n", {"memory/memory.limit_in_bytes": "268435456\n"}, 256 * MIB),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {}, None),
        (None, {}, None),
    ],
)
def test_the_memory_of_a_container_is_that_of_its_control_group(
    tmp_path: Path, groups: str | None, files: dict[str, str], limit: int | None
) -> None:
    if groups is not None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys" / "fs" / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert machine.memory_bytes(tmp_path) == (limit or psutil.virtual_memory().total)


def test_all_that_clients_may_have_held_fits_the_memory_and_the_object_store() -> None:
    settings = Settings(memory_bytes=1000 * MIB, object_store_bytes=800 * MIB)
    assert 0.99 < sum(settings.bounds.values()) / (1000 * MIB) <= 1
    small = Settings(memory_bytes=1000 * MIB, object_store_bytes=80 * MIB)
    assert sum(small.bounds.values()) <= 100 * MIB
    assert Settings().memory_bytes <= 0.4 * psutil.virtual_memory().total


def test_a_bound_that_is_set_is_the_bound() -> None:
    assert Settings(memory_bytes=1000 * MIB, upload_bytes=7).bounds["uploads"] == 7


def test_limits_that_follow_from_the_machine_are_told_as_numbers() -> None:
    told = limits_of(Settings(memory_bytes=1000 * MIB, object_store_bytes=800 * MIB))
    assert told["upload_bytes"] == 200 * MIB
    assert told["accumulation_bytes"] == 100 * MIB


def test_what_decides_a_plan_does_not_depend_on_the_machine() -> None:
    large, small = (Settings(memory_bytes=size * MIB) for size in (100_000, 100))
    for name in ("block_memory_bytes", "threads_per_worker", "limits"):
        assert getattr(large, name) == getattr(small, name)


def test_only_callers_that_can_be_told_apart_have_shares() -> None:
    assert Settings().share == Settings(host="unix:/run/x.sock").share == 1.0
    assert Settings(host="0.0.0.0").share == 0.5
    assert Settings(token_file="tokens.json").share == 0.5
    assert Settings(token_file="tokens.json", tenant_share=0.8).share == 0.8
