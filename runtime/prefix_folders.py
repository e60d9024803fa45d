"""The folders in which runners save evaluated prompts, one for each model and way of evaluating it.

What is in them is derived: removing any of it, at any time, costs time and nothing else. It holds what users
have written, so the folders are private and saving is asked for, not the default.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from importlib import metadata

from .load_plan import LoadPlan
from .settings import RuntimeSettings

log = logging.getLogger(__name__)

_SCHEME = "2"
"""To be changed with what `saved_prefixes` writes."""
_TIDY_EVERY_S = 60.0


class PrefixFolders:
    """All of them, under ``settings.prefix_cache_dir``, within ``settings.prefix_cache_bytes``."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._root = settings.prefix_cache_dir
        self._budget = settings.prefix_cache_bytes
        self._ways = (_engine_build(), _SCHEME, settings.kv_cache_type)
        self._trimmed_at = 0.0

    @property
    def budget(self) -> int:
        """Bytes; 0: nothing is saved."""
        return self._budget if self._root else 0

    def folder(self, plan: LoadPlan) -> str:
        """A private folder for a runner of this plan; "" where nothing is to be saved, or cannot be.

        The same for every load of the same weights and projector by the same build of llama.cpp into the same
        kind of KV cache: else what is saved would not be what evaluating gives. Adapters and tenants are told
        apart within it (`saved_prefixes`).
        """
        if not self.budget or self._root is None or plan.files.shape.pooling:
            return ""
        identity = "\0".join((*self._ways, plan.flash_attention, plan.key))
        folder = self._root / hashlib.blake2b(identity.encode(), digest_size=20).hexdigest()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("saving prefixes of %s: %s", plan.name, error)
            return ""
        return str(folder)

    def tidy(self) -> None:
        """`trim`, but not oftener than once a minute."""
        if time.monotonic() - self._trimmed_at > _TIDY_EVERY_S:
            self.trim()

    def trim(self) -> None:
        """Remove the least recently used files until the rest is within the budget. Runners keep to it each
        for itself, and several run at once, so this is repeated."""
        if not self.budget or self._root is None:
            return
        self._trimmed_at = time.monotonic()
        files = []
        for path in self._root.glob("*/*"):
            with contextlib.suppress(OSError):  # a runner has removed it
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in files) - self.budget
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= size


def _engine_build() -> str:
    """Version of llama.cpp's binding, by its metadata: the library itself is never loaded here."""
    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        return ""
