"""A create request as a Modelfile. Pure. Files come as digests of blobs that were uploaded before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ...modelfile.instructions import (
    Adapter,
    Draft,
    From,
    Instruction,
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
from ...modelfile.validity import flaw_of
from ...oci.building.recipe import is_jinja
from ...oci.digest import Digest
from ...oci.errors import BadDigest, BadReference
from ...oci.gguf.quantisation import Quantisation, parse_quantisation
from ..errors import BadField
from ..field_status import refuse_unsupported
from ..names import Names
from . import schema as schema

DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
"""Ollama writes digests with a colon, and in file names with a dash."""
_ROLES = ("system", "user", "assistant")


def modelfile_of(request: schema.CreateRequest, names: Names) -> Modelfile:
    """The Modelfile that says the same as `request`.

    Raises:
        BadField: it says nothing to build from, names files outside, or asks for what cannot be done.
    """
    refuse_unsupported(request)
    return Modelfile(tuple(_instructions(request, names)))


def quantisation_of(request: schema.CreateRequest) -> Quantisation | None:
    """What the weights shall be quantised to. Raises: UnknownQuantisation, in Ollama's words."""
    given = request.quantize or request.quantization
    return parse_quantisation(given) if given else None


def parse_blob_digest(text: str) -> Digest:
    """Raises: BadField, in Ollama's words."""
    found = DIGEST.fullmatch(text)
    if found is None:
        raise BadField("invalid digest format", field="digest")
    try:
        return Digest.parse(f"sha256:{found[1].lower()}")
    except BadDigest as error:
        raise BadField("invalid digest format", field="digest") from error


def _instructions(request: schema.CreateRequest, names: Names) -> Iterator[Instruction]:
    yield from _sources(request, names)
    yield from (Adapter(ref) for ref in _blobs(request.adapters))
    yield from (Draft(ref) for ref in _blobs(request.draft_files))
    if request.template:
        yield _template(request.template)
    if request.system:
        yield System(request.system)
    if request.renderer:
        yield Renderer(request.renderer)
    if request.parser:
        yield Parser(request.parser)
    if request.requires:
        yield _requires(request.requires)
    yield from _parameters(request.parameters)
    licenses = [request.license] if isinstance(request.license, str) else request.license
    yield from (License(text) for text in licenses)
    yield from (_message(message) for message in request.messages)


def _sources(request: schema.CreateRequest, names: Names) -> Iterator[From]:
    if request.from_:
        try:
            names.parse(request.from_)
        except BadReference as error:
            raise BadField("invalid model name", field="from") from error
        yield From(request.from_)
    elif request.files:
        yield from (From(ref) for ref in _blobs(request.files))
    else:
        raise BadField("neither 'from' or 'files' was specified", field="from")


def _blobs(files: Mapping[str, str]) -> Iterator[str]:
    for path, digest in sorted(files.items()):
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path:
            raise BadField("file path must be relative", field="files")
        yield f"@{parse_blob_digest(digest)}"


def _template(text: str) -> Template:
    from ...modelfile.go_template import BadTemplate, parse_template  # few requests bring one

    if not is_jinja(text):
        try:
            parse_template(text)
        except BadTemplate as error:
            raise BadField(f"template error: {error.message}", field="template") from error
    return Template(text)


def _requires(version: str) -> Requires:
    instruction = Requires(version)
    if flaw_of(instruction) is not None:
        raise BadField("requires must be a valid semver (e.g. 0.14.0)", field="requires")
    return instruction


def _parameters(parameters: Mapping[str, Any]) -> Iterator[Parameter]:
    for name, value in parameters.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, bool):
                yield Parameter(name, "true" if item else "false")
            elif isinstance(item, int | float | str):
                yield Parameter(name, str(item))
            else:
                raise BadField(f"parameters: expected {name} to be a number or a text", field="parameters")


def _message(message: schema.MessageIn) -> Message:
    for role in _ROLES:
        if message.role == role and isinstance(message.content, str):
            return Message(role, message.content)  # type: ignore[arg-type]  # one of the literals
    raise BadField('messages: expected role "system", "user", or "assistant"', field="messages")
