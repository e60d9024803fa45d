"""Secret boxes against NaCl's published example, and against every way of changing one."""

from __future__ import annotations

import pytest

from lading.modelfile.errors import InputError
from lading.oci.signing.secretbox import BadBox, seal, unseal

# Source: D. J. Bernstein, "Cryptography in NaCl", section 10 (the same as in NaCl's tests/secretbox.c).
KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
MESSAGE = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
    "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
    "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
)
BOX = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
    "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
    "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
    "e355a5"
)


def test_the_published_example() -> None:
    assert seal(MESSAGE, KEY, NONCE) == BOX
    assert unseal(BOX, KEY, NONCE) == MESSAGE


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 65, 96, 97, 1000])
def test_every_size_comes_back(size: int) -> None:
    message = bytes(range(256)) * 4
    assert unseal(seal(message[:size], KEY, NONCE), KEY, NONCE) == message[:size]


@pytest.mark.parametrize("position", [0, 15, 16, 80, len(BOX) - 1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    changed = bytearray(BOX)
    changed[position] ^= 1
    with pytest.raises(BadBox):
        unseal(bytes(changed), KEY, NONCE)


@pytest.mark.parametrize("box", [b"", BOX[:10], BOX[:16], BOX[:-1], BOX + b"\0"], ids=len)
def test_a_box_of_another_length_is_refused(box: bytes) -> None:
    with pytest.raises(BadBox):
        unseal(box, KEY, NONCE)


@pytest.mark.parametrize(
    ("key", "nonce", "size"),
    [(KEY[1:], NONCE, 1), (KEY, NONCE + b"\0", 1), (KEY, NONCE, 1 << 20)],
    ids=["key", "nonce", "message"],
)
def test_wrong_sizes_are_said(key: bytes, nonce: bytes, size: int) -> None:
    with pytest.raises(InputError, match="using a secret box: expected"):
        seal(bytes(size), key, nonce)
