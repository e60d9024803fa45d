"""Tags of what is attached to other manifests. Source: cosign, SIGNATURE_SPEC.md; OCI distribution-spec 1.1,
referrers tag schema."""

from __future__ import annotations

import re

from .digest import Digest

_FORM = re.compile(r"sha256-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")


def is_attachment_tag(tag: str | None) -> bool:
    """Whether a tag names something attached to another manifest, and no model."""
    return tag is not None and _FORM.fullmatch(tag) is not None


def attachment_tag(digest: Digest, suffix: str = "") -> str:
    """The tag of what is attached to a manifest: its signatures (``.sig``), or the index of its referrers."""
    return f"{digest.algorithm}-{digest.hex}{suffix}"
