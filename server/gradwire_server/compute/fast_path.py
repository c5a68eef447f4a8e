"""The short lane: small kernels run in the serving process, as executables that a worker compiled.

Loading and running leave the event loop, but for kernels so small that changing threads costs more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gradwire_engine.planning.kernels import Kernel, Spec, device_fingerprint, load_kernel, place
from gradwire_engine.values import Block, GraphInfo
from gradwire_server.compute.kernel_cache import Executable
from gradwire_server.compute.lru import Lru
from gradwire_server.compute.shared import Box, Registered
from gradwire_server.settings import Settings

Array = np.ndarray[Any, Any]

_INLINE_SECONDS = 1e-3
"""The event loop is not held for longer, whatever the estimates say."""

_REQUESTS = 4
"""Uploaded arrays are kept placed here for about so many of the largest requests."""


class LaneKernel:
    """A kernel loaded in this process, its weights placed."""

    def __init__(self, kernel: Kernel, weights: Mapping[str, Any], inline: bool) -> None:
        """``inline``: small enough to run on the event loop."""
        self._kernel = kernel
        self._weights = weights
        self.inline = inline
        self.output_names = kernel.output_names

    def run(self, inputs: Mapping[str, Array], block: Block | None = None) -> tuple[tuple[Array, ...], float]:
        """The outputs (or a block's pieces), and the seconds they took."""
        start = time.perf_counter()
        outputs = self._kernel.run(self._weights, inputs, block)
        return outputs, time.perf_counter() - start


class Lane:
    """Kernels that run here."""

    def __init__(self, settings: Settings, capacity: int = 256) -> None:
        """Keep up to ``capacity`` kernels loaded."""
        self._settings = settings
        self._kernels: Lru[Spec, LaneKernel] = Lru(capacity)
        self._tensors: Lru[str, Any] = Lru(
            _REQUESTS * settings.lane_memory_bytes, lambda tensor: int(tensor.nbytes)
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lane")

    def fits(self, executable: Executable, info: GraphInfo) -> bool:
        """Whether a kernel is small and certain to end, and made for this machine."""
        settings, cost = self._settings, executable.facts.cost
        return (
            settings.device == "cpu"
            and cost.bounded
            and cost.flops <= settings.lane_flops
            and cost.memory_bytes <= settings.lane_memory_bytes
            # Nothing can stop a kernel here: what it was seen to take counts, too.
            and executable.facts.trial <= settings.lane_seconds
            and info.weight_bytes <= settings.lane_weight_bytes
            and executable.box.nbytes <= settings.lane_executable_bytes
            and executable.facts.device == device_fingerprint()
        )

    def worth(self, executable: Executable, result_bytes: int) -> bool:
        """Whether a block that fits takes less time to compute here than to fetch from a worker."""
        flops = executable.facts.cost.flops
        return flops <= max(self._settings.inline_flops, self._settings.lane_flops_per_byte * result_bytes)

    async def load(self, graph: Registered, executable: Executable) -> LaneKernel:
        """A kernel that fits, ready to run."""
        spec = executable.spec
        found = self._kernels.get(spec)
        if found is not None:
            return found
        data, weights = await executable.box.value(), await graph.weights.value()
        facts = executable.facts
        inline = facts.cost.flops <= self._settings.inline_flops and facts.trial <= _INLINE_SECONDS

        def make() -> LaneKernel:
            return LaneKernel(load_kernel(data), place(weights), inline)

        loaded = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        return self._kernels.put(spec, loaded)

    async def run(self, kernel: LaneKernel, inputs: Mapping[str, Array]) -> tuple[tuple[Array, ...], float]:
        """Run a kernel, off the event loop unless it is tiny."""
        if kernel.inline:
            return kernel.run(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, kernel.run, inputs)

    async def inputs(self, values: Mapping[str, Array | Box]) -> dict[str, Any]:
        """What a kernel is run with; uploaded arrays are placed once for all requests that refer to them."""
        return {
            name: await self._content(value) if isinstance(value, Box) else value
            for name, value in values.items()
        }

    async def _content(self, box: Box) -> Any:
        if not box.lasting:
            return await box.value()
        tensor = self._tensors.get(box.key)
        if tensor is None:
            placed = await self.place({box.key: await box.value()})
            tensor = self._tensors.put(box.key, placed[box.key])
        return tensor

    def tensor(self, tensor_id: str) -> Any:
        """An uploaded array that is placed here already, or None."""
        return self._tensors.get(tensor_id)

    async def place(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Inputs that many blocks of one request share."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, place, inputs)

    def begin(
        self, kernel: LaneKernel, inputs: Mapping[str, Any], block: Block
    ) -> asyncio.Future[tuple[tuple[Array, ...], float]]:
        """Begin a block; blocks of several requests take turns."""
        return asyncio.get_running_loop().run_in_executor(self._thread, kernel.run, inputs, block)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
