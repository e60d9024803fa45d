"""What one command works with: the settings, and from them the store, references and registry client.

Heavy parts are imported when first asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..modelfile.errors import LadingError
from ..oci.reference import Reference
from ..oci.store import Store
from .settings import Settings

if TYPE_CHECKING:
    from ..oci.manifest import Manifest
    from ..oci.registry import RegistryClient
    from ..oci.registry_settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    settings: Settings

    def store(self) -> Store:
        """The local store, created on first use.

        Raises: an error of `Store.open` where the folder cannot be one.
        """
        return Store.open(self.settings.home)

    def reference(self, text: str) -> Reference:
        """``text`` as a reference, completed by the default registry and namespace.

        Raises: BadReference.
        """
        return Reference.parse(
            text,
            default_registry=self.settings["registry"],
            default_namespace=self.settings["namespace"],
        )

    def resolve(self, text: str) -> Manifest:
        """The manifest of a model that is in the store.

        Raises: BadReference, ModelNotFound.
        """
        return self.store().resolve(self.reference(text))

    def registry_client(self, *, insecure: bool = False, reference: Reference | None = None) -> RegistryClient:
        """A client for registries; ``insecure`` allows plain HTTP to the registry of ``reference``."""
        from ..oci.registry import RegistryClient

        settings = self.registry_settings()
        if insecure and reference is not None:
            settings = replace(settings, plain_http=(*settings.plain_http, reference.registry))
        return RegistryClient(settings, self._credentials())


def session_of(context: typer.Context) -> Session:
    """The session that the application's callback has put into ``context``."""
    return cast(Session, context.find_root().obj)


def complete_model(incomplete: str) -> list[str]:
    """Names of local models that begin with ``incomplete``, for the shell; nothing when the store is unreadable."""
    from .settings import read_settings

    try:
        tags = Session(read_settings()).store().tags()
    except LadingError:
        return []
    return [name for tag in tags if (name := tag.reference.display).startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name.", autocompletion=complete_model)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", "--plain-http", help="Allow plain HTTP to this registry.")
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="FORM", help="table, json, or a template such as '{{.name}}'.")
]

Register = Callable[[typer.Typer], None]
