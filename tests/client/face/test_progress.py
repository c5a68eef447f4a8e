"""What is said of a derivative while it is uploaded, compiled and computed."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gradwire as gw

SIDE = 512
PHASES = ["uploading", "compiling", "computing"]


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def closing_over(seed: int, client: gw.Client) -> gw.Function:
    """Close over 2 MiB, which the server lacks; nothing but the derivative itself uploads them."""
    a = np.random.default_rng(seed).standard_normal((SIDE, SIDE))
    return client.function(lambda x: np.sin(a @ x), gw.spec(SIDE), verify="never")


def test_uploads_and_compiling_are_said_before_blocks(client: gw.Client) -> None:
    f, x = closing_over(0, client), np.ones(SIDE)
    seen: list[gw.Progress] = []
    f.jacobian(x, progress=seen.append)
    assert list(dict.fromkeys(one.phase for one in seen)) == PHASES
    for phase in PHASES:
        own = [one for one in seen if one.phase == phase]
        assert all(before.bytes_done <= after.bytes_done for before, after in pairwise(own))
    sent = [one for one in seen if one.phase == "uploading"]
    assert sent[-1].bytes_done == sent[-1].bytes_total >= SIDE * SIDE * 8
    assert len(sent) > 2 and sent[-1].blocks_total == 0
    assert seen[-1].bytes_done == seen[-1].bytes_total == SIDE * SIDE * 8
    assert seen[-1].blocks_done == seen[-1].blocks_total > 0

    seen.clear()
    f.jacobian(x, progress=seen.append)
    assert "uploading" not in [one.phase for one in seen]


def test_an_error_in_a_report_ends_the_call(client: gw.Client) -> None:
    def fail(progress: gw.Progress) -> None:
        raise KeyError(progress.phase)

    with pytest.raises(KeyError, match="uploading"):
        closing_over(2, client).jacobian(np.ones(SIDE), progress=fail)


def test_the_bar_names_the_phase(client: gw.Client, capsys: pytest.CaptureFixture[str]) -> None:
    f = closing_over(1, client)
    f.jacobian(np.ones(SIDE), progress=True)
    shown = capsys.readouterr().err
    assert "jacobian, uploading" in shown
    assert shown.rstrip().splitlines()[-1].split("\r")[-1].startswith("jacobian: 100%")
