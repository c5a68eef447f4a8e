"""`gradwire cache`: shows and deletes a server's own files and no others."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from gradwire_server.cli.app import app
from gradwire_server.compute.caches.disk import FOLDER, Disk
from gradwire_server.process.environment import LOOPS

RUN = CliRunner()


def _filled(folder: Path) -> list[Path]:
    """Make kernels, loops under numba's names, and files of somebody else; return the last."""
    Disk(folder, 1 << 20).save("0" * 64, bytes(3000))
    room = folder / LOOPS / ("coloring_" + "0a" * 20)
    room.mkdir(parents=True)
    for name in ("distance2.bit_number-89.py311.1.nbc", "distance2.bit_number-89.py311.nbi"):
        (room / name).write_bytes(bytes(500))
    (folder / LOOPS / "compiled-0.61-0123456789abcdef").touch()
    theirs = [folder / "thesis.tex", folder / FOLDER / "notes", folder / LOOPS / "music.mp3", room / "x.py"]
    for path in theirs:
        path.write_text("mine")
    return theirs


def test_info_counts_what_servers_keep(tmp_path: Path) -> None:
    _filled(tmp_path)
    shown = RUN.invoke(app, ["cache", "info", "--cache-dir", str(tmp_path)])
    assert shown.exit_code == 0
    assert "kernels, plans and graphs: 1 file, 3.0 KiB, last used 2" in shown.output
    assert "loops: 3 files, 1000 B" in shown.output


def test_clear_deletes_all_of_it_and_nothing_else(tmp_path: Path) -> None:
    theirs = _filled(tmp_path)
    cleared = RUN.invoke(app, ["cache", "clear"], env={"GRADWIRE_CACHE_DIR": str(tmp_path)})
    assert cleared.exit_code == 0 and "freed" in cleared.output
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(theirs)
    assert RUN.invoke(app, ["cache", "clear", "--cache-dir", str(tmp_path / "absent")]).exit_code == 0


def test_no_cache_is_said_to_be_none() -> None:
    shown = RUN.invoke(app, ["cache", "info"], env={"GRADWIRE_CACHE_DIR": "null"})
    assert shown.exit_code == 1 and "cache-dir is null" in shown.output
