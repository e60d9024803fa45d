"""Descriptors: what a piece of content is, and how to know it when it comes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .digest import Digest
from .errors import BadDigest, BadManifest

MAX_SIZE = (1 << 63) - 1
"""Bytes. Source: OCI image-spec 1.1, descriptor.md: size is an int64."""

# RFC 6838 section 4.2: type-name "/" subtype-name, each a restricted-name.
_RESTRICTED_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}")

_KNOWN_KEYS = frozenset({"mediaType", "digest", "size", "annotations", "artifactType"})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A media type, a digest and a size in bytes. Source: OCI image-spec 1.1, descriptor.md.

    ``extra`` keeps the members that we give no meaning (``platform``, Ollama's ``from`` …), so that
    ``Descriptor.from_json(x).to_json() == x``. Foreign ``urls`` land there too and are never followed.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        problems = [
            f"{key} is not a media type"
            for key, value in (("mediaType", self.media_type), ("artifactType", self.artifact_type))
            if value is not None and not is_media_type(value)
        ]
        if not 0 <= self.size <= MAX_SIZE:
            problems.append(f"size {self.size} is out of range")
        if problems:
            raise BadManifest(problems, what="descriptor")

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """The descriptor that a parsed JSON ``value`` describes.

        Raises: BadManifest, with every problem of this descriptor.
        """
        if not isinstance(value, dict):
            raise BadManifest(["expected an object"], what="descriptor")
        problems: list[str] = []
        digest = _read_digest(value.get("digest"), problems)
        media_type = value.get("mediaType")
        if not isinstance(media_type, str) or not is_media_type(media_type):
            problems.append("mediaType must be a media type")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
            problems.append("size must be a number of bytes")
        artifact_type = read_artifact_type(value, problems)
        annotations = read_annotations(value, problems)
        if problems or digest is None or not isinstance(media_type, str) or not isinstance(size, int):
            raise BadManifest(problems, what="descriptor")
        extra = {key: member for key, member in value.items() if key not in _KNOWN_KEYS}
        return cls(media_type, digest, size, annotations, artifact_type, extra)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, without members that are empty."""
        result: dict[str, Any] = dict(self.extra)
        result.update(mediaType=self.media_type, digest=str(self.digest), size=self.size)
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        if self.artifact_type is not None:
            result["artifactType"] = self.artifact_type
        return result

    def same_content(self, other: Descriptor) -> bool:
        """Whether both name the same bytes. ``==`` compares every field instead."""
        return self.digest == other.digest and self.size == other.size


def is_media_type(text: str) -> bool:
    """Whether ``text`` has the form ``type/subtype`` of RFC 6838, without parameters."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def read_annotations(value: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    """The ``annotations`` of a JSON object; absent and null are none. What is wrong joins ``problems``."""
    annotations = value.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
        problems.append("annotations must map strings to strings")
        return {}
    return dict(annotations)


def read_artifact_type(value: Mapping[str, Any], problems: list[str]) -> str | None:
    """The ``artifactType`` of a JSON object; absent, null and empty mean the same, as in Go's encoder."""
    artifact_type = value.get("artifactType")
    if artifact_type is None or artifact_type == "":
        return None
    if not isinstance(artifact_type, str) or not is_media_type(artifact_type):
        problems.append("artifactType must be a media type")
        return None
    return artifact_type


def _read_digest(value: object, problems: list[str]) -> Digest | None:
    if not isinstance(value, str):
        problems.append("digest must be a string")
        return None
    try:
        return Digest.parse(value)
    except BadDigest as error:
        problems.append(error.message)
        return None
