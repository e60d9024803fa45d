"""Which dialect a manifest is in, and what its layers are for.

A dialect is recognised by the manifest alone. Of several files that could be the weights, the choice is: our
annotation, then the dialect's media type, then the file name (``.gguf``, not ``mmproj``), shards in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ..descriptor import Descriptor
from ..encryption.marks import is_encrypted
from ..errors import BadManifest
from ..layer import Layer, Role
from ..manifest import Manifest
from ..media_type import FILEPATH, OCTET_STREAM
from ..store.contents import PackedFile
from . import docker, kit, modelcar, modelpack, ollama
from .dialect import Part, Reader
from .file_role import clean_path, shard_number, stated_path
from .packing import Packing, packing_of

FilesIn: TypeAlias = Callable[[Descriptor], Iterable[PackedFile]]
"""Gives the files that are packed in a layer."""

_READERS = (modelpack.READER, ollama.READER, docker.READER, kit.READER, modelcar.READER)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def reader_of(manifest: Manifest) -> Reader:
    """Raises: BadManifest where it is a dialect that we do not read."""
    for reader in _READERS:
        if reader.recognises(manifest):
            return reader
    stated = manifest.artifact_type or manifest.config.media_type
    raise BadManifest([f"artifacts of type {stated} are not models that can be read"], what="model")


def packed_layers(manifest: Manifest) -> tuple[Descriptor, ...]:
    """The layers that are archives with files of the model in them; none where it is no model, or one that
    must be decrypted first."""
    if is_encrypted(manifest):
        return ()
    try:
        reader = reader_of(manifest)
    except BadManifest:
        return ()
    return tuple(layer for layer in manifest.layers if _is_packed(reader, layer))


def layers_of(manifest: Manifest, files_in: FilesIn) -> tuple[Layer, ...]:
    """The layers with their roles, in the manifest's order, but shards of weights by their number. A file
    that is packed in a layer is a layer of its own here.

    Raises: BadManifest where the manifest is no model; what ``files_in`` raises.
    """
    reader = reader_of(manifest)
    layers = [
        Layer(_role_of(reader, part), part.descriptor, part.path)
        for part in _parts(reader, manifest, files_in)
    ]
    weights = sorted((layer for layer in layers if layer.role is Role.WEIGHTS), key=shard_number)
    if not weights:
        raise BadManifest(["it has no layer with weights in GGUF format"], what="model")
    return (*weights, *(layer for layer in layers if layer.role is not Role.WEIGHTS))


def _role_of(reader: Reader, part: Part) -> Role:
    # An archive that is not unpacked is no file, whatever it is called.
    is_archive = packing_of(part.descriptor.media_type) is not Packing.RAW
    return Role.OTHER if is_archive else reader.role_of(part)


def _is_packed(reader: Reader, layer: Descriptor) -> bool:
    return packing_of(layer.media_type) is not Packing.RAW and reader.unpacks(layer.media_type)


def _parts(reader: Reader, manifest: Manifest, files_in: FilesIn) -> list[Part]:
    parts: list[Part] = []
    for layer in manifest.layers:
        if not _is_packed(reader, layer):
            parts.append(Part(layer, stated_path(layer), layer.media_type))
            continue
        # What a layer takes away is of the layers below it, wherever in the archive it says so.
        for file in sorted(files_in(layer), key=lambda file: not _is_whiteout(file.path)):
            if file.path.startswith(reader.folder):
                parts = _laid_over(parts, file, layer, file.path.removeprefix(reader.folder))
    return parts


def _is_whiteout(path: str) -> bool:
    return path.rpartition("/")[2].startswith(_WHITEOUT)


def _laid_over(parts: list[Part], file: PackedFile, layer: Descriptor, path: str) -> list[Part]:
    """The parts after one more file of an archive: it replaces the one of its path in earlier layers, and a
    whiteout removes what it names. Source: OCI image-spec 1.1, layer.md, whiteouts."""
    folder, slash, name = path.rpartition("/")
    if name == _OPAQUE:
        return [part for part in parts if not part.path.startswith(f"{folder}{slash}")]
    gone = f"{folder}{slash}{name.removeprefix(_WHITEOUT)}"
    kept = [part for part in parts if part.path != gone and not part.path.startswith(f"{gone}/")]
    if _is_whiteout(path) or not clean_path(path):
        return kept
    descriptor = Descriptor(OCTET_STREAM, file.digest, file.size, {FILEPATH: path})
    return [*kept, Part(descriptor, path, layer.media_type)]
