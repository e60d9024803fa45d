"""What can go wrong with encrypted layers.

InputError
├── Encrypted          a model is to be used that has not been decrypted
└── KeyUnfit           a key that cannot be used to encrypt
NotAuthorisedError
└── NoKeyFits          none of the keys opens a layer
IntegrityError
└── BadEncryption      an encrypted layer is damaged, or is not what its annotations say
"""

from __future__ import annotations

from ...modelfile.errors import InputError, IntegrityError, NotAuthorisedError


class Encrypted(InputError):
    """The model's layers are encrypted."""

    def __init__(self) -> None:
        super().__init__(
            "reading the model: its layers are encrypted",
            hint="lading pull MODEL --decrypt-with KEY, with the private key that belongs to it",
        )


class KeyUnfit(InputError):
    """A key of a kind that cannot encrypt."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"encrypting: expected an RSA or elliptic-curve key, got {kind}")
        self.kind = kind


class NoKeyFits(NotAuthorisedError):
    """The layer is encrypted for others."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"decrypting layer {digest}: it is not encrypted for this key",
            hint="use the private key of one of those that it was encrypted to",
        )
        self.digest = digest


class BadEncryption(IntegrityError):
    """An encrypted layer cannot be what it says."""

    def __init__(self, digest: str, problem: str) -> None:
        super().__init__(f"decrypting layer {digest}: {problem}", hint="pull the model again")
        self.digest = digest
