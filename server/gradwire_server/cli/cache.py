"""`gradwire cache`: shows and deletes what servers keep on disk."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gradwire_server.cli.session import errors_in_a_line, require_server
from gradwire_server.sizes import text_of_bytes

app = typer.Typer(
    help="Show and delete the compiled kernels and loops that servers keep on disk.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir", file_okay=False, help="the servers' setting cache-dir; by default that of this user"
    ),
]


@app.command()
def info(cache_dir: Folder = None) -> None:
    """Show where they are, how many bytes they take, and when a kernel was last used."""
    folder = _folder(cache_dir, "gradwire cache info")
    from gradwire_server.compute.caches import disk
    from gradwire_server.process import loops

    kernels, compiled = disk.kept_files(folder), loops.kept_files(folder)
    print(folder)
    used = max((file.used for file in kernels), default=None)
    when = "" if used is None else f", last used {datetime.fromtimestamp(used).astimezone():%Y-%m-%d %H:%M}"
    print(f"  kernels, plans and graphs: {_amount([file.nbytes for file in kernels])}{when}")
    print(f"  loops: {_amount([file.stat().st_size for file in compiled])}")


@app.command()
def clear(cache_dir: Folder = None) -> None:
    """Delete them, and nothing else that is there; servers that run compile again what they need."""
    folder = _folder(cache_dir, "gradwire cache clear")
    from gradwire_server.compute.caches import disk
    from gradwire_server.process import loops

    freed = disk.clear(folder)
    for file in loops.kept_files(folder):
        freed += file.stat().st_size
        file.unlink(missing_ok=True)
    print(f"{folder}: {text_of_bytes(freed)} freed")


def _folder(given: Path | None, command: str) -> Path:
    with errors_in_a_line():
        require_server(command)
    from gradwire_server.settings import Settings
    from gradwire_server.settings_sources import SettingsError

    try:
        folder = given or Settings.read().cache_dir
    except SettingsError as error:
        typer.echo(f"gradwire: {error}", err=True)
        raise typer.Exit(1) from None
    if folder is None:
        typer.echo("gradwire: the setting cache-dir is null: name a folder with --cache-dir", err=True)
        raise typer.Exit(1)
    return folder


def _amount(sizes: list[int]) -> str:
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    return f"{files}, {text_of_bytes(sum(sizes))}"
