"""Ollama's dialect: a Docker manifest whose layers say by their media types what they are for.

What Ollama's registry and hf.co serve is in it. It has names for all that a Modelfile says, but none for
templates in Jinja, documents and labels, and only one file of weights.

Source: Ollama, manifest/layer.go, server/images.go, server/create.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...modelfile.errors import InputError
from ..canonical import canonical_json
from ..descriptor import Descriptor
from ..layer import Layer, Role
from ..manifest import Manifest
from ..media_type import DOCKER_CONFIG, DOCKER_MANIFEST
from ..store import Store
from .dialect import Content, Details, Dialect, Part, Reader, Stated, Written, text

PREFIX = "application/vnd.ollama.image."

_TYPES: Mapping[Role, str] = {
    Role.WEIGHTS: "model",
    Role.ADAPTER: "adapter",
    Role.PROJECTOR: "projector",
    Role.DRAFT: "draft",
    Role.TEMPLATE_GO: "template",
    Role.SYSTEM: "system",
    Role.LICENSE: "license",
    Role.PARAMS: "params",
    Role.MESSAGES: "messages",
}
"""In the order in which Ollama writes them."""

_ROLES = {PREFIX + name: role for role, name in _TYPES.items()} | {PREFIX + "prompt": Role.TEMPLATE_GO}


class NotOneFile(InputError):
    """The model's weights are in several files, which this dialect cannot say."""

    def __init__(self, name: str, files: int) -> None:
        super().__init__(
            f"writing {name} as ollama: its weights are in {files} files, and Ollama's form has one",
            hint="merge them with llama-gguf-split --merge and create the model anew, or choose another form",
        )


def write(content: Content, store: Store) -> Written:
    """The model as Ollama writes it: no annotations anywhere. Raises: NotOneFile."""
    weights = content.of(Role.WEIGHTS)
    if len(weights) != 1:
        raise NotOneFile(content.name, len(weights))
    config = canonical_json(_config(content))
    manifest = Manifest.build(
        config=Descriptor(DOCKER_CONFIG, store.put_bytes(config), len(config)),
        layers=[
            Descriptor(PREFIX + name, layer.digest, layer.size)
            for role, name in _TYPES.items()
            for layer in content.of(role)
        ],
        media_type=DOCKER_MANIFEST,
    )
    return Written(manifest, tuple(_left_out(content)))


def _config(content: Content) -> dict[str, Any]:
    header = content.headers[0]
    family = header.architecture or ""
    config: dict[str, Any] = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family, *(["clip"] if content.of(Role.PROJECTOR) else [])],
        "model_type": content.config["paramSize"],
        "file_type": content.config["quantization"],
        "architecture": "amd64",
        "os": "linux",
    }
    stated = {"renderer": content.renderer, "parser": content.parser, "requires": content.requires}
    lengths = {"context_length": header.context_length, "embedding_length": header.embedding_length}
    config.update({key: value for key, value in {**stated, **lengths}.items() if value})
    return config


def _left_out(content: Content) -> list[str]:
    notes = []
    if content.of(Role.TEMPLATE_JINJA):
        notes.append("the template in Jinja: Ollama has none; it uses the one in the GGUF file")
    if documents := content.of(Role.README, Role.DOC, Role.OTHER):
        notes.append(f"{', '.join(layer.filepath for layer in documents)}: Ollama has no documents")
    if content.of(Role.MODELFILE):
        notes.append("the Modelfile: Ollama shows one that it makes of the rest")
    if content.annotations:
        notes.append(f"labels: {', '.join(sorted(content.annotations))}")
    return notes


def _recognises(manifest: Manifest) -> bool:
    return any(layer.media_type.startswith(PREFIX) for layer in manifest.layers)


def _role_of(part: Part) -> Role:
    return _ROLES.get(part.media_type, Role.OTHER)


def _stated(manifest: Manifest, config: Mapping[str, Any], weights: Layer) -> Stated:
    families = config.get("model_families")
    context_length, embedding_length = config.get("context_length"), config.get("embedding_length")
    parent = weights.descriptor.extra.get("from")
    details = Details(
        format=text(config, "model_format") or "gguf",
        family=text(config, "model_family"),
        families=tuple(map(str, families)) if isinstance(families, list) else (),
        parameter_size=text(config, "model_type"),
        quantization_level=text(config, "file_type"),
        context_length=context_length if isinstance(context_length, int) else None,
        embedding_length=embedding_length if isinstance(embedding_length, int) else None,
        parent_model=parent if isinstance(parent, str) else "",
    )
    return Stated(
        details=details,
        renderer=text(config, "renderer") or None,
        parser=text(config, "parser") or None,
        requires=text(config, "requires") or None,
    )


READER = Reader(dialect=Dialect.OLLAMA, recognises=_recognises, role_of=_role_of, stated=_stated)
