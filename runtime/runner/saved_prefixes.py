"""Prefixes on disk: what slots hold, kept for the next start of the same model. Runner process only.

A file is llama.cpp's own format for the state of a sequence, which begins with the tokens:

    u32 magic "ggsq" · u32 version · u32 count · i32 tokens[count] · state

Its name says which scope it is of (see `generation.Generation.scope`), by its hash, and has the digest of
all of it, keyed with that hash: a torn write, a flipped bit, or a file of another scope is found before
llama.cpp reads the state. The folder is for one model, one build of the engine and one kind of KV cache; who
makes it sees to that (`runtime.prefix_folders`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .slots import Slot, TokenArray, common_prefix

MIN_TOKENS = 256
"""A prefix is saved when it has so many tokens more than any that is saved already."""
SUFFIX, UNFINISHED = ".prefix", ".part"

_MAGIC = 0x67677371
_HEADER = struct.Struct("<III")
_DIGEST_BYTES = 20
_SCOPE_BYTES = 16
_MAX_FILES = 256
_MAX_SHARE = 2
"""No file may take more than this fraction (one half) of the budget: a few large ones would leave no room."""
_READ_BYTES_PER_S = 5e8
"""Reading, checking and restoring, from a warm page cache or a fast disk: what a restore is priced at."""

logger = logging.getLogger(__name__)


class SequenceFiles(Protocol):
    """The part of `llama_context.LlamaContext` that is needed here; its docstrings hold."""

    def state_size(self, seq: int) -> int: ...

    def save_state(self, seq: int, path: Path, tokens: TokenArray) -> bool: ...

    def load_state(self, seq: int, path: Path, capacity: int) -> TokenArray | None: ...


@dataclass(frozen=True, slots=True)
class SavedPrefix:
    path: Path
    scope: str
    """The hash of it, in hexadecimal."""
    tokens: TokenArray
    size: int
    """Bytes of the file."""

    @property
    def restore_s(self) -> float:
        """About how long a restore takes, in seconds."""
        return self.size / _READ_BYTES_PER_S


class SavedPrefixes:
    """All of a folder. ``budget`` is bytes; ``capacity`` the tokens that a slot can hold.

    Only the engine's thread uses it. Nothing here raises: a prefix that cannot be saved or restored is
    evaluated instead.
    """

    def __init__(self, folder: Path, budget: int, capacity: int, files: SequenceFiles) -> None:
        self._folder = folder
        self._budget = budget
        self._capacity = capacity
        self._files = files
        self._saved = list(_scan(folder))

    def best(self, prompt: TokenArray, scope: str = "") -> tuple[SavedPrefix | None, int]:
        """The one of ``scope`` that shares the longest beginning with ``prompt`` and fits a slot, and that
        length."""
        fitting = [saved for saved in self._of(scope) if len(saved.tokens) <= self._capacity]
        if not fitting:
            return None, 0
        shared = [common_prefix(saved.tokens, prompt) for saved in fitting]
        at = max(range(len(fitting)), key=shared.__getitem__)
        return (fitting[at], shared[at]) if shared[at] else (None, 0)

    def wants(self, slot: Slot) -> bool:
        """Whether the slot holds enough that is not saved yet."""
        if slot.size < MIN_TOKENS:
            return False
        tokens = slot.tokens[: slot.size]
        if (tokens < 0).any():  # what stands for images is not text that another process can know again
            return False
        covered = max((common_prefix(saved.tokens, tokens) for saved in self._of(slot.scope)), default=0)
        return slot.size - covered >= MIN_TOKENS and self._affordable(slot)

    def save(self, slot: Slot) -> bool:
        """Write what the slot holds, in place of those that it all but contains; whether that worked."""
        tokens, scope = slot.tokens[: slot.size].copy(), _hash(slot.scope)
        unfinished = self._folder / f"{os.getpid()}-{slot.seq}{UNFINISHED}"
        try:
            if not self._files.save_state(slot.seq, unfinished, tokens):
                raise OSError("llama.cpp cannot write the state")
            size = unfinished.stat().st_size
            path = self._folder / f"{scope}-{_digest(unfinished, scope)}{SUFFIX}"
            self._make_room(size, tokens, slot.scope)
            unfinished.rename(path)
        except OSError as error:
            logger.warning("saving a prefix of %d tokens: %s", len(tokens), error)
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return False
        self._saved.append(SavedPrefix(path, scope, tokens, size))
        return True

    def restore(self, saved: SavedPrefix, slot: Slot, scope: str = "") -> bool:
        """Fill ``slot``, which must be free, with what is saved of ``scope``; on failure it is empty, and
        the file gone."""
        slot.cut(0)
        slot.scope = scope
        # Under this name a file that crashes llama.cpp is not tried again by the next runner.
        tried = self._folder / f"{os.getpid()}-{slot.seq}{UNFINISHED}"
        try:
            saved.path.rename(tried)
            sound = f"{_hash(scope)}-{_digest(tried, saved.scope)}" == saved.path.stem
            tokens = self._files.load_state(slot.seq, tried, self._capacity) if sound else None
            if tokens is None or not np.array_equal(tokens, saved.tokens):
                tried.unlink()
                raise OSError("its content is not what was saved")
            os.utime(tried)  # the least recently used go first
            tried.rename(saved.path)
        except OSError as error:
            logger.warning("restoring a prefix of %d tokens: %s", len(saved.tokens), error)
            self._forget(saved)
            return False
        slot.append(saved.tokens)
        return True

    def _affordable(self, slot: Slot) -> bool:
        return self._files.state_size(slot.seq) * _MAX_SHARE <= self._budget

    def _of(self, scope: str) -> list[SavedPrefix]:
        """Without a scope, too, is a scope."""
        wanted = _hash(scope)
        return [saved for saved in self._saved if saved.scope == wanted]

    def _make_room(self, size: int, tokens: TokenArray, scope: str) -> None:
        for saved in self._of(scope):
            if len(saved.tokens) - common_prefix(saved.tokens, tokens) < MIN_TOKENS:
                self._forget(saved)
        by_age = sorted(self._saved, key=lambda saved: _used_at(saved.path))
        total = sum(saved.size for saved in by_age)
        while by_age and (total + size > self._budget or len(by_age) >= _MAX_FILES):
            oldest = by_age.pop(0)
            total -= oldest.size
            self._forget(oldest)

    def _forget(self, saved: SavedPrefix) -> None:
        self._saved.remove(saved)
        with contextlib.suppress(OSError):
            saved.path.unlink(missing_ok=True)


def _scan(folder: Path) -> Iterator[SavedPrefix]:
    """What earlier runners have left, the newest first. What they did not finish goes."""
    try:
        files = sorted(folder.iterdir(), key=_used_at, reverse=True)
    except OSError as error:
        logger.warning("reading saved prefixes: %s", error)
        return
    for path in files[: 2 * _MAX_FILES]:
        if path.suffix == UNFINISHED and not _in_use(path):
            with contextlib.suppress(OSError):
                path.unlink()
        elif path.suffix == SUFFIX and (saved := _read_header(path)) is not None:
            yield saved


def _in_use(unfinished: Path) -> bool:
    """Whether the runner that writes it is another one that still lives. A number that cannot be looked up
    belongs to nobody."""
    owner = unfinished.name.partition("-")[0]
    return owner.isdigit() and int(owner) != os.getpid() and Path(f"/proc/{owner}").exists()


def _read_header(path: Path) -> SavedPrefix | None:
    """None where the file does not begin as it must."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return None
            magic, _, count = _HEADER.unpack(head)  # the version is llama.cpp's to check
            if magic != _MAGIC or count * 4 > size - _HEADER.size:
                return None
            scope = path.stem.partition("-")[0]
            return SavedPrefix(path, scope, np.frombuffer(file.read(count * 4), np.int32), size)
    except OSError:
        return None


def _hash(scope: str) -> str:
    return hashlib.blake2b(scope.encode(), digest_size=_SCOPE_BYTES).hexdigest()


def _digest(path: Path, scope: str) -> str:
    """Of a file of the scope with this hash. Raises: OSError."""
    key = scope.encode()
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(key=key, digest_size=_DIGEST_BYTES)
        ).hexdigest()


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
