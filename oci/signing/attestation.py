"""Attestations: signed statements about a model that say more than "I signed it".

Each is an in-toto statement with a predicate of some type (provenance, a bill of materials, a test report),
in a bundle that refers to the model: what `cosign attest` writes since version 3. Source: in-toto Statement
v1; for types of predicates in-toto/attestation, spec/predicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...modelfile.errors import InputError, IntegrityError, NotFoundError
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadJson
from .attachments import Attachments
from .errors import NotSigned, SignatureInvalid
from .key import PublicKey, SigningKey
from .sigstore_bundle import (
    BUNDLE_TYPE,
    EMPTY,
    MAX_BUNDLE,
    make_bundle,
    make_referrer,
    make_statement,
    open_bundle,
    subjects_of,
)

PREDICATE_TYPES: Mapping[str, str] = {
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "spdx": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
    "testresult": "https://in-toto.io/attestation/test-result/v0.1",
}
"""Short names for common types, as cosign has them."""

MAX_PREDICATE = 256 * 1024
"""Bytes of JSON; what is larger makes a bundle that nobody would look at."""
MAX_ATTESTATIONS = 64
"""Bundles that are looked at. Anybody who may push can add more."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement that a key has signed, and that is about the model in question."""

    key: PublicKey
    predicate_type: str
    predicate: Mapping[str, Any]


def attest(
    attachments: Attachments,
    subject: Descriptor,
    key: SigningKey,
    *,
    predicate_type: str,
    predicate: Mapping[str, Any],
) -> None:
    """Signs a statement about a manifest and attaches it. Others stay.

    Raises: BadJson where it is too large; what the attachments raise.
    """
    bundle = make_bundle(make_statement(subject.digest, predicate_type, dict(predicate)), key)
    if len(bundle) > MAX_BUNDLE:
        raise BadJson("predicate", f"expected at most {MAX_PREDICATE} bytes")
    referrer = make_referrer(bundle, subject, predicate_type, datetime.now(UTC))
    attachments.write(referrer, [EMPTY, bundle], None)


def verify_attestations(
    attachments: Attachments, digest: Digest, keys: Sequence[PublicKey], *, predicate_type: str
) -> tuple[Attestation, ...]:
    """The good attestations of one type, at least one.

    Raises: NotSigned where there is none of that type; SignatureInvalid where none of them counts; what
        registries raise.
    """
    good: list[Attestation] = []
    reasons: list[str] = []
    for descriptor in attachments.referrers(digest, BUNDLE_TYPE)[:MAX_ATTESTATIONS]:
        try:
            found = _read(attachments, descriptor, digest, keys, predicate_type)
        except (InputError, IntegrityError, NotFoundError) as error:
            reasons.append(error.message)
            continue
        if found is not None:
            good.append(found)
        elif _claims(descriptor) == predicate_type:
            reasons.append("it is not by a key that counts here")
    if good:
        return tuple(good)
    if reasons:
        raise SignatureInvalid(attachments.name, str(digest), reasons)
    raise NotSigned(attachments.name, str(digest), hint=f"nobody has attested {predicate_type}")


def _read(
    attachments: Attachments,
    descriptor: Descriptor,
    digest: Digest,
    keys: Sequence[PublicKey],
    predicate_type: str,
) -> Attestation | None:
    """None where it is of another type, or by another key.

    Raises: InputError, IntegrityError, NotFoundError.
    """
    if _claims(descriptor) not in (None, predicate_type):
        return None
    manifest = attachments.read_manifest(descriptor)
    if manifest.artifact_type != BUNDLE_TYPE or len(manifest.layers) != 1:
        raise InputError("it is no bundle")
    data = attachments.read_blob(manifest.layers[0], limit=MAX_BUNDLE)
    for key in keys:
        statement = open_bundle(data, key)
        if statement is None:
            continue
        if statement.get("predicateType") != predicate_type:
            return None
        if digest.algorithm != "sha256" or digest.hex not in subjects_of(statement):
            raise InputError("it is about another manifest")
        predicate = statement.get("predicate")
        if not isinstance(predicate, dict):
            raise InputError("its predicate is not a JSON object")
        return Attestation(key, predicate_type, predicate)
    return None


def _claims(descriptor: Descriptor) -> str | None:
    """The type that a referrer says its statement has; whoever listed it may have left it out."""
    return descriptor.annotations.get("dev.sigstore.bundle.predicateType")
