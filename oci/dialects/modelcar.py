"""Modelcars: ordinary container images with a model's files in ``/models``, which any runtime can mount.

Each GGUF file is alone in a layer, so that images share what models share; the small files are in the last
one, with ``model.file``, a link to the first file of the weights. Layers are plain tar archives, the same
bytes every time. They are never stored: the store has the files, and assembles a layer when it is read. What
files are for is said by their names, and the rest in labels.

Read are the images of KServe and of RamaLama (``raw`` and ``car``), too, gzip included.

Source: OCI image-spec 1.1, config.md and layer.md; KServe, "modelcars"; RamaLama, transports/oci.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..canonical import canonical_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..layer import GGUF_KINDS, Layer, Role
from ..manifest import Manifest
from ..media_type import DOCKER_CONFIG, OCI_CONFIG
from ..store import PackedFile, Store
from . import modelpack
from .dialect import Content, Details, Dialect, Part, Reader, Stated, Written, member
from .file_role import role_by_name

FOLDER = "models/"
MODEL_LINK = "model.file"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_LAYER_PREFIXES = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
_LABELS = {"org.containers.type": "ai.image.model.raw"}
"""By which RamaLama knows its own."""


def write(content: Content, store: Store) -> Written:
    """The model as an image. Reads the weights once, unless a layer of them is known already."""
    large = [layer for layer in content.layers if layer.role in GGUF_KINDS]
    small = [layer for layer in content.layers if layer.role not in GGUF_KINDS]
    layers = [_layer(store, [layer]) for layer in large]
    layers.append(_layer(store, small, link=_path(content.layers[0])))
    config = canonical_json(_config(content, [layer.digest for layer in layers]))
    manifest = Manifest.build(
        config=Descriptor(OCI_CONFIG, store.put_bytes(config), len(config)), layers=layers
    )
    return Written(manifest)


def _layer(store: Store, layers: Sequence[Layer], *, link: str = "") -> Descriptor:
    """A tar layer with these files, as the store knows it from now on."""
    files = tuple(PackedFile(FOLDER + _path(layer), layer.digest, layer.size) for layer in layers)
    contents = store.assemble(files, tuple(gaps_around(files, link)))
    return Descriptor(LAYER_TYPE, contents.digest, contents.size)


def _path(layer: Layer) -> str:
    """Flat: llama.cpp finds shards beside each other."""
    return layer.filepath.rpartition("/")[2]


def gaps_around(files: Iterable[PackedFile], link: str) -> Iterator[bytes]:
    """The bytes before, between and behind the files of a layer: headers and padding. ``link`` is where
    MODEL_LINK leads; there is none where it is empty."""
    gap = _header(FOLDER, tarfile.DIRTYPE)
    if link:
        gap += _header(FOLDER + MODEL_LINK, tarfile.SYMTYPE, link=link)
    for file in files:
        yield gap + _header(file.path, tarfile.REGTYPE, size=file.size)
        gap = bytes(-file.size % tarfile.BLOCKSIZE)
    yield gap + bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, *, size: int = 0, link: str = "") -> bytes:
    """The header of an entry of nobody in particular, without time. Sizes from 8 GiB are in a pax record."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    info.mode = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}.get(kind, 0o644)
    return info.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="strict")


def _config(content: Content, diff_ids: Sequence[Digest]) -> dict[str, Any]:
    labels = {**_LABELS, **content.annotations, **modelpack.stated_annotations(content)}
    # Weights run anywhere; but runtimes want a platform, and take this one with a warning at most.
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in diff_ids]},
    }
    return config | ({"created": content.created} if content.created else {})


def _recognises(manifest: Manifest) -> bool:
    return manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG) and any(
        _unpacks(layer.media_type) for layer in manifest.layers
    )


def _role_of(part: Part) -> Role:
    role = role_by_name(part.path)
    return Role.DOC if role is Role.OTHER and _unpacks(part.media_type) and part.path else role


def _unpacks(media_type: str) -> bool:
    return media_type.startswith(_LAYER_PREFIXES)


def _stated(manifest: Manifest, config: Mapping[str, Any], weights: Layer) -> Stated:
    labels = {
        key: value
        for key, value in member(member(config, "config"), "Labels").items()
        if isinstance(value, str) and key not in _LABELS
    }
    parent = modelpack.display_name(labels.get(modelpack.BASE_NAME, ""))
    return modelpack.stated_in(labels, Details(parent_model=parent), {})


READER = Reader(
    dialect=Dialect.MODELCAR,
    recognises=_recognises,
    role_of=_role_of,
    stated=_stated,
    unpacks=_unpacks,
    folder=FOLDER,
)
