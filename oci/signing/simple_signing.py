"""cosign's signatures by tag: a payload that names a manifest, and a signature of its bytes.

The tag ``sha256-HEX.sig`` names an image manifest with one layer for each signature; the layer is the
payload, its annotation the signature. What podman, skopeo and older versions of cosign read.
Source: cosign, SIGNATURE_SPEC.md; containers/image, docs/containers-signature.5.md for the payload.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from ..canonical import canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadJson
from ..manifest import Manifest
from ..media_type import OCI_CONFIG

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
"""The annotation with the signature, in base64."""

SUFFIX = ".sig"

MAX_PAYLOAD = 64 * 1024
"""Bytes. Real ones have some hundred."""

_KIND = "cosign container image signature"
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Payload:
    """What was signed: a manifest, and the repository that the signer saw it in (nothing checks that)."""

    digest: Digest
    identity: str


def make_payload(digest: Digest, identity: str) -> bytes:
    """The bytes to sign."""
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": identity},
                "image": {"docker-manifest-digest": str(digest)},
                "type": _KIND,
            },
            "optional": None,
        }
    )


def read_payload(data: bytes) -> Payload:
    """What a payload says. `optional` is the signer's own and is not looked at.

    Raises: BadJson; BadDigest.
    """
    what = "signed payload"
    value = strict_json(data, what=what, limit=MAX_PAYLOAD)
    try:
        critical = value["critical"]
        identity, kind = critical["identity"]["docker-reference"], critical["type"]
        digest = critical["image"]["docker-manifest-digest"]
    except (KeyError, TypeError, IndexError) as error:
        raise BadJson(what, "it does not say what it signs") from error
    if not (isinstance(identity, str) and isinstance(digest, str)) or kind != _KIND:
        raise BadJson(what, "it signs something else")
    return Payload(Digest.parse(digest), identity)


def make_layer(payload: bytes, signature: bytes) -> Descriptor:
    """The layer of one signature."""
    text = base64.b64encode(signature).decode("ascii")
    return Descriptor(PAYLOAD_TYPE, Digest.of(payload), len(payload), {SIGNATURE: text})


def make_manifest(layers: Sequence[Descriptor]) -> tuple[Manifest, bytes]:
    """The manifest of all signatures, and its config: that of an image whose layers the payloads are."""
    config = canonical_json(
        {
            "architecture": "",
            "config": {},
            "created": _NEVER,
            "history": [{"created": _NEVER}] * len(layers),
            "os": "",
            "rootfs": {"diff_ids": [str(layer.digest) for layer in layers], "type": "layers"},
        }
    )
    described = Descriptor(OCI_CONFIG, Digest.of(config), len(config))
    return Manifest.build(config=described, layers=layers), config
