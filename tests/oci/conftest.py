"""Fixtures for the tests of ``oci/``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lading.oci.store import Store

pytest.register_assert_rewrite("store_contract", "store_oracle")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def memory_folder() -> Iterator[Path | None]:
    """An empty folder on a file system in memory; None where there is none."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="lading-test-", dir=shm))
    yield folder
    shutil.rmtree(folder)
