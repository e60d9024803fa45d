"""Moving models between this store and registries: ``push``, ``pull``, ``tags``, ``registry``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..modelfile.errors import UsageError
from .conversion import AsOption, parse_dialect, written_as
from .encryption import DecryptWithOption, EncryptToOption, decrypted, encrypted
from .listening import (
    BehindProxyOption,
    InsecureNoAuthOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
    exposure_flags,
    server_settings,
)
from .output import print_rows
from .progress import show_progress
from .session import (
    FormatOption,
    InsecureOption,
    LimitRateOption,
    ModelArgument,
    ParallelOption,
    QuietOption,
    session_of,
)

PULL_INTERRUPTED = "What has arrived is kept: the same command goes on from there."
PUSH_INTERRUPTED = "Layers that are complete there will not be sent again."


def pull(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Its name, with the registry's host; or oci:FOLDER[:NAME].")
    ],
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
    decrypt_with: DecryptWithOption = None,
    parallel: ParallelOption = None,
    limit_rate: LimitRateOption = None,
) -> None:
    """Fetch a model from a registry into the store.

    Or from the OCI image layout in a folder: oci:FOLDER, or oci:FOLDER:NAME where it holds several.
    """
    from ..oci.offline.image_layout import LayoutPlace, pull_from
    from ..oci.transfer import pull as pull_model

    session = session_of(context).given(parallel=parallel, max_download_rate=limit_rate)
    place = LayoutPlace.parse(model)
    if place is not None:
        if decrypt_with:
            raise UsageError("pulling from a folder: --decrypt-with is for registries")
        with show_progress(quiet=quiet) as progress:
            tagged = pull_from(session.store(), place, policy=session.signature_policy(), progress=progress)
        print(f"{session.display(tagged.reference)}@{tagged.descriptor.digest}")
        return
    reference = session.reference(model)
    client = session.registry_client(insecure=insecure, reference=reference)
    with show_progress(quiet=quiet, interrupted=PULL_INTERRUPTED) as progress:
        manifest = pull_model(session.store(), client, reference, progress=progress)
        if decrypt_with:
            manifest = decrypted(session, reference, manifest, decrypt_with, progress)
    print(f"{session.display(reference)}@{manifest.descriptor.digest}")


def push(
    context: typer.Context,
    model: ModelArgument,
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="Another name, or oci:FOLDER[:NAME].")
    ] = None,
    form: AsOption = None,
    encrypt_to: EncryptToOption = None,
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
    parallel: ParallelOption = None,
    limit_rate: LimitRateOption = None,
) -> None:
    """Send a model to the registry that its name, or TARGET, names.

    With a TARGET of oci:FOLDER or oci:FOLDER:NAME, to the OCI image layout in a folder.
    """
    from ..oci.offline.image_layout import PREFIX, LayoutPlace, push_to
    from ..oci.transfer import push as push_model

    session = session_of(context).given(parallel=parallel, max_upload_rate=limit_rate)
    reference = session.reference(model)
    dialect = parse_dialect(form) if form is not None else None
    place = LayoutPlace.parse(target) if target else None
    if place is not None:
        if dialect is not None or encrypt_to:
            raise UsageError(
                "pushing to a folder: --as and --encrypt-to are for registries",
                hint="lading convert it first",
            )
        with show_progress(quiet=quiet) as progress:
            tagged = push_to(session.store(), reference, place, progress=progress)
        print(f"{PREFIX}{place.folder}:{tagged.reference}@{tagged.descriptor.digest}")
        return
    destination = session.reference(target) if target else reference
    client = session.registry_client(insecure=insecure, reference=destination)
    store = session.store()
    with store.lease():
        manifest = written_as(store, store.resolve(reference), dialect) if dialect is not None else None
        with show_progress(quiet=quiet, interrupted=PUSH_INTERRUPTED) as progress:
            if encrypt_to:
                manifest = encrypted(store, manifest or store.resolve(reference), encrypt_to, progress)
            descriptor = push_model(
                store, client, reference, target=destination, manifest=manifest, progress=progress
            )
    print(f"{session.display(destination)}@{descriptor.digest}")


def tags(
    context: typer.Context,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="A model's name without tag.")],
    form: FormatOption = "table",
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
) -> None:
    """List the tags that a registry has of a model."""
    from ..modelfile.errors import NotFoundError

    session = session_of(context)
    reference = session.reference(repository)
    with session.registry_client(insecure=insecure, reference=reference) as client:
        found = client.repository(reference).tags()
    if not found:
        raise NotFoundError(
            f"listing the tags of {reference.repository}: {reference.registry} has none",
            hint="check the spelling; a private model may need a login first",
        )
    rows = [{"name": session.display(reference.with_tag(tag)), "tag": tag} for tag in found]
    if quiet:
        form = "{{.tag}}"
    print_rows(form, rows, {"NAME": lambda row: row["name"]}, ("name", "tag"))


def registry(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option("--listen", "-l", metavar="HOST:PORT", help="Where to listen.")
    ] = "127.0.0.1:5000",
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow pulls only.")] = False,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    behind_proxy: BehindProxyOption = False,
    insecure_no_auth: InsecureNoAuthOption = False,
) -> None:
    """Serve the store as an OCI registry, and nothing else.

    `lading serve` does so too, under the same address as its other interfaces.
    """
    from ..server.gunicorn_app import serve_registry
    from ..server.registry.names import RegistryNames

    session = session_of(context)
    flags = exposure_flags(tls_cert, tls_key, tls_client_ca, behind_proxy, insecure_no_auth)
    settings = server_settings(session, listen, flags, default_port=5000)
    names = RegistryNames(session.settings["registry"], session.settings["namespace"])
    serve_registry(settings, names, read_only=read_only)


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("pull")(pull)
    app.command("push")(push)
    app.command("tags")(tags)
    app.command("registry")(registry)
