"""Models from hf.co and from Ollama's registry: the shapes of their answers, and where credentials go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, fake_hub, sha256
from ggufmaker import make_model, make_projector, make_shards
from registry_clients import impatient_client
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry

from lading.oci.dialects.dialect import Dialect
from lading.oci.digest import Digest
from lading.oci.errors import DigestMismatch, ModelNotFound
from lading.oci.importing.gguf_choice import NoGguf, UnclearChoice, choose_gguf
from lading.oci.model import Model, read_model
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.credentials import Credential, GivenCredentials
from lading.oci.registry.errors import RegistryDenied, RegistryError, RemoteModelNotFound
from lading.oci.registry.hub_credentials import HubCredentials
from lading.oci.signing.errors import NotSigned
from lading.oci.signing.policy import Mode, Rule, SignaturePolicy
from lading.oci.store import Store
from lading.oci.transfer import pull

WEIGHTS = make_model()
SHARDS = make_shards(3)
SHARDED = {
    "README.md": b"# A model",
    "Q8_0/m-Q8_0-00001-of-00003.gguf": SHARDS[0],
    "Q8_0/m-Q8_0-00002-of-00003.gguf": SHARDS[1],
    "Q8_0/m-Q8_0-00003-of-00003.gguf": SHARDS[2],
    "m-Q4_0-00001-of-00002.gguf": b"x" * 2000,
    "m-Q4_0-00002-of-00002.gguf": b"y" * 2000,
    "mmproj-F16.gguf": make_projector(),
    "mmproj-BF16.gguf": make_projector(seed=3),
    "system": b"Be brief.",
    "params": b'{"temperature": 0.5, "stop": ["a", "b"], "unheard_of": 1}',
    "LICENSE": b"MIT",
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


def client_of(
    hub: FakeHub, *, token: str | None = None, path: Path | None = None, **settings: object
) -> RegistryClient:
    credentials = HubCredentials(host=hub.hub.host, token=token, path=path)
    return impatient_client(credentials, hub=hub.url, **settings)


def pulled(store: Store, hub: FakeHub, name: str, **options: object) -> Model:
    reference = Reference.parse(name)
    with client_of(hub, **options) as client:  # type: ignore[arg-type]
        pull(store, client, reference)
    return read_model(store, store.resolve(reference))


def test_one_file_comes_through_the_registry_interface(store: Store, hub: FakeHub) -> None:
    hub.add("org/repo-GGUF", {"m.Q4_K_M.gguf": WEIGHTS, "m.Q8_0.gguf": b"z" * 5000, "system": b"Be brief."})
    model = pulled(store, hub, "hf.co/org/repo-GGUF:Q4_K_M")
    assert model.dialect is Dialect.OLLAMA
    assert (model.weights[0].digest, model.system()) == (Digest.of(WEIGHTS), "Be brief.")
    assert hub.hub.requests("GET", "^/api/") == []
    assert hub.storage.requests("GET", "blobs")


def test_shards_come_through_the_hub_s_own_interface(store: Store, hub: FakeHub) -> None:
    hub.add("org/repo-GGUF", SHARDED)
    model = pulled(store, hub, "hf.co/org/repo-GGUF:q8_0")
    assert model.dialect is Dialect.MODELPACK
    assert [layer.digest for layer in model.weights] == [Digest.of(data) for data in SHARDS]
    assert [layer.filepath for layer in model.weights] == [f"m-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert model.projector is not None and model.projector.digest == Digest.of(make_projector())
    assert model.system() == "Be brief."
    assert model.params() == {"temperature": 0.5, "stop": ["a", "b"]}
    assert model.licenses() == ("MIT",)
    assert len(hub.hub.requests("GET", "^/api/")) == 4  # pages
    again = pulled(store, hub, "huggingface.co/org/repo-GGUF:Q8_0")
    assert again.manifest == model.manifest
    assert len(hub.storage.requests("GET", "blobs")) == 4  # each file once
    assert store.fsck().clean


def test_the_token_goes_to_the_hub_alone(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/open", SHARDED)
    hub.add("org/closed", SHARDED, private=True)
    hub.add("org/closed-one", {"m.gguf": WEIGHTS}, private=True)
    pulled(store, hub, "hf.co/org/open:Q8_0", token=hub.token)
    assert all(seen.authorization is None for seen in hub.hub.seen)  # shown only where it is asked for
    (tmp_path / "token").write_text(f"{hub.token}\n")
    for options in ({"token": hub.token}, {"path": tmp_path / "token"}):
        other = Store.open(tmp_path / str(len(options)) / next(iter(options)))
        pulled(other, hub, "hf.co/org/closed:Q8_0", **options)
        pulled(other, hub, "hf.co/org/closed-one", **options)
    assert any(seen.authorization == f"Bearer {hub.token}" for seen in hub.hub.seen)
    assert hub.storage.seen and all(seen.authorization is None for seen in hub.storage.seen)


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_without_the_right_token(store: Store, hub: FakeHub, token: str | None) -> None:
    hub.add("org/closed", SHARDED, private=True)
    with pytest.raises(RegistryDenied) as caught:
        pulled(store, hub, "hf.co/org/closed:Q8_0", token=token)
    assert "HF_TOKEN" in str(caught.value.hint)
    assert "hf_wrong" not in f"{caught.value} {caught.value.hint}"
    assert store.tags() == []


def test_the_token_is_for_no_other_host(hub: FakeHub) -> None:
    mine = Credential(username="u", secret="p", source="x")
    credentials = HubCredentials(host="hub.example", token="hf_x", others=GivenCredentials("r.example", mine))
    assert credentials.find("hub.example").credential is not None
    assert credentials.find("r.example").credential == mine
    assert credentials.find("hub.example:8443").credential is None
    assert credentials.find("hub.example.evil.example").credential is None
    assert "hf_x" not in repr(credentials)


def test_what_is_not_there(store: Store, hub: FakeHub) -> None:
    hub.add("org/tensors", {"model.safetensors": b"x" * 2000, "config.json": b"{}"})
    hub.add("org/sharded", SHARDED)
    with pytest.raises(RegistryDenied):
        pulled(store, hub, "hf.co/org/nothing")
    with pytest.raises((RemoteModelNotFound, ModelNotFound)):
        pulled(store, hub, "hf.co/org/nothing", token=hub.token)
    with pytest.raises(NoGguf, match=r"model\.safetensors, but no GGUF") as caught:
        pulled(store, hub, "hf.co/org/tensors")
    assert "convert" in str(caught.value.hint)
    with pytest.raises(UnclearChoice, match="it has no Q2_K") as unclear:
        pulled(store, hub, "hf.co/org/sharded:Q2_K")
    assert "Q8_0, Q4_0" in str(unclear.value.hint) or "Q4_0, Q8_0" in str(unclear.value.hint)
    assert store.tags() == []


def test_a_signature_that_is_required_cannot_be_there(store: Store, hub: FakeHub) -> None:
    hub.add("org/sharded", SHARDED)
    policy = SignaturePolicy(rules=(Rule(prefix="hf.co", mode=Mode.REQUIRE),))
    with pytest.raises(NotSigned):
        pulled(store, hub, "hf.co/org/sharded:Q8_0", signatures=policy)
    assert hub.storage.seen == []


LIES = {
    "no list": (b'{"error":"no"}', "expected a list"),
    "no JSON": (b"<html>", "invalid answer"),
    "no SHA-256": (b'[{"type":"file","path":"a.gguf","size":9,"oid":"x"}]', "does not tell its SHA-256"),
    "odd entries": (
        b'[1,{"type":"file"},{"type":"file","path":"../a.gguf","size":1,"oid":"x"},'
        b'{"type":"file","path":"b.gguf","oid":"x","lfs":{"oid":"zz","size":3}},'
        b'{"type":"file","path":"c.gguf","oid":"x","lfs":{"oid":"' + b"0" * 64 + b'","size":-3}}]',
        "no GGUF",
    ),
}


@pytest.mark.parametrize(("body", "words"), LIES.values(), ids=LIES)
def test_odd_listings(store: Store, hub: FakeHub, body: bytes, words: str) -> None:
    hub.add("org/sharded", SHARDED)
    hub.hub.on("GET", "^/api/", Reply(200, {}, body))
    with pytest.raises((RegistryError, NoGguf), match=words):
        pulled(store, hub, "hf.co/org/sharded:latest")


@pytest.mark.parametrize("link", ["https://evil.example/x", "?recursive=true", "http://["])
def test_listings_that_lead_astray(store: Store, hub: FakeHub, link: str) -> None:
    hub.add("org/sharded", SHARDED)
    hub.hub.on("GET", "^/api/", Reply(200, {"Link": f'<{link}>; rel="next"'}, b"[]"))
    with pytest.raises(RegistryError, match=r"next page|does not end"):
        pulled(store, hub, "hf.co/org/sharded:Q8_0")


def test_files_that_are_not_what_the_list_says(store: Store, hub: FakeHub) -> None:
    hub.add("org/sharded", SHARDED)
    hub.storage.on("GET", sha256(SHARDS[1]), Reply(200, {}, SHARDS[1][:-1] + b"!"))
    with pytest.raises(DigestMismatch):
        pulled(store, hub, "hf.co/org/sharded:Q8_0")
    hub.storage.rules.clear()
    hub.hub.on("GET", "resolve/main/system", Reply(200, {}, b"Be evil!!"))
    with pytest.raises(DigestMismatch, match="system of org/sharded"):
        pulled(store, hub, "hf.co/org/sharded:Q8_0")
    assert store.tags() == []


# names


CHOICES: list[tuple[list[str], str | None, tuple[str, ...], str]] = [
    (["a.gguf"], None, ("a.gguf",), "a"),
    (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], None, ("m-Q4_K_M.gguf",), "Q4_K_M"),
    (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], "latest", ("m-Q4_K_M.gguf",), "Q4_K_M"),
    (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], "q8_0", ("m-Q8_0.gguf",), "Q8_0"),
    (["m.IQ4_XS.gguf", "m.Q4_K_S.gguf"], "IQ4_XS", ("m.IQ4_XS.gguf",), "IQ4_XS"),
    (["m-UD-Q2_K_XL.gguf", "m-Q2_K.gguf"], "UD-Q2_K_XL", ("m-UD-Q2_K_XL.gguf",), "UD-Q2_K_XL"),
    (["m-F16.gguf", "m-BF16.gguf"], "bf16", ("m-BF16.gguf",), "BF16"),
    (["x/m-Q8_0.gguf", "m-Q8_0.gguf.txt"], "m-Q8_0.gguf", ("x/m-Q8_0.gguf",), "Q8_0"),
    (["BF16/m-00001-of-00002.gguf", "BF16/m-00002-of-00002.gguf", "m-Q8_0.gguf"], "BF16",
     ("BF16/m-00001-of-00002.gguf", "BF16/m-00002-of-00002.gguf"), "BF16"),
]  # fmt: skip


@pytest.mark.parametrize(("paths", "wanted", "weights", "label"), CHOICES)
def test_choosing_files(paths: list[str], wanted: str | None, weights: tuple[str, ...], label: str) -> None:
    choice = choose_gguf(paths, wanted, "there")
    assert (choice.weights, choice.label) == (weights, label)


@pytest.mark.parametrize(
    ("paths", "wanted", "words"),
    [
        (["m-Q8_0.gguf", "m-Q2_K.gguf"], None, "none is named"),
        (["m-Q8_0.gguf", "m-Q2_K.gguf"], "Q4_0", "has no Q4_0"),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], "Q8_0", "2 models that are Q8_0"),
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], None, "2 of its 3 shards"),
    ],
)
def test_unclear_choices(paths: list[str], wanted: str | None, words: str) -> None:
    with pytest.raises(UnclearChoice, match=words):
        choose_gguf(paths, wanted, "there")
    with pytest.raises(NoGguf):
        choose_gguf(["mmproj-F16.gguf", "x.bin"], wanted, "there")


# Ollama's registry


@pytest.fixture
def ollama() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        yield running


def test_a_bare_name_comes_from_ollama_s_registry(
    store: Store, hub: FakeHub, ollama: ScriptedRegistry
) -> None:
    """No credentials, no answer at /v2/, blobs by redirect to storage, manifests as plain text."""
    hub.add("library/tiny", {"tiny.gguf": WEIGHTS, "system": b"Hi."})

    def registry(seen: Seen) -> Reply | None:
        if seen.path in ("/v2/", "/v2"):
            return Reply(404, {}, b"404 page not found")
        return hub.answer(seen)

    ollama.on("*", "/", registry)
    reference = Reference.parse("tiny")
    assert str(reference) == "registry.ollama.ai/library/tiny:latest"
    with impatient_client(mirrors={"registry.ollama.ai": (ollama.host,)}) as client:
        pull(store, client, reference)
    model = read_model(store, store.resolve(reference))
    assert (model.system(), model.weights[0].digest) == ("Hi.", Digest.of(WEIGHTS))
    asked = [seen.path for seen in ollama.requests("GET", "manifests")]
    assert asked == ["/v2/library/tiny/manifests/latest"]
    assert all(seen.authorization is None for seen in (*ollama.seen, *hub.storage.seen))
