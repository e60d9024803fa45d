"""What differs between two models, and what each costs in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from ggufmaker import f32, make_model, string, strings
from store_models import put_model

from lading.modelfile.syntax import parse
from lading.oci.building.build import build
from lading.oci.comparison import Change, Comparison, compare
from lading.oci.layer import Role
from lading.oci.model import read_model
from lading.oci.reference import Reference
from lading.oci.store import Store
from lading.oci.usage import measure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights under three names: ``a``, the same as ``again``, and ``b``, which differs."""
    (tmp_path / "a.gguf").write_bytes(make_model())
    (tmp_path / "again.gguf").write_bytes(make_model())
    changes = {
        "general__name": string("another\x1b[2J"),
        "llama__rope__freq_base": f32(5.0),
        "general__tags": strings(["x", "y"]),
    }
    (tmp_path / "b.gguf").write_bytes(make_model(seed=3, **changes))
    return tmp_path


def make(store: Store, folder: Path, name: str, text: str) -> None:
    build(parse(text), context=folder, store=store, reference=Reference.parse(name), base=store.resolve)


def difference(store: Store, folder: Path, before: str, after: str) -> Comparison:
    for name, text in (("before", before), ("after", after)):
        make(store, folder, name, text)
    first, second = (read_model(store, store.resolve(Reference.parse(n))) for n in ("before", "after"))
    back = compare(second, first)
    found = compare(first, second)
    assert found.same == back.same
    assert {key: Change(c.after, c.before) for key, c in back.parameters.items()} == found.parameters
    assert compare(first, first).same
    return found


def test_the_same_however_it_was_written(store: Store, folder: Path) -> None:
    found = difference(store, folder, "FROM ./a.gguf\n", "FROM ./again.gguf\n")
    assert found.same and found.metadata == {} and found.tensors == {}
    assert found.shared > 0


def test_parameters_and_texts(store: Store, folder: Path) -> None:
    before = (
        "FROM ./a.gguf\nPARAMETER temperature 1\nPARAMETER stop a\nSYSTEM one\nMESSAGE user hi\nLICENSE L\n"
    )
    after = (
        "FROM ./a.gguf\nPARAMETER temperature 0.5\nPARAMETER seed 1\nSYSTEM two\n"
        'TEMPLATE "{{ .Prompt }}"\nLICENSE L\n'
    )
    found = difference(store, folder, before, after)
    assert found.parameters == {
        "seed": Change(None, 1),
        "stop": Change(["a"], None),
        "temperature": Change(1, 0.5),
    }
    assert found.texts == {
        "template": Change(None, "{{ .Prompt }}"),
        "system": Change("one", "two"),
        "messages": Change("user: hi", None),
    }
    changed = {change.role for change in found.layers}
    assert changed == {Role.PARAMS, Role.SYSTEM, Role.MESSAGES, Role.TEMPLATE_GO, Role.MODELFILE}
    assert {c.role for c in found.layers if c.before is None} == {Role.TEMPLATE_GO}
    assert {c.role for c in found.layers if c.after is None} == {Role.MESSAGES}
    assert found.metadata == {} and not found.same


def test_weights(store: Store, folder: Path) -> None:
    found = difference(store, folder, "FROM ./a.gguf\n", "FROM ./b.gguf\n")
    assert found.metadata is not None
    assert found.metadata["general.name"].after == "another\x1b[2J"
    assert found.metadata["llama.rope.freq_base"].after == 5.0
    assert found.metadata["general.tags"] == Change(None, ["x", "y"])
    assert not [key for key in found.metadata if key.startswith("tokenizer.")]  # the same, and read to see it
    assert found.tensors == {}
    assert found.layers[0].role is Role.WEIGHTS


def test_one_token_of_a_vocabulary(store: Store, folder: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁a", "b"]
    for name, last in (("c", "b"), ("d", "z")):
        model = make_model(tokenizer__ggml__tokens=strings([*tokens[:-1], last]))
        (folder / f"{name}.gguf").write_bytes(model)
    found = difference(store, folder, "FROM ./c.gguf\n", "FROM ./d.gguf\n")
    same = {"type": "string", "count": len(tokens)}
    assert found.metadata == {"tokenizer.ggml.tokens": Change(same, same)}


# Usage


def test_what_is_shared_and_what_is_not(store: Store) -> None:
    big, small = b"x" * 10_000, b"y" * 100
    one = put_model(store, "one", big, config=b"{}")
    two = put_model(store, "two", big, small, config=b'{"two":1}')
    store.tag(Reference.parse("one-again"), one.descriptor)
    store.put_bytes(b"z" * 7)
    found = measure(store)
    by_name = {model.reference.display: model for model in found.models}
    assert by_name["two:latest"].exclusive == 100 + 9 + two.descriptor.size
    assert by_name["two:latest"].shared == 10_000
    assert by_name["one:latest"].exclusive == by_name["one-again:latest"].exclusive == 0
    assert by_name["one:latest"].size == 10_000 + 2 + one.descriptor.size
    assert found.reclaimable == 7
    assert found.size == sum(path.stat().st_size for path, _ in store.layout.iter_blob_files())
    store.untag(Reference.parse("two"))
    assert store.gc(dry_run=True).freed == 7 + by_name["two:latest"].exclusive


def test_a_damaged_model_is_named(store: Store) -> None:
    put_model(store, "fine", b"x")
    broken = put_model(store, "broken", b"y")
    path = store.blob_path(broken.descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    found = measure(store)
    assert [model.reference.display for model in found.models if model.damaged] == ["broken:latest"]
    assert found.reclaimable is None
    assert found.blobs == 5  # they share their config
