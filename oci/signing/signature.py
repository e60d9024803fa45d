"""Signing models, and verifying that somebody did.

What is signed is the digest of a manifest, and through it every byte of the model. Signatures are written in
both of cosign's forms (`simple_signing.py`, `sigstore_bundle.py`); to verify, either will do: one good
signature by one of the given keys is enough, whatever else lies beside it.

The claims of a signature count only after it has been verified over the very bytes that were stored. What the
payload says about the repository is checked only where the caller asks for it: a model that was mirrored is
signed as well, but a registry could also pass one signed model off as another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ...modelfile.errors import InputError, IntegrityError, NotFoundError
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadManifest, quoted
from ..manifest import Index, Manifest
from .attachment_tag import attachment_tag
from .attachments import Attachments
from .errors import NotSigned, SignatureInvalid
from .key import PublicKey, SigningKey
from .sigstore_bundle import (
    BUNDLE_TYPE,
    EMPTY,
    MAX_BUNDLE,
    SIGNATURE_PREDICATE,
    decode_base64,
    make_bundle,
    make_referrer,
    make_statement,
    open_bundle,
    subjects_of,
)
from .simple_signing import (
    MAX_PAYLOAD,
    PAYLOAD_TYPE,
    SIGNATURE,
    SUFFIX,
    make_layer,
    make_manifest,
    make_payload,
    read_payload,
)

MAX_SIGNATURES = 64
"""Signatures of each form that are looked at. Anybody who may push can add more."""

_MAX_SIGNATURE_TEXT = 8 * 1024


class Form(StrEnum):
    """How a signature is written down."""

    TAG = "cosign tag"
    BUNDLE = "sigstore bundle"


@dataclass(frozen=True, slots=True)
class Verified:
    """A good signature. identity: the repository that the signer named, where the form has one."""

    form: Form
    key: PublicKey
    digest: Digest
    identity: str | None


class _NoGood(Exception):
    """One signature does not count; the text says why."""


@dataclass(frozen=True, slots=True)
class _Check:
    """What a signature must be."""

    digest: Digest
    keys: Sequence[PublicKey]
    identity: str | None

    def tagged(self, payload: bytes, text: str | None) -> Verified:
        """Raises: _NoGood, LadingError."""
        if text is None or len(text) > _MAX_SIGNATURE_TEXT:
            raise _NoGood("its text is missing or too long")
        try:
            signature = decode_base64(text)
        except ValueError:
            raise _NoGood("it is not in base64") from None
        key = next((key for key in self.keys if key.verifies(payload, signature)), None)
        if key is None:
            raise _NoGood("it is not by a key that counts here")
        claim = read_payload(payload)
        if claim.digest != self.digest:
            raise _NoGood(f"it is for another manifest, {claim.digest}")
        if self.identity is not None and claim.identity != self.identity:
            raise _NoGood(f"it is for {quoted(claim.identity)}, not for {self.identity}")
        return Verified(Form.TAG, key, self.digest, claim.identity)

    def bundled(self, data: bytes) -> Verified:
        """Raises: _NoGood, LadingError."""
        for key in self.keys:
            statement = open_bundle(data, key)
            if statement is None:
                continue
            if statement.get("predicateType") != SIGNATURE_PREDICATE:
                raise _NoGood("it states something else than a signature does")
            if self.digest.algorithm != "sha256" or self.digest.hex not in subjects_of(statement):
                raise _NoGood("it is for another manifest")
            if self.identity is not None:
                raise _NoGood(f"it does not name a repository, and {self.identity} is asked for")
            return Verified(Form.BUNDLE, key, self.digest, None)
        raise _NoGood("it is not by a key that counts here")


def verify(
    attachments: Attachments, digest: Digest, keys: Sequence[PublicKey], *, identity: str | None = None
) -> tuple[Verified, ...]:
    """The good signatures of a manifest, at least one.

    identity: the repository (``registry/name``) that a signature must name, if any.
    Raises: NotSigned where there is no signature; SignatureInvalid where none is good; what registries raise.
    """
    check = _Check(digest, keys, identity)
    good: list[Verified] = []
    reasons: list[str] = []
    for candidate in _candidates(attachments, digest):
        try:
            good.append(candidate.examine(attachments, check))
        except _NoGood as reason:
            reasons.append(f"{candidate.form}: {reason}")
        except (InputError, IntegrityError, NotFoundError) as error:
            reasons.append(f"{candidate.form}: {error.message}")
    if good:
        return tuple(good)
    if reasons:
        raise SignatureInvalid(attachments.name, str(digest), reasons)
    raise NotSigned(attachments.name, str(digest))


def sign(
    attachments: Attachments, subject: Descriptor, key: SigningKey, *, identity: str
) -> tuple[Form, ...]:
    """Signs a manifest, in both forms. Other signatures stay; what this key has signed already is not signed
    again. Returns the forms that were written.

    identity: the repository (``registry/name``) to name.
    """
    check = _Check(subject.digest, (key.public,), None)
    present: set[Form] = set()
    for candidate in _candidates(attachments, subject.digest):
        with contextlib.suppress(_NoGood, InputError, IntegrityError, NotFoundError):
            found = candidate.examine(attachments, check)
            if found.identity in (None, identity):
                present.add(found.form)
    if Form.TAG not in present:
        payload = make_payload(subject.digest, identity)
        add_tagged(attachments, subject.digest, [(make_layer(payload, key.sign(payload)), payload)])
    if Form.BUNDLE not in present:
        bundle = make_bundle(make_statement(subject.digest, SIGNATURE_PREDICATE, {}), key)
        referrer = make_referrer(bundle, subject, SIGNATURE_PREDICATE, datetime.now(UTC))
        attachments.write(referrer, [EMPTY, bundle], None)
    return tuple(form for form in Form if form not in present)


def add_tagged(
    attachments: Attachments, digest: Digest, signatures: Sequence[tuple[Descriptor, bytes]]
) -> None:
    """Adds signatures (layer, payload) to those under the manifest's tag."""
    tag = attachment_tag(digest, SUFFIX)
    existing = attachments.find(tag)
    if isinstance(existing, Index):
        raise BadManifest([f"the tag {tag} is taken by something that is no list of signatures"])
    layers = list(existing.layers) if existing is not None else []
    added = [(layer, payload) for layer, payload in signatures if layer not in layers]
    if not added:
        return
    manifest, config = make_manifest([*layers, *(layer for layer, _ in added)])
    attachments.write(manifest, [config, *(payload for _, payload in added)], tag)


def copy_signatures(source: Attachments, target: Attachments, digest: Digest) -> int:
    """Adds all signatures of a manifest that `source` has and `target` lacks; how many. Damaged ones are left
    behind. They are not verified: that is for whoever relies on them.
    """
    tagged: list[tuple[Descriptor, bytes]] = []
    copied = 0
    there = {descriptor.digest for descriptor in target.referrers(digest, BUNDLE_TYPE)}
    beside = target.find(attachment_tag(digest, SUFFIX))
    layers = beside.layers if isinstance(beside, Manifest) else ()
    for candidate in _candidates(source, digest):
        with contextlib.suppress(InputError, IntegrityError, NotFoundError):
            if isinstance(candidate, _Tagged):
                if candidate.layer not in layers:
                    tagged.append((candidate.layer, candidate.read(source)))
            elif isinstance(candidate, _Bundled) and candidate.descriptor.digest not in there:
                manifest, bundle = candidate.read(source)
                config = source.read_blob(manifest.config, limit=MAX_PAYLOAD)
                target.write(manifest, [config, bundle], None)
                copied += 1
    if tagged:
        add_tagged(target, digest, tagged)
    return copied + len(tagged)


@dataclass(frozen=True, slots=True)
class _Tagged:
    """A layer of the manifest under the tag."""

    layer: Descriptor
    form = Form.TAG

    def read(self, attachments: Attachments) -> bytes:
        return attachments.read_blob(self.layer, limit=MAX_PAYLOAD)

    def examine(self, attachments: Attachments, check: _Check) -> Verified:
        return check.tagged(self.read(attachments), self.layer.annotations.get(SIGNATURE))


@dataclass(frozen=True, slots=True)
class _Bundled:
    """A referrer."""

    descriptor: Descriptor
    form = Form.BUNDLE

    def read(self, attachments: Attachments) -> tuple[Manifest, bytes]:
        manifest = attachments.read_manifest(self.descriptor)
        if manifest.artifact_type != BUNDLE_TYPE or len(manifest.layers) != 1:
            raise InputError("it is no bundle")
        return manifest, attachments.read_blob(manifest.layers[0], limit=MAX_BUNDLE)

    def examine(self, attachments: Attachments, check: _Check) -> Verified:
        return check.bundled(self.read(attachments)[1])


@dataclass(frozen=True, slots=True)
class _Damaged:
    """Where signatures should be, something cannot be read. It does not hide those of the other form."""

    form: Form
    reason: str

    def examine(self, attachments: Attachments, check: _Check) -> Verified:
        raise _NoGood(self.reason)


def _candidates(attachments: Attachments, digest: Digest) -> Iterator[_Tagged | _Bundled | _Damaged]:
    """What may be a signature, of each form the first `MAX_SIGNATURES`."""
    try:
        document = attachments.find(attachment_tag(digest, SUFFIX))
        if isinstance(document, Manifest):
            layers = [layer for layer in document.layers if layer.media_type == PAYLOAD_TYPE]
            yield from map(_Tagged, layers[:MAX_SIGNATURES])
    except (InputError, IntegrityError, NotFoundError) as error:
        yield _Damaged(Form.TAG, error.message)
    try:
        yield from map(_Bundled, attachments.referrers(digest, BUNDLE_TYPE)[:MAX_SIGNATURES])
    except (InputError, IntegrityError, NotFoundError) as error:
        yield _Damaged(Form.BUNDLE, error.message)
