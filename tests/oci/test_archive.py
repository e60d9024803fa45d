"""Archives: what is saved can be loaded, here and by others; what is hostile is refused whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from store_models import CONFIG_TYPE, describe, make_manifest, put_model

from lading.modelfile.errors import LadingError
from lading.oci.canonical import canonical_json
from lading.oci.digest import Digest
from lading.oci.errors import BadManifest, DigestMismatch, DiskFull, ModelNotFound
from lading.oci.manifest import Index, Manifest
from lading.oci.media_type import REF_NAME
from lading.oci.offline import archive as archives
from lading.oci.offline import archive_reader
from lading.oci.offline.archive import LoadReport, packing, save
from lading.oci.offline.archive_reader import ArchiveReader, BadArchive
from lading.oci.offline.image_layout import IMAGE_NAME
from lading.oci.reference import Reference
from lading.oci.signing.attachments import StoreAttachments
from lading.oci.signing.errors import NotSigned, SignatureInvalid
from lading.oci.signing.key import SigningKey
from lading.oci.signing.policy import Mode, Rule, SignaturePolicy
from lading.oci.signing.signature import sign, verify
from lading.oci.store import Store

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
WEIGHTS = bytes(range(256)) * 5000
NAME = "hf.co/team/model:q4"


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "other")


def load(store: Store, file: BinaryIO, *, name: Reference | None = None) -> LoadReport:
    """Where nothing needs to be signed."""
    return archives.load(store, file, policy=SignaturePolicy(), name=name)


def saved(store: Store, *names: str) -> bytes:
    out = io.BytesIO()
    with packing(store, [Reference.parse(name) for name in names]) as packed:
        save(store, packed, out)
    return out.getvalue()


def names_of(store: Store) -> list[str]:
    return sorted(tag.reference.display for tag in store.tags())


# An archive, made by hand, so that anything can be wrong with it


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT)


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    return header(name, len(content), **fields) + content + bytes(-len(content) % 512)


def records(*pairs: tuple[str, str]) -> bytes:
    """An extended header."""
    data = b""
    for key, value in pairs:
        text = f" {key}={value}\n".encode()
        length = len(text) + 2
        data += str(length if len(str(length)) == 2 else length + 1).encode() + text
    return member("./PaxHeaders/x", data, kind=tarfile.XHDTYPE)


def index(*entries: Manifest | Index, names: list[dict[str, str]] | None = None) -> bytes:
    names = names if names is not None else [{REF_NAME: NAME}] * len(entries)
    return canonical_json(
        {
            "schemaVersion": 2,
            "manifests": [
                entry.descriptor.to_json() | {"annotations": name}
                for entry, name in zip(entries, names, strict=True)
            ],
        }
    )


MANIFEST, BLOBS = make_manifest(WEIGHTS)
BLOB_MEMBERS = [member(f"blobs/sha256/{describe(blob).digest.hex}", blob) for blob in (MANIFEST.raw, *BLOBS)]
GOOD = [member("oci-layout", LAYOUT), member("index.json", index(MANIFEST)), *BLOB_MEMBERS]
END = bytes(1024)


def archive(*members: bytes, end: bytes = END) -> io.BytesIO:
    return io.BytesIO(b"".join(members) + end)


def test_round_trip(store: Store, other: Store) -> None:
    first, second = put_model(store, NAME, WEIGHTS, b"a"), put_model(store, "second", WEIGHTS, b"b")
    data = saved(store, NAME, "second")
    assert len(data) < len(WEIGHTS) + 30_000  # what they share is there once
    assert len(data) % 10240 == 0
    report = load(other, io.BytesIO(data))
    assert {tag.reference: tag.descriptor.digest for tag in report.tagged} == {
        tag.reference: tag.descriptor.digest for tag in (first, second)
    }
    assert other.fsck().clean and other.gc().blobs == ()
    assert saved(other, "second", NAME, NAME) == data  # whoever saves it, in whatever order


def test_it_is_a_plain_tar(store: Store) -> None:
    put_model(store, NAME, WEIGHTS)
    with tarfile.open(fileobj=io.BytesIO(saved(store, NAME))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members[:4]] == ["oci-layout", "index.json", "blobs", "blobs/sha256"]
    assert [m.name for m in members[4:]] == sorted(m.name for m in members[4:])
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert {m.mode for m in members} == {0o644, 0o755}


def test_any_order_will_do_and_folders_and_strangers_are_passed_over(other: Store) -> None:
    extra = [member("./", kind=tarfile.DIRTYPE), member("blobs/", kind=tarfile.DIRTYPE)]
    stranger = member("manifest.json", b"[]", mode=0o4777, uid=0, mtime=5)
    report = load(other, archive(*extra, *reversed(GOOD), stranger))
    assert names_of(other) == [NAME] and report.unnamed == 0
    assert other.intact(describe(WEIGHTS).digest)


def test_a_second_load_writes_nothing(other: Store) -> None:
    load(other, archive(*GOOD))
    before = {path: path.stat().st_mtime_ns for path, _ in other.layout.iter_blob_files()}
    load(other, archive(*GOOD))
    assert {path: path.stat().st_mtime_ns for path, _ in other.layout.iter_blob_files()} == before


def test_a_small_archive_need_only_have_what_is_new(other: Store) -> None:
    other.put_bytes(WEIGHTS)
    load(other, archive(*GOOD[:-1]))
    assert names_of(other) == [NAME]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({REF_NAME: "v1", IMAGE_NAME: "reg.example/team/m:v1"}, "reg.example/team/m:v1"),
        ({REF_NAME: "localhost/team/m:v1"}, "localhost/team/m:v1"),
        ({REF_NAME: "m:v1", IMAGE_NAME: "not a name"}, "m:v1"),
    ],
    ids=["containerd", "podman", "one-bad"],
)
def test_names_as_others_write_them(other: Store, annotations: dict[str, str], expected: str) -> None:
    load(other, archive(GOOD[0], member("index.json", index(MANIFEST, names=[annotations])), *BLOB_MEMBERS))
    assert names_of(other) == [expected]


def test_a_model_without_name_needs_one(other: Store) -> None:
    nameless = [GOOD[0], member("index.json", index(MANIFEST, names=[{}])), *BLOB_MEMBERS]
    with pytest.raises(BadArchive, match="no name") as caught:
        load(other, archive(*nameless))
    assert caught.value.hint is not None and "--name" in caught.value.hint
    load(other, archive(*nameless), name=Reference.parse("mine"))
    assert names_of(other) == ["mine:latest"]


def test_one_without_name_beside_others_is_counted(other: Store) -> None:
    second, blobs = make_manifest(b"other", config=b"{}")
    more = [member(f"blobs/sha256/{describe(b).digest.hex}", b) for b in (second.raw, *blobs)]
    both = member("index.json", index(MANIFEST, second, names=[{REF_NAME: NAME}, {}]))
    assert load(other, archive(GOOD[0], both, *BLOB_MEMBERS, *more)).unnamed == 1
    assert names_of(other) == [NAME]


def test_an_index_of_platforms(other: Store) -> None:
    """As `docker save` writes it: the name stands for an index, which has the model and an attestation."""
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    inner = Index.parse(
        canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [
                    MANIFEST.descriptor.to_json(),
                    describe(b"absent", MANIFEST.media_type).to_json() | {"annotations": attestation},
                ],
            }
        )
    )
    blob = member(f"blobs/sha256/{inner.digest.hex}", inner.raw)
    load(other, archive(GOOD[0], member("index.json", index(inner)), blob, *BLOB_MEMBERS))
    assert other.resolve(Reference.parse(NAME)) == MANIFEST


def test_a_digest_in_the_name_must_be_right(other: Store) -> None:
    wrong = f"{NAME}@sha256:{'0' * 64}"
    with pytest.raises(DigestMismatch):
        load(
            other,
            archive(GOOD[0], member("index.json", index(MANIFEST, names=[{REF_NAME: wrong}])), *BLOB_MEMBERS),
        )
    assert other.tags() == []


def test_long_names_in_both_forms(other: Store) -> None:
    """SHA-512 names do not fit the header."""
    blob = b"long"
    name = f"blobs/sha512/{hashlib.sha512(blob).hexdigest()}"
    gnu = tarfile.TarInfo(name)
    gnu.size = len(blob)
    for made in (member(name, blob), gnu.tobuf(tarfile.GNU_FORMAT) + blob + bytes(508)):
        (found,) = ArchiveReader(archive(made)).members()
        assert (found.name, found.size) == (name, 4)
        load(other, archive(*GOOD, made))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_sizes_beyond_8_gib(form: int) -> None:
    info = tarfile.TarInfo("blobs/sha256/x")
    info.size = 40_000_000_000
    reader = ArchiveReader(io.BytesIO(info.tobuf(form)))
    assert next(reader.members()).size == 40_000_000_000


# Hostile archives


ZEROS = f"blobs/sha256/{'0' * 64}"


def blob_of(data: bytes, content: bytes) -> bytes:
    return member(f"blobs/sha256/{describe(data).digest.hex}", content)


def patched(block: bytes, at: int, data: bytes) -> bytes:
    """A header with other bytes, and a checksum that is right."""
    changed = block[:at] + data + block[at + len(data) :]
    body = changed[:148] + b" " * 8 + changed[156:512]
    return changed[:148] + b"%06o\0 " % sum(body) + changed[156:]


def link(kind: bytes) -> bytes:
    return header("blobs/sha256/link", kind=kind, linkname="/etc/passwd")


HOSTILE: dict[str, Callable[[], io.BytesIO]] = {
    "absolute": lambda: archive(*GOOD, member("/etc/passwd", b"x")),
    "parent": lambda: archive(*GOOD, member("../x", b"x")),
    "parent in the middle": lambda: archive(*GOOD, member("blobs/../../x", b"x")),
    "parent in an extended header": lambda: archive(*GOOD, records(("path", "../x")), member("x", b"x")),
    "parent in a long name": lambda: archive(
        *GOOD, member("././@LongLink", b"../" + b"x" * 200, kind=b"L"), member("x", b"x")
    ),
    "dot": lambda: archive(*GOOD, member("blobs/./x", b"x")),
    "empty part": lambda: archive(*GOOD, member("blobs//x", b"x")),
    "backslash": lambda: archive(*GOOD, member("..\\x", b"x")),
    "drive": lambda: archive(*GOOD, member("C:x", b"x")),
    "control characters": lambda: archive(*GOOD, member("a\x1b[2Jb", b"x")),
    "not utf-8": lambda: archive(*GOOD, patched(member("name", b"x"), 0, b"\xff\xfe")),
    "symbolic link": lambda: archive(*GOOD, link(tarfile.SYMTYPE)),
    "hard link": lambda: archive(*GOOD, link(tarfile.LNKTYPE)),
    "character device": lambda: archive(*GOOD, header("x", kind=tarfile.CHRTYPE)),
    "block device": lambda: archive(*GOOD, header("x", kind=tarfile.BLKTYPE)),
    "pipe": lambda: archive(*GOOD, header("x", kind=tarfile.FIFOTYPE)),
    "unknown type": lambda: archive(*GOOD, patched(header("x"), 156, b"Z")),
    "sparse": lambda: archive(*GOOD, patched(header("x"), 156, b"S")),
    "sparse by pax": lambda: archive(
        records(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9000000000")), *GOOD
    ),
    "global header": lambda: archive(member("g", b"18 path=../../etc\n", kind=tarfile.XGLTYPE), *GOOD),
    "duplicate blob": lambda: archive(*GOOD, GOOD[-1]),
    "duplicate index": lambda: archive(*GOOD, member("./index.json", index())),
    "size said twice": lambda: archive(records(("size", "5")), *GOOD),
    "size of 8 EiB": lambda: archive(GOOD[0], patched(header(ZEROS), 124, b"\x80" + b"\xff" * 11)),
    "size of 1 PiB": lambda: archive(GOOD[0], patched(header(ZEROS), 124, b"\x80\0\0\0\0" + b"\x7f" * 7)),
    "size that is no number": lambda: archive(GOOD[0], patched(header("x"), 124, b"99999999999 ")),
    "negative size": lambda: archive(GOOD[0], patched(header("x"), 124, b"\xff" * 12)),
    "huge extended header": lambda: archive(header("x", 1 << 30, kind=tarfile.XHDTYPE)),
    "endless extended headers": lambda: archive(*[records(("mtime", "1"))] * 1000, *GOOD),
    "damaged record": lambda: archive(member("x", b"99999 path=a\n", kind=tarfile.XHDTYPE), *GOOD),
    "record without end": lambda: archive(member("x", b"10 path=ab", kind=tarfile.XHDTYPE), *GOOD),
    "folder with content": lambda: archive(*GOOD, patched(member("d", b"x" * 512), 156, b"5")),
    "damaged header": lambda: archive(GOOD[0][:10] + b"X" + GOOD[0][11:], *GOOD[1:]),
    "gzip": lambda: io.BytesIO(gzip.compress(archive(*GOOD).getvalue())),
    "gzip bomb": lambda: io.BytesIO(gzip.compress(bytes(50_000_000))),
    "short gzip": lambda: io.BytesIO(gzip.compress(b"")),
    "zstd": lambda: io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(600)),
    "xz": lambda: io.BytesIO(b"\xfd7zXZ\x00" + bytes(600)),
    "zip": lambda: io.BytesIO(b"PK\x03\x04" + bytes(600)),
    "a web page": lambda: io.BytesIO(b"<!DOCTYPE html>" + b" " * 1000),
    "nothing": lambda: io.BytesIO(),
    "only an end": lambda: archive(),
    "no end": lambda: archive(*GOOD, end=b""),
    "half an end": lambda: archive(*GOOD, end=bytes(512)),
    "something behind the end": lambda: archive(*GOOD, end=END + GOOD[0]),
    "endless zeros": lambda: archive(*GOOD, end=bytes(archive_reader.MAX_PADDING + 2048)),
    "cut in a blob": lambda: io.BytesIO(b"".join(GOOD)[:-5000]),
    "no layout file": lambda: archive(*GOOD[1:]),
    "another layout version": lambda: archive(member("oci-layout", LAYOUT.replace(b"1.", b"2.")), *GOOD[1:]),
    "layout file of junk": lambda: archive(member("oci-layout", b"{"), *GOOD[1:]),
    "no index": lambda: archive(GOOD[0], *BLOB_MEMBERS),
    "index of junk": lambda: archive(GOOD[0], member("index.json", b"[]"), *BLOB_MEMBERS),
    "huge index": lambda: archive(GOOD[0], header("index.json", 5 << 20), bytes(5 << 20), *BLOB_MEMBERS),
    "empty index": lambda: archive(GOOD[0], member("index.json", index()), *BLOB_MEMBERS),
    "missing manifest": lambda: archive(*GOOD[:2], *GOOD[3:]),
    "missing config": lambda: archive(*GOOD[:3], *GOOD[4:]),
    "missing layer": lambda: archive(*GOOD[:4]),
    "wrong layer": lambda: archive(*GOOD[:4], blob_of(WEIGHTS, WEIGHTS[:-1] + b"!")),
    "shorter layer": lambda: archive(*GOOD[:4], blob_of(WEIGHTS, WEIGHTS[:-1])),
    "longer layer": lambda: archive(*GOOD[:4], blob_of(WEIGHTS, WEIGHTS + b"!")),
    "blob that is no digest": lambda: archive(*GOOD, member("blobs/sha256/weights", b"x")),
    "blob in upper case": lambda: archive(*GOOD, member("blobs/sha256/" + "A" * 64, b"x")),
    "large stranger": lambda: archive(*GOOD, member("movie", bytes(17 << 20))),
    "two models of one name": lambda: archive(
        GOOD[0], member("index.json", index(MANIFEST, make_manifest(b"x")[0])), *BLOB_MEMBERS
    ),
    "two models of one name, but for case": lambda: archive(
        GOOD[0],
        member(
            "index.json",
            index(MANIFEST, make_manifest(b"x")[0], names=[{REF_NAME: "mod:q4"}, {REF_NAME: "MOD:Q4"}]),
        ),
        *BLOB_MEMBERS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_whole(
    store: Store, tmp_path: Path, make: Callable[[], io.BytesIO]
) -> None:
    kept = put_model(store, "kept", b"before", config=b"{}")
    data = make().getvalue()
    file = tmp_path / "archive.tar"
    file.write_bytes(data)
    with file.open("rb") as opened, pytest.raises((BadArchive, BadManifest, DigestMismatch, DiskFull)) as one:
        load(store, opened)
    with pytest.raises(LadingError) as two:
        load(store, io.BytesIO(data))
    assert all(
        isinstance(caught.value, LadingError) and "\x1b" not in str(caught.value) for caught in (one, two)
    )
    assert store.tags() == [kept]
    store.gc()
    assert store.fsck().clean
    assert len(list(store.layout.iter_blob_files())) == 3
    assert list(store.layout.ingest.iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_members_without_number(other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 50)
    many = [member(f"f{number}") for number in range(60)]
    with pytest.raises(BadArchive, match="more than 50 members"):
        load(other, archive(*many, *GOOD))


def test_cut_at_every_block(other: Store) -> None:
    data = archive(*GOOD[:2], *GOOD[2:4]).getvalue()
    for length in range(0, len(data), 256):
        with pytest.raises(LadingError):
            load(other, io.BytesIO(data[:length]))
    assert other.tags() == []


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_is_an_error_of_ours_or_none_that_matters(other: Store, seed: int) -> None:
    """Bytes and blocks changed, left out and put in. What still loads is what was meant."""
    chance = random.Random(seed)
    manifest, blobs = make_manifest(b"small", config=b'{"small":1}')
    parts = [member(f"blobs/sha256/{describe(blob).digest.hex}", blob) for blob in (manifest.raw, *blobs)]
    good = archive(GOOD[0], member("index.json", index(manifest)), records(("mtime", "1")), *parts).getvalue()
    for _ in range(150):
        data = bytearray(good)
        kind, at = chance.randrange(4), chance.randrange(len(good))
        block = at // 512 * 512
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[block : block + 512]
        elif kind == 2:
            data[block:block] = data[chance.randrange(len(good)) // 512 * 512 :][:512]
        else:
            data = bytearray(patched(good[block : block + 512], chance.randrange(500), chance.randbytes(12)))
            data = bytearray(good[:block]) + data[:512] + bytearray(good[block + 512 :])
        try:
            load(other, io.BytesIO(data))
        except LadingError:
            continue
        assert {tag.descriptor.digest for tag in other.tags()} == {manifest.digest}
    assert other.fsck().clean


# Saving


def test_a_model_that_is_not_there(store: Store) -> None:
    put_model(store, "there", b"x")
    with pytest.raises(ModelNotFound):
        saved(store, "there", "missing")


def test_a_damaged_model_is_not_saved(store: Store) -> None:
    put_model(store, "m", WEIGHTS)
    path = store.blob_path(describe(WEIGHTS).digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    with pytest.raises(DigestMismatch, match="verifying"):
        saved(store, "m")


# Signatures

KEY = SigningKey.generate()


def required(prefix: str, key: SigningKey = KEY) -> SignaturePolicy:
    return SignaturePolicy((Rule(prefix=prefix, mode=Mode.REQUIRE, keys=(key.public,)),))


def signed(store: Store, name: str, *layers: bytes) -> Digest:
    tagged = put_model(store, name, *layers)
    sign(StoreAttachments(store, tagged.reference), tagged.descriptor, KEY, identity=tagged.reference.name)
    return tagged.descriptor.digest


@pytest.mark.parametrize("name", [None, "elsewhere/renamed:v2"], ids=["same", "renamed"])
def test_signatures_come_along(store: Store, other: Store, name: str | None) -> None:
    digest = signed(store, NAME, WEIGHTS)
    new = Reference.parse(name) if name else None
    policy = required("hf.co/team" if name is None else "registry.ollama.ai/elsewhere")
    report = archives.load(other, io.BytesIO(saved(store, NAME)), policy=policy, name=new)
    assert [tag.reference for tag in report.tagged] == [new or Reference.parse(NAME)]
    assert verify(StoreAttachments(other, report.tagged[0].reference), digest, [KEY.public])
    assert other.fsck().clean
    if name is None:
        assert saved(other, NAME) == saved(store, NAME)


@pytest.mark.parametrize("kind", ["unsigned", "another's key", "another's signature"])
def test_what_the_policy_does_not_let_in(store: Store, other: Store, kind: str) -> None:
    key = SigningKey.generate() if kind == "another's key" else KEY
    if kind == "unsigned":
        put_model(store, NAME, WEIGHTS)
    else:
        signed(store, NAME, WEIGHTS)
    if kind == "another's signature":
        store.tag(Reference.parse(NAME), put_model(store, "x", b"other").descriptor)
    with pytest.raises((NotSigned, SignatureInvalid)):
        archives.load(other, io.BytesIO(saved(store, NAME)), policy=required("hf.co/team", key))
    assert other.tags() == []
    archives.load(other, io.BytesIO(saved(store, NAME)), policy=required("hf.co/teamwork", key))


# Others


def skopeo(*arguments: str) -> None:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@needs_skopeo
def test_skopeo_reads_what_we_save(store: Store, tmp_path: Path) -> None:
    put_model(store, NAME, WEIGHTS)
    put_model(store, "second", b"second")
    file = tmp_path / "m.tar"
    file.write_bytes(saved(store, NAME, "second"))
    skopeo("copy", f"oci-archive:{file}:{NAME}", f"dir:{tmp_path / 'dir'}")
    assert (tmp_path / "dir" / "manifest.json").read_bytes() == store.resolve(Reference.parse(NAME)).raw


@needs_skopeo
@pytest.mark.parametrize("suffix", [f":{NAME}", ""], ids=["named", "nameless"])
def test_we_load_what_skopeo_writes(store: Store, other: Store, tmp_path: Path, suffix: str) -> None:
    tagged = put_model(store, NAME, WEIGHTS)
    file = tmp_path / "m.tar"
    skopeo("copy", f"oci:{store.root}:{tagged.reference}", f"oci-archive:{file}{suffix}")
    with file.open("rb") as opened:
        load(other, opened, name=None if suffix else Reference.parse(NAME))
    assert other.resolve(tagged.reference) == store.resolve(tagged.reference)
    assert other.fsck().clean
    config = json.loads(other.read_blob(other.resolve(tagged.reference).config.digest, limit=1 << 20))
    assert config == {"layers": 1} and other.resolve(tagged.reference).config.media_type == CONFIG_TYPE
