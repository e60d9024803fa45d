"""Where statements about a model are: beside it in the store, or at its registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..modelfile.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..oci.reference import Reference
    from ..oci.registry.client import RegistryClient
    from ..oci.signing.attachments import Attachments, RegistryAttachments
    from ..oci.store import Store
    from .session import Session

RemoteOption = Annotated[
    bool, typer.Option("--remote", "-r", help="The registry's model and signatures, not the store's.")
]


@dataclass(frozen=True, slots=True)
class Place:
    """A model, and what is attached to it there. registry: the one to write to as well, where that is asked
    for; with ``--remote`` it is the place itself."""

    subject: Descriptor
    attachments: Attachments
    registry: RegistryAttachments | None


@contextmanager
def attached(
    session: Session,
    reference: Reference,
    *,
    remote: bool,
    push: bool = False,
    insecure: bool = False,
    whole: bool = False,
    writes: bool = True,
) -> Iterator[Place]:
    """The place of a model. whole: every byte of a model in the store must be there and undamaged.

    Without ``remote`` and ``push`` no registry is looked for.
    Raises: ModelNotFound; InputError where it is to be pushed to, and has not the model; IntegrityError.
    """
    from ..oci.signing.attachments import RegistryAttachments, StoreAttachments

    store = session.store()
    with session.registry_client(insecure=insecure, reference=reference) as client:
        if remote:
            subject = _at_registry(client, reference)
            there = RegistryAttachments(client.repository(reference, writes=writes and not whole), reference)
            yield Place(subject, there, there)
            return
        subject = _whole(store, reference) if whole else store.resolve(reference).descriptor
        here = StoreAttachments(store, store.find(reference).reference)
        registry: RegistryAttachments | None = None
        if push:
            registry = RegistryAttachments(client.repository(reference, writes=True), reference)
            _require_there(registry, subject, hint=f"lading push {session.display(reference)}")
        yield Place(subject, here, registry)


def _require_there(there: RegistryAttachments, subject: Descriptor, *, hint: str) -> None:
    """Raises: InputError where the registry does not have what is to be signed."""
    if not there.repository.has_manifest(subject.digest):
        raise InputError(
            f"signing {there.name}: {there.reference.registry} does not have the model", hint=hint
        )


def _at_registry(client: RegistryClient, reference: Reference) -> Descriptor:
    """What the registry has under that name."""
    return client.repository(reference).fetch_manifest(reference).descriptor


def _whole(store: Store, reference: Reference) -> Descriptor:
    """The model in the store, whole and undamaged: what is signed is only as good as what is there."""
    manifest = store.resolve(reference)
    for blob in manifest.blobs:
        if not store.intact(blob.digest, blob.size):
            raise IntegrityError(
                f"verifying {reference.display}: blob {blob.digest.short} is missing or damaged",
                hint="lading fsck tells more",
            )
    return manifest.descriptor
