"""Bringing a store into being, once, whoever comes first."""

from __future__ import annotations

import os
from pathlib import Path

from ..canonical import canonical_json, strict_json
from ..errors import BadJson, NotAStore
from .disk import open_regular, replace_durably, translating
from .index import TagIndex
from .layout import StoreLayout
from .lock import locked

STORE_VERSION = 1
"""Of what is ours in a store. A store of a higher version is refused: it may mean what we do not know."""

_OWN_NAMES = frozenset(
    {"blobs", "contents", "index.json", "ingest", "leases", "lock", "quarantine", "store.json"}
)
_SMALL_FILE = 64 << 10


def prepare(layout: StoreLayout) -> None:
    """Make sure that the root is a store that we can use; create one where there is nothing.

    ``oci-layout`` is written last, so its presence says that the rest is there; an interrupted creation is
    finished by the next. Where it is present, nothing is written.

    Raises: NotAStore, StoreReadOnly, DiskFull, StoreFailure.
    """
    if not layout.oci_layout.exists():
        _create(layout)
    _require_layout(layout)
    _require_version(layout)


def ensure_folders(layout: StoreLayout) -> None:
    """Create the folders that writing needs: a layout that another program made lacks ours.

    Raises: StoreReadOnly, DiskFull, StoreFailure.
    """
    for folder in (layout.ingest, layout.leases):
        with translating("creating", folder):
            folder.mkdir(exist_ok=True)


def _create(layout: StoreLayout) -> None:
    root = layout.root
    with translating("creating", root):
        root.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in root.iterdir() if path.name not in _OWN_NAMES)
    if foreign and not layout.oci_layout.exists():
        raise NotAStore(
            root,
            f"the folder holds other files, for example {foreign[0]!a}",
            hint="choose an empty folder, or an OCI image layout",
        )
    with locked(layout.lock, "exclusive"):
        if layout.oci_layout.exists():  # another process was quicker
            return
        ensure_folders(layout)
        with translating("creating", root):
            (layout.blobs / "sha256").mkdir(parents=True, exist_ok=True)
            if not layout.index.exists():
                TagIndex(layout).create()
            _write_json(layout, layout.version, {"version": STORE_VERSION})
            _write_json(layout, layout.oci_layout, {"imageLayoutVersion": "1.0.0"})


def _write_json(layout: StoreLayout, path: Path, value: dict[str, object]) -> None:
    replace_durably(path, canonical_json(value), scratch=layout.ingest)


def _require_layout(layout: StoreLayout) -> None:
    version = _read_object(layout, layout.oci_layout).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise NotAStore(layout.root, "expected an OCI image layout of version 1")


def _require_version(layout: StoreLayout) -> None:
    if not layout.version.exists():  # made by another program, and ours to use
        return
    version = _read_object(layout, layout.version).get("version")
    if version != STORE_VERSION or isinstance(version, bool):
        raise NotAStore(
            layout.root,
            f"expected a store of version {STORE_VERSION}, got {version!a}",
            hint="a newer lading made it: upgrade, or choose another folder with LADING_HOME",
        )


def _read_object(layout: StoreLayout, path: Path) -> dict[str, object]:
    with (
        translating("reading", path),
        os.fdopen(open_regular(path, follow_links=False), "rb") as file,
    ):
        data = file.read(_SMALL_FILE + 1)
    try:
        value = strict_json(data, what=path.name, limit=_SMALL_FILE)
    except BadJson as error:
        raise NotAStore(layout.root, error.message) from error
    if not isinstance(value, dict):
        raise NotAStore(layout.root, f"{path.name} does not hold a JSON object")
    return value
