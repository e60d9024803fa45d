"""Digests: one grammar, checked where text becomes a value."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.oci.digest import Digest, new_hasher
from lading.oci.errors import BadDigest

A64 = "a" * 64

BAD = {
    "empty": "",
    "no colon": A64,
    "no hex": "sha256:",
    "63 digits": f"sha256:{'a' * 63}",
    "65 digits": f"sha256:{'a' * 65}",
    "upper-case hex": f"sha256:{'A' * 64}",
    "upper-case algorithm": f"SHA256:{A64}",
    "dash for colon": f"sha256-{A64}",
    "final newline": f"sha256:{A64}\n",
    "leading space": f" sha256:{A64}",
    "two colons": f"sha256:sha256:{A64}",
    "md5": f"md5:{'a' * 32}",
    "sha1": f"sha1:{'a' * 40}",
    "unknown algorithm": f"blake3:{A64}",
    "sha512 with 64 digits": f"sha512:{A64}",
    "traversal": "sha256:../../etc/passwd",
    "traversal of the right length": "sha256:" + "../" * 21 + "a",
    "slash inside": f"sha256:{'a' * 31}/{'a' * 32}",
    "query": f"sha256:{'a' * 62}?b",
    "fragment": f"sha256:{'a' * 62}#b",
    "percent": f"sha256:{'a' * 61}%2f",
    "NUL": f"sha256:{'a' * 63}\0",
    "fullwidth digits": f"sha256:{chr(0xFF11) * 64}",
    "arabic digits": f"sha256:{chr(0x0661) * 64}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(BadDigest):
        Digest.parse(text)


@given(st.text())
def test_any_text_parses_to_itself_or_is_refused(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except BadDigest:
        return
    assert str(digest) == text


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_digest_of_bytes_is_the_hash_and_round_trips(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm=algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert pickle.loads(pickle.dumps(digest)) == digest
    hasher = digest.hasher()
    hasher.update(data)
    assert hasher.hexdigest() == digest.hex


def test_an_instance_cannot_be_made_invalid() -> None:
    with pytest.raises(BadDigest):
        Digest("sha256", "../" * 21 + "a")


def test_short_form_and_order() -> None:
    first, second = Digest("sha256", "0" * 64), Digest("sha256", "1" * 64)
    assert first < second
    assert first.short == "0" * 12


def test_unknown_algorithm_has_no_hasher() -> None:
    with pytest.raises(BadDigest):
        new_hasher("md5")


def test_only_the_layout_of_the_store_makes_paths_of_digests() -> None:
    # One place to check is one place to get right: a digest that is put into a path anywhere else fails.
    root = Path(__file__).parents[2]
    sources = [
        path for folder in ("oci", "runtime", "server", "cli") for path in (root / folder).rglob("*.py")
    ]
    assert len(sources) > 50
    made = re.compile(r"""/ \s* \(? \s* (str\()? [\w.]*digest | \{ [^}"]* \.hex \}""", re.VERBOSE)
    found = {path.name for path in sources if made.search(path.read_text())}
    # Names in a tar, a tag, texts, and of files in Ollama's store.
    elsewhere = {"archive.py", "attachment_tag.py", "sigstore_bundle.py", "provenance.py", "ollama_store.py"}
    assert found - elsewhere == {"layout.py", "digest.py"}


def test_message_escapes_what_was_given() -> None:
    with pytest.raises(BadDigest) as caught:
        Digest.parse("sha256:\x1b[31m\u202e\n")
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.isascii()
