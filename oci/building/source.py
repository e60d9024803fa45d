"""What FROM, ADAPTER and DRAFT name: a local file or folder, a blob of the store, or a model.

A text that exists as a path, relative to the folder of the Modelfile, is that path. ``@sha256:…`` is a
blob of the store. Anything else is the name of a model, unless it looks like a path: then the file is
missing, and that is what the user is told.

Source: Ollama, parser.expandPath and cmd.createModel; departures: a missing file is an error of its own
(Ollama: "invalid model name"), digests are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ...modelfile.instructions import Adapter, Draft, From
from ..digest import Digest
from ..errors import BadDigest, BadReference
from ..reference import Reference
from .errors import BuildError, InsecurePath, NeedsConversion, SourceNotFound

MAX_FOLDER_ENTRIES = 10_000

Naming: TypeAlias = From | Adapter | Draft
ReferenceParser: TypeAlias = Callable[[str], Reference]

_CONVERTIBLE = (".safetensors", ".bin", ".pth", ".pt")
_CONVERT_HINT = (
    "convert the model to GGUF first, for example with convert_hf_to_gguf.py of llama.cpp, "
    "and name the .gguf file"
)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to import. ``path`` is free of symbolic links; ``name`` is how the user calls it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that must be in the store already."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class NamedModel:
    """Another model."""

    reference: Reference


Source: TypeAlias = LocalFile | StoredBlob | NamedModel


def resolve_source(
    instruction: Naming, *, context: Path, parse_reference: ReferenceParser
) -> tuple[Source, ...]:
    """What ``instruction`` names; several files where it is a folder.

    Raises: SourceNotFound, InsecurePath, NeedsConversion, BuildError.
    """
    text = instruction.ref
    if text.startswith("@"):
        try:
            return (StoredBlob(Digest.parse(text[1:])),)
        except BadDigest as error:
            raise BuildError(instruction, error.message) from error
    path = _expand(instruction, context)
    if path.is_dir():
        return _files_of_folder(instruction, path)
    if path.exists():
        return (local_file(instruction, path),)
    if _looks_like_path(text):
        raise SourceNotFound(instruction, f"file not found: {path}", hint=_near(path))
    try:
        return (NamedModel(parse_reference(text)),)
    except BadReference as error:
        raise BuildError(
            instruction, f"no file of that name, and {error.message}", hint=error.hint
        ) from error


def local_file(instruction: Naming, path: Path) -> LocalFile:
    """The file at ``path``, which exists; symbolic links are followed, since the user named it.

    Raises: NeedsConversion, BuildError.
    """
    if path.suffix.lower() in _CONVERTIBLE:
        raise NeedsConversion(instruction, "conversion is not supported yet", hint=_CONVERT_HINT)
    if not path.is_file():
        raise BuildError(instruction, f"not a regular file: {path}")
    return LocalFile(path.resolve(), path.name)


def fingerprint(path: Path) -> tuple[int, ...]:
    """Changes when the file is replaced or written to. Raises: OSError where it is gone."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def inside(path: Path, folder: Path) -> bool:
    """Whether ``path``, its symbolic links followed, lies in ``folder``."""
    return path.resolve().is_relative_to(folder.resolve())


def _expand(instruction: Naming, context: Path) -> Path:
    try:
        return context / Path(instruction.ref).expanduser()
    except (RuntimeError, ValueError) as error:  # no such user; NUL in the text
        raise BuildError(instruction, str(error)) from error


def _looks_like_path(text: str) -> bool:
    return (
        text.startswith(("./", "../", "/", "~", ".\\", "..\\"))
        or text in (".", "..")
        or text.lower().endswith((".gguf", *_CONVERTIBLE))
    )


def _near(path: Path) -> str | None:
    """What is there instead, when the folder exists and holds GGUF files."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix.lower() == ".gguf")
    except OSError:
        return None
    return f"in that folder: {', '.join(names[:5])}" if names else None


def _files_of_folder(instruction: Naming, folder: Path) -> tuple[LocalFile, ...]:
    """The GGUF files of a folder, in order of their names."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BuildError(instruction, f"reading {folder}: {error.strerror}") from error
    if len(entries) > MAX_FOLDER_ENTRIES:
        raise BuildError(instruction, f"more than {MAX_FOLDER_ENTRIES:,} files in {folder}")
    found = [entry for entry in entries if entry.suffix.lower() == ".gguf"]
    if not found:
        convertible = next((entry for entry in entries if entry.suffix.lower() in _CONVERTIBLE), None)
        if convertible is not None:
            reason = f"{convertible.name}: conversion is not supported yet"
            raise NeedsConversion(instruction, reason, hint=_CONVERT_HINT)
        raise SourceNotFound(instruction, f"no .gguf file in {folder}")
    for entry in found:
        if not inside(entry, folder):
            hint = "name the file itself instead of its folder"
            raise InsecurePath(instruction, f"insecure path: {entry.name} leads out of {folder}", hint=hint)
    return tuple(local_file(instruction, entry) for entry in found)
