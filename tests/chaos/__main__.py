"""Break things under load and print a table of faults, trials and outcomes.

python -m tests.chaos                    a few trials of each fault      (make chaos)
GRADWIRE_CHAOS=100 is not a setting of the server: give --kills 100 for the long form
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import gradwire as gw
from gradwire_server.process import embedded
from tests.chaos.faults import FAULTS, Site, kill
from tests.chaos.load import Load, Outcome, run_all
from tests.chaos.proxy import Proxy
from tests.conftest import wait_until_serving

TIMEOUT = 60.0
SPARES = 1
WHOLE_SECONDS = 10.0
HEARTBEAT_SECONDS = 3.0
"""Shorter than the default, so that a trial with a frozen process takes seconds."""


@dataclass
class Row:
    """The trials of one fault."""

    fault: str
    verdicts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, outcomes: dict[str, Outcome], expected: dict[str, str], whole: float) -> None:
        for name, outcome in outcomes.items():
            verdict = outcome.verdict(expected[name], TIMEOUT)
            self.verdicts[verdict] += 1
            if outcome.error is not None:
                self.errors.append(f"{name}: {verdict}: {outcome.error!r:.300}")
        self.seconds.append(max(outcome.seconds for outcome in outcomes.values()))
        self.whole.append(whole)

    @property
    def bad(self) -> bool:
        return bool(self.verdicts["WRONG"] or self.verdicts["late"] or max(self.whole) > WHOLE_SECONDS)

    def __str__(self) -> str:
        cells = [
            self.fault,
            len(self.whole),
            self.verdicts["identical"],
            self.verdicts["clear error"],
            self.verdicts["late"],
            self.verdicts["WRONG"],
            f"{statistics.median(self.seconds):.1f} / {max(self.seconds):.1f}",
            f"{statistics.median(self.whole):.1f} / {max(self.whole):.1f}",
        ]
        return f"| {' | '.join(map(str, cells))} |"


HEADER = """| fault | trials | jobs identical | clear error | late | wrong | load, s | whole again, s |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def main(arguments: argparse.Namespace) -> int:
    """Run the trials; return 1 if anything was wrong, late, or not whole again in time."""
    chance = random.Random(arguments.seed)
    rows = []
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as cache:
        server = embedded.start(
            workers=2,
            port=0,
            spare_workers=SPARES,
            cache_dir=cache,
            fast_path_flops=0.0,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            log_level="error" if arguments.quiet else "warning",
        )
        proxy = Proxy(server.address)
        try:
            site = Site(server.address, server.process_id, 2 + SPARES, proxy, chance)
            wait_until_serving(server.address)
            with gw.connect(proxy.address) as client:
                load = Load(client)
                expected = {name: found.digest for name, found in run_all(load, 300.0).items()}
                assert all(expected.values()), "the undisturbed run failed"
                again = {name: found.digest for name, found in run_all(load, TIMEOUT).items()}
                assert again == expected, "two undisturbed runs differ"
                site.whole_again()
                for name, fault in FAULTS.items():
                    if arguments.only not in name:
                        continue
                    trials = arguments.kills if name.startswith("kill -9 of a worker") else arguments.trials
                    rows.append(_trials(name, trials, site, load, expected, fault, chance))
        finally:
            proxy.close()
            server.stop()
        if arguments.only in HELPER:
            rows.append(_helper_trials(arguments.trials, cache, expected, chance))
    return int(any(row.bad for row in rows))


def _trials(
    name: str,
    count: int,
    site: Site,
    load: Load,
    expected: dict[str, str],
    fault: Callable[[Site], None],
    chance: random.Random,
) -> Row:
    row = Row(name)
    for _ in range(count):
        whole: list[float] = []

        def strike(measured: list[float] = whole) -> None:
            time.sleep(chance.uniform(0.1, 1.2))
            fault(site)
            began = time.monotonic()
            time.sleep(0.1)
            site.whole_again()
            measured.append(time.monotonic() - began)

        outcomes = run_all(load, TIMEOUT, strike)
        row.add(outcomes, expected, whole[0])
    _show(row)
    return row


HELPER = "kill -9 of the helper while Ray starts"


def _helper_trials(count: int, cache: str, expected: dict[str, str], chance: random.Random) -> Row:
    """Kill the helper of servers that are starting, while it does all the work."""
    row = Row(HELPER)
    for _ in range(count):
        server = embedded.start(
            workers=2, port=0, cache_dir=cache, fast_path_flops=0.0, log_level="error", spare_workers=SPARES
        )
        proxy = Proxy(server.address)
        try:
            site = Site(server.address, server.process_id, 2 + SPARES, proxy, chance)
            whole: list[float] = []
            with gw.connect(proxy.address) as client:

                def strike(site: Site = site, measured: list[float] = whole) -> None:
                    time.sleep(chance.uniform(0.5, 2.0))
                    kill("helper")(site)
                    measured.append(site.whole_again())

                outcomes = run_all(Load(client), TIMEOUT, strike)
            row.add(outcomes, expected, whole[0])
        finally:
            proxy.close()
            server.stop()
    _show(row)
    return row


def _show(row: Row) -> None:
    print(row, flush=True)
    for error in row.errors:
        print(f"    {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="trials of killing a worker")
    parser.add_argument("--trials", type=int, default=3, help="trials of every other fault")
    parser.add_argument("--only", default="", help="faults that contain this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="without the server's log")
    sys.exit(main(parser.parse_args()))
