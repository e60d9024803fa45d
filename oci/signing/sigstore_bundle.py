"""Sigstore bundles, version 0.3: an in-toto statement about a manifest, in a signed DSSE envelope.

What cosign 3 writes and looks for first. The bundle is the only layer of a manifest whose ``subject`` is the
signed one.
Source: sigstore/protobuf-specs, sigstore_bundle.proto; in-toto Statement v1; DSSE 1.0, protocol.md.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

from ..canonical import canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadJson
from ..manifest import Manifest
from ..media_type import CREATED, OCI_EMPTY
from .key import PublicKey, SigningKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
SIGNATURE_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"

MAX_BUNDLE = 512 * 1024
"""Bytes. One with certificates and a log entry has some 10 KiB."""

MAX_SUBJECTS = 256
EMPTY = b"{}"


def make_statement(digest: Digest, predicate_type: str, predicate: dict[str, Any]) -> bytes:
    """The statement that `predicate` holds for a manifest."""
    return canonical_json(
        {
            "_type": _STATEMENT,
            "subject": [{"digest": {digest.algorithm: digest.hex}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def make_bundle(statement: bytes, key: SigningKey) -> bytes:
    """The signed statement."""
    signature = key.sign(_pre_authentication(STATEMENT_TYPE, statement))
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode("ascii"),
                "payloadType": STATEMENT_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode("ascii")}],
            },
        }
    )


def make_referrer(bundle: bytes, subject: Descriptor, predicate_type: str, created: datetime) -> Manifest:
    """The manifest that brings a bundle to its subject. Its config is `EMPTY`."""
    return Manifest.build(
        artifact_type=BUNDLE_TYPE,
        config=Descriptor(OCI_EMPTY, Digest.of(EMPTY), len(EMPTY)),
        layers=[Descriptor(BUNDLE_TYPE, Digest.of(bundle), len(bundle))],
        subject=Descriptor(subject.media_type, subject.digest, subject.size),
        annotations={
            CREATED: created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
        },
    )


def open_bundle(data: bytes, key: PublicKey) -> dict[str, Any] | None:
    """The statement in a bundle, if `key` signed it; None if not. Nothing is believed before that.

    Raises: BadJson where it is no bundle, or its statement is none.
    """
    payload, signature = _read_envelope(data)
    if not key.verifies(_pre_authentication(STATEMENT_TYPE, payload), signature):
        return None
    statement = strict_json(payload, what="signed statement", limit=MAX_BUNDLE)
    if not isinstance(statement, dict) or statement.get("_type") != _STATEMENT:
        raise BadJson("signed statement", f"it is not of the type {_STATEMENT}")
    return statement


def subjects_of(statement: dict[str, Any]) -> frozenset[str]:
    """The SHA-256 digests, in hex, that a statement is about. Raises: BadJson."""
    try:
        found = [subject["digest"].get("sha256") for subject in statement["subject"][:MAX_SUBJECTS]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadJson("signed statement", "it does not say what it is about") from error
    return frozenset(digest for digest in found if isinstance(digest, str))


def _read_envelope(data: bytes) -> tuple[bytes, bytes]:
    """Payload and signature, unverified."""
    what = "signature bundle"
    value = strict_json(data, what=what, limit=MAX_BUNDLE)
    try:
        if value["mediaType"] != BUNDLE_TYPE:
            raise BadJson(what, f"it is not of the type {BUNDLE_TYPE}")
        envelope = value["dsseEnvelope"]
        (signature,) = envelope["signatures"]
        if envelope["payloadType"] != STATEMENT_TYPE:
            raise BadJson(what, f"what it signs is not of the type {STATEMENT_TYPE}")
        return decode_base64(envelope["payload"]), decode_base64(signature["sig"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadJson(what, "expected an envelope with one signature") from error


def decode_base64(text: str) -> bytes:
    """Strictly: no other characters, no missing padding. Raises: TypeError, ValueError."""
    if not isinstance(text, str):
        raise TypeError("expected text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _pre_authentication(media_type: str, body: bytes) -> bytes:
    """What DSSE signs: type and body, each with its length."""
    name = media_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(body), body)
