"""``index.json``: the tags of a store.

An entry is a descriptor with the full reference in ``org.opencontainers.image.ref.name``, so that
``skopeo inspect oci:STORE:registry.ollama.ai/library/llama3.2:latest`` finds it, and the time of tagging
in an annotation of ours. Entries of other programs are kept as they are: one whose name reads as a
reference is a tag like any other, one without name keeps its content alive.

A checksum over all entries lets ``fsck`` notice damage that still reads as an index.

Readers take no lock: the file is replaced in one step. Writers hold the store's exclusive lock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..canonical import canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadJson, BadManifest, BadReference, StoreCorrupt
from ..media_type import CHECKSUM, MODIFIED, OCI_INDEX, REF_NAME
from ..reference import Reference
from .disk import open_regular, replace_durably, translating
from .layout import StoreLayout

_LIMIT = 64 << 20
"""Bytes: more than 100,000 tags."""


@dataclass(frozen=True, slots=True)
class TaggedManifest:
    """A tag, what it names, and when it was set (UTC)."""

    reference: Reference
    descriptor: Descriptor
    modified: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of ``manifests`` in ``index.json``. ``reference`` is None where its name is no reference."""

    descriptor: Descriptor
    reference: Reference | None
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Tags:
    """What ``index.json`` says. ``damaged`` tells which entries cannot be read, and why."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]

    def find(self, reference: Reference) -> Entry | None:
        """The entry of ``reference`` by name; where it has a digest and no entry of its own, also a tag of
        the same repository that points to that digest.
        """
        named = self.by_name(reference)
        if named is not None or reference.digest is None:
            return named
        for entry in self.entries:
            if (
                entry.descriptor.digest == reference.digest
                and entry.reference is not None
                and entry.reference.name.lower() == reference.name.lower()
            ):
                return entry
        return None

    def by_name(self, reference: Reference) -> Entry | None:
        """The entry of exactly this name, else of a name that differs in case only."""
        alike: Entry | None = None
        for entry in self.entries:
            if entry.reference == reference:
                return entry
            if (
                alike is None
                and entry.reference is not None
                and entry.reference.familiar_key == reference.familiar_key
            ):
                alike = entry
        return alike


class TagIndex:
    """Reads and rewrites the ``index.json`` of a store."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    def read(self) -> Tags:
        """All entries. Raises: StoreCorrupt where the file as a whole cannot be read; StoreFailure."""
        entries: list[Entry] = []
        damaged: list[str] = []
        for position, member in enumerate(self._document()["manifests"]):
            try:
                entries.append(_read_entry(Descriptor.from_json(member)))
            except BadManifest as error:
                damaged.append(f"entry {position}: {error.message}")
        return Tags(tuple(entries), tuple(damaged))

    def set(self, reference: Reference, descriptor: Descriptor, modified: datetime) -> None:
        """Let ``reference`` name ``descriptor``. The caller holds the exclusive lock.

        Raises: StoreCorrupt, DiskFull, StoreFailure; then every tag is as it was.
        """
        annotations = dict(descriptor.annotations)
        annotations[REF_NAME] = str(reference)
        annotations[MODIFIED] = _format_time(modified)
        entry = descriptor.to_json() | {"annotations": annotations}
        document = self._document()
        document["manifests"] = [*_without(document["manifests"], reference), entry]
        self._write(document)

    def remove(self, reference: Reference) -> None:
        """Forget ``reference``, if it is there. The caller holds the exclusive lock.

        Raises: StoreCorrupt, DiskFull, StoreFailure; then every tag is as it was.
        """
        document = self._document()
        document["manifests"] = _without(document["manifests"], reference)
        self._write(document)

    def create(self) -> None:
        """Write an index without entries. Raises: DiskFull, StoreFailure."""
        self._write({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})

    def verify(self) -> str | None:
        """What is wrong with the checksum of the file; None if it is right, or if there need be none.

        Raises: StoreCorrupt, StoreFailure.
        """
        document = self._document()
        annotations = document.get("annotations")
        written = annotations.get(CHECKSUM) if isinstance(annotations, dict) else None
        if written is None:
            # A layout of another program has none; in a store of ours it was there.
            return "its checksum is gone" if self._layout.version.exists() else None
        return None if written == _checksum(document) else "its checksum does not match"

    def accept(self) -> None:
        """Give the file as it is a right checksum. The caller holds the exclusive lock.

        Raises: StoreCorrupt, DiskFull, StoreFailure.
        """
        self._write(self._document())

    def _document(self) -> dict[str, Any]:
        path = self._layout.index
        with translating("reading", path), os.fdopen(open_regular(path, follow_links=False), "rb") as file:
            data = file.read(_LIMIT + 1)
        try:
            value = strict_json(data, what="index.json", limit=_LIMIT)
        except BadJson as error:
            raise StoreCorrupt(f"reading {path}", error.message) from error
        if not isinstance(value, dict) or not isinstance(value.get("manifests"), list):
            raise StoreCorrupt(f"reading {path}", "expected an image index")
        return value

    def _write(self, document: dict[str, Any]) -> None:
        path = self._layout.index
        annotations = document.get("annotations")
        notes = annotations if isinstance(annotations, dict) else {}
        document = document | {"annotations": notes | {CHECKSUM: _checksum(document)}}
        with translating("writing", path):
            replace_durably(path, canonical_json(document), scratch=self._layout.ingest)


def _checksum(document: dict[str, Any]) -> str:
    annotations = document.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    notes = {key: text for key, text in notes.items() if key != CHECKSUM}
    return str(Digest.of(canonical_json(document | {"annotations": notes})))


def _read_entry(descriptor: Descriptor) -> Entry:
    name = descriptor.annotations.get(REF_NAME)
    reference: Reference | None = None
    if name is not None:
        try:
            reference = Reference.parse(name)
        except BadReference:
            reference = None
    modified = _parse_time(descriptor.annotations.get(MODIFIED))
    rest = {key: text for key, text in descriptor.annotations.items() if key not in (REF_NAME, MODIFIED)}
    return Entry(replace(descriptor, annotations=rest), reference, modified)


def _without(members: list[Any], reference: Reference) -> list[Any]:
    """The members that are not the entry of ``reference``; what we cannot read stays."""
    return [member for member in members if not _names(member, reference)]


def _names(member: object, reference: Reference) -> bool:
    try:
        found = _read_entry(Descriptor.from_json(member)).reference
    except BadManifest:
        return False
    return found == reference


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse_time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
