"""What a benchmark measured, and how it reads in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, against what, as a ratio, and what is aimed at."""

    name: str
    measured: str
    compared: str
    ratio: float
    target: str
    reached: bool

    def row(self) -> str:
        """Return the row in Markdown."""
        verdict = "yes" if self.reached else "no"
        cells = (self.name, self.measured, self.compared, f"{self.ratio:.2f}", self.target, verdict)
        return f"| {' | '.join(cells)} |"


def table(figures: Iterable[Figure]) -> str:
    """Return all rows, with a heading."""
    head = "| what | gradwire | compared with | ratio | target | reached |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(figure.row() for figure in figures)])


def interleaved(rounds: int, *calls: Callable[[], object]) -> tuple[float, ...]:
    """Median seconds of each call, timed in turn so that a drift of the machine meets all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = perf_counter()
            call()
            taken.append(perf_counter() - start)
    return tuple(median(taken) for taken in times)
