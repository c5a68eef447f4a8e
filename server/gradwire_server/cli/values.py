"""Reads arrays that the command line names, and writes results."""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import typer

Array = np.ndarray[Any, Any]


def read_assignments(items: list[str] | None, option: str) -> dict[str, Array]:
    """Read arrays by name from `NAME=VALUE` items.

    VALUE is a .npy file, one array of a .npz file (`file.npz:key`, or the only one in it), or a literal:
    a number or a nested list of numbers.

    Raises:
        typer.BadParameter: an item is malformed, or names a file or array that is not there.
    """
    arrays: dict[str, Array] = {}
    for item in items or []:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{item!r}: write NAME=VALUE, for example x=x.npy", param_hint=option)
        arrays[name] = _read(text, item, option)
    return arrays


def _read(text: str, item: str, option: str) -> Array:
    path, _, key = text.partition(".npz:")
    if text.endswith(".npy"):
        return np.asarray(_load(Path(text), item, option))
    if key or text.endswith(".npz"):
        archive = _load(Path(f"{path}.npz" if key else text), item, option)
        chosen = key or (archive.files[0] if len(archive.files) == 1 else "")
        if chosen not in archive.files:
            raise typer.BadParameter(
                f"{item!r}: name one of its arrays, as in file.npz:{archive.files[0]}", param_hint=option
            )
        return np.asarray(archive[chosen])
    try:
        value: Array = np.asarray(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        raise typer.BadParameter(
            f"{item!r}: {text!r} is neither a .npy or .npz file nor numbers", param_hint=option
        ) from None
    if value.dtype.kind not in "bifc":
        raise typer.BadParameter(f"{item!r}: {text!r} is not numeric", param_hint=option)
    return value


def _load(path: Path, item: str, option: str) -> Any:  # an array, or an archive of them
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        return loaded
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{item!r}: {error}", param_hint=option) from None


def _write_archive(arrays: Mapping[str, Array], output: Path) -> None:
    """Write what `np.savez` does, which has arguments of its own that no array can be called like."""
    with zipfile.ZipFile(output, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def write(arrays: Mapping[str, Array], output: Path | None) -> None:
    """Write arrays to a file, or print them when there is none.

    Raises:
        typer.BadParameter: a .npy file is asked for more than one array, or the suffix is neither.
    """
    if output is None:
        for name, array in arrays.items():
            print(f"{name} {array.dtype}{list(array.shape)}")
            print(np.array2string(array, threshold=200, precision=8))
        return
    if output.suffix == ".npz":
        _write_archive(arrays, output)
    elif output.suffix == ".npy" and len(arrays) == 1:
        np.save(output, next(iter(arrays.values())))
    else:
        raise typer.BadParameter(
            f"{output}: write .npz" + (", or .npy for a single array" if len(arrays) == 1 else ""),
            param_hint="--output",
        )
    print(
        f"{output}: {', '.join(f'{name}{list(array.shape)}' for name, array in arrays.items())}",
        file=sys.stderr,
    )
