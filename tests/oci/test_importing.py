"""Models that are there already: in Ollama's store, in Hugging Face's cache, in folders, at URLs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import sha256
from ggufmaker import make_adapter, make_model, make_projector, make_shards
from registry_clients import impatient_client
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry

from lading.modelfile.errors import InputError, LadingError, NotFoundError
from lading.oci.building.errors import BuildError
from lading.oci.dialects.dialect import Dialect
from lading.oci.digest import Digest
from lading.oci.errors import DigestMismatch
from lading.oci.gguf.problem import BadGguf
from lading.oci.importing.gguf_choice import NoGguf, UnclearChoice
from lading.oci.importing.hub_cache import HubCache
from lading.oci.importing.imported import Imported, ImportPolicy, Status
from lading.oci.importing.local_files import LocalFiles, import_files
from lading.oci.importing.ollama_store import OllamaStore, import_from_ollama
from lading.oci.importing.web_file import WebFile, import_url
from lading.oci.model import Model, read_model
from lading.oci.reference import Reference
from lading.oci.registry.errors import RegistryError, RegistryUnreachable, RegistryUnsafe
from lading.oci.registry.origin import BadUrl
from lading.oci.store import Store

WEIGHTS = make_model()
LINK, COPY = ImportPolicy(link=True), ImportPolicy(link=False)
MODEL_TYPE = "application/vnd.ollama.image."


def model_of(store: Store, name: str) -> Model:
    return read_model(store, store.resolve(Reference.parse(name)))


def inode(path: Path) -> int:
    return path.stat().st_ino


# Ollama's store


class OllamaShelf:
    """Ollama's folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)
        (root / "manifests").mkdir()
        self.store = OllamaStore(root)

    def put(self, name: str, layers: dict[str, bytes]) -> None:
        def described(media_type: str, data: bytes) -> dict[str, object]:
            path = self.root / "blobs" / f"sha256-{sha256(data)}"
            path.write_bytes(data)
            path.chmod(0o644)
            return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}

        config = json.dumps({"model_format": "gguf", "model_family": "llama", "x": name}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": described("application/vnd.docker.container.image.v1+json", config),
            "layers": [described(MODEL_TYPE + kind, data) for kind, data in layers.items()],
        }
        path = self.root / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest) + "\n")

    def blob(self, data: bytes) -> Path:
        return self.root / "blobs" / f"sha256-{sha256(data)}"

    def take(self, store: Store, name: str, policy: ImportPolicy = LINK) -> Imported:
        return import_from_ollama(store, self.store, self.store.select([Reference.parse(name)])[0], policy)


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaShelf:
    shelf = OllamaShelf(tmp_path / "ollama")
    layers = {"model": WEIGHTS, "template": b"{{ .Prompt }}", "system": b"Hi.", "params": b'{"num_ctx":64}'}
    shelf.put("registry.ollama.ai/library/tiny/latest", layers)
    shelf.put("registry.ollama.ai/library/tiny/other", {"model": WEIGHTS, "system": b"Ho."})
    shelf.put("hf.co/Org/Repo-GGUF/Q4_K_M", {"model": make_model(seed=1)})
    shelf.put("registry.ollama.ai/library/mlx/latest", {"tensor": b"x", "json": b"{}"})
    return shelf


def test_models_are_taken_over_in_place(store: Store, ollama: OllamaShelf) -> None:
    found = {str(model.reference): ollama.store.select([model.reference]) for model in ollama.store.models()}
    assert sorted(found) == [
        "hf.co/Org/Repo-GGUF:Q4_K_M",
        "registry.ollama.ai/library/mlx:latest",
        "registry.ollama.ai/library/tiny:latest",
        "registry.ollama.ai/library/tiny:other",
    ]
    first = ollama.take(store, "tiny")
    assert (first.status, first.shared) == (Status.IMPORTED, first.size)
    model = model_of(store, "tiny")
    assert (model.dialect, model.system(), model.params()) == (Dialect.OLLAMA, "Hi.", {"num_ctx": 64})
    weights = store.blob_path(Digest.of(WEIGHTS))
    assert inode(weights) == inode(ollama.blob(WEIGHTS)) or weights.stat().st_nlink == 1  # or a clone
    assert weights.stat().st_mode & 0o222 == 0
    assert ollama.take(store, "tiny:other").status is Status.IMPORTED
    assert ollama.take(store, "tiny").status is Status.PRESENT
    assert ollama.take(store, "hf.co/org/repo-gguf:q4_k_m").status is Status.IMPORTED
    assert store.fsck().clean
    # Neither needs the other any more: what Ollama prunes stays here, and the other way round.
    ollama.blob(WEIGHTS).unlink()
    assert store.intact(Digest.of(WEIGHTS))
    store.untag(Reference.parse("hf.co/Org/Repo-GGUF:Q4_K_M"))
    store.gc()
    assert ollama.blob(make_model(seed=1)).exists()


def test_what_cannot_be_taken_over_is_said(store: Store, ollama: OllamaShelf) -> None:
    assert "safetensors" in ollama.take(store, "mlx").reason
    blob = ollama.blob(WEIGHTS)
    for damage, words in (
        (WEIGHTS[:-1] + b"!", f"{blob.name} is damaged"),
        (WEIGHTS[:-9], f"it has {len(WEIGHTS) - 9} bytes, expected {len(WEIGHTS)}"),
    ):
        blob.write_bytes(damage)
        for policy in (LINK, COPY):
            result = ollama.take(store, "tiny", policy)
            assert result.status is Status.SKIPPED and words in result.reason
            assert "ollama pull tiny" in result.reason or "expected" in result.reason
        assert blob.read_bytes() == damage  # theirs is left as it is
    blob.unlink()
    assert "no such file" in ollama.take(store, "tiny").reason
    (ollama.root / "manifests/registry.ollama.ai/library/tiny/latest").write_bytes(b"{")
    assert ollama.take(store, "tiny").status is Status.SKIPPED
    assert store.tags() == [] and list(store.layout.ingest.iterdir()) == []
    with pytest.raises(NotFoundError, match="no such model"):
        ollama.store.select([Reference.parse("nothing")])
    with pytest.raises(NotFoundError, match="not the folder of its models"):
        OllamaStore(ollama.root / "blobs").models()


def test_a_name_is_not_taken_away(store: Store, ollama: OllamaShelf) -> None:
    ollama.take(store, "tiny:other")
    other = store.resolve(Reference.parse("tiny:other"))
    store.tag(Reference.parse("tiny"), other.descriptor)
    refused = ollama.take(store, "tiny")
    assert (refused.status, "--force" in refused.reason) == (Status.SKIPPED, True)
    assert store.resolve(Reference.parse("tiny")) == other
    assert ollama.take(store, "tiny", ImportPolicy(link=True, replace=True)).status is Status.IMPORTED
    assert store.resolve(Reference.parse("tiny")) != other


def test_a_dry_run_changes_nothing(store: Store, ollama: OllamaShelf) -> None:
    def everything() -> list[tuple[str, int, int]]:
        paths = sorted((*store.root.rglob("*"), *ollama.root.rglob("*")))
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_mode) for path in paths]

    before = everything()
    result = ollama.take(store, "tiny", ImportPolicy(link=True, dry_run=True))
    assert (result.status, result.size > len(WEIGHTS)) == (Status.POSSIBLE, True)
    assert everything() == before


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_files_that_others_may_write_are_copied(store: Store, ollama: OllamaShelf, mode: int) -> None:
    ollama.blob(WEIGHTS).chmod(mode)
    result = ollama.take(store, "tiny")
    mine = store.blob_path(Digest.of(WEIGHTS))
    assert inode(mine) != inode(ollama.blob(WEIGHTS))
    assert ollama.blob(WEIGHTS).stat().st_mode & 0o777 == mode
    assert result.status is Status.IMPORTED


def test_a_shared_file_that_is_written_to_is_noticed(store: Store, ollama: OllamaShelf) -> None:
    if not ollama.take(store, "tiny").shared or store.blob_path(Digest.of(WEIGHTS)).stat().st_nlink == 1:
        pytest.skip("this file system shares by clones")
    path = ollama.blob(WEIGHTS)
    path.chmod(0o644)
    path.write_bytes(WEIGHTS[:-1] + b"!")
    assert not store.intact(Digest.of(WEIGHTS))
    path.write_bytes(WEIGHTS)
    assert store.intact(Digest.of(WEIGHTS))


# Hugging Face's cache

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cache(root: Path, files: dict[str, bytes], *, name: str = "org--repo") -> HubCache:
    """A cache as Hugging Face's tools leave it."""
    folder = root / f"models--{name}"
    for sub in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for path, data in files.items():
        blob = folder / "blobs" / (sha256(data) if len(data) > 1000 else sha256(data)[:40])
        blob.write_bytes(data)
        link = folder / "snapshots" / COMMIT / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return HubCache(root)


def take(
    store: Store, files: LocalFiles, name: str, wanted: str | None = None, policy: ImportPolicy = COPY
) -> Imported:
    return import_files(store, files, files.choose(wanted), Reference.parse(name), policy)


def test_a_repository_of_the_cache(store: Store, tmp_path: Path) -> None:
    shards = {f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf": data for n, data in enumerate(make_shards(3), 1)}
    made = cache(tmp_path / "hub", {**shards, "m-Q4_K_M.gguf": WEIGHTS, "system": b"Hi.", "README.md": b"#"})
    files = made.files("org/repo")
    result = take(store, files, "hf.co/org/repo:q8", "q8_0", LINK)
    assert (result.status, result.shared) == (Status.IMPORTED, sum(map(len, shards.values())))
    model = model_of(store, "hf.co/org/repo:q8")
    assert [layer.digest for layer in model.weights] == [Digest.of(data) for data in shards.values()]
    assert model.system() == "Hi."
    assert take(store, files, "hf.co/org/repo:q8", "q8_0", LINK).status is Status.PRESENT
    assert model_of(store, "hf.co/org/repo:q8").details.family == "llama"
    assert take(store, files, "one").status is Status.IMPORTED  # Q4_K_M, where none is named
    assert model_of(store, "one").weights[0].filepath == "m-Q4_K_M.gguf"


def test_caches_that_are_of_no_use(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    made = cache(root, {"model.safetensors": b"x" * 2000}, name="org--tensors")
    with pytest.raises(NoGguf, match=r"has model\.safetensors, but no GGUF") as caught:
        made.files("org/tensors").choose(None)
    assert "convert" in str(caught.value.hint)
    with pytest.raises(NotFoundError, match="not in"):
        made.files("org/other")
    for name in ("../x", "a/b/c", "", "org/..", "-x/y"):
        with pytest.raises(InputError):
            made.files(name)
    with pytest.raises(NotFoundError, match="revision"):
        made.files("org/tensors", "../../x")
    cache(root, {"m.gguf": WEIGHTS})
    (tmp_path / "secret.gguf").write_bytes(WEIGHTS)
    (root / "models--org--repo" / "snapshots" / COMMIT / "x.gguf").symlink_to(tmp_path / "secret.gguf")
    with pytest.raises(InputError, match="leads out"):
        made.files("org/repo")
    damaged = cache(tmp_path / "other", {"m.gguf": WEIGHTS})
    (tmp_path / "other" / "models--org--repo" / "blobs" / sha256(WEIGHTS)).write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        take(store, damaged.files("org/repo"), "m", policy=LINK)
    assert store.tags() == []


# folders and files


def folder_of(path: Path, files: dict[str, bytes]) -> LocalFiles:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return LocalFiles.of(path)


def test_a_folder_becomes_a_model(store: Store, tmp_path: Path) -> None:
    files = folder_of(
        tmp_path / "f",
        {
            "m.gguf": WEIGHTS,
            "mmproj-F16.gguf": make_projector(),
            "template": b"{{ .Prompt }}",
            "chat_template.jinja": b"{% x %}",
            "LICENSE": b"MIT",
            "params": b'{"temperature": 1, "odd": 1, "num_ctx": "x"}',
        },
    )
    result = take(store, files, "m")
    assert (result.status, result.shared in (0, result.size)) == (Status.IMPORTED, True)
    model = model_of(store, "m")
    template = model.template()
    assert template is not None and (template.kind, template.text) == ("go", "{{ .Prompt }}")
    assert (model.params(), model.licenses()) == ({"temperature": 1.0}, ("MIT",))
    assert model.projector is not None
    first = model.manifest
    assert take(store, LocalFiles.of(tmp_path / "f"), "again").digest == first.digest  # the same anywhere
    assert take(store, LocalFiles.of(tmp_path / "f" / "m.gguf"), "alone").digest != first.digest
    assert take(store, LocalFiles.of(tmp_path / "f" / "m.gguf"), "m").status is Status.SKIPPED


REFUSED: dict[str, tuple[dict[str, bytes], type[LadingError], str]] = {
    "nothing": ({}, NoGguf, "no GGUF"),
    "safetensors": ({"model.safetensors": b"x"}, NoGguf, r"model\.safetensors"),
    "two models": ({"a-Q2_K.gguf": WEIGHTS, "b-Q8_0.gguf": WEIGHTS}, UnclearChoice, "2 models"),
    "a shard is missing": ({"a-00001-of-00002.gguf": make_shards(2)[0]}, UnclearChoice, "1 of its 2"),
    "no GGUF file": ({"a.gguf": b"x" * 100}, BadGguf, "a.gguf"),
    "a foreign shard": (
        {"a-00001-of-00002.gguf": make_shards(2)[0], "a-00002-of-00002.gguf": make_shards(3)[1]},
        BadGguf,
        "a-0000",
    ),
    "an adapter alone": ({"a.gguf": make_adapter()}, BuildError, "weights"),
    "a layout": ({"oci-layout": b"{}"}, InputError, "expected a folder of GGUF files"),
}


@pytest.mark.parametrize(("content", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_folders_that_are_no_model(
    store: Store, tmp_path: Path, content: dict[str, bytes], kind: type[LadingError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        take(store, folder_of(tmp_path / "f", content), "m")
    assert store.tags() == []


def test_links_do_not_lead_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.gguf").write_bytes(WEIGHTS)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "m.gguf").symlink_to(tmp_path / "secret.gguf")
    with pytest.raises(InputError, match="leads out"):
        LocalFiles.of(tmp_path / "f")
    with pytest.raises(NotFoundError):
        LocalFiles.of(tmp_path / "nothing")


# URLs


@pytest.fixture
def web() -> Iterator[ScriptedRegistry]:
    """A web server with one file, `/files/m.gguf`, that resumes and says its version."""
    with scripted_registry() as running:
        running.on("GET", "^/files/m.gguf", lambda seen: served(seen, WEIGHTS))
        yield running


def served(seen: Seen, data: bytes, etag: str | None = '"v1"') -> Reply:
    headers = {"ETag": etag} if etag is not None else {}
    asked = seen.headers.get("range", "")
    if not asked:
        return Reply(200, headers, data)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), int(last or len(data) - 1)
    return Reply(206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1])


def fetch(store: Store, url: str, *, digest: str | None = None, policy: ImportPolicy = COPY) -> Imported:
    file = WebFile(url, Digest("sha256", digest) if digest else None)
    with impatient_client() as client:
        return import_url(store, client, file, Reference.parse("m"), policy)


@pytest.mark.parametrize("digest", [None, sha256(WEIGHTS)])
def test_a_file_at_a_url(store: Store, web: ScriptedRegistry, digest: str | None) -> None:
    url = f"{web.url}/files/m.gguf?download=true"
    assert fetch(store, url, policy=ImportPolicy(link=False, dry_run=True)).size == len(WEIGHTS)
    assert store.tags() == []
    assert fetch(store, url, digest=digest).status is Status.IMPORTED
    model = model_of(store, "m")
    assert (model.weights[0].digest, model.weights[0].filepath) == (Digest.of(WEIGHTS), "m.gguf")
    assert fetch(store, url, digest=digest).status is Status.PRESENT
    assert list(store.layout.ingest.iterdir()) == []
    assert all(seen.authorization is None for seen in web.seen)


def test_a_download_goes_on_where_it_ended(store: Store, web: ScriptedRegistry) -> None:
    url, half = f"{web.url}/files/m.gguf", len(WEIGHTS) // 2

    def broken(seen: Seen) -> Reply | None:
        start = int(seen.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if seen.headers.get("range") == "bytes=0-0":
            return None
        if start >= half:
            return Reply(503)
        whole = served(seen, WEIGHTS)
        return Reply(whole.status, whole.headers, WEIGHTS[start:half], length=len(WEIGHTS) - start, cut=True)

    web.on("GET", "^/files/", broken)
    with pytest.raises(RegistryError):
        fetch(store, url)
    assert store.tags() == [] and len(list(store.layout.ingest.iterdir())) == 1
    web.rules.pop(0)
    web.seen.clear()
    assert fetch(store, url).status is Status.IMPORTED
    assert [seen.headers["range"] for seen in web.seen] == ["bytes=0-0", f"bytes={half}-"]


def test_a_file_that_changes_meanwhile_is_not_mixed(store: Store, web: ScriptedRegistry) -> None:
    answers = iter(['"v1"', '"v2"', '"v2"', '"v2"'])
    web.on("GET", "^/files/", lambda seen: served(seen, WEIGHTS, next(answers)))
    with pytest.raises(RegistryError, match="changed meanwhile"):
        fetch(store, f"{web.url}/files/m.gguf")
    assert fetch(store, f"{web.url}/files/m.gguf").status is Status.IMPORTED


@pytest.mark.parametrize("etag", [None, '"v1"'])
def test_servers_without_ranges(store: Store, web: ScriptedRegistry, etag: str | None) -> None:
    headers = {"ETag": etag} if etag else {}
    web.on("GET", "^/files/", Reply(200, headers, WEIGHTS))
    assert fetch(store, f"{web.url}/files/m.gguf").status is Status.IMPORTED


def test_files_that_are_not_what_was_wanted(store: Store, web: ScriptedRegistry) -> None:
    with pytest.raises(DigestMismatch):
        fetch(store, f"{web.url}/files/m.gguf", digest="0" * 64)
    web.on("GET", "^/page", Reply(200, {}, b"<html>hello</html>"))
    with pytest.raises(BadGguf):
        fetch(store, f"{web.url}/page.gguf")
    with pytest.raises(RegistryError, match="no such file"):
        fetch(store, f"{web.url}/nothing")
    web.on("GET", "^/sizeless", Reply(200, {}, WEIGHTS, length=None))
    with pytest.raises(RegistryError, match="how large"):
        fetch(store, f"{web.url}/sizeless")
    with pytest.raises(RegistryUnsafe, match="plain HTTP"):
        fetch(store, "http://192.0.2.1/m.gguf")
    with pytest.raises(BadUrl):
        fetch(store, "https://user:password@example.com/m.gguf")
    with pytest.raises(RegistryUnreachable):
        fetch(store, "http://127.0.0.1:9/m.gguf")
    assert store.tags() == []


def test_redirects_of_a_url(store: Store, web: ScriptedRegistry) -> None:
    with scripted_registry() as storage:
        storage.on("GET", "^/real", lambda seen: served(seen, WEIGHTS))
        web.on("GET", "^/files/", lambda seen: Reply(302, {"Location": f"{storage.url}/real?sig=x"}))
        assert fetch(store, f"{web.url}/files/m.gguf").status is Status.IMPORTED
        assert all(seen.authorization is None for seen in storage.seen)
