"""The files that decide about signatures: keys, and the signature policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..modelfile.errors import InputError, NotFoundError
from ..oci.signing.policy import MAX_POLICY, SignaturePolicy

if TYPE_CHECKING:
    from .settings import Settings


class FileMissing(NotFoundError):
    """A key or policy is not where it should be."""

    def __init__(self, what: str, path: Path) -> None:
        self.path = path
        super().__init__(f"reading the {what}: no file at {path}")


class FileUnreadable(InputError):
    """A key or policy cannot be read."""

    def __init__(self, what: str, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"reading the {what} {path}: {problem}")


def read_small_file(path: Path, what: str, *, limit: int) -> bytes:
    """The bytes of a file; ``what`` names it in errors.

    Raises: FileMissing, FileUnreadable.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise FileMissing(what, path) from None
    except OSError as error:
        raise FileUnreadable(what, path, (error.strerror or str(error)).lower()) from error
    if len(data) > limit:
        raise FileUnreadable(what, path, f"expected at most {limit} bytes")
    return data


def read_signature_policy(settings: Settings) -> SignaturePolicy:
    """The policy in force: that of the setting ``policy``, else ``policy.toml`` beside the configuration.

    Key files are relative to the policy's folder. What is there but cannot be used ends the command: a model
    must not pass because a policy is broken.

    Raises: BadPolicy, FileMissing, FileUnreadable.
    """
    named = settings["policy"]
    path = Path(named).expanduser() if named else settings.config_path.with_name("policy.toml")
    what = "signature policy"
    try:
        data = read_small_file(path, what, limit=MAX_POLICY)
    except FileMissing:
        if named:
            raise
        return SignaturePolicy()
    from ..oci.signing.key_file import MAX_KEY_FILE
    from ..oci.signing.policy import read_policy

    return read_policy(
        data, str(path), lambda name: read_small_file(path.parent / name, "key", limit=MAX_KEY_FILE)
    )
