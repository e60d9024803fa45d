"""The token of Hugging Face's tools, for Hugging Face's Hub and nobody else.

Source: huggingface_hub, utils/_auth.py: HF_TOKEN, else the file that ``hf auth login`` writes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..store.disk import open_regular
from .credentials import Credential, Credentials, Found, NoCredentials

_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")
_HINT = "Hugging Face's token is taken from HF_TOKEN, or from where `hf auth login` keeps it"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCredentials:
    """For ``host`` (``host[:port]``) the token, where there is one; for all else, and without, `others`.

    token: what was given. path: the file that is read otherwise, each time.
    """

    host: str
    token: str | None = field(default=None, repr=False)
    path: Path | None = None
    others: Credentials = field(default_factory=NoCredentials)

    def find(self, registry: str, repository: str = "") -> Found:
        if registry != self.host:
            return self.others.find(registry, repository)
        for text, source in ((self.token, "HF_TOKEN"), (self._read(), str(self.path))):
            if text is not None and _TOKEN.fullmatch(text.strip()):
                return Found(Credential(username="", secret=text.strip(), bearer=True, source=source))
        found = self.others.find(registry, repository)
        return Found(found.credential, (*found.notes, _HINT))

    def _read(self) -> str | None:
        if self.path is None:
            return None
        try:
            with os.fdopen(open_regular(self.path, follow_links=True), "rb") as file:
                return file.read(4096).decode("ascii")
        except (OSError, UnicodeDecodeError):
            return None
