"""The cache of Hugging Face's tools on this machine: GGUF files that were downloaded already.

    models--<org>--<repo>/refs/<revision>                 the commit's id
    models--<org>--<repo>/snapshots/<commit>/<path>       links to
    models--<org>--<repo>/blobs/<sha256, or git's sha1>   the files

Links that lead out of the repository's folder are refused. Large files are named by their SHA-256, which is
verified.

Source: huggingface_hub, "Understand caching".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...modelfile.errors import InputError, NotFoundError
from ..descriptor import Descriptor
from ..digest import Digest
from ..media_type import OCTET_STREAM
from .imported import readable
from .local_files import LocalFiles

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class HubCache:
    """The folder that Hugging Face's tools know as HF_HUB_CACHE."""

    root: Path

    def files(self, repository: str, revision: str = "main") -> LocalFiles:
        """The files of ``org/repo`` at a branch, tag or commit.

        Raises: InputError where that is no repository's name; NotFoundError where it is not in the cache;
            BadSource where it cannot be read.
        """
        with readable(self.root):
            return self._files(repository, revision)

    def _files(self, repository: str, revision: str) -> LocalFiles:
        parts = repository.split("/")
        if not 1 <= len(parts) <= 2 or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
            raise InputError(f"importing {repository!a}: expected a repository such as org/repo")
        folder = self.root / "--".join(("models", *parts))
        if not folder.is_dir():
            raise NotFoundError(
                f"importing {repository}: it is not in {self.root}",
                hint=f"lading pull hf.co/{repository} fetches it; --from names another cache",
            )
        snapshot = folder / "snapshots" / self._commit(folder, repository, revision)
        found: dict[str, Path] = {}
        for path in sorted(snapshot.rglob("*"))[:MAX_ENTRIES]:
            if not path.is_file():
                continue
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"importing {repository}: {path.name} leads out of its folder in the cache")
            found[path.relative_to(snapshot).as_posix()] = path.resolve()
        return LocalFiles(f"{repository} in {self.root}", found, _expected)

    def _commit(self, folder: Path, repository: str, revision: str) -> str:
        if _COMMIT.fullmatch(revision):
            return revision
        snapshots = sorted(path.name for path in (folder / "snapshots").glob("*") if path.is_dir())
        try:
            if not all(_PART.fullmatch(part) and ".." not in part for part in revision.split("/")):
                raise FileNotFoundError
            commit = (folder / "refs" / revision).read_text("ascii")[:64].strip()
        except (OSError, UnicodeDecodeError):
            commit = ""
        if commit in snapshots:
            return commit
        if revision == "main" and len(snapshots) == 1:
            return snapshots[0]
        raise NotFoundError(
            f"importing {repository}: its revision {revision!a} is not in the cache",
            hint=f"there are: {', '.join(snapshots[:8])}" if snapshots else None,
        )


def _expected(path: Path) -> Descriptor | None:
    """What a file of the cache should be, where its name says so."""
    if not _SHA256.fullmatch(path.name):
        return None
    return Descriptor(OCTET_STREAM, Digest("sha256", path.name), path.stat().st_size)
