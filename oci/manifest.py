"""Manifests and indexes, byte for byte.

The digest of a manifest is over its bytes, so the bytes are what is kept: ``raw`` is exactly what was
parsed or built, and nothing here ever writes a parsed manifest anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .canonical import MAX_DOCUMENT_SIZE, canonical_json, strict_json
from .descriptor import Descriptor, read_annotations, read_artifact_type
from .digest import Digest
from .errors import BadJson, BadManifest, quoted
from .media_type import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST

MAX_LAYERS = 4096
"""Layers of a manifest, or manifests of an index."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: one config, ordered layers. Make one with ``parse`` or ``build``.

    Source: OCI image-spec 1.1, manifest.md; Docker image manifest version 2 schema 2.
    """

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor = field(compare=False)
    layers: tuple[Descriptor, ...] = field(compare=False)
    artifact_type: str | None = field(default=None, compare=False)
    subject: Descriptor | None = field(default=None, compare=False)
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    digest: Digest = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", Digest.of(self.raw))

    @classmethod
    def parse(cls, data: bytes, *, media_type: str | None = None) -> Manifest:
        """The manifest that ``data`` holds. ``media_type`` is what its bearer called it, if known.

        At most 4 MiB and 4096 layers. Unknown members are kept in ``raw`` and otherwise ignored.

        Raises: BadManifest, with every problem found.
        """
        document = _Document(data, media_type, MANIFEST_TYPES, OCI_MANIFEST, "manifest")
        if "manifests" in document.value:
            document.problems.append("both a manifest and an index: it has 'manifests'")
        config = document.descriptor("config", required=True)
        layers = document.descriptors("layers")
        subject = document.descriptor("subject", required=False)
        artifact_type, annotations = document.finish()
        if config is None:  # finish() has raised already; this tells the type checker
            raise BadManifest(["config is missing"])
        return cls(bytes(data), document.media_type, config, layers, artifact_type, subject, annotations)

    @classmethod
    def build(
        cls,
        *,
        config: Descriptor,
        layers: Sequence[Descriptor],
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        media_type: str = OCI_MANIFEST,
        subject: Descriptor | None = None,
    ) -> Manifest:
        """A manifest in canonical JSON: the same arguments give the same digest, everywhere.

        Raises: BadManifest where the result would not parse, for example with too many layers.
        """
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        return cls.parse(canonical_json(value | _optional(artifact_type, annotations, subject)))

    @property
    def descriptor(self) -> Descriptor:
        """What others use to name this manifest."""
        return Descriptor(self.media_type, self.digest, len(self.raw), artifact_type=self.artifact_type)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that must be there for the manifest to be complete: the config, then the layers.

        Not the subject: it may be absent. Source: OCI image-spec 1.1, manifest.md, subject.
        """
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: a list of manifests. Make one with ``parse`` or ``build``.

    Source: OCI image-spec 1.1, image-index.md; Docker manifest list.
    """

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...] = field(compare=False)
    artifact_type: str | None = field(default=None, compare=False)
    subject: Descriptor | None = field(default=None, compare=False)
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    digest: Digest = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", Digest.of(self.raw))

    @classmethod
    def parse(cls, data: bytes, *, media_type: str | None = None) -> Index:
        """The index that ``data`` holds, under the same limits as ``Manifest.parse``.

        Raises: BadManifest, with every problem found.
        """
        document = _Document(data, media_type, INDEX_TYPES, OCI_INDEX, "index")
        document.problems += [
            f"both an index and a manifest: it has '{key}'"
            for key in ("layers", "config")
            if key in document.value
        ]
        manifests = document.descriptors("manifests")
        subject = document.descriptor("subject", required=False)
        artifact_type, annotations = document.finish()
        return cls(bytes(data), document.media_type, manifests, artifact_type, subject, annotations)

    @classmethod
    def build(
        cls,
        *,
        manifests: Sequence[Descriptor],
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        subject: Descriptor | None = None,
    ) -> Index:
        """An index in canonical JSON. Raises: BadManifest where the result would not parse."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [manifest.to_json() for manifest in manifests],
        }
        return cls.parse(canonical_json(value | _optional(artifact_type, annotations, subject)))

    @property
    def descriptor(self) -> Descriptor:
        """What others use to name this index."""
        return Descriptor(self.media_type, self.digest, len(self.raw), artifact_type=self.artifact_type)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The manifests of the index."""
        return self.manifests


def parse_document(data: bytes, *, media_type: str | None = None) -> Manifest | Index:
    """The manifest or index that ``data`` holds, told apart by media type, else by shape.

    Raises: BadManifest.
    """
    if media_type is None:
        value = _read_object(data, "manifest")
        named = value.get("mediaType")
        is_index = named in INDEX_TYPES if isinstance(named, str) else "manifests" in value
    else:
        is_index = media_type in INDEX_TYPES
    return (Index if is_index else Manifest).parse(data, media_type=media_type)


class _Document:
    """What manifests and indexes share; collects problems until ``finish``."""

    def __init__(
        self, data: bytes, named: str | None, allowed: frozenset[str], default: str, what: str
    ) -> None:
        self.what = what
        self.problems: list[str] = []
        self.value = _read_object(data, what)
        version = self.value.get("schemaVersion")
        if version != 2 or isinstance(version, bool | float):
            self.problems.append("schemaVersion must be 2")
        self.media_type = self._choose_media_type(named, allowed, default)

    def _choose_media_type(self, named: str | None, allowed: frozenset[str], default: str) -> str:
        inside = self.value.get("mediaType")
        if inside is not None and not isinstance(inside, str):
            self.problems.append("mediaType must be a string")
            return default
        for media_type in (inside, named):
            if media_type is not None and media_type not in allowed:
                self.problems.append(f"{quoted(media_type)} is not the media type of a {self.what}")
                return default
        if inside is not None and named is not None and inside != named:
            self.problems.append(f"its mediaType is {inside}, but it was served as {named}")
        return inside or named or default

    def descriptor(self, key: str, *, required: bool) -> Descriptor | None:
        member = self.value.get(key)
        if member is None:
            if required:
                self.problems.append(f"{key} is missing")
            return None
        return self._descriptor(key, member)

    def descriptors(self, key: str) -> tuple[Descriptor, ...]:
        members = self.value.get(key)
        if not isinstance(members, list):
            self.problems.append(f"{key} must be a list")
            return ()
        if len(members) > MAX_LAYERS:
            self.problems.append(f"{key}: expected at most {MAX_LAYERS}, got {len(members)}")
            return ()
        found: Iterable[Descriptor | None] = [
            self._descriptor(f"{key}[{position}]", member) for position, member in enumerate(members)
        ]
        return tuple(descriptor for descriptor in found if descriptor is not None)

    def _descriptor(self, where: str, member: object) -> Descriptor | None:
        try:
            return Descriptor.from_json(member)
        except BadManifest as error:
            self.problems += [f"{where}: {problem}" for problem in error.problems]
            return None

    def finish(self) -> tuple[str | None, dict[str, str]]:
        """The artifact type and annotations. Raises: BadManifest with all that was found."""
        artifact_type = read_artifact_type(self.value, self.problems)
        annotations = read_annotations(self.value, self.problems)
        if self.problems:
            raise BadManifest(self.problems, what=self.what)
        return artifact_type, annotations


def _read_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = strict_json(data, what=what, limit=MAX_DOCUMENT_SIZE)
    except BadJson as error:
        raise BadManifest([error.message.removeprefix(f"invalid {what}: ")], what=what) from error
    if not isinstance(value, dict):
        raise BadManifest(["expected an object"], what=what)
    return value


def _optional(
    artifact_type: str | None, annotations: Mapping[str, str] | None, subject: Descriptor | None
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if artifact_type is not None:
        result["artifactType"] = artifact_type
    if annotations:
        result["annotations"] = dict(annotations)
    if subject is not None:
        result["subject"] = subject.to_json()
    return result
