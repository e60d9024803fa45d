"""What the store holds, as the APIs list and show it. Synchronous: call it in a thread.

Facts of a model never change (they are those of its manifest's digest), so they are read once and kept.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..modelfile.errors import LadingError
from ..oci.digest import Digest
from ..oci.gguf.reader import GgufArray, GgufHeader, Value, read_array, read_header
from ..oci.model import Model, read_model
from ..oci.signing.attachment_tag import forget_attachments, is_attachment_tag
from ..oci.store import Store, SweepPolicy, TaggedManifest
from ..runtime.mount import mount
from .names import Names
from .native import schema as schema
from .native.parameter_text import parameter_text
from .wire import rfc3339_of

SHORT_ARRAY = 5
"""Longest array of metadata that is shown without being asked for."""
UPLOAD_GRACE_S = 3600.0
"""A blob uploaded for a later request is not swept for so long."""
_KEPT_FACTS = 1024

log = logging.getLogger("lading.catalogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What listings say of one manifest."""

    size: int
    details: schema.Details
    capabilities: tuple[str, ...]


_NOTHING_KNOWN = ModelFacts(
    size=0,
    details=schema.Details(
        parent_model="", format="", family="", families=[], parameter_size="", quantization_level=""
    ),
    capabilities=(),
)


class Catalogue:
    """Lists, shows, renames and removes models. Thread-safe."""

    def __init__(self, store: Store, names: Names) -> None:
        self._store = store
        self._names = names
        self._facts: OrderedDict[Digest, ModelFacts] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: str) -> TaggedManifest:
        """Raises: BadReference, ModelNotFound."""
        return self._store.find(self._names.parse(name))

    def listing(self) -> list[tuple[TaggedManifest, ModelFacts]]:
        """Every model, the latest first. Of a damaged one little is said; it can still be removed."""
        rows = []
        for tagged in self._store.tags():
            if is_attachment_tag(tagged.reference.tag):
                continue  # a signature is no model
            try:
                facts = self.facts(tagged)
            except LadingError as error:
                log.warning("a damaged model is listed: %s: %s", tagged.reference, error)
                facts = _NOTHING_KNOWN
            rows.append((tagged, facts))
        return rows

    def tags(self) -> schema.TagsAnswer:
        rows = []
        for tagged, facts in self.listing():
            name = self._names.short(tagged.reference)
            rows.append(
                schema.TagRow(
                    name=name,
                    model=name,
                    modified_at=rfc3339_of(tagged.modified),
                    size=facts.size,
                    digest=tagged.descriptor.digest.hex,
                    details=facts.details,
                    capabilities=list(facts.capabilities),
                )
            )
        return schema.TagsAnswer(models=rows)

    def show(self, request: schema.ShowRequest) -> schema.ShowAnswer:
        """Raises: BadReference, ModelNotFound, BadManifest, BadGguf."""
        tagged = self.find(request.model_name)
        facts = self.facts(tagged)
        model = read_model(self._store, self._store.resolve(tagged.reference))
        header = model.header()
        template = model.template()
        name = self._names.short(tagged.reference)
        return schema.ShowAnswer(
            license="\n".join(model.licenses()),
            modelfile=_modelfile(model, name),
            parameters=parameter_text(model.params() | request.options),
            template=template.text if template is not None else header.chat_template or "{{ .Prompt }}",
            system=request.system or model.system() or "",
            details=facts.details,
            messages=[schema.RoleAndContent(turn.role, turn.content) for turn in model.messages()],
            model_info=self._model_info(model, header, name, verbose=request.verbose),
            projector_info=self._projector_info(model, verbose=request.verbose),
            tensors=[
                schema.TensorRow(tensor.name, tensor.type.name, list(tensor.shape))
                for tensor in header.tensors
            ],
            capabilities=list(facts.capabilities),
            modified_at=rfc3339_of(tagged.modified),
            requires=model.requires or "",
        )

    def copy(self, source: str, destination: str) -> None:
        """Give a model another name; nothing else is copied. Raises: BadReference, ModelNotFound."""
        target = self._names.parse(destination)
        self._store.tag(target, self.find(source).descriptor)

    def delete(self, name: str) -> int:
        """Forget a name and free what nothing else needs; how many bytes that was.

        Raises: BadReference, ModelNotFound.
        """
        gone = self._store.untag(self.find(name).reference)
        forget_attachments(self._store, gone.reference, gone.descriptor.digest)
        try:
            return self._store.gc(policy=SweepPolicy(grace_s=UPLOAD_GRACE_S)).freed
        except LadingError as error:  # the name is gone, as was asked; `lading gc` can free the rest
            log.warning("freeing blobs after a delete: %s", error)
            return 0

    def facts(self, tagged: TaggedManifest) -> ModelFacts:
        """Raises: BadManifest, BadGguf, BlobNotFound, …"""
        digest = tagged.descriptor.digest
        with self._lock:
            if digest in self._facts:
                self._facts.move_to_end(digest)
                return self._facts[digest]
        facts = self._read_facts(tagged)
        with self._lock:
            self._facts[digest] = facts
            while len(self._facts) > _KEPT_FACTS:
                self._facts.popitem(last=False)
        return facts

    def _read_facts(self, tagged: TaggedManifest) -> ModelFacts:
        model = read_model(self._store, self._store.resolve(tagged.reference))
        details = model.details
        return ModelFacts(
            size=model.size,
            details=schema.Details(
                parent_model=details.parent_model,
                format=details.format,
                family=details.family,
                families=list(details.families),
                parameter_size=details.parameter_size,
                quantization_level=details.quantization_level,
                context_length=details.context_length or 0,
                embedding_length=details.embedding_length or 0,
            ),
            capabilities=mount(self._store, tagged.reference).facts.capabilities,
        )

    def _model_info(self, model: Model, header: GgufHeader, name: str, *, verbose: bool) -> dict[str, Any]:
        path = self._store.blob_path(model.weights[0].digest)
        values: dict[str, Value] = {**header.metadata}
        for left_out in ("general.name", "tokenizer.chat_template"):
            values.pop(left_out, None)
        # Clients take the first key that contains "context_length"; VS Code shows the base name.
        architecture = header.architecture or ""
        first = ("general.architecture", "general.basename", f"{architecture}.context_length")
        values.setdefault("general.basename", header.name or name.partition(":")[0])
        values.setdefault("general.parameter_count", header.parameter_count)
        ordered = [key for key in first if key in values] + [key for key in values if key not in first]
        return {key: _json_value(values[key], path, verbose=verbose) for key in ordered}

    def _projector_info(self, model: Model, *, verbose: bool) -> dict[str, Any]:
        if model.projector is None:
            return {}
        path = self._store.blob_path(model.projector.digest)
        metadata: Mapping[str, Value] = read_header(path).metadata
        return {key: _json_value(value, path, verbose=verbose) for key, value in metadata.items()}


def _json_value(value: Value, path: Any, *, verbose: bool) -> Any:
    if not isinstance(value, GgufArray):
        return value
    if value.count > SHORT_ARRAY and not verbose:
        return []
    return list(read_array(path, value))


def _modelfile(model: Model, name: str) -> str:
    """The Modelfile, headed by how to build on the model."""
    head = (
        '# Modelfile generated by "lading show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {name}\n\n"
    )
    return head + (model.modelfile() or f"FROM {name}\n")
