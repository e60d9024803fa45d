"""References: what names mean, which are refused, and that every form reads back."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lading.oci.digest import Digest
from lading.oci.errors import BadReference
from lading.oci.reference import Reference

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

# text, full form, display form
GOOD = [
    ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
    ("llama3.2", "registry.ollama.ai/library/llama3.2:latest", "llama3.2:latest"),
    ("llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
    ("user/m:t", "registry.ollama.ai/user/m:t", "user/m:t"),
    ("registry.ollama.ai/library/m", "registry.ollama.ai/library/m:latest", "m:latest"),
    ("Registry.Ollama.AI/library/m", "registry.ollama.ai/library/m:latest", "m:latest"),
    ("hf.co/org/M-GGUF:Q4_K_M", "hf.co/org/M-GGUF:Q4_K_M", "hf.co/org/M-GGUF:Q4_K_M"),
    ("hf.co/org.x/m", "hf.co/org.x/m:latest", "hf.co/org.x/m:latest"),
    ("localhost:5000/u/m", "localhost:5000/u/m:latest", "localhost:5000/u/m:latest"),
    ("localhost/m", "localhost/m:latest", "localhost/m:latest"),
    ("x:5000/m", "x:5000/m:latest", "x:5000/m:latest"),
    ("x:5000", "registry.ollama.ai/library/x:5000", "x:5000"),
    ("127.0.0.1:5000/a/b/c/d:t", "127.0.0.1:5000/a/b/c/d:t", "127.0.0.1:5000/a/b/c/d:t"),
    ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
    ("a/b/c/d:t", "registry.ollama.ai/a/b/c/d:t", "a/b/c/d:t"),
    ("_m", "registry.ollama.ai/library/_m:latest", "_m:latest"),
    ("m:v1.0", "registry.ollama.ai/library/m:v1.0", "m:v1.0"),
    (f"m@{DIGEST}", f"registry.ollama.ai/library/m@{DIGEST}", f"m@{DIGEST}"),
    (f"m:t@{DIGEST}", f"registry.ollama.ai/library/m:t@{DIGEST}", f"m:t@{DIGEST}"),
    ("ghcr.io/o/m__x--y", "ghcr.io/o/m__x--y:latest", "ghcr.io/o/m__x--y:latest"),
    ("registry.ollama.ai/m", "registry.ollama.ai/m:latest", "registry.ollama.ai/m:latest"),
    ("registry.ollama.ai/a.b/m", "registry.ollama.ai/a.b/m:latest", "registry.ollama.ai/a.b/m:latest"),
    ("blobs", "registry.ollama.ai/library/blobs:latest", "blobs:latest"),
    ("nul", "registry.ollama.ai/library/nul:latest", "nul:latest"),
]


@pytest.mark.parametrize(("text", "full", "display"), GOOD, ids=[row[0] for row in GOOD])
def test_names_mean_what_users_expect(text: str, full: str, display: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.display == display
    assert Reference.parse(full) == reference
    assert Reference.parse(display) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference


BAD = {
    "empty": "",
    "traversal": "../../etc/passwd",
    "traversal inside": "a/../b",
    "traversal at the end": "a/..",
    "dots": "..",
    "dot": ".",
    "dots inside a part": "a..b",
    "double slash": "a//b",
    "leading slash": "/a",
    "trailing slash": "a/",
    "home": "~/m",
    "relative path": "./x.gguf",
    "percent": "%2e%2e%2f",
    "backslash": "..\\..\\x",
    "drive": "C:x",
    "UNC": "\\\\host\\share",
    "NUL": "m\0",
    "newline": "m\n",
    "newline after tag": "m:t\n",
    "escape": "m\x1b[31m",
    "right-to-left override": "a\u202eb",
    "zero width": "a\u200bb",
    "accent": "mod\u00e8le",
    "option": "--log-file=/x",
    "short option": "-rf",
    "userinfo": "user:pass@host/a",
    "userinfo and digest": f"user:pass@host.example/a@{DIGEST}",
    "scheme": "http://h.example/a",
    "query": "a?x=1",
    "fragment": "a#x",
    "space": "a b",
    "empty tag": "m:",
    "empty name": ":t",
    "two tags": "x:y:z",
    "tag with slash": "a:b/c",
    "long tag": f"m:{'t' * 129}",
    "tag that begins with a dot": "m:.t",
    "long part": f"{'a' * 129}/m",
    "long name": "/".join(["a" * 100] * 3),
    "long text": "a" * 5000,
    "short digest": "m@sha256:ab",
    "unknown digest": f"m@md5:{'a' * 32}",
    "empty digest": "m@",
    "port 0": "h.example:0/m",
    "port 65536": "h.example:65536/m",
    "port of letters": "h.example:x/m",
    "host that begins with a dash": "-h.example/m",
    "host with empty label": "h..example/m",
    "bad IPv6": "[::1::2]:5000/m",
    "part that ends in a dot": "a./b",
    "part that ends in a dash": "a-/b",
    "shell": "m;reboot",
    "variable": "$HOME",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        Reference.parse(text)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "text",
    [
        "user:hunter2@host.example/a",
        "hunter2@host.example/a",
        f"user:hunter2@host.example/a@{DIGEST}",
        "https://user:hunter2@host.example/a",
        "host.example/a?token=hunter2",
        "user:p@hunter2@host.example/a",
    ],
)
def test_passwords_are_not_echoed(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        Reference.parse(text)
    assert "hunter2" not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))


def test_a_url_gets_a_hint() -> None:
    with pytest.raises(BadReference) as caught:
        Reference.parse("https://hf.co/org/repo")
    assert caught.value.hint == "leave out https://"


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("m", "reg.example/team/models/m:latest", "m:latest"),
        ("other/m:1", "reg.example/other/m:1", "other/m:1"),
        ("hf.co/o/m", "hf.co/o/m:latest", "hf.co/o/m:latest"),
        ("registry.ollama.ai/library/m", "registry.ollama.ai/library/m:latest", None),
    ],
)
def test_an_organisation_sets_its_own_default(text: str, full: str, short: str | None) -> None:
    reference = Reference.parse(text, default_registry="Reg.example", default_namespace="team/models")
    assert str(reference) == full
    shortened = reference.shortened("Reg.example", "team/models")
    assert shortened == (short or full)
    again = Reference.parse(shortened, default_registry="Reg.example", default_namespace="team/models")
    assert again == reference


def test_no_default_namespace() -> None:
    reference = Reference.parse("m", default_registry="reg.example", default_namespace="")
    assert str(reference) == "reg.example/m:latest"
    assert reference.shortened("reg.example", "") == "m:latest"


def test_names_that_differ_in_case_are_alike_but_not_equal() -> None:
    upper, lower = Reference.parse("hf.co/Org/Repo:Q4_K_M"), Reference.parse("hf.co/org/repo:q4_k_m")
    assert upper != lower
    assert upper.familiar_key == lower.familiar_key


def test_derived_references() -> None:
    reference = Reference.parse(f"hf.co/o/m:t@{DIGEST}")
    assert reference.name == "hf.co/o/m"
    assert reference.identifier == DIGEST
    assert str(reference.with_tag("v2")) == "hf.co/o/m:v2"
    assert reference.with_tag("v2").identifier == "v2"
    assert str(reference.with_digest(Digest.of(b""))) == f"hf.co/o/m@{Digest.of(b'')}"


@pytest.mark.parametrize(
    "fields",
    [
        ("HF.co", "o/m", "t"),
        ("nodots", "o/m", "t"),
        ("hf.co", "../m", "t"),
        ("hf.co", "m", None),
        ("hf.co", "m", "a/b"),
        ("hf.co", "", "t"),
    ],
)
def test_an_instance_cannot_be_made_invalid(fields: tuple[str, str, str | None]) -> None:
    with pytest.raises(BadReference):
        Reference(*fields)


parts = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,12}[A-Za-z0-9_])?", fullmatch=True)
hosts = st.from_regex(r"([a-z][a-z0-9-]{0,6}[a-z0-9]\.){1,2}[a-z]{2,5}(:[1-9][0-9]{0,3})?", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digests = st.binary(max_size=4).map(Digest.of)
defaults = st.tuples(hosts, st.sampled_from(["", "library", "team/models"]))


@given(
    hosts,
    st.lists(parts, min_size=1, max_size=4),
    st.none() | tags,
    st.none() | digests,
    st.none() | defaults,
)
def test_every_form_of_a_valid_reference_reads_back(
    host: str, path: list[str], tag: str | None, digest: Digest | None, chosen: tuple[str, str] | None
) -> None:
    assume(tag is not None or digest is not None)
    assume(not any(".." in part for part in path))
    registry, namespace = chosen or ("registry.ollama.ai", "library")
    for where in (host, registry):
        reference = Reference(where, "/".join(path), tag, digest)
        for text in (str(reference), reference.shortened(registry, namespace)):
            again = Reference.parse(text, default_registry=registry, default_namespace=namespace)
            assert again == reference


@given(st.text() | st.text("ab.:/@-_ \\%~AZ09[]", max_size=20))
def test_any_text_is_a_reference_that_round_trips_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BadReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.display) == reference
    assert str(reference).isascii()
