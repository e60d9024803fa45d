"""What can go wrong with keys and signatures.

InputError
├── BadKey               a file holds no key that we can use
├── WrongPassword        an encrypted key does not open
└── BadPolicy            a signature policy cannot be understood
IntegrityError
├── NotSigned            there is no signature at all
└── SignatureInvalid     there are signatures, and none of them counts
"""

from __future__ import annotations

from collections.abc import Sequence

from ...modelfile.errors import InputError, IntegrityError


class BadKey(InputError):
    """A key cannot be used. `reason` says why; nothing of the key is in it."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        self.reason = reason
        super().__init__(f"reading a key: {reason}", hint=hint)


class WrongPassword(InputError):
    """A private key is encrypted, and the password is missing or wrong."""

    def __init__(self) -> None:
        super().__init__(
            "reading a key: its password is missing or wrong",
            hint="set LADING_KEY_PASSWORD, or run it in a terminal to be asked",
        )


class BadPolicy(InputError):
    """A policy is not what it must be. `where` names the file and the part of it."""

    def __init__(self, where: str, reason: str, *, hint: str | None = None) -> None:
        self.where = where
        super().__init__(f"reading the signature policy {where}: {reason}", hint=hint)


class NotSigned(IntegrityError):
    """Nobody has signed it, there where we looked. `name` is the model, `digest` that of its manifest."""

    def __init__(self, name: str, digest: str, *, hint: str | None = None) -> None:
        self.name = name
        self.digest = digest
        super().__init__(f"verifying {name}: it is not signed", hint=hint)


class SignatureInvalid(IntegrityError):
    """There are signatures, but none by a key that counts. `reasons` has one sentence for each."""

    def __init__(self, name: str, digest: str, reasons: Sequence[str], *, hint: str | None = None) -> None:
        self.name = name
        self.digest = digest
        self.reasons = tuple(reasons)
        shown = "; ".join(dict.fromkeys(self.reasons[:8]))
        count = len(self.reasons)
        none = "its signature does not count" if count == 1 else f"none of its {count} signatures counts"
        super().__init__(f"verifying {name}: {none}: {shown}", hint=hint)
