"""What differs between two models: layers, parameters, texts, and what the weights say about themselves.

Weights are compared by digest and by header, never tensor by tensor: both headers are read in milliseconds,
whatever the size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digest import Digest
from .gguf.reader import BadGguf, GgufArray, GgufHeader, Value, read_array, read_header
from .layer import Layer, Role
from .model import Model

_SHORT = 16
"""Values of an array that are shown one by one."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A layer that is not the same in both; ``before`` or ``after`` is None where it is in one only."""

    role: Role
    path: str
    before: Digest | None
    after: Digest | None


@dataclass(frozen=True, slots=True)
class Change:
    """A value that is not the same in both, as JSON; None where it is not there."""

    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that differs. ``metadata`` and ``tensors`` are of the weights' headers (of the first shard): empty
    where the weights are the same, None where they cannot be compared because one is no GGUF file."""

    layers: tuple[LayerChange, ...]
    shared: int
    """Bytes of the layers that both have."""
    details: Mapping[str, Change]
    parameters: Mapping[str, Change]
    texts: Mapping[str, Change]
    metadata: Mapping[str, Change] | None
    tensors: Mapping[str, Change] | None

    @property
    def same(self) -> bool:
        """Whether the two hold the same; their names, and how they are written down, may differ."""
        return not (self.layers or self.details or self.parameters or self.texts)


def compare(before: Model, after: Model) -> Comparison:
    """Raises: what reading a model raises (BadManifest, BlobNotFound, DigestMismatch)."""
    metadata, tensors = _compare_weights(before, after)
    theirs = {layer.digest for layer in after.layers}
    return Comparison(
        layers=_layer_changes(before, after),
        shared=sum({layer.digest: layer.size for layer in before.layers if layer.digest in theirs}.values()),
        details=_changes(_details(before), _details(after)),
        parameters=_changes(before.params(), after.params()),
        texts=_changes(_texts(before), _texts(after)),
        metadata=metadata,
        tensors=tensors,
    )


def _layer_changes(before: Model, after: Model) -> tuple[LayerChange, ...]:
    """Layers are paired by role, and within one role by their order."""
    first, second = _by_place(before), _by_place(after)
    found = []
    for place in [*first, *(place for place in second if place not in first)]:
        old, new = first.get(place), second.get(place)
        if old is not None and new is not None and old.digest == new.digest:
            continue
        path = next(layer.filepath for layer in (new, old) if layer is not None)
        found.append(LayerChange(place[0], path, old.digest if old else None, new.digest if new else None))
    return tuple(found)


def _by_place(model: Model) -> dict[tuple[Role, int], Layer]:
    seen: Counter[Role] = Counter()
    found: dict[tuple[Role, int], Layer] = {}
    for layer in model.layers:
        found[layer.role, seen[layer.role]] = layer
        seen[layer.role] += 1
    return found


def _details(model: Model) -> dict[str, Any]:
    try:
        details = model.details
    except BadGguf:
        return {}
    return {
        "family": details.family or None,
        "parameter_size": details.parameter_size or None,
        "quantization_level": details.quantization_level or None,
        "context_length": details.context_length,
        "embedding_length": details.embedding_length,
    }


def _texts(model: Model) -> dict[str, str | None]:
    template = model.template()
    messages = "\n".join(f"{message.role}: {message.content}" for message in model.messages())
    return {
        "template": template.text if template is not None else None,
        "system": model.system(),
        "messages": messages or None,
        "license": "\n".join(model.licenses()) or None,
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    """What differs, by name. `1` and `1.0` are the same, and so they are for a model."""
    return {
        name: Change(before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def _compare_weights(
    before: Model, after: Model
) -> tuple[Mapping[str, Change] | None, Mapping[str, Change] | None]:
    if before.weights[0].digest == after.weights[0].digest:
        return {}, {}
    paths = [model.store.blob_path(model.weights[0].digest) for model in (before, after)]
    try:
        old, new = (read_header(path) for path in paths)
    except BadGguf:
        return None, None
    return _metadata(old, new, paths[0], paths[1]), _changes(_tensors(old), _tensors(new))


def _metadata(old: GgufHeader, new: GgufHeader, old_path: Path, new_path: Path) -> dict[str, Change]:
    found: dict[str, Change] = {}
    for key in sorted({*old.metadata, *new.metadata}):
        before, after = old.metadata.get(key), new.metadata.get(key)
        if isinstance(before, GgufArray) and isinstance(after, GgufArray):
            same = (before.element_type, before.count) == (after.element_type, after.count) and (
                read_array(old_path, before) == read_array(new_path, after)
            )
        else:
            same = repr(before) == repr(after)  # of one type, and NaN is like NaN
        if not same:
            found[key] = Change(_json(before), _json(after))
    return found


def _tensors(header: GgufHeader) -> dict[str, str]:
    return {
        tensor.name: f"{tensor.type.name} {'x'.join(map(str, tensor.shape))}" for tensor in header.tensors
    }


def _json(value: Value | None) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, GgufArray):
        return value
    if value.values is not None and value.count <= _SHORT:
        return list(value.values)
    return {"type": value.element_type.name.lower(), "count": value.count}
