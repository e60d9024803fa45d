"""Fixtures for the tests of ``oci/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.oci.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store")
