"""A store with real models in it, built as `create` builds them."""

from __future__ import annotations

from pathlib import Path

from lading.modelfile.syntax import parse
from lading.oci.building.build import BuildResult, build
from lading.oci.building.quantising import Quantising
from lading.oci.reference import Reference
from lading.oci.store import Store


class ModelShelf:
    """Builds models into one store. ``folder`` is where Modelfiles find their files."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.store = Store.open(root)

    def create(self, name: str, modelfile: str) -> Reference:
        """Build ``modelfile`` and tag it."""
        reference = Reference.parse(name)
        build(
            parse(modelfile),
            context=self.folder,
            store=self.store,
            reference=reference,
            base=self.store.resolve,
        )
        return reference

    def quantise(self, name: str, modelfile: str, quantising: Quantising) -> BuildResult:
        """Build ``modelfile`` with quantised weights, and tag it."""
        return build(
            parse(modelfile),
            context=self.folder,
            store=self.store,
            reference=Reference.parse(name),
            base=self.store.resolve,
            quantising=quantising,
        )

    def variant(self, source: Path, name: str, old: bytes, new: bytes) -> Path:
        """A copy of a GGUF file in the folder, with one text in its header replaced by another as long."""
        data = source.read_bytes()
        assert len(old) == len(new) and data.count(old) >= 1
        path = self.folder / name
        path.write_bytes(data.replace(old, new, 1))
        return path
