"""Compiled kernels and plans by what they were made from: in memory, and on disk for the next start.

Each is made once: whoever asks meanwhile waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pickle
import stat
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog

from gradwire_engine.planning.kernels import Spec, device_fingerprint
from gradwire_engine.planning.plan import Plan, Problem
from gradwire_server.compute.lru import Lru
from gradwire_server.compute.shared import Box, Registered
from gradwire_server.compute.single_flight import Once
from gradwire_server.compute.workbench import Compiled, KernelFacts, Planned

_log = structlog.get_logger()
Call = Callable[..., Awaitable[Any]]
"""Runs a method of the workbench on some worker."""


@lru_cache(maxsize=1)
def engine_fingerprint() -> str:
    """Names the engine's code: what it compiles and plans depends on every line of it."""
    found = find_spec("gradwire_engine")
    assert found is not None and found.submodule_search_locations
    digest = hashlib.sha256()
    for folder in found.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Executable:
    """A compiled kernel as the service holds it."""

    spec: Spec
    facts: KernelFacts
    box: Box


class KernelCache:
    """Kernels and plans, made on demand by a worker."""

    def __init__(self, conditions: str, memory_bytes: int, plans: int, disk: Disk | None) -> None:
        """Start with what is on disk.

        Args:
            conditions: whatever else kernels and plans depend on, beside machine and engine.
            memory_bytes: kernels to keep in memory.
            plans: how many plans to keep in memory.
            disk: where to keep both, if anywhere.
        """
        self._conditions = f"{engine_fingerprint()} {device_fingerprint()} {conditions}"
        self._kernels: Lru[str, Executable] = Lru(memory_bytes, lambda kernel: kernel.box.nbytes)
        self._plans: Lru[str, Plan] = Lru(plans)
        self._disk = disk
        self._compiling: Once[str, Executable] = Once()
        self._planning: Once[str, Plan] = Once()

    def _key(self, kind: str, subject: object) -> str:
        return hashlib.sha256(f"{kind} {self._conditions} {subject!r}".encode()).hexdigest()

    async def kernel(self, graph: Registered, spec: Spec, call: Call) -> Executable:
        """The kernel of a spec; ``call`` has it compiled if nobody has yet."""
        key = self._key("kernel", spec)
        found = self._kernels.get(key)
        if found is not None:
            return found
        return await self._compiling.run(key, lambda: self._compile(key, graph, spec, call))

    async def _compile(self, key: str, graph: Registered, spec: Spec, call: Call) -> Executable:
        compiled: Compiled | None = await self._load(key)
        if compiled is not None and compiled.spec == spec:
            return self._keep(key, compiled)
        compiled = await call("compile", graph, spec)
        assert compiled is not None
        await self._save(key, compiled)
        return self._keep(key, compiled)

    async def plan(self, graph: Registered, problem: Problem, call: Call) -> Plan:
        """The plan of a problem; ``call`` has it made if nobody has yet."""
        key = self._key("plan", problem)
        found = self._plans.get(key)
        if found is not None:
            return found
        return await self._planning.run(key, lambda: self._plan(key, graph, problem, call))

    async def _plan(self, key: str, graph: Registered, problem: Problem, call: Call) -> Plan:
        plan: Plan | None = await self._load(key)
        if plan is None or plan.problem != problem:
            planned: Planned = await call("plan", graph, problem)
            plan = planned.plan
            await self._save(key, plan)
            for compiled in planned.kernels:
                name = self._key("kernel", compiled.spec)
                await self._save(name, compiled)
                self._keep(name, compiled)
        return self._plans.put(key, plan)

    def _keep(self, key: str, compiled: Compiled) -> Executable:
        box = Box(key, compiled.executable, nbytes=len(compiled.executable))
        return self._kernels.put(key, Executable(compiled.spec, compiled.facts, box))

    async def _load(self, key: str) -> Any:
        return await asyncio.to_thread(self._disk.load, key) if self._disk else None

    async def _save(self, key: str, value: object) -> None:
        if self._disk:
            await asyncio.to_thread(self._disk.save, key, value)


class Disk:
    """A folder of pickles that only this user may write: loading one executes what it contains."""

    def __init__(self, folder: Path, capacity: int) -> None:
        """Use ``folder``, made if absent, for at most about ``capacity`` bytes."""
        self._folder = folder
        self._capacity = capacity
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prune()

    @classmethod
    def at(cls, folder: Path | None, capacity: int) -> Disk | None:
        """A cache in a folder, or None (and a warning) where it cannot be used safely."""
        if folder is None:
            return None
        try:
            disk = cls(folder, capacity)
            status = folder.stat()
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError("others than the server's user may write there")
        except OSError as error:
            _log.warning("compiled kernels are not kept on disk", folder=str(folder), reason=str(error))
            return None
        return disk

    def load(self, key: str) -> Any:
        """What was saved under a key, or None; a damaged file is as good as none."""
        path = self._folder / key
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                raise ValueError("damaged")
            value = pickle.loads(data[32:])
            os.utime(path)
        except FileNotFoundError:
            return None
        except Exception as error:
            _log.warning(
                "a cached kernel is not readable; it is made anew", file=str(path), reason=str(error)
            )
            return None
        return value

    def save(self, key: str, value: object) -> None:
        """Keep a value; readers see all of it or nothing."""
        data = pickle.dumps(value, protocol=5)
        try:
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            Path(name).replace(self._folder / key)
        except OSError as error:
            _log.warning("a compiled kernel is not kept on disk", reason=str(error))

    def _prune(self) -> None:
        """Delete what was used longest ago until the rest fits, and half-written files of the past."""
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = 0
        for _, size, path in sorted(files, reverse=True, key=lambda file: file[0]):
            total += size
            if total > self._capacity or path.name.startswith(".new-"):
                path.unlink(missing_ok=True)
