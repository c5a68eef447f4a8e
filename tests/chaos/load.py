"""The work that goes on while things break: four jobs, each with a result that must not change in a bit."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradwire as gw

DENSE, SPARSE, BATCHES, CALLS = 2000, 3000, 12, 60
_random = np.random.default_rng(0)
MATRIX = _random.standard_normal((DENSE, DENSE)) / np.sqrt(DENSE)
POINT = _random.standard_normal(DENSE)
STENCIL_POINT = _random.standard_normal(SPARSE)
WEIGHTS = _random.standard_normal(400)
DATA = [(_random.standard_normal((256, 400)), _random.standard_normal(256)) for _ in range(BATCHES)]


def waves(x: Any) -> Any:
    return np.sin(MATRIX @ np.tanh(MATRIX @ np.tanh(x)))


def diffusion(x: Any) -> Any:
    for _ in range(6):
        x = x + 0.1 * np.tanh(np.roll(x, 1) - 2 * x + np.roll(x, -1))
    return x


def misfit(w: Any, x: Any, y: Any) -> Any:
    r = np.tanh(np.sin(x @ w)) - y
    return np.sum(r * r)


def small(x: Any) -> Any:
    return np.sin(x) * x


class Delivery(AssertionError):
    """Something came twice, not at all, or wrong."""


def _digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


class Load:
    """The jobs of one client, ready to be run again and again."""

    def __init__(self, client: gw.Client) -> None:
        self._client = client
        self._waves = client.function(waves, gw.spec(DENSE), verify="never")
        self._diffusion = client.function(diffusion, gw.spec(SPARSE), verify="never")
        self._small = client.function(small, gw.spec(64), verify="never")
        self._misfit = client.function(
            misfit, gw.spec(WEIGHTS.shape), *(gw.spec(part.shape) for part in DATA[0]), verify="never"
        )

    def dense(self, timeout: float) -> str:
        """A Jacobian of 2000 x 2000, block by block."""
        found = np.full((DENSE, DENSE), np.nan)
        seen: list[int] = []
        for block in self._waves.jacobian_blocks(POINT, mode="forward", block_width=20, timeout=timeout):
            seen.append(block.index)
            for piece in block.pieces:
                if not np.isnan(found[piece.rows, piece.columns]).all():
                    raise Delivery(f"block {block.index} covers what came before")
                found[piece.rows, piece.columns] = piece.data
        if sorted(seen) != list(range(len(seen))) or np.isnan(found).any():
            raise Delivery(f"blocks {seen}")
        return _digest(found)

    def sparse(self, timeout: float) -> str:
        """Sparse Jacobians, one after the other."""
        digests = set()
        for _ in range(8):
            found = self._diffusion.jacobian(STENCIL_POINT, sparse=True, timeout=timeout)
            digests.add(_digest(found.data, found.indices, found.indptr))
        if len(digests) != 1:
            raise Delivery("a sparse Jacobian has other bits than the one before")
        return digests.pop()

    def accumulated(self, timeout: float) -> str:
        """A gradient over batches that the server holds."""
        kept = [tuple(self._client.put(part) for part in batch) for batch in DATA]
        with self._misfit.accumulator(WEIGHTS, timeout=timeout) as acc:
            for batch in kept * 4:
                acc.add(*batch)
            return _digest(acc.grad)

    def calls(self, timeout: float) -> str:
        """Small evaluations over one stream."""
        answers = []
        with self._small.stream() as stream:
            for number in range(CALLS):
                x = np.full(64, float(number))
                found = stream.value(x, timeout=timeout).result(timeout + 5)
                if not np.allclose(found, np.sin(x) * x, rtol=1e-12):
                    raise Delivery(f"call {number} was answered as another")
                answers.append(found)
                time.sleep(0.02)
        return _digest(*answers)

    @property
    def jobs(self) -> dict[str, Callable[[float], str]]:
        """The jobs by name; each takes a timeout."""
        return {
            "dense": self.dense,
            "sparse": self.sparse,
            "accumulate": self.accumulated,
            "calls": self.calls,
        }


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        digest: of its result; "" after an error.
        error: its error, if any.
        seconds: how long it took.
    """

    digest: str = ""
    error: BaseException | None = None
    seconds: float = 0.0

    def verdict(self, expected: str, timeout: float) -> str:
        """Say how it ended: identical, clear error, late or WRONG."""
        if self.error is None:
            return "identical" if self.digest == expected else "WRONG"
        if isinstance(self.error, Delivery):
            return "WRONG"
        if self.seconds > timeout + 5:
            return "late"
        return "clear error" if isinstance(self.error, gw.ServerError) else "WRONG"


def run_all(load: Load, timeout: float, fault: Callable[[], object] = lambda: None) -> dict[str, Outcome]:
    """Run the jobs side by side, and a fault beside them; return how each ended."""
    outcomes = {name: Outcome() for name in load.jobs}

    def run(name: str, job: Callable[[float], str]) -> None:
        began, outcome = time.monotonic(), outcomes[name]
        try:
            outcome.digest = job(timeout)
        except BaseException as error:
            outcome.error = error
        outcome.seconds = time.monotonic() - began

    threads = [threading.Thread(target=run, args=one) for one in load.jobs.items()]
    for thread in threads:
        thread.start()
    fault()
    for thread in threads:
        thread.join()
    return outcomes
