"""What `show` says about a model: one facet as text, or everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..modelfile.errors import UsageError
from ..oci.gguf.header import GgufArray, Value
from .human import format_size
from .session import Session

if TYPE_CHECKING:
    from ..oci.model import Model
    from ..oci.reference import Reference

SHOWN_LINES = 4
"""Lines of a system prompt or licence that the overview shows."""
SHOWN_VALUE = 60
"""Characters of a metadata value that the long overview shows."""


def describe(session: Session, name: str, facet: str) -> str:
    """One facet of a model as text: ``info``, ``verbose``, ``license``, ``modelfile``, ``parameters``, …

    Raises: BadReference, ModelNotFound; UsageError for an unknown facet; what `read_model` raises.
    """
    if facet not in FACETS:
        raise UsageError(f"showing {facet!r}: expected one of {', '.join(FACETS)}")
    reference = session.reference(name)
    model = _read(session, reference)
    if facet in ("info", "verbose"):
        text = _overview(model, _capabilities(model, reference))
        return text if facet == "info" else f"{text}\n\n{_metadata(model)}"
    return _FACETS[facet](model)


def describe_json(session: Session, name: str) -> dict[str, Any]:
    """Everything that `show` knows, for programs."""
    reference = session.reference(name)
    model = _read(session, reference)
    template = _template(model)
    return {
        "name": session.display(reference),
        "digest": str(model.manifest.descriptor.digest),
        "size": model.size,
        "details": {key: value for key, value in _details(model).items() if value},
        "capabilities": list(_capabilities(model, reference)),
        "parameters": model.params(),
        "system": model.system() or "",
        "template": template,
        "messages": [{"role": message.role, "content": message.content} for message in model.messages()],
        "license": list(model.licenses()),
        "modelfile": model.modelfile() or "",
    }


def _read(session: Session, reference: Reference) -> Model:
    from ..oci.model import read_model

    store = session.store()
    return read_model(store, store.resolve(reference))


def _details(model: Model) -> dict[str, Any]:
    details, header = model.details, model.header()
    return {
        "family": details.family,
        "parameter_size": details.parameter_size,
        "quantization_level": details.quantization_level,
        "context_length": details.context_length or header.context_length,
        "embedding_length": details.embedding_length or header.embedding_length,
        "format": details.format,
        "parent_model": details.parent_model,
    }


def _template(model: Model) -> str:
    template = model.template()
    return template.text if template is not None else model.header().chat_template or ""


def _capabilities(model: Model, reference: Reference) -> tuple[str, ...]:
    from ..runtime.mount import mount_manifest

    return mount_manifest(model.store, reference, model.manifest).facts.capabilities


def _overview(model: Model, capabilities: tuple[str, ...]) -> str:
    details = _details(model)
    rows = [
        ("architecture", details["family"]),
        ("parameters", details["parameter_size"]),
        ("context length", details["context_length"]),
        ("embedding length", details["embedding_length"]),
        ("quantization", details["quantization_level"]),
        ("size", format_size(model.size)),
        ("requires", model.requires),
    ]
    sections = [
        _section("Model", _columns((name, value) for name, value in rows if value)),
        _section("Capabilities", capabilities),
        _section("Projector", _columns(_projector_rows(model))),
        _section("Parameters", _columns(_parameter_rows(model))),
        _section("System", _excerpt(model.system() or "")),
        _section("License", [line for text in model.licenses() for line in _excerpt(text)]),
    ]
    return "\n".join(section for section in sections if section).rstrip("\n")


def _projector_rows(model: Model) -> Iterable[tuple[str, Any]]:
    from ..oci.gguf.reader import read_header

    if model.projector is None:
        return
    header = read_header(model.store.blob_path(model.projector.digest))
    for name, value in (
        ("kind", header.metadata.get("clip.projector_type")),
        ("image size", header.metadata.get("clip.vision.image_size")),
        ("size", format_size(model.projector.size)),
    ):
        if value is not None:
            yield name, value


def _metadata(model: Model) -> str:
    header = model.header()
    metadata = [(key, _short(value)) for key, value in header.metadata.items()]
    tensors = [
        f"{tensor.name:40} {tensor.type.name:8} {'x'.join(map(str, tensor.shape))}"
        for tensor in header.tensors
    ]
    return f"{_section('Metadata', _columns(metadata))}\n{_section('Tensors', tensors)}".rstrip("\n")


def _short(value: Value) -> str:
    text = f"[{value.count} values]" if isinstance(value, GgufArray) else str(value).replace("\n", "\\n")
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"


def _section(title: str, lines: Iterable[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  {title}\n{body}" if body else ""


def _columns(rows: Iterable[tuple[str, Any]]) -> list[str]:
    pairs = [(name, str(value)) for name, value in rows]
    width = max((len(name) for name, _value in pairs), default=0)
    return [f"{name.ljust(width)}    {value}" for name, value in pairs]


def _excerpt(text: str) -> list[str]:
    lines = text.strip().splitlines()
    return [*lines[:SHOWN_LINES], *(["..."] if len(lines) > SHOWN_LINES else [])]


def _parameter_rows(model: Model) -> list[tuple[str, str]]:
    return [
        (name, json.dumps(item, ensure_ascii=False) if isinstance(item, str) else str(item))
        for name, value in sorted(model.params().items())
        for item in (value if isinstance(value, list) else [value])
    ]


_FACETS: dict[str, Callable[[Model], str]] = {
    "license": lambda model: "\n".join(model.licenses()),
    "modelfile": lambda model: (model.modelfile() or "").rstrip("\n"),
    "parameters": lambda model: "\n".join(_columns(_parameter_rows(model))),
    "system": lambda model: model.system() or "",
    "template": _template,
    "messages": lambda model: "\n".join(f"{message.role}: {message.content}" for message in model.messages()),
}
FACETS = ("info", "verbose", *_FACETS)
"""What can be asked for."""
