"""The cipher of encrypted layers: AES-256 in counter mode over all of it, and a MAC over what comes out.

    message authentication code: HMAC-SHA256 over the ciphertext, with the key of the cipher

Source: ocicrypt, blockcipher/blockcipher_aes_ctr.go.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

NAME = "AES_256_CTR_HMAC_SHA256"
KEY_SIZE, NONCE_SIZE = 32, 16


@dataclass(frozen=True, slots=True)
class LayerKey:
    """The secret of one layer."""

    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> LayerKey:
        return cls(os.urandom(KEY_SIZE), os.urandom(NONCE_SIZE))


class LayerCipher:
    """Encrypts, or decrypts, a layer piece by piece, in order. The MAC is ``mac()`` after the last piece."""

    def __init__(self, secret: LayerKey, *, decrypt: bool) -> None:
        cipher = Cipher(algorithms.AES(secret.key), modes.CTR(secret.nonce))
        self._context: CipherContext = cipher.decryptor() if decrypt else cipher.encryptor()
        self._mac = hmac.new(secret.key, digestmod="sha256")
        self._decrypt = decrypt

    def update(self, piece: bytes) -> bytes:
        result = self._context.update(piece)
        self._mac.update(piece if self._decrypt else result)
        return result

    def mac(self) -> bytes:
        return self._mac.digest()
