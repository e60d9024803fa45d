"""Models of Hugging Face's Hub whose weights are in several files.

The registry interface of the Hub serves models of one file, and says so (status 400) of others. Those are
found through its own API: the list of files with their SHA-256, of which the shards of one quantisation,
and a projector if there is one, make a model.

    GET /api/models/<org>/<repo>/tree/<revision>?recursive=true   [{type, path, size, oid, lfs: {oid, size}}]
    GET /<org>/<repo>/resolve/<revision>/<path>                   the file; large ones by way of a redirect

Source: Hugging Face, "Hub API Endpoints"; huggingface_hub, hf_api.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from ..descriptor import Descriptor
from ..dialects.file_role import clean_path
from ..digest import Digest
from ..errors import BadDigest, DigestMismatch
from ..manifest import Manifest
from ..media_type import OCTET_STREAM
from ..progress import Progress, ProgressSink, ignore_progress
from ..reference import Reference
from ..registry.errors import RegistryError, RemoteModelNotFound
from ..registry.settings import HUB_HOSTS
from ..registry.web_files import MAX_PAGES, WebFiles
from ..signing.errors import NotSigned
from ..signing.policy import Mode
from ..store import Store
from .gguf_choice import choose_gguf
from .gguf_model import MAX_TEXT, TEXTS, StoredFile, write_model

REVISION = "main"
MAX_FILES = 100_000

Fetch = Callable[[WebFiles, Sequence[Descriptor]], None]
"""Brings files into the store."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. ``sha256`` is that of large files; ``oid`` is git's name of the others."""

    path: str
    size: int
    oid: str
    sha256: Digest | None


def is_for_hub(reference: Reference, error: RegistryError) -> bool:
    """Whether what the registry interface refuses may be had through the Hub's own."""
    return reference.registry in HUB_HOSTS and reference.digest is None and error.status == 400


def pull_from_hub(
    store: Store,
    hub: WebFiles,
    reference: Reference,
    fetch: Fetch,
    progress: ProgressSink = ignore_progress,
) -> Manifest:
    """Bring a model into the store, and write it down as ModelPack; the caller holds a lease, and tags it.

    The tag means a quantisation, in any case, or a file.

    Raises: RemoteModelNotFound, RegistryDenied, RegistryError; NoGguf, UnclearChoice; NotSigned where a
        signature is required, since nobody signs files; BadGguf, DigestMismatch, and what the store raises.
    """
    mode = hub.settings.signatures.rule_for(reference).mode
    unsigned = NotSigned(reference.display, "", hint="files at Hugging Face's Hub have no signatures")
    if mode is Mode.REQUIRE:
        raise unsigned
    if mode is Mode.WARN:
        progress(Progress(f"warning: {unsigned.message}"))
    files = {file.path: file for file in list_files(hub, reference)}
    place = f"{reference.registry}/{reference.repository}"
    choice = choose_gguf(files, reference.tag, place)
    chosen = [files[path] for path in choice.files]
    wanted = [_descriptor(hub, file) for file in chosen]
    urls = {blob.digest: _url(hub, file) for blob, file in zip(wanted, chosen, strict=True)}
    fetch(replace(hub, urls=urls), wanted)
    texts = _texts(hub, files)
    stored = [
        StoredFile(file.path.rpartition("/")[2], blob.digest, blob.size)
        for blob, file in zip(wanted, chosen, strict=True)
    ]
    return write_model(store, stored, texts)


def list_files(hub: WebFiles, reference: Reference) -> list[HubFile]:
    """All files of the repository. Raises: RemoteModelNotFound, RegistryDenied, RegistryError."""
    doing = f"listing the files of {reference.repository}"
    url: str | None = f"{hub.origin}/api/models/{quote(hub.name)}/tree/{REVISION}?recursive=true"
    found: list[HubFile] = []
    for _ in range(MAX_PAGES):
        if url is None or len(found) > MAX_FILES:
            break
        try:
            value, url = hub.get_json(url, doing)
        except RegistryError as error:
            if error.status == 404:
                raise RemoteModelNotFound(reference, hub.origin.netloc) from None
            raise
        if not isinstance(value, list):
            raise RegistryError(hub.origin.netloc, doing, "expected a list of files")
        found += [file for file in map(_read_entry, value) if file is not None]
    if url is not None:
        raise RegistryError(hub.origin.netloc, doing, "the list does not end")
    return found


def _read_entry(entry: object) -> HubFile | None:
    """The file that an entry tells of; None for folders, and for what makes no sense."""
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    path, size, oid, lfs = (entry.get(key) for key in ("path", "size", "oid", "lfs"))
    if not isinstance(path, str) or not clean_path(path) or not isinstance(oid, str):
        return None
    sha256 = None
    if isinstance(lfs, dict):
        size = lfs.get("size")
        try:
            sha256 = Digest("sha256", str(lfs.get("oid")).removeprefix("sha256:"))
        except BadDigest:
            return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    return HubFile(path, size, oid, sha256)


def _descriptor(hub: WebFiles, file: HubFile) -> Descriptor:
    if file.sha256 is None:
        raise RegistryError(hub.origin.netloc, f"fetching {file.path}", "the Hub does not tell its SHA-256")
    return Descriptor(OCTET_STREAM, file.sha256, file.size)


def _url(hub: WebFiles, file: HubFile) -> str:
    return f"{hub.origin}/{quote(hub.name)}/resolve/{REVISION}/{quote(file.path)}"


def _texts(hub: WebFiles, files: Mapping[str, HubFile]) -> dict[str, bytes]:
    """The small files that say more of the model, verified: git names them by their SHA-1."""
    found: dict[str, bytes] = {}
    for name in TEXTS:
        file = files.get(name)
        if file is None or file.size > MAX_TEXT or file.sha256 is not None:
            continue
        data = hub.get_bytes(_url(hub, file), MAX_TEXT, f"fetching {name}")
        got = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if got != file.oid:
            raise DigestMismatch(file.oid, got, what=f"{name} of {hub.name}")
        found[name] = data
    return found
