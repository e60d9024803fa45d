"""Files of this machine, of which one model is imported: a folder, a single file, a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...modelfile.errors import InputError, NotFoundError
from ..building.source import inside
from ..descriptor import Descriptor
from ..progress import ProgressSink, ignore_progress
from ..reference import Reference
from ..store import Store
from .gguf_choice import Choice, choose_gguf
from .gguf_model import MAX_TEXT, TEXTS, StoredFile, write_model
from .imported import TAKEN, FileImporter, Imported, ImportPolicy, Status, is_taken, readable

MAX_ENTRIES = 10_000


def _unknown(path: Path) -> Descriptor | None:
    return None


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files by their paths, relative and with slashes. ``place`` is for messages; ``expected`` tells what a
    file should be, where that is known."""

    place: str
    files: Mapping[str, Path]
    expected: Callable[[Path], Descriptor | None] = _unknown

    @classmethod
    def of(cls, path: Path) -> LocalFiles:
        """A GGUF file, or those of a folder, without its folders. Links may not lead out of the folder.

        Raises: NotFoundError, InputError; BadSource where it cannot be read.
        """
        with readable(path):
            return cls._of(path)

    @classmethod
    def _of(cls, path: Path) -> LocalFiles:
        if path.is_file():
            return cls(str(path), {path.name: path.resolve()})
        if not path.is_dir():
            raise NotFoundError(f"importing {path}: no such file or folder")
        entries = sorted(path.iterdir())
        if len(entries) > MAX_ENTRIES:
            raise InputError(f"importing {path}: it has more than {MAX_ENTRIES} files")
        _refuse_others(path)
        found = [entry for entry in entries if entry.is_file()]
        for entry in found:
            if entry.suffix.lower() == ".gguf" and not inside(entry, path):
                hint = "name the file itself instead of its folder"
                raise InputError(f"importing {path}: {entry.name} leads out of it", hint=hint)
        return cls(str(path), {entry.name: entry.resolve() for entry in found if inside(entry, path)})

    def choose(self, wanted: str | None) -> Choice:
        """Raises: NoGguf, UnclearChoice."""
        return choose_gguf(self.files, wanted, self.place)


def _refuse_others(folder: Path) -> None:
    """A folder that another command is for. Raises: InputError."""
    for name, hint in (
        ("oci-layout", f"it is an OCI image layout: lading pull oci:{folder}"),
        ("manifests", f"if it is Ollama's: lading import ollama --from {folder} --all"),
        ("Modelfile", f"it has a Modelfile: lading create NAME -f {folder / 'Modelfile'}"),
    ):
        if (folder / name).exists():
            raise InputError(f"importing {folder}: expected a folder of GGUF files", hint=hint)


def import_files(
    store: Store,
    files: LocalFiles,
    choice: Choice,
    reference: Reference,
    policy: ImportPolicy,
    progress: ProgressSink = ignore_progress,
) -> Imported:
    """Make a model of the files that were chosen, under a name. Files of TEXTS beside them are taken in, too.

    Raises: BadGguf, BuildError where they make no model; DigestMismatch where one is damaged; BadSource,
        SourceChanged, and what the store raises. Then no tag has changed.
    """
    with readable(files.files[choice.weights[0]]):
        size = sum(files.files[path].stat().st_size for path in choice.files)
    result = Imported(reference=reference, status=Status.POSSIBLE, size=size)
    if policy.dry_run:
        return result
    importer = FileImporter(store, policy, progress)
    with store.lease():
        stored = []
        for path in choice.files:
            source = files.files[path]
            found = importer.take(source, path, files.expected(source))
            stored.append(StoredFile(path.rpartition("/")[2], found.digest, found.size))
        manifest = write_model(store, stored, _texts(files, choice))
        status, reason = Status.IMPORTED, ""
        if is_taken(store, reference, None):
            if not is_taken(store, reference, manifest):
                status = Status.PRESENT
            elif not policy.replace:
                status, reason = Status.SKIPPED, TAKEN
        if status is not Status.SKIPPED:
            store.tag(reference, manifest.descriptor)
    return Imported(
        reference=reference,
        status=status,
        size=size,
        shared=importer.shared,
        digest=manifest.digest,
        reason=reason,
    )


def _texts(files: LocalFiles, choice: Choice) -> dict[str, bytes]:
    """The files of TEXTS beside the weights, or else in the uppermost folder. A long one is passed over."""
    folder, slash, _ = choice.weights[0].rpartition("/")
    found: dict[str, bytes] = {}
    for name in TEXTS:
        path = files.files.get(f"{folder}{slash}{name}") or files.files.get(name)
        if path is None:
            continue
        with readable(path), path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) <= MAX_TEXT:
            found[name] = data
    return found
