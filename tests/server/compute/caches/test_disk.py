"""The cache on disk: what it touches, trusts and leaves, with real files and processes."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradwire_server.compute.caches.disk import FOLDER, Disk, clear, kept_files

MIB = 1 << 20


def key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / FOLDER).iterdir())


def test_what_is_saved_is_there_after_a_restart_for_this_user_alone(tmp_path: Path) -> None:
    Disk(tmp_path / "cache", MIB).save(key("a"), {"a": 1})
    assert Disk(tmp_path / "cache", MIB).load(key("a")) == {"a": 1}
    for folder in (tmp_path / "cache", tmp_path / "cache" / FOLDER):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    disk = Disk(tmp_path, MIB)
    disk.save(key("a"), list(range(1000)))
    (file,) = (tmp_path / FOLDER).iterdir()
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    assert disk.load(key("a")) is None
    assert disk.load(key("other")) is None


def test_files_of_the_user_are_never_touched(tmp_path: Path) -> None:
    theirs = [tmp_path / "thesis.tex", tmp_path / key("mine"), tmp_path / FOLDER / "notes.txt"]
    theirs += [tmp_path / FOLDER / ".new-draft", tmp_path / FOLDER / f"{key('b')}.npy"]
    (tmp_path / FOLDER).mkdir(mode=0o700)
    for path in theirs:
        path.write_bytes(bytes(5000))
        os.utime(path, (0, 0))
    disk = Disk(tmp_path, 3000)
    for number in range(8):
        disk.save(key(number), bytes(1000))
    clear(tmp_path)
    assert [path.stat().st_size for path in theirs] == [5000] * len(theirs)
    assert not kept_files(tmp_path)


def test_the_bound_holds_after_every_save_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 20_000)
    for number in range(60):
        disk.save(key(number), bytes(1000))
        file = tmp_path / FOLDER / f"{key(number)}.pickle"
        os.utime(file, (number, number))
        assert disk.load(key("0")) is not None or number > 0
        assert held(tmp_path) <= 20_000
    assert disk.load(key(59)) is not None
    assert disk.load(key(5)) is None
    assert held(tmp_path) > 10_000


def test_a_start_brings_a_folder_within_a_smaller_bound(tmp_path: Path) -> None:
    disk = Disk(tmp_path, MIB)
    for age, name in enumerate(("new", "old")):
        disk.save(key(name), bytes(1000))
        os.utime(tmp_path / FOLDER / f"{key(name)}.pickle", (1000 - age, 1000 - age))
    again = Disk(tmp_path, 1500)
    assert again.load(key("new")) == bytes(1000)
    assert again.load(key("old")) is None


def test_a_value_larger_than_the_bound_displaces_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 3000)
    disk.save(key("small"), 1)
    disk.save(key("large"), bytes(5000))
    assert disk.load(key("small")) == 1
    assert len(kept_files(tmp_path)) == 1


def test_unfinished_files_go_when_they_are_old_and_not_while_another_server_may_write_them(
    tmp_path: Path,
) -> None:
    Disk(tmp_path, MIB)
    old, young = (tmp_path / FOLDER / f".new-{name}.part" for name in ("abcd_123", "zyxw_987"))
    for path in (old, young):
        path.write_bytes(bytes(10))
    os.utime(old, (time.time() - 7200,) * 2)
    Disk(tmp_path, MIB)
    assert (old.exists(), young.exists()) == (False, True)
    clear(tmp_path)
    assert young.exists()


def test_two_processes_keep_one_folder_within_its_bound(tmp_path: Path) -> None:
    program = """
import hashlib, sys
from pathlib import Path
from gradwire_server.compute.caches.disk import Disk
disk = Disk(Path(sys.argv[1]), 400_000)
for number in range(300):
    key = hashlib.sha256(f"{sys.argv[2]} {number}".encode()).hexdigest()
    disk.save(key, bytes(5000))
    assert disk.load(key) in (bytes(5000), None)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        for number in range(2)
    ]
    most = 0
    while any(writer.poll() is None for writer in writers):
        most = max(most, sum(file.nbytes for file in kept_files(tmp_path)))
    # Each looks at what the other saved after a sixteenth of the bound.
    assert most <= 400_000 * (1 + 2 / 16)
    assert [(writer.returncode, writer.communicate()[0]) for writer in writers] == [(0, b"")] * 2
    assert not [file for file in kept_files(tmp_path) if not file.finished]


def test_a_full_disk_leaves_no_litter_and_is_told_of_once(tmp_path: Path) -> None:
    # The system refuses to write files of over 10,000 bytes, as it does on a disk that is full.
    program = """
import resource, sys
from pathlib import Path
from gradwire_server.compute.caches.disk import Disk
disk = Disk(Path(sys.argv[1]), 1 << 30)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for number in range(5):
    disk.save(f"{number:064x}", bytes(100_000))
disk.save(f"{9:064x}", "small")
assert disk.load(f"{9:064x}") == "small"
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("not kept on disk") == 1
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [f"{9:064x}.pickle"]


class Trap:
    """Loading it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("opened", ["the folder", "its parent", "a parent of that"])
def test_nothing_is_read_or_written_where_others_could_exchange_it(tmp_path: Path, opened: str) -> None:
    cache = tmp_path / "shared" / "cache"
    Disk(cache, MIB)
    data = pickle.dumps(Trap(tmp_path / "loaded"))
    planted = cache / FOLDER / f"{key('trap')}.pickle"
    planted.write_bytes(hashlib.sha256(data).digest() + data)
    os.utime(planted, (0, 0))
    folders = {"the folder": cache / FOLDER, "its parent": cache, "a parent of that": cache.parent}
    folders[opened].chmod(0o777)
    assert Disk.at(cache, 1) is None
    assert planted.exists() and not (tmp_path / "loaded").exists()
    folders[opened].chmod(0o700)
    disk = Disk.at(cache, MIB)
    assert disk is not None
    disk.load(key("trap"))
    assert (tmp_path / "loaded").exists()


def test_a_folder_in_one_where_all_may_write_and_only_owners_may_rename_is_used(
    tmp_path: Path,
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o1777)
    assert Disk.at(tmp_path / "public", MIB) is not None


def test_a_link_to_a_folder_that_others_could_exchange_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "public" / "target").mkdir(parents=True)
    (tmp_path / "public").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "public" / "target")
    assert Disk.at(tmp_path / "link", MIB) is None
    assert not list((tmp_path / "public" / "target").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    assert Disk.at(tmp_path / "theirs", MIB) is None
    assert not list((tmp_path / "theirs").iterdir())
