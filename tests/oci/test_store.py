"""The store's promises, on each kind of file system that this machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_contract import StoreContract

from lading.oci.store import Store


class TestStoreOnDisk(StoreContract):
    """Where temporary files are."""


class TestStoreOnTmpfs(StoreContract):
    """In memory, where the file system differs from the one of imported files."""

    @pytest.fixture
    def store(self, memory_folder: Path | None) -> Store:
        if memory_folder is None:
            pytest.skip("/dev/shm cannot be written")
        return Store.open(memory_folder / "store")


class TestStoreMadeByAnotherProgram(StoreContract):
    """A bare image layout, without anything of ours."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        root = tmp_path / "layout"
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (root / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
        store = Store.open(root)
        assert sorted(path.name for path in root.iterdir()) == ["blobs", "index.json", "oci-layout"]
        (root / "ingest").mkdir()
        return store
