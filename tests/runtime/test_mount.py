"""Mounting: what a runner and a caller get to know of a model, and what is refused before a runner sees
it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import TINY_CHAT
from model_shelf import ModelShelf
from random_models import plain_model

from lading.modelfile.errors import IntegrityError
from lading.oci.errors import BlobNotFound, ModelNotFound
from lading.oci.gguf.reader import BadGguf
from lading.oci.reference import Reference
from lading.oci.signing.attachments import StoreAttachments
from lading.oci.signing.errors import NotSigned, SignatureInvalid
from lading.oci.signing.key import SigningKey
from lading.oci.signing.policy import Mode, Rule, SignaturePolicy
from lading.oci.signing.signature import sign
from lading.runtime.mount import MountedModel, Mounter, mount
from lading.runtime.protocol import Message

MODELFILE = """FROM tiny
PARAMETER temperature 0.25
PARAMETER stop "###"
PARAMETER stop "<end>"
SYSTEM You are terse.
MESSAGE user Hello
MESSAGE assistant Hi
"""


def mounted(shelf: ModelShelf, name: str) -> MountedModel:
    return mount(shelf.store, Reference.parse(name))


def blob_of(model: MountedModel) -> Path:
    return Path(model.files.weights[0])


def test_everything_that_running_takes(shelf: ModelShelf, tiny_chat: Path) -> None:
    shelf.create("terse", MODELFILE)
    model = mounted(shelf, "terse")
    assert blob_of(model).parent == shelf.root / "blobs" / "sha256", "mapped where it is, not copied"
    assert blob_of(model).read_bytes() == tiny_chat.read_bytes()
    assert dict(model.params) == {"temperature": 0.25, "stop": ["###", "<end>"]}
    assert model.facts.system == "You are terse."
    assert model.facts.messages == (
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
    )
    assert model.facts.details.family == "llama"
    assert model.facts.details.quantization_level == "F16"
    assert model.facts.capabilities == ("completion", "tools", "thinking")
    assert model.facts.context_length == model.files.shape.context_length == 2048
    assert model.template_kind == "jinja"
    assert model.files.variant.template_jinja == "", "the GGUF's own needs no handing over"
    assert 0 < tiny_chat.stat().st_size - model.size < 200_000, "tensor data without the header"


def test_words_do_not_change_which_runner_serves(shelf: ModelShelf) -> None:
    shelf.create("terse", MODELFILE)
    assert mounted(shelf, "terse").files == mounted(shelf, "tiny").files


def test_the_template_in_use_decides_by_which_variant_a_runner_serves(shelf: ModelShelf) -> None:
    template = "{{ .System }} {{ .Prompt }} {{ .Tools }} {{ .ToolCalls }} <tool_response>"
    shelf.create("old", f'FROM tiny\nTEMPLATE """{template}"""\n')
    old = mounted(shelf, "old")
    assert old.files.key == mounted(shelf, "tiny").files.key
    assert (old.template_kind, bool(old.files.variant.template_go)) == ("jinja", False), (
        "jinja can do more: it thinks"
    )
    forced = mount(shelf.store, Reference.parse("old"), template="go")
    assert (forced.template_kind, forced.files.variant.template_go[:12]) == ("go", "{{ .System }")
    assert forced.facts.capabilities == ("completion", "tools")
    assert forced.files.key == old.files.key
    assert forced.files.variant != old.files.variant


def test_names_follow_the_reference_not_the_cache(shelf: ModelShelf) -> None:
    shelf.store.tag(Reference.parse("twin"), shelf.store.resolve(Reference.parse("tiny")).descriptor)
    mounter = Mounter(shelf.store)
    one, two = mounter.mount(Reference.parse("tiny")), mounter.mount(Reference.parse("twin"))
    assert (one.facts.name, two.facts.name) == ("tiny:latest", "twin:latest")
    assert one.digest == two.digest and one.files == two.files


def test_a_tag_that_moves_is_followed(shelf: ModelShelf) -> None:
    mounter = Mounter(shelf.store)
    before = mounter.mount(Reference.parse("tiny"))
    shelf.create("tiny", "FROM tiny\nSYSTEM Changed.\n")
    after = mounter.mount(Reference.parse("tiny"))
    assert (before.facts.system, after.facts.system) == ("", "Changed.")


def test_what_must_be_signed_is_not_mounted_without(shelf: ModelShelf) -> None:
    key, reference = SigningKey.generate(), Reference.parse("tiny")

    def fresh(mode: Mode) -> Mounter:
        rule = Rule(prefix="*", mode=mode, keys=(key.public,), match_repository=True)
        return Mounter(shelf.store, signatures=SignaturePolicy((rule,)))

    assert fresh(Mode.WARN).mount(reference)
    with pytest.raises(NotSigned, match="tiny:latest: it is not signed"):
        fresh(Mode.REQUIRE).mount(reference)
    attachments = StoreAttachments(shelf.store, reference)
    subject = shelf.store.resolve(reference).descriptor
    sign(attachments, subject, SigningKey.generate(), identity=reference.name)
    with pytest.raises(SignatureInvalid):
        fresh(Mode.REQUIRE).mount(reference)
    sign(attachments, subject, key, identity=reference.name)
    mounter = fresh(Mode.REQUIRE)
    path = blob_of(mounter.mount(reference))
    shelf.create("tiny", "FROM tiny\nSYSTEM Changed.\n")  # the name moves, the signature stays behind
    with pytest.raises(NotSigned):
        mounter.mount(reference)
    shelf.store.tag(reference, subject)
    assert mounter.mount(reference)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xa5")
    with pytest.raises(IntegrityError, match="damaged"):
        fresh(Mode.REQUIRE).mount(reference)


def test_an_unknown_model_is_not_found(shelf: ModelShelf) -> None:
    with pytest.raises(ModelNotFound, match="model 'nope:latest' not found"):
        mounted(shelf, "nope")


def test_a_missing_blob_is_named(shelf: ModelShelf) -> None:
    path = blob_of(mounted(shelf, "tiny"))
    path.unlink()
    with pytest.raises(
        BlobNotFound, match=rf"blob sha256:{path.name} is not in the store.* needs it"
    ) as caught:
        mounted(shelf, "tiny")
    assert caught.value.hint


@pytest.mark.parametrize("remembered", [False, True], ids=["fresh", "mounted before"])
def test_a_truncated_blob_is_refused_before_a_runner_sees_it(shelf: ModelShelf, remembered: bool) -> None:
    mounter = Mounter(shelf.store)
    path = blob_of(mounted(shelf, "tiny"))
    if remembered:
        mounter.mount(Reference.parse("tiny"))
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(BadGguf, match="1,000,000 bytes, expected"):
        mounter.mount(Reference.parse("tiny"))


def test_a_hostile_header_is_refused_before_a_runner_sees_it(shelf: ModelShelf) -> None:
    path = blob_of(mounted(shelf, "tiny"))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    at = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
    data[at : at + 4] = (100_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadGguf, match="block_count"):
        mounted(shelf, "tiny")


def test_a_draft_model_comes_along(shelf: ModelShelf) -> None:
    path = plain_model(shelf.folder / "small.gguf", TINY_CHAT, context=256)
    shelf.create("guesser", "FROM tiny\nDRAFT small.gguf\n")
    model, tiny = mounted(shelf, "guesser"), mounted(shelf, "tiny")
    draft = model.files.draft
    assert draft and Path(draft.path).read_bytes() == path.read_bytes()
    assert (draft.shape.context_length, draft.shape.layers) == (256, 2)
    assert 0 < path.stat().st_size - draft.size < 200_000, "tensor data without the header"
    assert model.size == tiny.size + draft.size
    assert model.files.key != tiny.files.key, "a runner of its own"
    Path(draft.path).chmod(0o644)
    Path(draft.path).write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(BadGguf, match="100,000 bytes, expected"):
        mounted(shelf, "guesser")
