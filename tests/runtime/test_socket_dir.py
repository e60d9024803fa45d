"""The private folder for sockets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lading.runtime.errors import BadRuntimeDir
from lading.runtime.socket_dir import SocketDir


def test_folders_are_private_and_apart(runtime_dir: Path) -> None:
    one, two = SocketDir.open(runtime_dir / "made"), SocketDir.open(runtime_dir / "made")
    assert one.path != two.path
    for folder in (runtime_dir / "made", one.path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert one.new_socket() != one.new_socket()
    assert one.new_socket().parent == one.path
    one.close()
    assert not one.path.exists() and two.path.exists()
    one.close()
    two.close()


def test_what_a_killed_keeper_left_is_removed_and_a_living_ones_is_not(runtime_dir: Path) -> None:
    living = SocketDir.open(runtime_dir)
    dead = SocketDir.open(runtime_dir)
    (dead.path / "1.sock").touch()
    os.close(dead._lock)  # what the kernel does for a killed process
    later = SocketDir.open(runtime_dir)
    assert not dead.path.exists() and living.path.exists()
    living.close()
    later.close()


def test_a_long_name_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(BadRuntimeDir, match="its name is too long") as caught:
        SocketDir.open(tmp_path / ("x" * 90))
    assert caught.value.hint is not None and "at most" in caught.value.hint
    assert not any(tmp_path.iterdir())


def test_a_folder_that_others_may_write_is_refused(runtime_dir: Path) -> None:
    shared = runtime_dir / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(BadRuntimeDir, match="others may write there") as caught:
        SocketDir.open(shared)
    assert caught.value.hint == f"run: chmod 0700 {shared}"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_that_is_no_folder_of_ours_is_refused(runtime_dir: Path, kind: str) -> None:
    place = runtime_dir / "place"
    if kind == "file":
        place.touch()
    else:
        (runtime_dir / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(runtime_dir / "elsewhere")
    with pytest.raises(BadRuntimeDir):
        SocketDir.open(place)
