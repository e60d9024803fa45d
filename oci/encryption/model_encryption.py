"""Encrypting the layers of a model, and decrypting them.

    encrypted = encrypt(store, manifest, recipients)      # for a registry that must not read it
    plain = decrypt(store, encrypted, key)                # the manifest that it was made from

Each layer is encrypted with a key of its own, which is wrapped for every recipient and travels in an
annotation; its media type gets the suffix ``+encrypted``. The config stays readable, with all that it says of
the model, digests of its plain layers included. ocicrypt's tools (skopeo, containerd, CRI-O) decrypt it, and
what they encrypt is decrypted here. Source: ocicrypt, encryption.go.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..canonical import canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadDigest, BadJson
from ..manifest import Manifest
from ..progress import Progress, ProgressSink, ignore_progress
from ..signing.key import PublicKey, SigningKey
from ..store import Store
from .errors import BadEncryption, NoKeyFits
from .jwe import MAX_MESSAGE, seal, unseal
from .layer_cipher import KEY_SIZE, NAME, NONCE_SIZE, LayerCipher, LayerKey
from .marks import SUFFIX

ANNOTATIONS = "org.opencontainers.image.enc."
KEYS, PUBLIC = f"{ANNOTATIONS}keys.jwe", f"{ANNOTATIONS}pubopts"

_PIECE = 1 << 20
_MAX_MESSAGES = 64


def encrypt(
    store: Store,
    manifest: Manifest,
    recipients: Sequence[PublicKey],
    *,
    progress: ProgressSink = ignore_progress,
) -> Manifest:
    """The same model with every layer encrypted: another each time. The caller holds a lease of the store, in
    which the new layers take as much room as the old ones.

    Raises: KeyUnfit; BlobNotFound, DiskFull, StoreFailure. What was written by then is swept.
    """
    layers = []
    for layer in manifest.layers:
        if not layer.media_type.endswith(SUFFIX):
            layer = _encrypt_layer(store, layer, recipients, progress)
        layers.append(layer)
    encrypted = _with_layers(manifest, layers)
    store.put_manifest(encrypted)
    return encrypted


def decrypt(
    store: Store, manifest: Manifest, keys: Sequence[SigningKey], *, progress: ProgressSink = ignore_progress
) -> Manifest:
    """The model with its layers as they were. Where `encrypt` has made it from a model that was built here,
    it is that model again, with the same digest. The caller holds a lease of the store.

    Raises: NoKeyFits, BadEncryption; BlobNotFound, DiskFull, StoreFailure. No layer becomes visible that is
        not what was encrypted.
    """
    layers = []
    for layer in manifest.layers:
        if layer.media_type.endswith(SUFFIX):
            layer = _decrypt_layer(store, layer, keys, progress)
        layers.append(layer)
    plain = _with_layers(manifest, layers)
    store.put_manifest(plain)
    return plain


def _encrypt_layer(
    store: Store, layer: Descriptor, recipients: Sequence[PublicKey], progress: ProgressSink
) -> Descriptor:
    secret = LayerKey.generate()
    told = _Told(f"encrypting {layer.digest.short}", layer, progress)
    cipher = LayerCipher(secret, decrypt=False)
    with store.open_blob(layer.digest) as source, store.ingest(None) as ingest:
        while piece := source.read(_PIECE):
            ingest.write(cipher.update(piece))
            told.add(len(piece))
        digest = ingest.commit()
    private = {
        "symkey": _encode(secret.key),
        "digest": str(layer.digest),
        "cipheroptions": {"nonce": _encode(secret.nonce)},
    }
    public = {"cipher": NAME, "hmac": _encode(cipher.mac()), "cipheroptions": {}}
    annotations = {
        **layer.annotations,
        KEYS: _encode(seal(canonical_json(private), recipients)),
        PUBLIC: _encode(canonical_json(public)),
    }
    return Descriptor(layer.media_type + SUFFIX, digest, layer.size, annotations)


def _decrypt_layer(
    store: Store, layer: Descriptor, keys: Sequence[SigningKey], progress: ProgressSink
) -> Descriptor:
    opened = _open(layer, keys)
    annotations = {
        name: value for name, value in layer.annotations.items() if not name.startswith(ANNOTATIONS)
    }
    media_type = layer.media_type.removesuffix(SUFFIX)
    if store.has(opened.digest, layer.size):
        return Descriptor(media_type, opened.digest, layer.size, annotations)
    told = _Told(f"decrypting {layer.digest.short}", layer, progress)
    cipher = LayerCipher(opened.secret, decrypt=True)
    with store.open_blob(layer.digest) as source, store.ingest(None) as ingest:
        while piece := source.read(_PIECE):
            ingest.write(cipher.update(piece))
            told.add(len(piece))
        if not hmac.compare_digest(cipher.mac(), opened.mac):
            raise BadEncryption(str(layer.digest), "its authentication code is wrong")
        # Not compared with the digest that was told: skopeo, when it compresses a layer on the way, tells
        # that of before. The authentication code has the last word for it, too.
        digest = ingest.commit()
    return Descriptor(media_type, digest, layer.size, annotations)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the annotations of a layer say to the holder of a key."""

    secret: LayerKey
    digest: Digest
    mac: bytes


def _open(layer: Descriptor, keys: Sequence[SigningKey]) -> _Opened:
    """Raises: NoKeyFits, BadEncryption."""
    name = str(layer.digest)
    content = _unsealed(layer, keys)
    if content is None:
        raise NoKeyFits(name)
    try:
        private = strict_json(content, what="options", limit=MAX_MESSAGE)
        public = strict_json(_decode(layer.annotations.get(PUBLIC, "")), what="options", limit=MAX_MESSAGE)
        if public["cipher"] != NAME:
            raise BadEncryption(name, f"expected the cipher {NAME}")
        key, nonce = _decode(private["symkey"]), _decode(private["cipheroptions"]["nonce"])
        mac = _decode(public["hmac"])
        if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
            raise BadEncryption(name, "its key has the wrong length")
        return _Opened(LayerKey(key, nonce), Digest.parse(private["digest"]), mac)
    except (BadJson, BadDigest, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadEncryption(name, "its annotations make no sense") from error


def _unsealed(layer: Descriptor, keys: Sequence[SigningKey]) -> bytes | None:
    messages = layer.annotations.get(KEYS, "").split(",")[:_MAX_MESSAGES]
    for text in messages:
        try:
            message = _decode(text)
        except ValueError:
            continue
        for key in keys:
            content = unseal(message, key) if len(message) <= MAX_MESSAGE else None
            if content is not None:
                return content
    return None


def _with_layers(manifest: Manifest, layers: Sequence[Descriptor]) -> Manifest:
    """The manifest with other layers, and all else as it was."""
    value: dict[str, Any] = json.loads(manifest.raw)  # it has been parsed before
    value["layers"] = [layer.to_json() for layer in layers]
    return Manifest.parse(canonical_json(value), media_type=manifest.media_type)


class _Told:
    """Progress of one layer."""

    def __init__(self, status: str, layer: Descriptor, progress: ProgressSink) -> None:
        self._status, self._layer, self._progress = status, layer, progress
        self._done = 0
        self.add(0)

    def add(self, count: int) -> None:
        self._done += count
        self._progress(Progress(self._status, self._layer.digest, self._done, self._layer.size))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    """Raises: ValueError where it is not in base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
