"""Keeping registry credentials where Docker keeps them, so that either finds what the other has stored.

The file is Docker's ``config.json``, the first that `credentials.CredentialFiles` asks. Where it appoints a
helper for the registry, the helper gets the secret, and the file only an empty entry, as Docker writes it.
All else that the file says stays as it is, in its order.

The file is replaced in one step, with mode 0600, while its folder is locked: of two logins at once neither
is lost. Where it is a link, what it points to is replaced. A file that cannot be read is never overwritten.

Source: docker/cli ``cli/config/configfile/file.go`` and ``cli/config/credentials/native_store.go``.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...modelfile.errors import LadingError
from ..store.disk import replace_durably
from .credential_helper import HelperSettings, ask_helper, erase_from_helper, store_in_helper
from .credentials import IDENTITY_USER, Credential, auth_keys, helper_for, read_file, server_name


class CredentialsNotKept(LadingError):
    """The file of credentials cannot be changed; it is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStore:
    """The credential file at `path`, which need not exist yet, and the helpers that it appoints."""

    path: Path
    helpers: HelperSettings = field(default_factory=HelperSettings)

    def save(self, registry: str, credential: Credential) -> str:
        """Keeps the credential for ``registry`` (``host[:port]``), in place of an earlier one. Returns where.

        Raises: HelperFailed, CredentialsNotKept, CredentialFileUnreadable; then the file is as it was.
        """
        with self._change() as content:
            server, helper = server_name(registry), helper_for(content, registry)
            auths = _auths(content)
            for key in auth_keys(auths, registry, ""):
                del auths[key]  # another spelling of the same host would go first, or last for ever
            if helper is None:
                auths[server] = _entry(credential)
                return str(self.path)
            username = IDENTITY_USER if credential.identity_token else credential.username
            store_in_helper(helper, server, username, credential.secret, self.helpers)
            auths[server] = {}
            return f"the helper {helper!r}"

    def erase(self, registry: str) -> bool:
        """Forgets the credential for a registry. Returns whether there was one.

        Raises: HelperFailed, CredentialsNotKept, CredentialFileUnreadable; then the file is as it was.
        """
        if not self.path.exists():
            return False
        with self._change() as content:
            server, helper = server_name(registry), helper_for(content, registry)
            known = False
            if helper is not None:
                known = ask_helper(helper, server, self.helpers) is not None
                erase_from_helper(helper, server, self.helpers)
            auths = _auths(content)
            for key in auth_keys(auths, registry, ""):
                known = known or bool(auths[key])
                del auths[key]
            return known

    @contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """The content of the file, which is written when the block ends and has changed something."""
        path = self.path.resolve()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_kept(self.path, error) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # of the folder, so that no lock file is left beside the file
            content = read_file(path) or {}
            before = json.dumps(content)
            yield content
            if json.dumps(content) != before:
                data = json.dumps(content, indent="\t", ensure_ascii=False).encode() + b"\n"
                replace_durably(path, data, scratch=path.parent, mode=0o600)
        except OSError as error:
            raise _not_kept(self.path, error) from error
        finally:
            os.close(folder)


def _auths(content: dict[str, Any]) -> dict[str, Any]:
    found = content.get("auths")
    if not isinstance(found, dict):
        content["auths"] = found = {}
    return found


def _entry(credential: Credential) -> dict[str, str]:
    """As Docker writes it: beside an identity token the password is left empty."""
    password = "" if credential.identity_token else credential.secret
    pair = base64.b64encode(f"{credential.username}:{password}".encode()).decode("ascii")
    if credential.identity_token:
        return {"auth": pair, "identitytoken": credential.secret}
    return {"auth": pair}


def _not_kept(path: Path, error: OSError) -> CredentialsNotKept:
    return CredentialsNotKept(
        f"writing {path}: {error.strerror or error}", hint="DOCKER_CONFIG names another folder"
    )
