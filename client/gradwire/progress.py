"""What users are told of a derivative while it is uploaded, compiled and computed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

# Smaller uploads are not reported.
_REPORTED_BYTES = 1 << 20

Phase = Literal["uploading", "compiling", "computing"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a derivative is.

    Attributes:
        blocks_done: blocks that have arrived.
        blocks_total: how many there are; 0 while it is uploading, when that is not known.
        bytes_done: bytes of the result that have arrived; while it is uploading, bytes that were sent.
        bytes_total: how many there are, likewise.
        elapsed: seconds.
        phase: "uploading" the graph and arrays that the server lacks, "compiling", or "computing".
        note: why nothing comes, such as "server unavailable, retrying"; "" while all goes well.
    """

    blocks_done: int
    blocks_total: int
    bytes_done: int
    bytes_total: int
    elapsed: float
    phase: Phase = "computing"
    note: str = ""


class ProgressReporter:
    """Reports progress to the user: not at all, with a progress bar, or by calling their function."""

    def __init__(self, option: bool | Callable[[Progress], object], title: str) -> None:
        self._call = option if callable(option) else None
        self._title = title
        self._bar: Any = None
        self._wanted = bool(option) and self._call is None
        self._started = time.monotonic()
        self._last: tuple[Phase, tuple[int, int], tuple[int, int]] = "uploading", (0, 0), (0, 0)

    def interrupted(self, why: str) -> None:
        """Report that nothing comes for now: the server is `why`."""
        self.update(*self._last, f"server {why}, retrying")

    def update(self, phase: Phase, blocks: tuple[int, int], size: tuple[int, int], note: str = "") -> None:
        """Report blocks and bytes, each as (done, total), and why nothing comes."""
        self._last = phase, blocks, size
        if self._call is not None:
            self._call(Progress(*blocks, *size, time.monotonic() - self._started, phase, note))
        elif self._wanted:
            if self._bar is None:
                from tqdm.auto import tqdm  # here: its import is slow, it looks for notebooks

                self._bar = tqdm(total=size[1], unit="B", unit_scale=True, desc=self._described(phase, note))
            self._bar.set_description_str(self._described(phase, note), refresh=bool(note))
            if self._bar.total != size[1]:
                self._bar.reset(size[1])
            if phase != "uploading":
                self._bar.set_postfix_str(f"{blocks[0]}/{blocks[1]} blocks", refresh=False)
            self._bar.update(size[0] - self._bar.n)

    def _described(self, phase: Phase, note: str) -> str:
        doing = note or ("" if phase == "computing" else phase)
        return f"{self._title}, {doing}" if doing else self._title

    def uploads(self) -> "UploadReporter":
        """Return what is told of uploads."""
        return UploadReporter(self)

    def close(self) -> None:
        """Close the bar where it stands."""
        if self._bar is not None:
            self._bar.close()


class UploadReporter:
    """Reports how much of what the server lacks was sent, where that is more than a moment's work."""

    def __init__(self, reporter: ProgressReporter) -> None:
        self._reporter = reporter
        self._done = self._total = 0
        self._failure: Exception | None = None

    def expect(self, count: int) -> None:
        """Note that more bytes have to be sent, by this call or one beside it."""
        self._total += count

    def sent(self, count: int) -> None:
        """Report that bytes were sent; some may be sent again after a connection broke."""
        self._done = min(self._done + count, self._total)
        if self._total < _REPORTED_BYTES or self._failure is not None:
            return
        try:
            self._reporter.update("uploading", (0, 0), (self._done, self._total))
        except Exception as error:  # of the user's function, which has nothing to do with other calls
            self._failure = error

    def interrupted(self, why: str) -> None:
        """Report that nothing comes for now: the server is `why`."""
        self._reporter.interrupted(why)

    def check(self) -> None:
        """Raise what a report raised."""
        if self._failure is not None:
            raise self._failure from None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise what a report raised in place of the upload's own error, which gRPC makes of it."""
        try:
            yield
        except BaseException:
            self.check()
            raise
        self.check()
