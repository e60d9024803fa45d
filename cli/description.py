"""What `show` says about a model: one facet as text, or everything as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..modelfile.errors import UsageError
from .session import Session

if TYPE_CHECKING:
    from ..oci.model import Model


def read(session: Session, name: str) -> Model:
    """The model of that name.

    Raises: BadReference, ModelNotFound, and what `read_model` raises for a manifest it cannot read.
    """
    from ..oci.model import read_model

    return read_model(session.store(), session.resolve(name))
