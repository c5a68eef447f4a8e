"""What users see of an error: their own frames and the method that they called."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw

OWN = os.path.join(os.path.dirname(str(gw.__file__)), "")
POINT = np.ones(4)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def branching(x: Any) -> Any:
    return x if x[0] > 0 else 2 * x


def failing(progress: gw.Progress) -> None:
    raise ZeroDivisionError


def faulty(x: Any) -> Any:
    return 2 * x if isinstance(x, np.ndarray) else 3 * x


CALLS: dict[str, Callable[[gw.Client, gw.Function], object]] = {
    "value": lambda c, f: f.value(POINT),
    "jacobian": lambda c, f: f.jacobian(POINT),
    "jacobian_blocks": lambda c, f: list(f.jacobian_blocks(POINT)),
    "accumulator": lambda c, f: c.function(lambda w, x: w @ x, POINT, POINT).accumulator(w=np.ones(3)).grad,
    "check": lambda c, f: f.check(POINT),
    "registered": lambda c, f: c.registered("0" * 64),
    "misspelt": lambda c, f: f(np.ones(3), timout=3),
    "traced": lambda c, f: c.function(branching, gw.spec(3)),
    "compared": lambda c, f: c.function(faulty, gw.spec(3))(np.ones(3)),
    "connect": lambda c, f: gw.connect("http://localhost"),
    "future": lambda c, f: in_stream(f),
}


def in_stream(f: gw.Function) -> object:
    with f.stream() as stream:
        return stream.value(POINT).result()


def shown(error: BaseException) -> tuple[list[str], list[str]]:
    """Return the functions of the package in a traceback that notebooks show, and those of its users."""
    own, users = [], []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(OWN):
            users.append(frame.f_code.co_name)
        elif "__tracebackhide__" not in frame.f_locals:
            own.append(frame.f_code.co_name)
    return own, users


@pytest.mark.filterwarnings("ignore::gradwire.GraphWarning")
@pytest.mark.parametrize("call", CALLS)
def test_a_users_error_shows_the_users_frames(client: gw.Client, call: str) -> None:
    f = client.function(lambda x: np.sin(x), gw.spec(3))
    with pytest.raises(gw.GradwireError) as raised:
        CALLS[call](client, f)
    own, users = shown(raised.value)
    assert len(own) <= 3
    assert users[:2] == ["test_a_users_error_shows_the_users_frames", "<lambda>"]
    assert set(users[2:]) <= {"branching", "in_stream", "result", "__get_result"}
    assert ("branching" in users) == (call == "traced")


def test_an_error_in_the_users_callback_shows_where(client: gw.Client) -> None:
    f = client.function(lambda x: np.sin(x), gw.spec(3))
    with pytest.raises(ZeroDivisionError) as raised:
        f.jacobian(np.ones(3), progress=failing)
    own, users = shown(raised.value)
    assert own == ["jacobian"] and users[-1] == "failing"


def test_a_fault_of_the_package_keeps_its_frames(client: gw.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwire.transport import receiver

    source = Path(receiver.__file__)
    code = compile("def broken(*_): raise RuntimeError('a fault')", str(source), "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    monkeypatch.setattr(receiver, "block_chunk", names["broken"])
    f = client.function(lambda x: np.sin(x), gw.spec(3))
    with pytest.raises(RuntimeError) as raised:
        f.jacobian(np.ones(3))
    assert "_one_stream" in shown(raised.value)[0]
