"""Models that are on this machine already, or on the web as files: ``import``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ..modelfile.errors import UsageError
from .exit_code import ExitCode
from .human import format_size
from .output import print_rows
from .progress import show_progress
from .session import FormatOption, InsecureOption, QuietOption, Session, session_of

if TYPE_CHECKING:
    from ..oci.digest import Digest
    from ..oci.importing.imported import Imported, ImportPolicy
    from ..oci.progress import ProgressSink
    from ..oci.reference import Reference

FIELDS = ("name", "size", "status", "shared", "digest", "reason")
OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama keeps its models as a service of the system. Source: Ollama, scripts/install.sh."""

_URL = re.compile(r"https?://", re.IGNORECASE)


def import_(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="ollama, hf, a folder, a GGUF file, or the URL of one.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL...]", help="Ollama's models; for hf, org/repo or org/repo:Q4_K_M."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="Where Ollama or Hugging Face's cache is."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All of Ollama's models.")] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Call the model so; for a single one.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What the file at a URL must be.")
    ] = None,
    link: Annotated[
        bool | None,
        typer.Option(
            "--link/--copy",
            help="Share files by hard links; the default for ollama and hf, where that is safe.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where a name means another model here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done.")] = False,
    form: FormatOption = "table",
    quiet: QuietOption = False,
    insecure: InsecureOption = False,
) -> None:
    """Take models over from Ollama, Hugging Face's cache, a folder or a URL.

    Every byte is verified. Files are shared where that is safe, and copied otherwise. Exits with 1 where a
    model had to be skipped.
    """
    from ..oci.importing.imported import ImportPolicy, Status

    session = session_of(context)
    request = _Request(session, folder, models or [], name, everything)
    in_place = source in ("ollama", "hf")
    policy = ImportPolicy(link=in_place if link is None else link, dry_run=dry_run, replace=force)
    with show_progress(quiet=quiet) as progress:
        if source == "ollama":
            found = list(_from_ollama(request, policy, progress))
        elif source == "hf":
            found = [_from_hub_cache(request, policy, progress)]
        elif _URL.match(source):
            found = [_from_url(request, source, sha256, policy, progress, insecure=insecure)]
        else:
            found = [_from_files(request, Path(source), policy, progress)]
    _print(session, found, "{{.name}}" if quiet else form)
    if any(one.status is Status.SKIPPED for one in found):
        raise typer.Exit(ExitCode.FAILURE)


class _Request:
    """What the command line says of what is to be imported."""

    def __init__(
        self, session: Session, folder: Path | None, models: list[str], name: str | None, everything: bool
    ) -> None:
        self.session = session
        self.folder = folder
        self.models = models
        self.name = name
        self.everything = everything

    def reference(self, otherwise: Callable[[], str]) -> Reference:
        """The name of a single model. Raises: BadReference."""
        return self.session.reference(self.name or otherwise())


def _from_ollama(request: _Request, policy: ImportPolicy, progress: ProgressSink) -> Iterator[Imported]:
    from ..oci.importing.ollama_store import OllamaStore, import_from_ollama

    session = request.session
    ollama = OllamaStore(request.folder or _ollama_models(session))
    if request.everything:
        chosen = ollama.models()
    else:
        chosen = ollama.select([session.reference(model) for model in request.models])
        if not chosen:
            names = ", ".join(session.display(model.reference) for model in ollama.models()[:12])
            raise UsageError(
                "importing from Ollama: expected models, or --all", hint=f"it has: {names or 'none'}"
            )
    store = session.store()
    for model in chosen:
        yield import_from_ollama(store, ollama, model, policy, progress)


def _ollama_models(session: Session) -> Path:
    stated = session.settings.read("OLLAMA_MODELS")
    own = Path(stated).expanduser() if stated else Path.home() / ".ollama" / "models"
    return OLLAMA_SERVICE if not stated and not own.exists() and OLLAMA_SERVICE.exists() else own


def _from_hub_cache(request: _Request, policy: ImportPolicy, progress: ProgressSink) -> Imported:
    from ..oci.importing.hub_cache import HubCache
    from ..oci.importing.local_files import import_files

    if len(request.models) != 1:
        raise UsageError("importing from Hugging Face's cache: expected one repository, such as org/repo")
    repository, _, wanted = request.models[0].removeprefix("hf.co/").partition(":")
    cache = HubCache(request.folder or _hub_cache(request.session))
    files = cache.files(repository)
    choice = files.choose(wanted or None)
    tag = re.sub(r"[^A-Za-z0-9_.-]+", "-", wanted or choice.label).strip("-.") or "latest"
    reference = request.reference(lambda: f"hf.co/{repository}:{tag}")
    return import_files(request.session.store(), files, choice, reference, policy, progress)


def _hub_cache(session: Session) -> Path:
    """Source: huggingface_hub, constants.py."""
    read = session.settings.read
    if stated := read("HF_HUB_CACHE"):
        return Path(stated).expanduser()
    home = read("HF_HOME")
    if home is None:
        home = str(Path(read("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def _from_files(request: _Request, path: Path, policy: ImportPolicy, progress: ProgressSink) -> Imported:
    from ..oci.importing.local_files import LocalFiles, import_files

    if len(request.models) > 1:
        raise UsageError(f"importing {path}: expected at most one model of it")
    files = LocalFiles.of(path)
    choice = files.choose(request.models[0] if request.models else None)
    reference = request.reference(lambda: _name_of(path.resolve().name))
    return import_files(request.session.store(), files, choice, reference, policy, progress)


def _from_url(
    request: _Request,
    url: str,
    sha256: str | None,
    policy: ImportPolicy,
    progress: ProgressSink,
    *,
    insecure: bool,
) -> Imported:
    from ..oci.importing.web_file import WebFile, import_url

    session = request.session
    digest = _sha256(sha256) if sha256 is not None else None
    file = WebFile(url, digest)
    reference = request.reference(lambda: _name_of(file.name))
    host = urlsplit(url).netloc
    with session.registry_client(insecure=insecure, host=host) as client:
        return import_url(session.store(), client, file, reference, policy, progress)


def _sha256(text: str) -> Digest:
    from ..oci.digest import Digest
    from ..oci.errors import BadDigest

    try:
        return Digest("sha256", text.removeprefix("sha256:").lower())
    except BadDigest:
        raise UsageError(f"reading --sha256 {text!r}: expected 64 hexadecimal digits") from None


def _name_of(file: str) -> str:
    """A model's name from that of a file or folder."""
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", file, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-.") or "model"


def _print(session: Session, found: list[Imported], form: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "name": session.display(one.reference),
            "size": one.size,
            "status": str(one.status),
            "shared": one.shared,
            "digest": str(one.digest) if one.digest else None,
            "reason": one.reason,
        }
        for one in found
    ]
    table = {
        "NAME": lambda row: row["name"],
        "SIZE": lambda row: format_size(row["size"]),
        "SHARED": lambda row: format_size(row["shared"]),
        "STATUS": lambda row: f"{row['status']}: {row['reason']}" if row["reason"] else row["status"],
    }
    print_rows(form, rows, table, FIELDS)


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("import")(import_)
