"""Tags of what is attached to other manifests. Source: cosign, SIGNATURE_SPEC.md; OCI distribution-spec 1.1,
referrers tag schema."""

from __future__ import annotations

import re
from contextlib import suppress

from ..digest import Digest
from ..errors import ModelNotFound
from ..reference import Reference
from ..store import Store

_FORM = re.compile(r"sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?")


def is_attachment_tag(tag: str | None) -> bool:
    """Whether a tag names something attached to another manifest, and no model."""
    return tag is not None and _FORM.fullmatch(tag) is not None


def attachment_tag(digest: Digest, suffix: str = "") -> str:
    """The tag of what is attached to a manifest: its signatures (``.sig``), or the index of its referrers."""
    return f"{digest.algorithm}-{digest.hex}{suffix}"


def is_attached(tagged: Reference, reference: Reference, digest: Digest) -> bool:
    """Whether a tag is one of those beside a manifest of the reference's repository."""
    tag = tagged.tag or ""
    same = tagged.name.lower() == reference.name.lower()
    return same and is_attachment_tag(tag) and tag.startswith(attachment_tag(digest))


def forget_attachments(store: Store, reference: Reference, digest: Digest) -> None:
    """Untags what is attached to a manifest that has no tag of its own left in its repository."""
    name = reference.name.lower()
    tags = [tagged for tagged in store.tags() if tagged.reference.name.lower() == name]
    if any(tagged.descriptor.digest == digest for tagged in tags):
        return
    for tagged in tags:
        if is_attached(tagged.reference, reference, digest):
            with suppress(ModelNotFound):
                store.untag(tagged.reference)
