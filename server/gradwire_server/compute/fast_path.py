"""The fast path: small kernels run in the server's own process, as executables that a worker compiled.

Loading and running leave the event loop, except for kernels so small that changing threads costs more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cachetools import LRUCache

from gradwire_engine.planning.kernels import Kernel, Spec, device_fingerprint, load_kernel, place
from gradwire_engine.values import Block, GraphInfo
from gradwire_server.compute.caches.lru import lru_of_bytes
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.compute.worker import Computed, Executable
from gradwire_server.settings import Settings

Array = np.ndarray[Any, Any]

_INLINE_SECONDS = 1e-3
"""The event loop is not held for longer, whatever the estimates say."""

_TRIP_SECONDS = 3e-3
"""What a call to a worker takes at least: the point is put into the store, the call made, its result read."""

_TRIP_BYTES_PER_SECOND = 1e9
"""How fast its result comes through shared memory."""

_CROWD = 4
"""Blocks under way in this process from which on others go to workers, where they run side by side."""

_KERNELS = 256
"""Kernels to keep loaded."""

_REQUESTS = 4
"""Uploaded arrays are kept placed for about so many of the largest requests."""


class LoadedKernel:
    """A kernel loaded in this process, its weights placed."""

    def __init__(self, kernel: Kernel, weights: Mapping[str, Any], inline: bool, nbytes: int) -> None:
        """Hold a kernel of so many bytes; `inline`: it is small enough to run on the event loop."""
        self.nbytes = nbytes
        self._kernel = kernel
        self._weights = weights
        self.inline = inline
        self.output_names = kernel.output_names

    def run(self, inputs: Mapping[str, Array], block: Block | None = None) -> Computed:
        """Compute an evaluation's outputs, or the pieces of a block."""
        start = time.perf_counter()
        arrays = self._kernel.run(self._weights, inputs, block)
        return Computed(arrays, time.perf_counter() - start)


class BlockInputs:
    """Inputs that the blocks of one request share; the first block places them."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        """Hold inputs, placed or not."""
        self._inputs = inputs
        self._placed: Mapping[str, Any] | None = None

    def placed(self) -> Mapping[str, Any]:
        """Return the inputs on the device."""
        if self._placed is None:
            self._placed = place(self._inputs)
        return self._placed


class FastPath:
    """The kernels that run in this process."""

    def __init__(self, settings: Settings) -> None:
        """Start with no kernels loaded."""
        self._settings = settings
        most = settings.bounds["kernels"]
        self._kernels: LRUCache[Spec, LoadedKernel] = lru_of_bytes(
            most, lambda kernel: max(kernel.nbytes, most // _KERNELS)
        )
        self._tensors: LRUCache[str, Any] = lru_of_bytes(
            _REQUESTS * settings.fast_path_memory_bytes, lambda tensor: int(tensor.nbytes)
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fast-path")
        self._under_way = 0

    def fits(self, executable: Executable, info: GraphInfo) -> bool:
        """Tell whether a kernel is small, certain to end, and compiled for this machine."""
        settings, cost = self._settings, executable.facts.cost
        return (
            settings.device == "cpu"
            and cost.bounded
            and cost.flops <= settings.fast_path_flops
            and cost.memory_bytes <= settings.fast_path_memory_bytes
            # Nothing can stop a kernel here, so what a trial of it took counts too.
            and executable.facts.trial <= settings.fast_path_seconds
            and info.weight_bytes <= settings.fast_path_weight_bytes
            and executable.data.nbytes <= settings.fast_path_executable_bytes
            and executable.facts.device == device_fingerprint()
        )

    def pays(self, executable: Executable, result_bytes: int) -> bool:
        """Tell whether computing a block takes less time here than fetching it from a worker does."""
        facts, settings = executable.facts, self._settings
        if facts.cost.flops > settings.inline_flops and self._under_way >= _CROWD:
            return False
        most = max(settings.inline_flops, settings.fast_path_flops_per_byte * result_bytes)
        trip = _TRIP_SECONDS + result_bytes / _TRIP_BYTES_PER_SECOND
        return facts.cost.flops <= most or facts.trial <= trip

    async def load(self, graph: RegisteredGraph, executable: Executable) -> LoadedKernel:
        """Load a kernel that fits, unless it is loaded."""
        spec = executable.spec
        found = self._kernels.get(spec)
        if found is not None:
            return found
        data, weights = await executable.data.value(), await graph.weights.value()
        facts = executable.facts
        inline = facts.cost.flops <= self._settings.inline_flops and facts.trial <= _INLINE_SECONDS

        def make() -> LoadedKernel:
            size = len(data) + graph.info.weight_bytes
            return LoadedKernel(load_kernel(data), place(weights), inline, size)

        loaded = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        self._kernels[spec] = loaded
        return loaded

    async def run(self, kernel: LoadedKernel, inputs: Mapping[str, Array]) -> Computed:
        """Run a kernel that evaluates, off the event loop unless it is tiny."""
        if kernel.inline:
            return kernel.run(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, kernel.run, inputs)

    def start(self, kernel: LoadedKernel, inputs: BlockInputs, block: Block) -> asyncio.Future[Computed]:
        """Start to compute a block; blocks of several requests take turns."""

        def compute() -> Computed:
            return kernel.run(inputs.placed(), block)

        future = asyncio.get_running_loop().run_in_executor(self._thread, compute)
        self._under_way += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, block: object) -> None:
        self._under_way -= 1

    async def inputs(self, values: Mapping[str, Array | SharedValue]) -> dict[str, Any]:
        """Return the inputs to run a kernel with; uploaded arrays are placed once for all requests."""
        return {
            name: await self._content(value) if isinstance(value, SharedValue) else value
            for name, value in values.items()
        }

    async def _content(self, value: SharedValue) -> Any:
        if not value.lasting:
            return await value.value()
        tensor = self._tensors.get(value.key)
        if tensor is None:
            content = {value.key: await value.value()}
            placed = await asyncio.get_running_loop().run_in_executor(self._thread, place, content)
            tensor = self._tensors[value.key] = placed[value.key]
        return tensor

    def tensor(self, tensor_id: str) -> Any:
        """Return an uploaded array that is placed here already, or None."""
        return self._tensors.get(tensor_id)

    def forget_graph(self, graph_id: str) -> None:
        """Drop the kernels of a graph, which have its weights."""
        for spec in [spec for spec in self._kernels if spec.function.graph_id == graph_id]:
            del self._kernels[spec]

    def forget_tensor(self, tensor_id: str) -> None:
        """Drop an uploaded array that is placed here, if it is."""
        self._tensors.pop(tensor_id, None)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
