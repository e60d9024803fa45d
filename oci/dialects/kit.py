"""The dialect of KitOps: the Kitfile is the config, and media types say model, part, document, code or data.

Written are raw layers, which KitOps reads from 1.15 on; read are archives, too. Parameters are in the Kitfile
as well; our other texts are parts of the model, with the role in an annotation.

Source: KitOps, pkg/artifact/kitfile.go and pkg/lib/constants/mediatype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..canonical import canonical_json
from ..descriptor import Descriptor
from ..layer import Layer, Role
from ..manifest import Manifest
from ..media_type import CREATED, FILEPATH, ROLE, TITLE
from ..store import Store
from . import modelpack
from .dialect import Content, Details, Dialect, Part, Reader, Stated, Written, member
from .file_role import role_by_name, stated_role

ARTIFACT_TYPE = "application/vnd.kitops.modelkit.manifest.v1+json"
CONFIG_TYPE = "application/vnd.kitops.modelkit.config.v1+json"
_PREFIX = "application/vnd.kitops.modelkit."
_MODEL, _PART, _DOCS = (f"{_PREFIX}{kind}.v1.raw" for kind in ("model", "modelpart", "docs"))
_DOCUMENTS = (Role.LICENSE, Role.README, Role.DOC)


def write(content: Content, store: Store) -> Written:
    """The model as a ModelKit; everything of it has a place."""
    config = canonical_json(_kitfile(content))
    annotations = {**content.annotations, **modelpack.stated_annotations(content)}
    if content.created:
        annotations[CREATED] = content.created
    manifest = Manifest.build(
        config=Descriptor(CONFIG_TYPE, store.put_bytes(config), len(config)),
        layers=[_layer(layer, first=not position) for position, layer in enumerate(content.layers)],
        artifact_type=ARTIFACT_TYPE,
        annotations=annotations,
    )
    return Written(manifest)


def _layer(layer: Layer, *, first: bool) -> Descriptor:
    media_type = _MODEL if first else _DOCS if layer.role in _DOCUMENTS else _PART
    annotations = {
        **layer.descriptor.annotations,
        FILEPATH: layer.filepath,
        TITLE: layer.filepath.rpartition("/")[2],
        ROLE: str(layer.role),
    }
    return Descriptor(media_type, layer.digest, layer.size, annotations)


def _kitfile(content: Content) -> dict[str, Any]:
    first, *others = content.layers
    model: dict[str, Any] = {"name": content.name, "format": "gguf", **_entry(first)}
    model["parts"] = [
        {**_entry(layer), "type": str(layer.role)} for layer in others if layer.role not in _DOCUMENTS
    ]
    if content.params:
        model["parameters"] = dict(content.params)
    package = {"name": content.name} | ({"license": content.license} if content.license else {})
    kitfile: dict[str, Any] = {"manifestVersion": "1.0.0", "package": package, "model": model}
    if documents := content.of(*_DOCUMENTS):
        kitfile["docs"] = [_entry(layer) for layer in documents]
    return kitfile


def _entry(layer: Layer) -> dict[str, str]:
    return {"path": layer.filepath, "digest": str(layer.digest), "diffId": str(layer.digest)}


def _recognises(manifest: Manifest) -> bool:
    return manifest.config.media_type == CONFIG_TYPE


def _role_of(part: Part) -> Role:
    stated = stated_role(part.descriptor)
    if stated is not None:
        return stated
    kind = part.media_type.removeprefix(_PREFIX).partition(".")[0]
    role = role_by_name(part.path)
    if kind in ("code", "dataset"):
        return Role.OTHER
    return Role.DOC if kind == "docs" and role is Role.OTHER else role


def _unpacks(media_type: str) -> bool:
    return media_type.startswith(tuple(f"{_PREFIX}{kind}." for kind in ("model", "modelpart", "docs")))


def _stated(manifest: Manifest, config: Mapping[str, Any], weights: Layer) -> Stated:
    parent = modelpack.display_name(manifest.annotations.get(modelpack.BASE_NAME, ""))
    params = member(member(config, "model"), "parameters")
    return modelpack.stated_in(manifest.annotations, Details(parent_model=parent), params)


READER = Reader(
    dialect=Dialect.KIT, recognises=_recognises, role_of=_role_of, stated=_stated, unpacks=_unpacks
)
