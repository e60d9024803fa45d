"""What the machine has, and what of it a control group leaves."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from lading.runtime import memory
from lading.runtime.memory import oom_kills, process_memory, read_machine_memory
from lading.runtime.size_text import size_text


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group /a/b under a root of our own; the folder of b."""
    root = tmp_path / "cgroup"
    (root / "a" / "b").mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    monkeypatch.setattr(memory, "_CGROUP_ROOT", root)
    monkeypatch.setattr(memory, "_OWN_CGROUP", own)
    return root / "a" / "b"


def limit(group: Path, most: str, used: int, droppable: int = 0) -> None:
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\nactive_file 0\n")


def test_without_limits_it_is_the_machines() -> None:
    found = read_machine_memory()
    assert 0 < found.available <= found.total <= psutil.virtual_memory().total


def test_the_tightest_group_counts_and_page_cache_may_be_dropped(groups: Path) -> None:
    limit(groups, "3000000", used=2_500_000, droppable=1_000_000)
    limit(groups.parent, "9000000", used=8_900_000)
    found = read_machine_memory()
    assert (found.total, found.available) == (3_000_000, 100_000)


def test_no_limit_and_nonsense_count_as_none(groups: Path) -> None:
    limit(groups, "max", used=1)
    limit(groups.parent, "banana", used=1)
    assert read_machine_memory().total == psutil.virtual_memory().total


def test_a_group_outside_is_not_followed(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/../../etc\n")
    limit(groups, "5", used=1)
    assert read_machine_memory().total == psutil.virtual_memory().total


def test_kills_for_want_of_memory_are_counted(groups: Path) -> None:
    assert oom_kills() == 0
    (groups / "memory.events").write_text("oom 3\noom_kill 2\n")
    assert oom_kills() == 2


def test_memory_of_processes() -> None:
    assert 1_000_000 < process_memory(os.getpid()) < psutil.virtual_memory().total
    assert process_memory(2**22 + 1) == 0


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (274_302_450, "274 MB"),
        (4_683_073_184, "4.7 GB"),
        (42_520_393_152, "42 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
