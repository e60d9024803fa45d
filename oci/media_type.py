"""Media types, artifact types and annotation keys of the envelope.

What a layer *means* (weights, template, licence …) is the business of the dialects; here is only what
every artifact has. Source: OCI image-spec 1.1; Docker image manifest version 2 schema 2.
"""

from __future__ import annotations

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCTET_STREAM = "application/octet-stream"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})

REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"

VENDOR = "org.lading."
"""The prefix of every annotation that is ours."""

CHECKSUM = VENDOR + "checksum"
"""On a store's ``index.json`` itself: the digest of its canonical form without this annotation."""

MODIFIED = VENDOR + "modified"
"""On an entry of a store's ``index.json``: when the tag was last set, RFC 3339 in UTC."""

ROLE = VENDOR + "role"
"""On a layer: what it is for."""

FILEPATH = "org.cncf.model.filepath"
"""On a layer: where its file belongs. Source: CNCF model-spec, docs/annotations.md."""
