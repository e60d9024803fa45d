"""What is said about a model: ``attest``, ``verify-attestation``, ``referrers``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..modelfile.errors import UsageError
from .attached import RemoteOption, attached
from .output import print_rows
from .policy import read_small_file
from .session import FormatOption, InsecureOption, ModelArgument, QuietOption, Session, session_of
from .signing import read_signer, trusted_keys

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor

BUILDER = "urn:lading:cli"
"""Whoever signs may say it better, with --builder."""

TypeOption = Annotated[
    str,
    typer.Option(
        "--type", metavar="TYPE", help="slsaprovenance1, spdx, cyclonedx, vuln, testresult, or a URI."
    ),
]
PushOption = Annotated[bool, typer.Option("--push", help="Also send it to the model's registry.")]


def attest(
    context: typer.Context,
    model: ModelArgument,
    key: Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The private key.")],
    predicate: Annotated[
        Path | None,
        typer.Option("--predicate", metavar="FILE", help="JSON to attest; default: the build's provenance."),
    ] = None,
    kind: TypeOption = "slsaprovenance1",
    builder: Annotated[
        str, typer.Option("--builder", metavar="URI", help="Who built it, for provenance.")
    ] = BUILDER,
    invocation: Annotated[
        str | None, typer.Option("--invocation", metavar="URI", help="The run that built it, for provenance.")
    ] = None,
    push: PushOption = False,
    remote: RemoteOption = False,
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
) -> None:
    """Sign a statement about a model: where it comes from, or what a file says.

    It stays beside the model in the store, and `lading push` sends both.
    """
    from ..oci.signing.attestation import attest as attest_manifest
    from ..oci.signing.signature import copy_signatures

    session = session_of(context)
    reference = session.reference(model)
    predicate_type = _predicate_type(kind)
    with attached(session, reference, remote=remote, push=push, insecure=insecure) as place:
        if predicate is not None:
            content = _read_predicate(predicate)
        else:
            content = _provenance(session, model, predicate_type, builder, invocation, remote=remote)
        signer = read_signer(session, key)
        attest_manifest(
            place.attachments, place.subject, signer, predicate_type=predicate_type, predicate=content
        )
        if place.registry is not None and place.attachments is not place.registry:
            copy_signatures(place.attachments, place.registry, place.subject.digest)
    if not quiet:
        print(f"attested {predicate_type}", file=sys.stderr)
    print(f"{session.display(reference)}@{place.subject.digest}")


def verify_attestation(
    context: typer.Context,
    model: ModelArgument,
    kind: TypeOption = "slsaprovenance1",
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", "-k", metavar="FILE", help="A public key; may be repeated."),
    ] = None,
    remote: RemoteOption = False,
    insecure: InsecureOption = False,
) -> None:
    """Print what somebody has attested about a model, as JSON, one statement a line.

    Exits with 1 if nobody has, or none of the signatures is by one of the keys. Without --key, the keys are
    those of the signature policy.
    """
    from ..oci.signing.attestation import verify_attestations

    session = session_of(context)
    reference = session.reference(model)
    trusted = trusted_keys(session, reference, keys or [])
    with attached(session, reference, remote=remote, insecure=insecure, writes=False) as place:
        found = verify_attestations(
            place.attachments, place.subject.digest, trusted, predicate_type=_predicate_type(kind)
        )
    for attestation in found:
        row = {
            "name": session.display(reference),
            "digest": str(place.subject.digest),
            "key": attestation.key.fingerprint,
            "predicateType": attestation.predicate_type,
            "predicate": attestation.predicate,
        }
        print(json.dumps(row, ensure_ascii=False))


def referrers(
    context: typer.Context,
    model: ModelArgument,
    remote: RemoteOption = False,
    form: FormatOption = "table",
    insecure: InsecureOption = False,
) -> None:
    """List what refers to a model: signatures, attestations, and whatever else others have attached."""
    session = session_of(context)
    reference = session.reference(model)
    with attached(session, reference, remote=remote, insecure=insecure, writes=False) as place:
        found = place.attachments.referrers(place.subject.digest, None)
    rows = [_row(descriptor) for descriptor in found]
    table = {
        "DIGEST": lambda row: row["digest"].partition(":")[2][:12],
        "TYPE": lambda row: row["artifactType"],
        "SIZE": lambda row: row["size"],
        "CREATED": lambda row: row["annotations"].get("org.opencontainers.image.created", ""),
        "STATES": lambda row: row["annotations"].get("dev.sigstore.bundle.predicateType", ""),
    }
    print_rows(form, rows, table, ("digest", "artifactType", "mediaType", "size", "annotations"))


def _row(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "digest": str(descriptor.digest),
        "artifactType": descriptor.artifact_type or "",
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "annotations": dict(descriptor.annotations),
    }


def _predicate_type(kind: str) -> str:
    from ..oci.signing.attestation import PREDICATE_TYPES

    if kind in PREDICATE_TYPES:
        return PREDICATE_TYPES[kind]
    if ":" not in kind or len(kind) > 512 or not kind.isprintable():
        raise UsageError(f"reading --type {kind!r}: expected {', '.join(PREDICATE_TYPES)}, or a URI")
    return kind


def _read_predicate(path: Path) -> dict[str, Any]:
    """Raises: FileMissing, FileUnreadable, BadJson; UsageError where it is no object."""
    from ..oci.canonical import strict_json
    from ..oci.signing.attestation import MAX_PREDICATE

    value = strict_json(
        read_small_file(path, "predicate", limit=MAX_PREDICATE), what=str(path), limit=MAX_PREDICATE
    )
    if not isinstance(value, dict):
        raise UsageError(f"reading {path}: expected a JSON object")
    return value


def _provenance(
    session: Session, model: str, predicate_type: str, builder: str, invocation: str | None, *, remote: bool
) -> dict[str, Any]:
    from ..oci.model import read_model
    from ..oci.signing.attestation import PREDICATE_TYPES
    from ..oci.signing.provenance import provenance

    if predicate_type != PREDICATE_TYPES["slsaprovenance1"]:
        raise UsageError("attesting: --predicate FILE says what, for types other than slsaprovenance1")
    if remote:
        raise UsageError(
            "attesting at the registry: expected --predicate FILE",
            hint="provenance is of a model in the store",
        )
    found = read_model(session.store(), session.resolve(model))
    return provenance(found, builder=builder, version=__version__, invocation=invocation)


def register(app: typer.Typer) -> None:
    app.command()(attest)
    app.command("verify-attestation")(verify_attestation)
    app.command()(referrers)
