"""Conversion: the same model as another manifest, in another dialect.

    written = convert(store, manifest, Dialect.DOCKER)

Layers are shared: only a manifest, a config and maybe small layers are made. What a dialect has no place for
is left out, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..modelfile.instructions import Modelfile
from .building.recipe import Base, FromBytes, FromStore, PlannedLayer, Recipe, make_recipe
from .canonical import canonical_json
from .descriptor import Descriptor
from .dialects import docker, kit, modelcar, modelpack, ollama
from .dialects.dialect import Content, Dialect, Written
from .dialects.packing import Packing, packing_of
from .dialects.reading import packed_layers
from .gguf.header import GgufHeader
from .gguf.reader import read_header
from .layer import FIXED_PATHS, Layer, Role
from .manifest import Manifest
from .media_type import CREATED, OCI_CONFIG, OCI_EMPTY, OCTET_STREAM
from .model import Model, read_model
from .store import Store

_WRITERS: Mapping[Dialect, Callable[[Content, Store], Written]] = {
    Dialect.MODELPACK: modelpack.write,
    Dialect.DOCKER: docker.write,
    Dialect.OLLAMA: ollama.write,
    Dialect.KIT: kit.write,
    Dialect.MODELCAR: modelcar.write,
}


def convert(store: Store, manifest: Manifest, dialect: Dialect) -> Written:
    """The model of ``manifest`` in a dialect; as it is, where it is in that already, as we write it. The
    caller holds a lease of the store, or what is made may be swept before it is tagged.

    The same model gives the same manifest, on any machine.

    Raises: BadManifest, BadGguf where it is no model that can be read; NotOneFile where the dialect cannot
        have it; BlobNotFound, DigestMismatch, and what else the store raises.
    """
    model = read_model(store, manifest)
    if model.dialect is dialect and _is_plain(manifest):
        return Written(manifest)
    written = _WRITERS[dialect](content_of(model), store)
    store.put_manifest(written.manifest)
    return replace(written, left_out=(*_not_understood(model), *written.left_out))


def _is_plain(manifest: Manifest) -> bool:
    """Whether nothing would be gained by writing it anew in its own dialect: it has a config, and layers are
    files as they are or, in images, archives that are not compressed."""
    packings = {packing_of(layer.media_type) for layer in packed_layers(manifest)}
    allowed = {Packing.TAR} if manifest.config.media_type == OCI_CONFIG else set()
    return packings <= allowed and manifest.config.media_type != OCI_EMPTY


def _not_understood(model: Model) -> list[str]:
    """What of a model has no meaning here, so that no writer can have it."""
    notes = []
    unknown = [layer for layer in model.of(Role.OTHER) if not layer.filepath or _is_archive(layer)]
    if unknown:
        types = ", ".join(sorted({layer.descriptor.media_type for layer in unknown}))
        notes.append(f"{len(unknown)} layers that are not understood ({types})")
    if len(model.adapters) > 1:
        notes.append(f"all adapters but the last, of {len(model.adapters)}")
    return notes


def _is_archive(layer: Layer) -> bool:
    return packing_of(layer.descriptor.media_type) is not Packing.RAW


def content_of(model: Model) -> Content:
    """All of a model, without the words of its dialect.

    Raises: BadGguf, BlobNotFound, BadManifest, DigestMismatch.
    """
    base = _base(model)
    recipe = make_recipe(Modelfile(()), parts=(), documents=(), base=base)
    content = content_of_recipe(model.store, recipe, base.weights)
    kept = [
        replace(layer, filepath=FIXED_PATHS[Role.MODELFILE], descriptor=_bare(layer))
        for layer in model.of(Role.MODELFILE)
    ]
    stated = model.stated
    return replace(
        content,
        layers=(*content.layers, *kept),
        annotations=stated.labels,
        renderer=stated.renderer,
        parser=stated.parser,
        requires=stated.requires,
        created=model.manifest.annotations.get(CREATED),
    )


def content_of_recipe(store: Store, recipe: Recipe, headers: Sequence[GgufHeader]) -> Content:
    """What a recipe makes, for a writer, without what the recipe says in annotations. Texts of it are stored;
    ``headers`` are those of the weights."""
    return Content(
        layers=tuple(_layer(store, planned) for planned in recipe.layers),
        name=recipe.name,
        license=recipe.license,
        params=recipe.params,
        headers=headers,
        descriptor=recipe.descriptor,
        config=recipe.config,
        annotations={},
    )


def _base(model: Model) -> Base:
    """The model as one that another is built from: what it has is inherited, all of it."""
    measured = (*model.weights, *model.of(Role.PROJECTOR))
    return Base(
        name="",
        digest=model.manifest.digest,
        layers=_with_params(model),
        headers={layer.digest: read_header(model.store.blob_path(layer.digest)) for layer in measured},
        params=model.params(),
    )


def _with_params(model: Model) -> tuple[Layer, ...]:
    """The layers, with all parameters in one of them: a config may have said some."""
    if not model.stated.params:
        return model.layers
    data = canonical_json(model.params())
    descriptor = Descriptor(OCTET_STREAM, model.store.put_bytes(data), len(data))
    others = (layer for layer in model.layers if layer.role is not Role.PARAMS)
    return (*others, Layer(Role.PARAMS, descriptor, FIXED_PATHS[Role.PARAMS]))


def _layer(store: Store, planned: PlannedLayer) -> Layer:
    content = planned.content
    if isinstance(content, FromBytes):
        content = FromStore(store.put_bytes(content.data), len(content.data))
    assert isinstance(content, FromStore)  # files were imported before
    descriptor = Descriptor(OCTET_STREAM, content.digest, content.size, planned.annotations)
    return Layer(planned.role, descriptor, planned.filepath)


def _bare(layer: Layer) -> Descriptor:
    return Descriptor(OCTET_STREAM, layer.digest, layer.size)
