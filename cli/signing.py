"""Signatures: ``key generate``, ``sign``, ``verify``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..modelfile.errors import InputError, UsageError
from .attached import RemoteOption, attached
from .output import print_json
from .policy import read_small_file
from .session import InsecureOption, ModelArgument, QuietOption, Session, session_of

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..oci.reference import Reference
    from ..oci.signing.key import PublicKey, SigningKey
    from ..oci.signing.signature import Verified

PASSWORD_VARIABLES = ("LADING_KEY_PASSWORD", "COSIGN_PASSWORD")

KINDS = ("ecdsa", "ed25519", "rsa")


def generate(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Of the two files' names.")] = "lading",
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="ecdsa, ed25519 or rsa.")] = "ecdsa",
) -> None:
    """Make a pair of keys: PREFIX.key and PREFIX.pub.

    PREFIX.key is a secret, encrypted with a password; cosign reads it too. PREFIX.pub is for everybody.
    """
    from ..oci.signing.key import KeyKind, SigningKey
    from ..oci.signing.key_file import encrypt_private_key

    if kind not in KINDS:
        raise UsageError(f"reading --kind {kind!r}: expected {', '.join(KINDS)}")
    private, public = Path(f"{prefix}.key"), Path(f"{prefix}.pub")
    for path in (private, public):
        if path.exists():
            raise InputError(
                f"making a key: {path} is there already", hint="choose another name; nothing replaces a key"
            )
    password = ask_key_password(session_of(context), "Password for the new key", confirm=True)
    key = SigningKey.generate(KeyKind(kind))
    _write_new(private, encrypt_private_key(key, password), mode=0o600)
    _write_new(public, key.public.to_pem(), mode=0o644)
    print(f"{key.public.fingerprint} in {private} (secret) and {public}")


def sign(
    context: typer.Context,
    model: ModelArgument,
    key: Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The private key.")],
    push: Annotated[
        bool, typer.Option("--push", help="Also send the signature to the model's registry.")
    ] = False,
    identity: Annotated[
        str | None, typer.Option("--identity", metavar="NAME", help="Name this repository, not the model's.")
    ] = None,
    remote: RemoteOption = False,
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
) -> None:
    """Sign a model with a private key.

    The signature stays beside the model in the store, and `lading push` sends both.
    """
    from ..oci.signing.signature import copy_signatures
    from ..oci.signing.signature import sign as sign_manifest

    session = session_of(context)
    reference = session.reference(model)
    named = session.reference(identity) if identity else reference
    with attached(session, reference, remote=remote, push=push, insecure=insecure) as place:
        signer = read_signer(session, key)
        written = sign_manifest(place.attachments, place.subject, signer, identity=named.name)
        if place.registry is not None and place.attachments is not place.registry:
            copy_signatures(place.attachments, place.registry, place.subject.digest)
    if not quiet and not written:
        print("this key has signed it already", file=sys.stderr)
    print(f"{session.display(reference)}@{place.subject.digest}")


def verify(
    context: typer.Context,
    model: ModelArgument,
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", "-k", metavar="FILE", help="A public key; may be repeated."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--identity", metavar="NAME", help="The repository it must be signed for.")
    ] = None,
    remote: RemoteOption = False,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
) -> None:
    """Check that a model is signed by a key.

    Exits with 1 if it is not. Without --key, the keys are those of the signature policy.
    """
    from ..oci.signing.errors import NotSigned, SignatureInvalid
    from ..oci.signing.signature import verify as verify_signatures

    if form not in ("text", "json"):
        raise UsageError(f"reading --format {form!r}: expected text or json")
    session = session_of(context)
    reference = session.reference(model)
    trusted = trusted_keys(session, reference, keys or [])
    name = session.display(reference)
    required = session.reference(identity).name if identity else None
    with attached(session, reference, remote=remote, insecure=insecure, whole=True) as place:
        subject = place.subject
        try:
            found = verify_signatures(place.attachments, subject.digest, trusted, identity=required)
        except (NotSigned, SignatureInvalid) as error:
            if form == "json":
                print_json({"name": name, "digest": str(subject.digest), "verified": False, "signatures": []})
            if isinstance(error, NotSigned) and not remote:
                error.hint = "signatures that are at the registry only are found with --remote"
            raise
    _print_verified(name, subject, found, form=form, quiet=quiet)


def _print_verified(
    name: str, subject: Descriptor, found: tuple[Verified, ...], *, form: str, quiet: bool
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "form": str(good.form),
            "key": good.key.fingerprint,
            "kind": good.key.kind,
            "identity": good.identity,
        }
        for good in found
    ]
    if form == "json":
        digest = str(subject.digest)
        print_json({"name": name, "digest": digest, "verified": True, "signatures": rows})
        return
    print(f"{name}@{subject.digest}")
    if not quiet:
        for row in rows:
            signed_as = f" as {row['identity']}" if row["identity"] else ""
            print(f"signed{signed_as} by {row['key']} ({row['kind']}; {row['form']})", file=sys.stderr)


def trusted_keys(session: Session, reference: Reference, paths: list[Path]) -> list[PublicKey]:
    from ..oci.signing.key_file import MAX_KEY_FILE, read_public_key

    if paths:
        return [read_public_key(read_small_file(path, "key", limit=MAX_KEY_FILE)) for path in paths]
    trusted = list(session.signature_policy().rule_for(reference).keys)
    if not trusted:
        raise UsageError(
            f"verifying {reference.display}: by which key?",
            hint="--key FILE, or a rule in the signature policy",
        )
    return trusted


def read_signer(session: Session, path: Path) -> SigningKey:
    from ..oci.signing.key_file import MAX_KEY_FILE, read_private_key

    data = read_small_file(path, "key", limit=MAX_KEY_FILE)
    return read_private_key(data, lambda: ask_key_password(session, f"Password of {path}", confirm=False))


def ask_key_password(session: Session, question: str, *, confirm: bool) -> bytes:
    """From the environment, else from the terminal. An empty one must be meant: set, but empty.

    Raises: UsageError where there is nobody to ask.
    """
    for variable in PASSWORD_VARIABLES:
        if (given := session.settings.environ.get(variable)) is not None:
            return os.fsencode(given)
    if not sys.stdin.isatty():
        raise UsageError(
            "asking for the key's password: standard input is no terminal",
            hint=f"set {PASSWORD_VARIABLES[0]} (empty for a key without password)",
        )
    text: str = typer.prompt(
        question, hide_input=True, confirmation_prompt=confirm, default="", show_default=False, err=True
    )
    return text.encode()


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Raises: InputError where it cannot be created; a file that is there is never touched."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"writing the key {path}: {(error.strerror or str(error)).lower()}") from error


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    keys = typer.Typer(help="Make keys for signatures.", rich_markup_mode=None)
    keys.command("generate")(generate)
    keys.callback()(_no_default)
    app.add_typer(keys, name="key")
    app.command("sign")(sign)
    app.command("verify")(verify)


def _no_default() -> None:
    """Make keys for signatures."""  # keeps `generate` a command of its own, although it is the only one
