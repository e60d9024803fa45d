"""From instructions and the facts about files to the layers of a model: a pure function, no I/O.

What is inherited from the base model (Ollama's rules):

    weights, projector, adapter, draft   the base's, unless given here
    template, system                     replaced when given; an empty text is not given
    parameters                           merged by name, the new value wins; ``stop`` as one value
    messages                             replaced when any is given
    licences                             the base's, then the new ones
    documents                            the base's, replaced by new ones of the same path
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ...modelfile.instructions import (
    Copy,
    Label,
    License,
    Message,
    Modelfile,
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Template,
)
from ...modelfile.parameters import collect
from ..canonical import canonical_json
from ..dialects import modelpack
from ..digest import Digest
from ..gguf.header import GgufHeader
from ..gguf.type_table import RECURRENT_ARCHITECTURES
from ..layer import FIXED_PATHS, MAX_TEXT_SIZES, Layer, Role
from ..parameter_count import format_parameter_count
from .errors import BuildError

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_SHARD_SUFFIX = re.compile(r"-\d{5}-of-\d{5}$")
_MAX_NAME = 120
_TEXT_ROLES = (Role.TEMPLATE_GO, Role.TEMPLATE_JINJA, Role.SYSTEM, Role.PARAMS, Role.MESSAGES)


@dataclass(frozen=True, slots=True)
class FromBytes:
    """Content that is made here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FromFile:
    """Content of a local file."""

    path: Path


@dataclass(frozen=True, slots=True)
class FromStore:
    """Content that is in the store."""

    digest: Digest
    size: int


Content: TypeAlias = FromBytes | FromFile | FromStore


@dataclass(frozen=True, slots=True)
class GgufPart:
    """A GGUF file that some instruction names: its role, header, content, and the name it came with."""

    role: Role
    header: GgufHeader
    content: FromFile | FromStore
    name: str
    quantized_from: str = ""
    """The annotation: the digests of what it was made from here."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file that COPY names, and where it goes."""

    instruction: Copy
    content: FromFile | FromStore
    target: str

    @property
    def role(self) -> Role:
        """By its name."""
        name = self.target.rpartition("/")[2].lower()
        if self.target == FIXED_PATHS[Role.TEMPLATE_JINJA]:
            return Role.TEMPLATE_JINJA
        if name in ("license", "license.txt", "license.md"):
            return Role.LICENSE
        return Role.README if name in ("readme", "readme.md", "readme.txt") else Role.DOC


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What the base model brings. ``headers`` has those of all its GGUF files."""

    name: str
    digest: Digest
    layers: tuple[Layer, ...]
    headers: Mapping[Digest, GgufHeader]
    params: Mapping[str, Any]
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None

    @property
    def weights(self) -> tuple[GgufHeader, ...]:
        """The headers of its weights, shards in order."""
        return self.headers_of(Role.WEIGHTS)

    def headers_of(self, role: Role) -> tuple[GgufHeader, ...]:
        return tuple(self.headers[layer.digest] for layer in self.layers if layer.role is role)


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer to be. ``annotations`` are those beyond path, title and role."""

    role: Role
    filepath: str
    content: Content
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that the manifest is made of, but for digests and the Modelfile, which are known later."""

    layers: tuple[PlannedLayer, ...]
    name: str
    license: str | None
    params: Mapping[str, Any]
    descriptor: Mapping[str, Any]
    config: Mapping[str, Any]
    annotations: Mapping[str, str]


def make_recipe(
    modelfile: Modelfile, *, parts: Sequence[GgufPart], documents: Sequence[Document], base: Base | None
) -> Recipe:
    """The recipe of the model that ``modelfile`` describes.

    Raises: BuildError where the parts do not make one model; BadParameter.
    """
    gguf, headers = _gguf_layers(modelfile, parts, base)
    jinja = next((each for each in reversed(documents) if each.role is Role.TEMPLATE_JINJA), None)
    texts, params = _text_layers(modelfile, jinja, base)
    plain = [each for each in documents if each.role is not Role.TEMPLATE_JINJA]
    layers = _unique_names([*gguf, *texts, *_documents(modelfile, plain, base)])
    _limit_texts(layers)
    header = headers[0]
    name = _name(header, layers[0].filepath)
    license_ = _text(header, "general.license")
    return Recipe(
        layers=layers,
        name=name,
        license=license_,
        params=params,
        descriptor=_descriptor(header, name, license_),
        config=_config(headers, _projectors(parts, base)),
        annotations=_annotations(modelfile, base),
    )


# GGUF files


def _gguf_layers(
    modelfile: Modelfile, parts: Sequence[GgufPart], base: Base | None
) -> tuple[list[PlannedLayer], Sequence[GgufHeader]]:
    layers: list[PlannedLayer] = []
    weights = [part for part in parts if part.role is Role.WEIGHTS]
    if weights and base is not None:
        names = ", ".join(part.name for part in weights)
        raise BuildError(
            None, f"FROM names both a model ({base.name}) and weights ({names}); one of them goes"
        )
    if weights:
        weights = in_order(weights)
        headers: Sequence[GgufHeader] = [part.header for part in weights]
        paths = _weight_paths(weights)
        layers += [_gguf_layer(part, path) for part, path in zip(weights, paths, strict=True)]
    elif base is not None:
        headers = base.weights
        layers += [
            _inherited(layer, base_weight_path(layer)) for layer in base.layers if _is(layer, Role.WEIGHTS)
        ]
    else:
        raise BuildError(None, "no FROM names the weights of a model")
    facts = {**_lengths(headers[0]), **_origin(weights, base)}
    layers[0] = PlannedLayer(layers[0].role, layers[0].filepath, layers[0].content, facts)
    for role in (Role.PROJECTOR, Role.ADAPTER, Role.DRAFT):
        layers += _single(role, parts, base)
    return layers, headers


def _is(layer: Layer, role: Role) -> bool:
    return layer.role is role


def in_order(weights: list[GgufPart]) -> list[GgufPart]:
    """The shards of one model by number; a single file as it is.

    Raises: BuildError where they are not one model.
    """
    if len(weights) == 1 and weights[0].header.split is None:
        return weights
    if any(part.header.split is None for part in weights):
        names = ", ".join(part.name for part in weights)
        raise BuildError(
            None,
            f"FROM names {len(weights)} models: {names}; expected one",
            hint="name one file in FROM; shards of one model go together",
        )
    count = max(part.header.split[1] for part in weights if part.header.split)
    if len(weights) != count:
        raise BuildError(
            None,
            f"split GGUF has {len(weights)} of its {count} shards",
            hint="name all shards, each in a FROM of its own, or their folder",
        )
    return sorted(weights, key=lambda part: part.header.split or (0, 0))


def _weight_paths(weights: Sequence[GgufPart]) -> list[str]:
    """File names of the weights; shards get llama.cpp's, by which it finds them."""
    stem = file_stem(weights[0].name)
    if "mmproj" in stem.lower():  # readers take such a file for a projector
        stem = "model"
    if len(weights) == 1:
        return [f"{stem}.gguf"]
    stem = _SHARD_SUFFIX.sub("", stem)
    return [f"{stem}-{number:05}-of-{len(weights):05}.gguf" for number in range(1, len(weights) + 1)]


def base_weight_path(layer: Layer) -> str:
    """The file name of weights that a base model brings."""
    return layer.filepath.rpartition("/")[2] or "model.gguf"


def _single(role: Role, parts: Sequence[GgufPart], base: Base | None) -> list[PlannedLayer]:
    """The one layer of ``role``: given here, or the base's."""
    given = [part for part in parts if part.role is role]
    if len(given) > 1:
        names = ", ".join(part.name for part in given)
        raise BuildError(None, f"only one {role} is supported, got {len(given)}: {names}")
    if given:
        return [_gguf_layer(given[0], _part_path(role, given[0].name))]
    inherited = [layer for layer in base.layers if layer.role is role] if base is not None else []
    return [_inherited(layer, _part_path(role, layer.filepath or "model.gguf")) for layer in inherited[-1:]]


def _part_path(role: Role, name: str) -> str:
    if role is not Role.PROJECTOR:
        return FIXED_PATHS[role]
    stem = file_stem(name.rpartition("/")[2])
    return f"{stem}.gguf" if "mmproj" in stem.lower() else f"mmproj-{stem}.gguf"


def _gguf_layer(part: GgufPart, path: str) -> PlannedLayer:
    return PlannedLayer(part.role, path, part.content)


def _lengths(header: GgufHeader) -> dict[str, str]:
    lengths = {
        modelpack.CONTEXT_LENGTH: header.context_length,
        modelpack.EMBEDDING_LENGTH: header.embedding_length,
    }
    return {key: str(value) for key, value in lengths.items() if value is not None}


def _origin(weights: Sequence[GgufPart], base: Base | None) -> dict[str, str]:
    """What the weights were quantised from, now or when the base model was built."""
    if weights:
        found = weights[0].quantized_from
    else:
        inherited = [layer for layer in base.layers if _is(layer, Role.WEIGHTS)] if base is not None else []
        found = inherited[0].descriptor.annotations.get(modelpack.QUANTIZED_FROM, "") if inherited else ""
    return {modelpack.QUANTIZED_FROM: found} if found else {}


def file_stem(name: str) -> str:
    """A file name without ``.gguf``, safe as a file name anywhere: of ``[A-Za-z0-9._+-]``, not hidden."""
    stem = name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
    return _UNSAFE.sub("-", stem).strip("-.")[:_MAX_NAME] or "model"


# texts


def _text_layers(
    modelfile: Modelfile, jinja: Document | None, base: Base | None
) -> tuple[list[PlannedLayer], Mapping[str, Any]]:
    made: dict[Role, Content] = {}
    if base is not None:
        made = {
            each.role: FromStore(each.digest, each.size) for each in base.layers if each.role in _TEXT_ROLES
        }
    _choose_template(made, modelfile, jinja)
    system = modelfile.last(System)
    if system is not None and system.text:
        made[Role.SYSTEM] = FromBytes(system.text.encode())
    given = collect((parameter.name, parameter.value) for parameter in modelfile.all(Parameter))
    params = {**(base.params if base else {}), **given}
    if given:
        made[Role.PARAMS] = FromBytes(canonical_json(params))
    messages = modelfile.all(Message)
    if messages:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        made[Role.MESSAGES] = FromBytes(canonical_json(turns))
    layers = [PlannedLayer(role, FIXED_PATHS[role], made[role]) for role in _TEXT_ROLES if role in made]
    return layers, params


def _choose_template(made: dict[Role, Content], modelfile: Modelfile, jinja: Document | None) -> None:
    """A template that is given replaces the base's, in whichever language that is: the author chose."""
    template = modelfile.last(Template)
    text = template.text if template is not None else ""
    if not text and jinja is None:
        return
    if text and jinja is not None:
        raise BuildError(template, f"there is a template already: {jinja.target} is copied")
    made.pop(Role.TEMPLATE_GO, None)
    made.pop(Role.TEMPLATE_JINJA, None)
    if jinja is not None:
        made[Role.TEMPLATE_JINJA] = jinja.content
    elif is_jinja(text):
        made[Role.TEMPLATE_JINJA] = FromBytes(text.encode())
    else:
        _check_go_template(template, text)
        made[Role.TEMPLATE_GO] = FromBytes(text.encode())


def _check_go_template(instruction: Template | None, text: str) -> None:
    """Refuse now what could never be rendered."""
    from ...modelfile.go_template import BadTemplate, parse_template  # most builds need neither

    try:
        parse_template(text)
    except BadTemplate as error:
        at = error.diagnostic
        reason = f"not a Go template: {at.message} (line {at.span.line}, column {at.span.column} of it)"
        raise BuildError(instruction, reason, hint=error.hint) from error


def _limit_texts(layers: Iterable[PlannedLayer]) -> None:
    """What is made here must be readable later."""
    for layer in layers:
        limit = MAX_TEXT_SIZES.get(layer.role)
        if limit is not None and isinstance(layer.content, FromBytes) and len(layer.content.data) > limit:
            size = len(layer.content.data)
            raise BuildError(None, f"the {layer.role} has {size:,} bytes, expected at most {limit:,}")


def is_jinja(template: str) -> bool:
    """Whether a TEMPLATE is Jinja. Go's templates have no ``{%``."""
    return "{%" in template


def _documents(modelfile: Modelfile, documents: Sequence[Document], base: Base | None) -> list[PlannedLayer]:
    inherited = base.layers if base is not None else ()
    licenses: list[PlannedLayer] = [
        _inherited(layer, "LICENSE") for layer in inherited if _is(layer, Role.LICENSE)
    ]
    known = {layer.content.digest for layer in licenses if isinstance(layer.content, FromStore)}
    for license_ in modelfile.all(License):
        data = license_.text.encode()
        digest = Digest.of(data)
        if license_.text.strip() and digest not in known:
            known.add(digest)
            licenses.append(PlannedLayer(Role.LICENSE, "LICENSE", FromBytes(data)))
    others: dict[str, PlannedLayer] = {
        layer.filepath: _inherited(layer, layer.filepath)
        for layer in inherited
        if layer.role in (Role.README, Role.DOC, Role.OTHER) and layer.filepath and _is_raw(layer)
    }
    for document in documents:
        others[document.target] = PlannedLayer(document.role, document.target, document.content)
    return [*licenses, *(others[path] for path in sorted(others))]


def _is_raw(layer: Layer) -> bool:
    return not layer.descriptor.media_type.endswith((".tar", "+gzip", "+zstd"))


def _inherited(layer: Layer, path: str) -> PlannedLayer:
    return PlannedLayer(layer.role, path, FromStore(layer.digest, layer.size))


def _unique_names(layers: Iterable[PlannedLayer]) -> tuple[PlannedLayer, ...]:
    """The layers, each with a base name of its own: mounts put all files into one folder."""
    used: set[str] = set()
    result = []
    for layer in layers:
        folder, slash, name = layer.filepath.rpartition("/")
        stem, dot, suffix = name.rpartition(".") if "." in name.lstrip(".") else (name, "", "")
        unique, number = name, 1
        while unique.lower() in used:
            number += 1
            unique = f"{stem}-{number}{dot}{suffix}"
        used.add(unique.lower())
        path = f"{folder}{slash}{unique}"
        result.append(PlannedLayer(layer.role, path, layer.content, layer.annotations))
    return tuple(result)


# config and annotations


def _name(header: GgufHeader, path: str) -> str:
    stem = _SHARD_SUFFIX.sub("", file_stem(path.rpartition("/")[2]))
    stated = " ".join((header.name or "").split())
    return stated[:_MAX_NAME] if stated and stated.isprintable() else stem


def _text(header: GgufHeader, key: str) -> str | None:
    value = header.metadata.get(key)
    return value[:_MAX_NAME] if isinstance(value, str) and value and value.isprintable() else None


def _descriptor(header: GgufHeader, name: str, license_: str | None) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"family": header.architecture, "name": name}
    if license_:
        descriptor["licenses"] = [license_]
    return descriptor


def _config(headers: Sequence[GgufHeader], projectors: Sequence[GgufHeader]) -> dict[str, Any]:
    header = headers[0]
    is_embedding = header.pooling_type is not None
    return {
        "architecture": "rnn" if header.architecture in RECURRENT_ARCHITECTURES else "transformer",
        "format": "gguf",
        "paramSize": format_parameter_count(sum(each.parameter_count for each in headers)),
        "quantization": header.file_type or "unknown",
        "capabilities": {
            "inputTypes": ["text", *_media(projectors)],
            "outputTypes": ["embedding"] if is_embedding else ["text"],
        },
    }


def _media(projectors: Sequence[GgufHeader]) -> list[str]:
    """What a model takes beside text: what its projector encodes."""
    encoders = {"image": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
    return [
        name for name, key in encoders.items() if any(each.metadata.get(key) is True for each in projectors)
    ]


def _projectors(parts: Sequence[GgufPart], base: Base | None) -> Sequence[GgufHeader]:
    given = [part.header for part in parts if part.role is Role.PROJECTOR]
    return given or (base.headers_of(Role.PROJECTOR) if base is not None else ())


def _annotations(modelfile: Modelfile, base: Base | None) -> dict[str, str]:
    annotations: dict[str, str] = {}
    for label in modelfile.all(Label):
        if label.name.startswith(modelpack.RESERVED_PREFIXES):
            raise BuildError(label, f"names that begin with {_prefix(label.name)} are reserved")
        annotations[label.name] = label.value
    if base is not None:
        annotations[modelpack.BASE_NAME] = base.name
        annotations[modelpack.BASE_DIGEST] = str(base.digest)
    renderer, parser, requires = modelfile.last(Renderer), modelfile.last(Parser), modelfile.last(Requires)
    for key, given, inherited in (
        (modelpack.RENDERER, renderer.name if renderer else None, base.renderer if base else None),
        (modelpack.PARSER, parser.name if parser else None, base.parser if base else None),
        (modelpack.REQUIRES, requires.version if requires else None, base.requires if base else None),
    ):
        if given or inherited:
            annotations[key] = given or inherited or ""
    return annotations


def _prefix(name: str) -> str:
    return next(prefix for prefix in modelpack.RESERVED_PREFIXES if name.startswith(prefix))
