"""A model of plain GGUF files that are in the store: checked, and written down as ModelPack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...modelfile.errors import LadingError
from ...modelfile.instructions import Copy, Instruction, Modelfile, Parameter, System, Template
from ...modelfile.parameters import PARAMETERS, check_value, value_text
from ..building.recipe import Document, FromStore, GgufPart, make_recipe
from ..canonical import strict_json
from ..conversion import content_of_recipe
from ..dialects import modelpack
from ..digest import Digest
from ..errors import BadManifest
from ..gguf.check import check_file, check_shards
from ..gguf.header import GgufHeader, GgufKind
from ..gguf.problem import BadGguf
from ..layer import FIXED_PATHS, Role
from ..manifest import Manifest
from ..store import Store

TEXTS: Mapping[str, Role] = {
    "template": Role.TEMPLATE_GO,
    "system": Role.SYSTEM,
    "params": Role.PARAMS,
    "LICENSE": Role.LICENSE,
    "chat_template.jinja": Role.TEMPLATE_JINJA,
}
"""Files beside the weights that say more of the model, by name. Source: Hugging Face, "Use Ollama with any
GGUF model", for the first three."""
MAX_TEXT = 1 << 20
"""Bytes of such a file."""

_ROLES = {GgufKind.MODEL: Role.WEIGHTS, GgufKind.PROJECTOR: Role.PROJECTOR, GgufKind.ADAPTER: Role.ADAPTER}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A GGUF file in the store, and the name that it came with."""

    name: str
    digest: Digest
    size: int


def write_model(store: Store, files: Sequence[StoredFile], texts: Mapping[str, bytes]) -> Manifest:
    """The manifest of the model that these files are; ``texts`` are contents by names of TEXTS. The caller
    holds a lease, and tags it.

    The same files give the same manifest on any machine.

    Raises: BadGguf where a file is not sound; BuildError where they do not make one model; BadManifest.
    """
    parts = [_part(store, file) for file in files]
    shards = [part.header for part in parts if part.role is Role.WEIGHTS and part.header.split]
    if len(shards) > 1 and (problems := check_shards(shards)):
        raise BadGguf(files[0].name, problems)
    recipe = make_recipe(
        Modelfile(tuple(_instructions(texts))),
        parts=parts,
        documents=tuple(_documents(store, texts)),
        base=None,
    )
    headers = [part.header for part in parts if part.role is Role.WEIGHTS]
    written = modelpack.write(content_of_recipe(store, recipe, headers), store)
    store.put_manifest(written.manifest)
    return written.manifest


def _part(store: Store, file: StoredFile) -> GgufPart:
    try:
        header: GgufHeader = check_file(store.blob_path(file.digest), expected_size=file.size)
    except BadGguf as error:
        raise BadGguf(file.name, error.problems, hint=error.hint) from error
    return GgufPart(_ROLES[header.kind], header, FromStore(file.digest, file.size), file.name)


def _instructions(texts: Mapping[str, bytes]) -> Iterator[Instruction]:
    if "template" in texts:
        yield Template(_decoded(texts, "template"))
    if "system" in texts:
        yield System(_decoded(texts, "system"))
    if "params" in texts:
        yield from _parameters(texts["params"])


def _parameters(data: bytes) -> Iterator[Parameter]:
    """Those that we know, with values that make sense: the file is somebody else's."""
    try:
        value = strict_json(data, what="params")
    except LadingError:
        value = None
    if not isinstance(value, dict):
        raise BadManifest(["its file params is not a JSON object"], what="model")
    for name, given in value.items():
        if name in PARAMETERS:
            try:
                checked = check_value(name, given)
            except LadingError:
                continue
            for item in checked if isinstance(checked, list) else [checked]:
                yield Parameter(name, value_text(item))


def _decoded(texts: Mapping[str, bytes], name: str) -> str:
    try:
        return texts[name].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadManifest([f"its file {name} is not UTF-8 text"], what="model") from error


def _documents(store: Store, texts: Mapping[str, bytes]) -> Iterator[Document]:
    for name in ("LICENSE", "chat_template.jinja"):
        if name == "chat_template.jinja" and "template" in texts:
            continue  # the one in Go was made for this
        if name in texts:
            content = FromStore(store.put_bytes(texts[name]), len(texts[name]))
            target = FIXED_PATHS[TEXTS[name]]
            yield Document(Copy(name, target), content, target)
