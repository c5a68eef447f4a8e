"""Derivatives that go to files, and what is kept beside them so that another process can finish them.

Beside `J.npy` lies the folder `J.npy.gradwire` while blocks are missing: the request, the graph, the large
arrays that they refer to, and `state.json`, which is replaced as a whole and written last. It names the plan
and the blocks that are in the file for certain.
"""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.constants import Constant
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Signature
from gradwire.results import Entry, Plan
from gradwire.transport.placement import ResultArrays
from gradwire.transport.receiver import Begun, DerivativeRequest
from gradwire.transport.retry import Deadline
from gradwire_wire.choices import GraphChoices
from gradwire_wire.v1 import derivative_pb2, graph_pb2

_SECONDS = 1.0
_SHARE = 10
"""Blocks are noted after this many times the seconds that noting took, or `_SECONDS` if that is more."""

_FORMAT = 2


class ResultFiles:
    """The files of one derivative.

    Args:
        paths: a path, or tuples of paths, nested as the result is.
        request: what is computed.
        begun: what is in the files; nothing for new ones.
    """

    def __init__(self, paths: Any, request: DerivativeRequest, begun: Begun | None = None) -> None:
        begun = begun or Begun()
        self._paths, self.request = paths, request
        self._plan_id, self._resume_id, self._done = begun.plan_id, begun.resume_id, set(begun.blocks)
        self._folder = folder_of(next(_leaves(paths)))
        self._arrays: list[wire.Array] = []
        self._described = bool(begun.plan_id)
        self._noted, self._pause = time.monotonic(), _SECONDS

    @classmethod
    def of(cls, out: object, request: DerivativeRequest) -> Self | None:
        """Return the files that `out` names; None if it names none.

        Raises:
            InvalidArgumentError: paths and arrays are mixed, or an unfinished derivative is there.
        """
        named = [isinstance(one, str | os.PathLike) for one in _leaves(out)]
        if not any(named):
            return None
        if not all(named):
            raise InvalidArgumentError("out holds paths and arrays: pass paths alone, or arrays alone")
        folder = folder_of(next(_leaves(out)))
        if (folder / "state.json").exists():
            raise InvalidArgumentError(
                f"{folder} belongs to a derivative that is not finished: go on with "
                f"gw.resume({os.fspath(next(_leaves(out)))!r}, client), or delete that folder"
            )
        return cls(out, request)

    @classmethod
    def opened(cls, path: str | os.PathLike[str], deadline: Deadline) -> Self:
        """Return the files of a derivative that another process began.

        Raises:
            InvalidArgumentError: nothing is unfinished there, or another version wrote it.
            OSError: a file cannot be read.
        """
        folder = folder_of(path)
        try:
            state = json.loads((folder / "state.json").read_text())
        except FileNotFoundError:
            raise InvalidArgumentError(
                f"nothing is unfinished at {os.fspath(path)}: there is no {folder / 'state.json'}, which is "
                "written with the first blocks and removed after the last"
            ) from None
        if state["format"] != _FORMAT:
            raise InvalidArgumentError(f"{folder} was written by another version of gradwire")
        arrays = {key: _array(folder / key, *kind) for key, kind in state["arrays"].items()}
        registration = graph_pb2.RegisterGraphRequest.FromString((folder / "choices").read_bytes())
        model = Model(
            (folder / "graph").read_bytes(),
            state["graph_id"],
            Signature((), ()),
            {name: Constant(arrays[key], key) for name, key in state["constants"].items()},
            GraphChoices.of(registration),
        )
        message = derivative_pb2.DifferentiateRequest.FromString((folder / "request").read_bytes())
        uploads = {key: arrays[key] for key in state["uploads"]}
        request = DerivativeRequest(message, model, {}, uploads, deadline)
        paths = _map(lambda one: folder.parent / one, state["paths"])
        return cls(paths, request, Begun(state["plan_id"], state["resume_id"], frozenset(state["done"])))

    @property
    def begun(self) -> Begun:
        """What is in the files."""
        return Begun(self._plan_id, self._resume_id, frozenset(self._done))

    def allocate(self, plan: Plan) -> ResultArrays:
        """Open the files for a plan: those of the plan that they were begun with as they are."""
        begun = plan.plan_id == self._plan_id
        if not begun:
            self._plan_id = plan.plan_id
            self._done.clear()
        paths = list(_leaves(self._paths))
        if len(paths) != len(plan.entries):
            raise InvalidArgumentError(
                f"out has {len(paths)} paths, but the result has {len(plan.entries)} arrays: "
                + ", ".join(map(plan.name, plan.entries))
            )
        self._arrays = [_opened(path, one, begun) for path, one in zip(paths, plan.entries, strict=True)]
        return ResultArrays(plan, self._arrays)

    def arranged(self) -> Any:
        """Return the arrays, nested as the paths are."""
        arrays = iter(self._arrays)
        return _map(lambda _: next(arrays), self._paths)

    async def note(self, block: int, resume_id: str) -> None:
        """Note that a block is complete; now and then, make sure that it outlives this process."""
        self._done.add(block)
        self._resume_id = resume_id
        if time.monotonic() - self._noted >= self._pause:
            started = time.monotonic()
            await asyncio.to_thread(self._write)
            self._noted = time.monotonic()
            self._pause = max(_SECONDS, _SHARE * (self._noted - started))

    async def finish(self) -> None:
        """Write everything to disk, and remove what is kept beside the files."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        self._flush()
        if self._folder.is_dir():
            shutil.rmtree(self._folder)

    def _flush(self) -> None:
        for array in self._arrays:
            if isinstance(array, np.memmap):
                array.flush()

    def _write(self) -> None:
        self._flush()
        if not self._described:
            self._describe()
            self._described = True
        model, request = self.request.model, self.request
        state = {
            "format": _FORMAT,
            "plan_id": self._plan_id,
            "resume_id": self._resume_id,
            "done": sorted(self._done),
            "paths": _map(lambda one: os.path.relpath(one, self._folder.parent), self._paths),
            "graph_id": model.graph_id,
            "constants": {name: constant.tensor_id for name, constant in model.bound.items()},
            "uploads": list(request.uploads),
            "arrays": {key: [int(wire.data_type(a.dtype)), list(a.shape)] for key, a in self._large.items()},
        }
        _replace(self._folder / "state.json", json.dumps(state).encode())

    @property
    def _large(self) -> Mapping[str, wire.Array]:
        constants = {one.tensor_id: one.array for one in self.request.model.bound.values()}
        return {**constants, **self.request.uploads}

    def _describe(self) -> None:
        """Write what has to be sent again."""
        self._folder.mkdir(exist_ok=True)
        message = derivative_pb2.DifferentiateRequest()
        message.CopyFrom(self.request.message)
        message.values = False
        message.resume_id = ""
        del message.skip[:]
        _replace(self._folder / "request", message.SerializeToString())
        _replace(self._folder / "graph", self.request.model.data)
        _replace(self._folder / "choices", self.request.model.choices.message().SerializeToString())
        for key, array in self._large.items():
            _replace(self._folder / key, wire.byte_view(array))


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder beside a file in which the rest of a derivative is described."""
    return Path(f"{os.fspath(path)}.gradwire")


def _opened(path: str | os.PathLike[str], entry: Entry, begun: bool) -> wire.Array:
    if entry.dtype.kind == "V":
        raise InvalidArgumentError(f"a file of NumPy holds no {entry.dtype.name}: take blocks with sink=")
    array: wire.Array
    if not all(entry.shape):  # nothing to map
        array = np.empty(entry.shape, entry.dtype)
        np.save(path, array)
        return array
    if begun:
        array = np.lib.format.open_memmap(path, "r+")
    else:
        array = np.lib.format.open_memmap(path, "w+", entry.dtype, entry.shape)
    return array


def _array(path: Path, element_type: int, shape: list[int]) -> wire.Array:
    return wire.array_from_bytes(path.read_bytes(), element_type, shape)


def _replace(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is there as a whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, tuple | list):
        for one in nested:
            yield from _leaves(one)
    else:
        yield nested


def _map(change: Any, nested: Any) -> Any:
    if isinstance(nested, tuple | list):
        return tuple(_map(change, one) for one in nested)
    return change(nested)
