"""Settings: where they come from, and which source wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gradwire_server.settings import Settings


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
    settings = Settings.from_flags(["--port", "3"])
    assert (settings.port, settings.workers, settings.queue_length) == (3, 2, 1)


def test_a_config_file_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWIRE_CONFIG", "/nowhere/gradwire.toml")
    with pytest.raises(FileNotFoundError, match="GRADWIRE_CONFIG"):
        Settings()


@pytest.mark.parametrize("bad", [{"port": -1}, {"workers": 0}, {"device": "abacus"}, {"prot": 1}])
def test_a_setting_that_is_unknown_or_out_of_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**bad)  # type: ignore[arg-type]


def test_flags_carry_what_was_set_to_another_process() -> None:
    settings = Settings(port=0, workers=3, cache_dir=None, drain_seconds=0.5, log_format="json")
    assert Settings.from_flags(settings.flags()) == settings


def test_every_setting_says_what_it_is() -> None:
    unexplained = {
        name for name, field in Settings.model_fields.items() if not field.description and "log_" not in name
    }
    assert not unexplained


def test_the_engine_gets_its_share_of_the_limits() -> None:
    limits = Settings(graph_nodes=7, array_bytes=9, evaluation_bytes=11).limits
    assert (limits.nodes, limits.array_bytes, limits.evaluation_bytes) == (7, 9, 11)
