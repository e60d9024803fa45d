"""The files that COPY names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...modelfile.instructions import Copy
from ..digest import Digest
from ..errors import BadDigest, BlobNotFound
from ..store import Store
from .errors import BuildError, InsecurePath, SourceNotFound
from .recipe import Document, FromFile, FromStore
from .source import inside

MAX_DOCUMENTS = 1_000


def find_documents(instruction: Copy, *, context: Path, store: Store) -> Iterator[Document]:
    """The file that ``instruction`` names, or all files of a folder, hidden ones left out, in order.

    The target of a file is a folder when it ends with ``/`` or is ``.``; that of a folder always is one.

    Raises: SourceNotFound, InsecurePath, BuildError.
    """
    if instruction.source.startswith("@"):
        yield _stored(instruction, store)
        return
    path = context / instruction.source
    if not path.exists():
        raise SourceNotFound(instruction, f"file not found: {path}")
    if path.is_dir():
        yield from _folder(instruction, path, context)
    else:
        yield _document(instruction, path, context, _target(instruction.target, path.name))


def _folder(instruction: Copy, folder: Path, context: Path) -> Iterator[Document]:
    count = 0
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        count += 1
        if count > MAX_DOCUMENTS:
            raise BuildError(instruction, f"more than {MAX_DOCUMENTS:,} files in {folder}")
        yield _document(
            instruction, path, context, _target(_as_folder(instruction.target), relative.as_posix())
        )


def _as_folder(target: str) -> str:
    return target if target.endswith("/") or target == "." else target + "/"


def _target(target: str, name: str) -> str:
    if target == ".":
        return name
    return target + name if target.endswith("/") else target


def _document(instruction: Copy, path: Path, context: Path, target: str) -> Document:
    if not inside(path, context):
        raise InsecurePath(instruction, f"insecure path: {path.name} leads out of {context}")
    if not path.is_file():
        raise BuildError(instruction, f"not a regular file: {path}")
    _refuse_gguf(instruction, target)
    return Document(instruction, FromFile(path.resolve()), target.removeprefix("./"))


def _stored(instruction: Copy, store: Store) -> Document:
    try:
        digest = Digest.parse(instruction.source[1:])
        size = store.blob_size(digest)
    except (BadDigest, BlobNotFound) as error:
        raise BuildError(instruction, error.message) from error
    if instruction.target.endswith("/") or instruction.target == ".":
        raise BuildError(instruction, "a blob has no name: expected a file as the target")
    _refuse_gguf(instruction, instruction.target)
    return Document(instruction, FromStore(digest, size), instruction.target)


def _refuse_gguf(instruction: Copy, target: str) -> None:
    if target.lower().endswith(".gguf"):
        hint = "FROM, ADAPTER and DRAFT take GGUF files"
        raise BuildError(instruction, "a GGUF file is no document", hint=hint)
