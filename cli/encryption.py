"""``push --encrypt-to`` and ``pull --decrypt-with``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..oci.progress import ProgressSink
from .policy import read_small_file
from .signing import read_signer

if TYPE_CHECKING:
    from ..oci.manifest import Manifest
    from ..oci.reference import Reference
    from ..oci.store import Store
    from .session import Session

EncryptToOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--encrypt-to",
        metavar="FILE",
        help="Encrypt the layers for the holder of this public key; may be repeated.",
    ),
]
DecryptWithOption = Annotated[
    list[Path] | None,
    typer.Option("--decrypt-with", metavar="FILE", help="Decrypt the layers with this private key."),
]


def encrypted(store: Store, manifest: Manifest, keys: Sequence[Path], progress: ProgressSink) -> Manifest:
    """The model with encrypted layers. The caller holds a lease of the store."""
    from ..oci.encryption.model_encryption import encrypt
    from ..oci.signing.key_file import MAX_KEY_FILE, read_public_key

    recipients = [read_public_key(read_small_file(path, "key", limit=MAX_KEY_FILE)) for path in keys]
    return encrypt(store, manifest, recipients, progress=progress)


def decrypted(
    session: Session, reference: Reference, manifest: Manifest, keys: Sequence[Path], progress: ProgressSink
) -> Manifest:
    """The model in the clear, tagged in place of the encrypted one; itself where nothing is encrypted."""
    from ..oci.encryption.marks import is_encrypted
    from ..oci.encryption.model_encryption import decrypt

    if not is_encrypted(manifest):
        return manifest
    private = [read_signer(session, path) for path in keys]
    store = session.store()
    with store.lease():
        plain = decrypt(store, manifest, private, progress=progress)
        store.tag(reference, plain.descriptor)
    return plain
