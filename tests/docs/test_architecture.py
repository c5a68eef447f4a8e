"""The page on the architecture against the tree: what it names exists, and what exists it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = {
    "client/gradwire": ("_face", "_sync", "transport", "graphs", "frontends", "pictures"),
    "engine/gradwire_engine": ("graphs", "lowering", "jaxprs", "planning", "sparsity"),
    "server/gradwire_server": ("rpc", "compute", "access", "observe", "process", "cli"),
}


def test_every_path_that_the_page_names_exists() -> None:
    named = {
        text for text in re.findall(r"`([^`\n]+)`", PAGE) if re.fullmatch(r"[\w./-]+", text) and "/" in text
    }
    assert len(named) > 30
    missing = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_on_the_page(package: str) -> None:
    rooms = {folder.parent.name for folder in (ROOT / package).glob("*/__init__.py")} - {"v1"}
    assert rooms == set(PACKAGES[package])
    assert all(f"`{package}/{room}" in PAGE for room in rooms)


@pytest.mark.parametrize("folder", ["client", "engine", "server"])
def test_tests_mirror_the_rooms(folder: str) -> None:
    package = next(package for package in PACKAGES if package.startswith(folder))
    rooms = {room.removeprefix("_") for room in PACKAGES[package]}
    tested = {path.name for path in (ROOT / "tests" / folder).iterdir() if any(path.glob("**/test_*.py"))}
    assert rooms - tested <= {"process"}


def test_no_folder_lays_more_than_fifteen_modules_side_by_side() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := sum(path.name != "__init__.py" for path in folder.glob("*.py"))) > 15
    }
    assert not crowded


def test_no_module_that_is_written_by_hand_is_longer_than_five_hundred_lines() -> None:
    modules = [
        path for package in (*PACKAGES, "proto/gradwire_wire") for path in (ROOT / package).rglob("*.py")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in modules if "v1" not in path.parts}
    lengths = {
        str(path.relative_to(ROOT)): len(text.splitlines())
        for path, text in texts.items()
        if not text.startswith("# Generated from")
    }
    assert not {path: length for path, length in lengths.items() if length > 500}
