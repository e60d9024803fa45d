"""The store: ``ls``, ``inspect``, ``history``, ``cp``, ``rm``, ``gc``, ``fsck``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..oci.signing.attachment_tag import forget_attachments, is_attachment_tag
from .exit_code import ExitCode
from .human import format_ago, format_size
from .output import print_json, print_rows
from .progress import show_progress
from .session import FormatOption, InsecureOption, ModelArgument, QuietOption, Session, session_of

if TYPE_CHECKING:
    from ..oci.store import Store, TaggedManifest

LIST_FIELDS = ("name", "id", "digest", "size", "modified")


def list_models(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.")] = "",
    form: FormatOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    quiet: QuietOption = False,
) -> None:
    """List the models in the store."""
    session = session_of(context)
    store = session.store()
    rows: list[dict[str, Any]] = []
    for tag in store.tags():
        if is_attachment_tag(tag.reference.tag):
            continue
        name = session.display(tag.reference)
        if not name.lower().startswith(prefix.lower()):
            continue
        rows.append(
            {
                "name": name,
                "id": tag.descriptor.digest.short,
                "digest": str(tag.descriptor.digest),
                "size": _size_of(store, tag),
                "modified": tag.modified.astimezone(UTC).isoformat(),
            }
        )
    rows.sort(key=lambda row: str(row["modified"]), reverse=True)
    if quiet:
        for row in rows:
            print(row["name"])
        return
    now = datetime.now(UTC)
    table = {
        "NAME": lambda row: row["name"],
        "ID": lambda row: row["id"],
        "SIZE": lambda row: format_size(row["size"]),
        "MODIFIED": lambda row: format_ago(datetime.fromisoformat(row["modified"]), now=now),
    }
    print_rows("json" if as_json else form, rows, table, LIST_FIELDS)


def _size_of(store: Store, tag: TaggedManifest) -> int:
    """Bytes of a model; 0 with a note where its manifest is damaged: it is listed, and can be removed."""
    from ..modelfile.errors import LadingError

    try:
        return sum(blob.size for blob in store.read_manifest(tag.descriptor).blobs)
    except LadingError as error:
        print(f"{tag.reference.display} is damaged: {error}", file=sys.stderr)
        return 0


def inspect(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models' names.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="The manifest's bytes, exactly as they are stored.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="What the registry has; nothing is pulled.")
    ] = False,
    insecure: InsecureOption = False,
) -> None:
    """Print models' manifests and configs as JSON."""
    from ..oci.canonical import strict_json

    session = session_of(context)
    if remote:
        _inspect_remote(session, models, raw=raw, insecure=insecure)
        return
    found = [(name, session.resolve(name)) for name in models]
    if raw:
        sys.stdout.flush()
        for _name, manifest in found:
            sys.stdout.buffer.write(manifest.raw)
        return
    store = session.store()
    print_json(
        [
            {
                "name": session.display(session.reference(name)),
                "digest": str(manifest.descriptor.digest),
                "size": sum(blob.size for blob in manifest.blobs),
                "manifest": strict_json(manifest.raw),
                "config": _config_of(store.read_blob(manifest.config.digest, limit=1 << 20)),
            }
            for name, manifest in found
        ]
    )


def _inspect_remote(session: Session, names: list[str], *, raw: bool, insecure: bool) -> None:
    from ..oci.canonical import strict_json
    from ..oci.registry.remote import look_up

    found = []
    for name in names:
        reference = session.reference(name)
        with session.registry_client(insecure=insecure, reference=reference) as client:
            found.append((reference, look_up(client.repository(reference), reference)))
    if raw:
        sys.stdout.flush()
        for _reference, model in found:
            sys.stdout.buffer.write((model.index or model.manifest).raw)
        return
    print_json(
        [
            {
                "name": session.display(reference),
                "digest": str(model.manifest.digest),
                "size": sum(blob.size for blob in model.manifest.blobs),
                "manifest": strict_json(model.manifest.raw),
                "config": model.config,
                **({"index": strict_json(model.index.raw)} if model.index is not None else {}),
            }
            for reference, model in found
        ]
    )


def _config_of(data: bytes) -> Any:
    from ..oci.canonical import strict_json

    return strict_json(data)


def history(context: typer.Context, model: ModelArgument, form: FormatOption = "table") -> None:
    """Show which instruction made which layer."""
    from ..oci.history import history as history_of
    from ..oci.model import read_model

    session = session_of(context)
    steps = history_of(read_model(session.store(), session.resolve(model)))
    rows = [
        {
            "layer": step.digest.short,
            "digest": str(step.digest),
            "size": step.size,
            "created_by": step.created_by,
        }
        for step in steps
    ]
    table = {
        "LAYER": lambda row: row["layer"],
        "SIZE": lambda row: format_size(row["size"]),
        "CREATED BY": lambda row: row["created_by"],
    }
    print_rows(form, rows, table, ("layer", "digest", "size", "created_by"))


def copy(
    context: typer.Context,
    source: ModelArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its new name.")],
) -> None:
    """Give a model another name. Nothing is copied but the name."""
    session = session_of(context)
    store = session.store()
    store.tag(session.reference(target), store.find(session.reference(source)).descriptor)
    print(f"copied '{source}' to '{target}'")


def remove(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models' names.")],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="No error for a model that is not there.")
    ] = False,
) -> None:
    """Remove models' names. `lading gc` then frees what no other model shares."""
    from ..oci.errors import ModelNotFound

    session = session_of(context)
    store = session.store()
    references = [session.reference(name) for name in models]
    if not force:
        for reference in references:
            store.find(reference)  # all or nothing: a name that is missing leaves the others alone
    for name, reference in zip(models, references, strict=True):
        try:
            gone = store.untag(store.find(reference).reference)
        except ModelNotFound:
            continue
        forget_attachments(store, gone.reference, gone.descriptor.digest)
        print(f"deleted '{name}'")


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also unfinished downloads that a pull could resume.")
    ] = False,
) -> None:
    """Free the bytes that no model needs."""
    from ..oci.store import SweepPolicy

    policy = SweepPolicy(keep_partial_s=0) if everything else SweepPolicy()
    report = session_of(context).store().gc(dry_run=dry_run, policy=policy)
    verb = "would free" if dry_run else "freed"
    print(f"{verb} {format_size(report.freed)} in {len(report.blobs) + report.leftovers} files")
    if report.kept_leftovers:
        print(f"kept {report.kept_leftovers} unfinished downloads: a pull resumes them", file=sys.stderr)


def fsck(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move corrupt blobs aside, so that a pull fetches them again.")
    ] = False,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
    quiet: QuietOption = False,
) -> None:
    """Check every byte of the store.

    Exits with 1 if a blob is not what its digest says, or missing.
    """
    store = session_of(context).store()
    with show_progress(quiet=quiet) as progress:
        report = store.fsck(progress=progress, repair=repair)
    if form == "json":
        print_json(
            {
                "blobs": report.blobs,
                "size": report.size,
                "tags": report.tags,
                "problems": [asdict(problem) for problem in report.problems],
                "quarantined": [str(path) for path in report.quarantined],
            }
        )
    else:
        for problem in report.problems:
            models = f" (needed by {', '.join(problem.models)})" if problem.models else ""
            print(f"{problem.kind}: {problem.subject}: {problem.detail}{models}")
            if problem.remedy:
                print(f"  {problem.remedy}")
        print(f"checked {report.blobs} blobs, {format_size(report.size)}: {len(report.problems)} problems")
    if report.problems:
        raise typer.Exit(ExitCode.FAILURE)


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("ls")(list_models)
    for alias in ("list", "images"):
        app.command(alias, hidden=True)(list_models)
    app.command("inspect")(inspect)
    app.command("history")(history)
    app.command("cp")(copy)
    app.command("tag", hidden=True)(copy)
    app.command("rm")(remove)
    for alias in ("rmi", "remove"):
        app.command(alias, hidden=True)(remove)
    app.command("gc")(gc)
    app.command("fsck")(fsck)
