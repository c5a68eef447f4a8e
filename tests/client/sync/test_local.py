"""A local server is stopped on every way out, and a process ends quietly whatever is still open."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire_server.process import embedded
from tests.client.wire_server import SQUARE, WireServer

X = np.array([1.0, 2.0])


class EmbeddedServer:
    """What the embedded server gives."""

    def __init__(self, address: str, settings: dict[str, Any]) -> None:
        self.address, self.settings, self.stopped = address, settings, 0

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def handles(wire_server: WireServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EmbeddedServer]]:
    started: list[EmbeddedServer] = []

    def start(**settings: Any) -> EmbeddedServer:
        started.append(EmbeddedServer(wire_server.address, settings))
        return started[-1]

    monkeypatch.setattr(embedded, "start", start)
    yield started


def test_the_server_lives_as_long_as_its_block(handles: list[EmbeddedServer]) -> None:
    with gw.local(workers=3, message_bytes=1 << 20) as client:
        np.testing.assert_array_equal(client.function(SQUARE)(X), X**2)
        assert handles[0].stopped == 0
    assert handles[0].settings == {"workers": 3, "message_bytes": 1 << 20}
    assert handles[0].stopped == 1


def test_an_error_in_the_block_stops_the_server_too(handles: list[EmbeddedServer]) -> None:
    with pytest.raises(ZeroDivisionError), gw.local():
        _ = 1 / 0
    assert handles[0].stopped == 1


def test_closing_twice_stops_once(handles: list[EmbeddedServer]) -> None:
    client = gw.local()
    client.close()
    client.close()
    assert handles[0].stopped == 1


def test_without_the_server_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwire_server import process

    monkeypatch.delattr(process, "embedded")
    monkeypatch.setitem(sys.modules, "gradwire_server.process.embedded", None)
    with pytest.raises(gw.GradwireError, match=r"pip install 'gradwire\[server\]'"):
        gw.local()


LEFT_OPEN = {
    "a client": "f(x)",
    "a stream": "m = f.stream(); s = m.__enter__(); s.vjp(x, x).result()",
    "blocks": "blocks = f.jacobian_blocks(x); next(blocks)",
    "a call in flight": "m = f.stream(); s = m.__enter__(); [s.vjp(x, x) for _ in range(50)]",
}


@pytest.mark.parametrize("what", LEFT_OPEN)
def test_a_process_that_leaves_things_open_ends_at_once_and_quietly(
    wire_server: WireServer, what: str
) -> None:
    wire_server.faults.block_width = 1
    script = textwrap.dedent(f"""
        import numpy as np, onnx, gradwire as gw
        client = gw.connect({wire_server.address!r})
        f = client.function(onnx.parser.parse_model({TEXT!r}))
        x = np.ones(5)
        {LEFT_OPEN[what]}
        print("end")
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


TEXT = '<ir_version: 10, opset_import: ["" : 21]>\nsquare (double[N] x) => (double[N] y) { y = Identity(x) }'


def test_importing_the_client_imports_nothing_heavy() -> None:
    script = (
        "import sys, gradwire; heavy = {'jax', 'ray', 'scipy', 'torch', 'tqdm', 'gradwire_server', "
        "'gradwire_engine'}; print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n"


def test_a_wrong_setting_is_refused_by_name() -> None:
    with pytest.raises(gw.InvalidArgumentError, match="prot=1: there is no such setting, did you mean port"):
        gw.local(prot=1)
    with pytest.raises(gw.InvalidArgumentError, match="workers=0: "):
        gw.local(workers=0)
