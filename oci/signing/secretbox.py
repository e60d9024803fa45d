"""NaCl's secretbox: XSalsa20 with Poly1305, in which cosign keeps private keys.

    box      = tag (16 bytes) ‖ message XOR stream
    subkey   = HSalsa20(key, nonce[0:16])
    stream   = Salsa20(subkey, nonce[16:24]); its first 32 bytes are the key of Poly1305 over the rest of box

Poly1305 comes from `cryptography`; XSalsa20 is not in it and is done here, in Python: enough for a key file
of some hundred bytes, and made for nothing else. Source: D. J. Bernstein, "Extending the Salsa20 nonce" and
"Cryptography in NaCl", whose example is a test of this module.
"""

from __future__ import annotations

import struct

from ...modelfile.errors import InputError

KEY_SIZE, NONCE_SIZE, TAG_SIZE = 32, 24, 16

MAX_MESSAGE = 64 * 1024
"""Bytes. A private key of 16384 bits has 10 KiB."""

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF

# One double round: the quarter rounds over the columns, then over the rows. Source: Salsa20 specification, 7.
_QUARTERS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
)


class BadBox(InputError):
    """A box does not open: the key is wrong, or its bytes were changed."""

    def __init__(self) -> None:
        super().__init__("opening a secret box: the key is wrong, or the bytes were changed")


def seal(message: bytes, key: bytes, nonce: bytes) -> bytes:
    """The box of `message`. A nonce must never be used twice with one key."""
    one_time_key, stream = _streams(key, nonce, len(message))
    ciphertext = _xor(message, stream)
    return _mac(one_time_key, ciphertext) + ciphertext


def unseal(box: bytes, key: bytes, nonce: bytes) -> bytes:
    """The message of a box. Raises: BadBox, before any of it is decrypted."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    tag, ciphertext = box[:TAG_SIZE], box[TAG_SIZE:]
    one_time_key, stream = _streams(key, nonce, len(ciphertext))
    try:
        Poly1305.verify_tag(one_time_key, ciphertext, tag)
    except (InvalidSignature, ValueError):
        raise BadBox from None
    return _xor(ciphertext, stream)


def _mac(one_time_key: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    return Poly1305.generate_tag(one_time_key, data)


def _streams(key: bytes, nonce: bytes, size: int) -> tuple[bytes, bytes]:
    """The key of the authenticator, and `size` bytes to combine the message with."""
    if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE or size > MAX_MESSAGE:
        raise InputError(
            f"using a secret box: expected a key of {KEY_SIZE}, a nonce of {NONCE_SIZE} and a message of "
            f"at most {MAX_MESSAGE} bytes, got {len(key)}, {len(nonce)} and {size}"
        )
    subkey = _subkey(key, nonce[:16])
    blocks = range((32 + size + 63) // 64)
    stream = b"".join(_block(subkey, nonce[16:] + struct.pack("<Q", number)) for number in blocks)
    return stream[:32], stream[32 : 32 + size]


def _subkey(key: bytes, start: bytes) -> bytes:
    """HSalsa20: the rounds without the final addition, of which eight words are taken."""
    words = _rounds(_state(key, start))
    return struct.pack("<8I", *(words[index] for index in (0, 5, 10, 15, 6, 7, 8, 9)))


def _block(key: bytes, position: bytes) -> bytes:
    """64 bytes of Salsa20's stream. position: the nonce's eight bytes, then the block's number."""
    state = _state(key, position)
    summed = ((a + b) & _MASK for a, b in zip(state, _rounds(state), strict=True))
    return struct.pack("<16I", *summed)


def _state(key: bytes, position: bytes) -> list[int]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", position)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _rounds(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _rotated(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> (32 - bits)) & _MASK


def _xor(data: bytes, stream: bytes) -> bytes:
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")
