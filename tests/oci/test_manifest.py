"""Manifests and indexes: exact bytes, every rule, all problems at once."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_models import CONFIG_TYPE, MODEL_TYPE, WEIGHT_TYPE, describe, make_manifest

from lading.oci import media_type
from lading.oci.canonical import MAX_DOCUMENT_SIZE, canonical_json
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import BadManifest
from lading.oci.manifest import MAX_LAYERS, Index, Manifest, parse_document

D = f"sha256:{'a' * 64}"
CONFIG: dict[str, Any] = {"mediaType": CONFIG_TYPE, "digest": D, "size": 2}
LAYER: dict[str, Any] = {"mediaType": WEIGHT_TYPE, "digest": D, "size": 7}
GOOD: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": media_type.OCI_MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
}


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def altered(**members: object) -> bytes:
    return as_bytes(GOOD | members)


def layer(**members: object) -> bytes:
    return altered(layers=[LAYER | members])


def test_the_golden_bytes_and_digest() -> None:
    manifest, _ = make_manifest(b"weights", b"licence", config=b"{}")
    assert manifest.raw == (
        b'{"artifactType":"application/vnd.cncf.model.manifest.v1+json",'
        b'"config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",'
        b'"mediaType":"application/vnd.cncf.model.config.v1+json","size":2},"layers":['
        b'{"digest":"sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",'
        b'"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":7},'
        b'{"digest":"sha256:8178ac72b28d77fcb851fcd301583182bd05d9663ed2ec8131e60f057c2795f7",'
        b'"mediaType":"application/vnd.cncf.model.weight.v1.raw","size":7}],'
        b'"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}'
    )
    assert manifest.digest == Digest.of(manifest.raw)
    assert manifest.descriptor == Descriptor(
        media_type.OCI_MANIFEST, manifest.digest, len(manifest.raw), artifact_type=MODEL_TYPE
    )


def test_parsed_bytes_are_kept_exactly() -> None:
    data = b' {\n"layers" : [],' + as_bytes({"x": [1]} | GOOD | {"layers": None})[1:].replace(
        b'"layers": null', b'"extra": "\\u00e9"'
    )
    manifest = Manifest.parse(data)
    assert manifest.raw == data
    assert manifest.digest == Digest.of(data)
    assert manifest.layers == ()


def test_docker_manifest_with_the_extras_of_ollama_and_hugging_face() -> None:
    data = as_bytes(
        {
            "schemaVersion": 2,
            "mediaType": media_type.DOCKER_MANIFEST,
            "config": CONFIG | {"mediaType": media_type.DOCKER_CONFIG},
            "layers": [LAYER | {"from": "/home/x/m.gguf", "name": "blk.0"}],
            "ggufFile": {"rfilename": "m.gguf"},
        }
    )
    manifest = Manifest.parse(data + b"\n")
    assert manifest.media_type == media_type.DOCKER_MANIFEST
    assert manifest.layers[0].extra == {"from": "/home/x/m.gguf", "name": "blk.0"}
    assert manifest.layers[0].to_json() == LAYER | {"from": "/home/x/m.gguf", "name": "blk.0"}


def test_without_media_type_inside_it_is_what_its_bearer_says_or_oci() -> None:
    value = {key: member for key, member in GOOD.items() if key != "mediaType"}
    assert Manifest.parse(as_bytes(value)).media_type == media_type.OCI_MANIFEST
    served = Manifest.parse(as_bytes(value), media_type=media_type.DOCKER_MANIFEST)
    assert served.media_type == media_type.DOCKER_MANIFEST


def test_null_stands_for_absent_where_go_writes_it() -> None:
    manifest = Manifest.parse(altered(annotations=None, subject=None, artifactType=""))
    assert (manifest.annotations, manifest.subject, manifest.artifact_type) == ({}, None, None)


def test_foreign_urls_are_data() -> None:
    manifest = Manifest.parse(layer(urls=["http://169.254.169.254/"]))
    assert manifest.layers[0].extra == {"urls": ["http://169.254.169.254/"]}


BAD = {
    "null": b"null",
    "list": b"[]",
    "empty object": b"{}",
    "number": b"7",
    "no JSON": b"<html>",
    "invalid UTF-8": b'{"schemaVersion":2,"x":"\xff"}',
    "byte order mark": b"\xef\xbb\xbf" + altered(),
    "NaN": altered().replace(b'"size": 7', b'"size": NaN'),
    "duplicate key": altered().replace(b'"size": 7', b'"size": 7, "size": 8'),
    "depth 2000": altered(x=0).replace(b'"x": 0', b'"x": ' + b"[" * 2000 + b"]" * 2000),
    "10,000 digits": altered().replace(b'"size": 7', b'"size": ' + b"7" * 10_000),
    "schemaVersion 1": altered(schemaVersion=1),
    "schemaVersion 2.0": altered(schemaVersion=2.0),
    "schemaVersion true": altered(schemaVersion=True),
    "schemaVersion text": altered(schemaVersion="2"),
    "schemaVersion missing": as_bytes({key: GOOD[key] for key in ("mediaType", "config", "layers")}),
    "mediaType number": altered(mediaType=7),
    "mediaType null is absent but list is not": altered(mediaType=[]),
    "mediaType of an index": altered(mediaType=media_type.OCI_INDEX),
    "mediaType unknown": altered(mediaType="text/html"),
    "layers missing": as_bytes({key: GOOD[key] for key in ("schemaVersion", "mediaType", "config")}),
    "layers null": altered(layers=None),
    "layers object": altered(layers={}),
    "layers of nulls": altered(layers=[None]),
    "too many layers": altered(layers=[LAYER] * (MAX_LAYERS + 1)),
    "config null": altered(config=None),
    "config list": altered(config=[]),
    "both manifest and index": altered(manifests=[]),
    "both, with null": altered(manifests=None),
    "subject bad": altered(subject={"digest": D}),
    "subject traversal": altered(subject=LAYER | {"digest": "sha256:../../x"}),
    "annotations list": altered(annotations=[]),
    "annotation number": altered(annotations={"a": 1}),
    "annotation null": altered(annotations={"a": None}),
    "artifactType number": altered(artifactType=1),
    "artifactType words": altered(artifactType="not a type"),
    "size -1": layer(size=-1),
    "size 2^63": layer(size=1 << 63),
    "size 1e999": layer().replace(b'"size": 7', b'"size": 1e999'),
    "size 7.0": layer(size=7.0),
    "size text": layer(size="7"),
    "size true": layer(size=True),
    "size null": layer(size=None),
    "digest traversal": layer(digest="sha256:../../etc/x"),
    "digest with slash": layer(digest=f"sha256:{'a' * 31}/{'a' * 32}"),
    "digest upper case": layer(digest=f"sha256:{'A' * 64}"),
    "digest newline": layer(digest=D + "\n"),
    "digest md5": layer(digest=f"md5:{'a' * 32}"),
    "digest null": layer(digest=None),
    "config digest traversal": altered(config=CONFIG | {"digest": "sha256:../../x"}),
    "layer mediaType empty": layer(mediaType=""),
    "layer mediaType newline": layer(mediaType="a/b\n"),
    "layer mediaType parameters": layer(mediaType="a/b; c=d"),
    "layer mediaType missing": altered(layers=[{"digest": D, "size": 1}]),
    "layer annotations number": layer(annotations=7),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_breaks_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(BadManifest) as caught:
        Manifest.parse(data)
    assert caught.value.problems
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), BadManifest)


def test_all_problems_are_told_at_once() -> None:
    bad = LAYER | {"size": -1, "digest": "x"}
    with pytest.raises(BadManifest) as caught:
        Manifest.parse(altered(schemaVersion=1, config=None, layers=[LAYER, bad], annotations=[]))
    text = "\n".join(caught.value.problems)
    for part in (
        "schemaVersion",
        "config is missing",
        "layers[1]: size",
        "layers[1]: invalid digest",
        "annot",
    ):
        assert part in text
    assert "layers[0]" not in text


@pytest.mark.parametrize(
    "served", [media_type.DOCKER_MANIFEST, media_type.OCI_INDEX, "text/plain", "application/json"]
)
def test_a_bearer_that_says_otherwise_is_not_believed(served: str) -> None:
    with pytest.raises(BadManifest):
        Manifest.parse(altered(), media_type=served)


def test_size_is_limited_exactly() -> None:
    padding = MAX_DOCUMENT_SIZE - len(altered())
    assert len(Manifest.parse(altered() + b" " * padding).raw) == MAX_DOCUMENT_SIZE
    with pytest.raises(BadManifest, match="at most 4194304 bytes"):
        Manifest.parse(altered() + b" " * (padding + 1))


def test_limits_hold_for_what_is_built() -> None:
    config = describe(b"{}", CONFIG_TYPE)
    assert len(Manifest.build(config=config, layers=[describe(b"x")] * MAX_LAYERS).layers) == MAX_LAYERS
    with pytest.raises(BadManifest):
        Manifest.build(config=config, layers=[describe(b"x")] * (MAX_LAYERS + 1))
    with pytest.raises(BadManifest):
        Manifest.build(config=config, layers=[], media_type="text/html")


def test_index_round_trip() -> None:
    first, _ = make_manifest(b"a")
    index = Index.build(manifests=[first.descriptor], annotations={"k": "v"}, subject=first.descriptor)
    again = Index.parse(index.raw)
    assert again == index
    assert again.manifests == (first.descriptor,)
    assert again.annotations == {"k": "v"}
    assert index.descriptor.media_type == media_type.OCI_INDEX


@pytest.mark.parametrize("member", ["layers", "config"])
def test_an_index_that_is_also_a_manifest_is_refused(member: str) -> None:
    value = {"schemaVersion": 2, "mediaType": media_type.OCI_INDEX, "manifests": []}
    with pytest.raises(BadManifest, match="both an index and a manifest"):
        Index.parse(as_bytes(value | {member: GOOD[member]}))


def test_documents_are_told_apart() -> None:
    manifest, _ = make_manifest(b"a")
    index = Index.build(manifests=[manifest.descriptor])
    assert parse_document(manifest.raw) == manifest
    assert parse_document(index.raw) == index
    assert parse_document(manifest.raw, media_type=media_type.OCI_MANIFEST) == manifest
    bare = canonical_json({"schemaVersion": 2, "manifests": []})
    assert isinstance(parse_document(bare), Index)
    with pytest.raises(BadManifest):
        parse_document(manifest.raw, media_type=media_type.OCI_INDEX)
    with pytest.raises(BadManifest):
        parse_document(b"[]")


digests = st.binary(max_size=3).map(Digest.of)
annotations = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.just("v"), max_size=2
)
descriptors = st.builds(
    Descriptor,
    st.sampled_from([WEIGHT_TYPE, "a/b"]),
    digests,
    st.integers(0, (1 << 63) - 1),
    annotations=annotations,
    artifact_type=st.none() | st.just("x/y"),
    extra=st.dictionaries(st.sampled_from(["platform", "data"]), st.just({"os": "linux"})),
)


@given(descriptors)
def test_descriptors_round_trip(descriptor: Descriptor) -> None:
    assert Descriptor.from_json(descriptor.to_json()) == descriptor
    assert pickle.loads(pickle.dumps(descriptor)) == descriptor
    assert hash(descriptor) == hash(Descriptor.from_json(descriptor.to_json()))


@given(descriptors, st.lists(descriptors, max_size=3), st.none() | st.just(MODEL_TYPE), annotations)
def test_what_is_built_parses_to_the_same(
    config: Descriptor, layers: list[Descriptor], artifact_type: str | None, notes: dict[str, str]
) -> None:
    built = Manifest.build(config=config, layers=layers, artifact_type=artifact_type, annotations=notes)
    parsed = Manifest.parse(built.raw)
    assert (parsed.config, parsed.layers) == (config, tuple(layers))
    assert (parsed.artifact_type, dict(parsed.annotations)) == (artifact_type, notes)
    assert (
        parsed.digest
        == built.digest
        == Manifest.build(config=config, layers=layers, artifact_type=artifact_type, annotations=notes).digest
    )


def test_same_content_is_less_than_equal() -> None:
    plain, named = describe(b"x"), Descriptor("a/b", Digest.of(b"x"), 1, {"k": "v"})
    assert plain != named
    assert plain.same_content(named)
    assert not plain.same_content(describe(b"y"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, *LAYER, "manifests", "annotations"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(json_values, st.sampled_from([None, *GOOD]))
def test_nothing_but_our_error_comes_out(value: Any, key: str | None) -> None:
    data = as_bytes(value if key is None else GOOD | {key: value})
    for parse in (Manifest.parse, Index.parse, parse_document):
        with suppress(BadManifest):
            parse(data)
