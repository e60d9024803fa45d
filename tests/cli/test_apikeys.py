"""`lading apikey`: what is printed, what is kept, and what is refused."""

from __future__ import annotations

import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import Lading


def kept(lading: Lading) -> Path:
    return lading.home.parent / "user" / ".config" / "lading" / "api-keys.json"


def test_a_key_is_printed_once_and_only_its_hash_is_kept(lading: Lading) -> None:
    done = lading.run(
        "apikey", "create", "ci", "--role", "push,metrics", "--role", "infer", "--per-minute", "60"
    )
    secret = done.out.strip()
    assert done.code == 0 and secret.startswith("lading_") and len(secret) == 50
    assert stat.S_IMODE(kept(lading).stat().st_mode) == 0o600
    text = kept(lading).read_text()
    assert secret not in text and hashlib.sha256(secret.encode()).hexdigest() in text
    [row] = json.loads(lading.ok("apikey", "ls", "--format", "json"))
    assert row["roles"] == ["push", "metrics", "infer"] and row["per_minute"] == 60
    assert row["id"] == hashlib.sha256(secret.encode()).hexdigest()[:8] and row["id"] in done.err
    assert secret not in lading.ok("apikey", "ls") + done.err


def test_keys_are_revoked_by_id_or_name(lading: Lading) -> None:
    for name in ("one", "two"):
        lading.ok("apikey", "create", name)
    first = lading.ok("apikey", "ls", "-q").split()[0]
    assert "one" in lading.ok("apikey", "revoke", first)
    assert "two" in lading.ok("apikey", "revoke", "two")
    assert lading.ok("apikey", "ls", "-q") == ""
    assert kept(lading).exists()  # so that servers go on asking
    assert "there is none" in lading.fails(3, "apikey", "revoke", "two")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", ""], 1, "expected a name of 1 to 64"),
        (["create", "a\nb"], 1, "printable"),
        (["create", "x" * 65], 1, "1 to 64"),
        (["create", "x", "--role", "boss"], 2, "infer, pull, push, manage, metrics, admin"),
        (["create", "x", "--expires", "soon"], 1, "duration"),
        (["create", "x", "--expires", "-1"], 2, "such as 720h"),
        (["create", "x", "--at-once", "0"], 2, "--at-once"),
    ],
    ids=str,
)
def test_what_cannot_be_a_key_is_refused(lading: Lading, arguments: list[str], code: int, words: str) -> None:
    assert words in lading.fails(code, "apikey", *arguments)
    assert not kept(lading).exists()


def test_files_that_are_not_ours_or_that_others_can_write_are_left_alone(lading: Lading) -> None:
    lading.ok("apikey", "create", "mine")
    path = kept(lading)
    sound = path.read_bytes()
    for content in (
        b"",
        b"hello",
        b'{"keys": []}',
        sound.replace(b'"infer"', b'"emperor"'),
        b" " * (1 << 21),
    ):
        path.write_bytes(content)
        assert str(path) in lading.fails(1, "apikey", "create", "other")
        assert path.read_bytes() == content
    path.write_bytes(sound)
    path.chmod(0o620)
    assert "chmod 600" in lading.fails(1, "apikey", "ls")


def test_keys_that_are_made_at_once_are_all_kept(lading: Lading) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: lading.ok("apikey", "create", f"key-{number}"), range(3)))
    assert len(lading.ok("apikey", "ls", "-q").split()) == 3
    assert "there is one of the name" in lading.fails(1, "apikey", "create", "key-1")
