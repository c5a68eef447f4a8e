"""Settings: where they come from, and which source wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradwire_server.settings import Settings
from gradwire_server.settings_sources import SettingsError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("GRADWIRE_"):
            monkeypatch.delenv(name)


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gradwire.toml"
    file.write_text("port = 1\nworkers = 1\nqueue_length = 1\n")
    monkeypatch.setenv("GRADWIRE_CONFIG", str(file))
    monkeypatch.setenv("GRADWIRE_PORT", "2")
    monkeypatch.setenv("GRADWIRE_WORKERS", "2")
    settings = Settings.read(["--port", "3"])
    assert (settings.port, settings.workers, settings.queue_length) == (3, 2, 1)


def test_the_file_of_a_flag_wins_over_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("port = 1")
    (tmp_path / "b.toml").write_text("port = 2")
    monkeypatch.setenv("GRADWIRE_CONFIG", str(tmp_path / "a.toml"))
    assert Settings.read().port == 1
    assert Settings.read(["--config", str(tmp_path / "b.toml")]).port == 2
    assert Settings.read([f"--config={tmp_path / 'b.toml'}", "--port=3"]).port == 3


def test_names_are_written_with_hyphens_or_underscores(tmp_path: Path) -> None:
    file = tmp_path / "gradwire.toml"
    for name in ("queue-length", "queue_length"):
        file.write_text(f"{name} = 7")
        assert Settings.read(["--config", str(file)]).queue_length == 7
        assert Settings.read([f"--{name}", "8"]).queue_length == 8
        assert Settings.read([f"--{name}=9"]).queue_length == 9


@pytest.mark.parametrize(
    ("text", "number"),
    [("512MB", 512 * 10**6), ("2GiB", 2 << 30), ("1.5 kib", 1536), ("7", 7), ("7B", 7), ("1TB", 10**12)],
)
def test_bytes_may_have_a_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, number: int
) -> None:
    fields = [name for name in Settings.model_fields if name.endswith("_bytes")]
    assert len(fields) > 15
    for field in fields:
        assert getattr(Settings.read([f"--{field}={text}"]), field) == number
    file = tmp_path / "gradwire.toml"
    file.write_text(f'graph_bytes = "{text}"')
    assert Settings.read(["--config", str(file)]).graph_bytes == number
    monkeypatch.setenv("GRADWIRE_GRAPH_BYTES", text)
    assert Settings.read().graph_bytes == number


@pytest.mark.parametrize("text", ["512M", "2Gi", "1.5B", "-1MB", "MB", "1e3MB", "", "1 2MB", "0.1kiB"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--graph-bytes .*flag"):
        Settings.read([f"--graph-bytes={text}"])


UNKNOWN = {
    "GRADWIRE_EVALUATION_BYTE": "did you mean GRADWIRE_EVALUATION_BYTES",
    "GRADWIRE_ADRESS": "did you mean GRADWIRE_ADDRESS",
    "gradwire_prot": "did you mean GRADWIRE_PORT",
    "GRADWIRE_QQ": "no such setting",
    "GRADWIRE_SERVICE_HOST": "enableServiceLinks: false",
    "GRADWIRE_SERVICE_PORT_GRPC": "enableServiceLinks: false",
    "GRADWIRE_PORT_50051_TCP_ADDR": "enableServiceLinks: false",
}


@pytest.mark.parametrize(("name", "message"), UNKNOWN.items())
def test_a_variable_that_nothing_reads_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    assert name in str(caught.value) and message in str(caught.value) and "environment" in str(caught.value)


def test_every_setting_may_be_a_variable_and_none_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        with monkeypatch.context() as one:
            one.setenv(f"GRADWIRE_{field.upper()}", "")
            with pytest.raises(SettingsError, match=f"GRADWIRE_{field.upper()}.*it is empty"):
                Settings.read()
    monkeypatch.setenv("GRADWIRE_ADDRESS", "localhost:50051")
    monkeypatch.setenv("GRADWIRE_CACHE_DIR", "null")
    assert Settings.read().cache_dir is None


@pytest.mark.parametrize("flag", ["--host=", "--cache-dir=", "--port=", "--device=", "--workers="])
def test_an_empty_flag_is_refused(flag: str) -> None:
    with pytest.raises(SettingsError, match=flag.rstrip("=")):
        Settings.read([flag])


def test_an_error_names_the_setting_and_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gradwire.toml"
    file.write_text("queue-length = 0\nplan_bloks = 3\n")
    monkeypatch.setenv("GRADWIRE_WORKERS", "0")
    with pytest.raises(SettingsError) as caught:
        Settings.read(["--config", str(file), "--port", "many"], attempts=0)
    lines = str(caught.value).splitlines()
    assert any(line.startswith("--port 'many' (flag): ") for line in lines)
    assert any(line.startswith("GRADWIRE_WORKERS='0' (environment): ") for line in lines)
    assert any(line.startswith(f"queue_length = 0 in {file}: ") for line in lines)
    assert f"plan_bloks = 3 in {file}: there is no such setting, did you mean plan_blocks?" in lines
    assert any(line.startswith("attempts=0: ") for line in lines)
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("port = ", "Invalid value"),
        ("port = 1\nport = 2", "overwrite"),
        ("queue-length = 1\nqueue_length = 1", "there twice"),
        ('config = "other.toml"', "cannot name another"),
        ("[server]\nport = 1", "no such setting"),
    ],
)
@pytest.mark.parametrize("by_flag", [True, False])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, message: str, by_flag: bool
) -> None:
    file = tmp_path / "gradwire.toml"
    if content is not None:
        file.write_text(content)
    if not by_flag:
        monkeypatch.setenv("GRADWIRE_CONFIG", str(file))
    with pytest.raises(SettingsError) as caught:
        Settings.read(["--config", str(file)] if by_flag else [])
    assert str(file) in str(caught.value) and message in str(caught.value)
    if content is None:
        assert ("--config" if by_flag else "GRADWIRE_CONFIG") in str(caught.value)


@pytest.mark.parametrize("bad", [{"port": -1}, {"workers": 0}, {"device": "abacus"}, {"prot": 1}])
def test_a_setting_that_is_unknown_or_out_of_range_is_refused(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(SettingsError, match=name):
        Settings.read(**bad)


def test_flags_carry_what_was_set_to_another_process() -> None:
    settings = Settings(port=0, workers=3, cache_dir=None, drain_seconds=0.5, log_format="json")
    assert Settings.read(settings.flags()) == settings


def test_every_setting_says_what_it_is() -> None:
    unexplained = {
        name for name, field in Settings.model_fields.items() if not field.description and "log_" not in name
    }
    assert not unexplained


def test_the_engine_gets_its_share_of_the_limits() -> None:
    limits = Settings(graph_nodes=7, array_bytes=9, evaluation_bytes=11).limits
    assert (limits.nodes, limits.array_bytes, limits.evaluation_bytes) == (7, 9, 11)
