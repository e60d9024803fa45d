"""What one command works with: the settings, and from them the store, references and registry client.

Heavy parts are imported when first asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..modelfile.errors import LadingError
from ..oci.reference import Reference
from ..oci.signing.attachment_tag import is_attachment_tag
from ..oci.store import Store
from .settings import Settings

if TYPE_CHECKING:
    from ..oci.manifest import Manifest
    from ..oci.registry.client import RegistryClient
    from ..oci.registry.credentials import CredentialFiles, Credentials
    from ..oci.registry.settings import RegistrySettings
    from ..oci.signing.policy import SignaturePolicy
    from ..runtime.settings import RuntimeSettings
    from .client import ServerClient


COMPLETION_VARIABLE = "_LADING_COMPLETE"
"""Set by the shell's completion script when it asks for candidates."""


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

    def display(self, reference: Reference) -> str:
        """The shortest name that `reference` reads back as the same model."""
        return reference.shortened(self.settings["registry"], self.settings["namespace"])

    def runtime_settings(self) -> RuntimeSettings:
        """How this machine runs models.

        Raises: BadKeepAlive for a duration that cannot be read.
        """
        from ..runtime.keep_alive import parse_keep_alive_setting
        from ..runtime.settings import RuntimeSettings

        settings = self.settings
        return RuntimeSettings(
            num_parallel=settings["num_parallel"],
            context_length=settings["context_length"],
            keep_alive_s=parse_keep_alive_setting(str(settings["keep_alive"])),
            max_queue=settings["max_queue"],
            max_loaded_models=settings["max_loaded_models"],
            memory_budget=settings["memory"],
            load_timeout_s=parse_keep_alive_setting(str(settings["load_timeout"])),
            kv_cache_type=settings["kv_cache_type"],
            flash_attention=settings["flash_attention"],
            threads=settings["threads"],
            signatures=self.signature_policy(),
            prefix_cache_dir=settings.cache / "prefixes",
            prefix_cache_bytes=settings["prefix_cache"],
        )

    def server_client(self) -> ServerClient:
        """The way to the server of the settings, with the key and the certificate for it.

        Raises: BadAddress.
        """
        from .client import ServerClient

        settings = self.settings
        paths = {
            name: Path(settings[name]).expanduser() if settings[name] else None
            for name in ("ca_file", "client_cert", "client_key")
        }
        return ServerClient.at(settings["host"], api_key=settings["api_key"] or "", **paths)

    def given(self, **flags: object) -> Session:
        """This session with settings that the command's own flags give; None means not given.

        Raises: BadSetting.
        """
        return replace(self, settings=self.settings.given(**flags))

    def registry_client(
        self, *, insecure: bool = False, reference: Reference | None = None, host: str | None = None
    ) -> RegistryClient:
        """A client for registries; ``insecure`` allows plain HTTP to the registry of ``reference``, or to
        ``host``."""
        from ..oci.registry.client import RegistryClient

        plain_http = tuple(self.settings["insecure_registries"])
        if insecure and (allowed := host or (reference.registry if reference else None)):
            plain_http = (*plain_http, allowed)
        return RegistryClient(self.registry_settings(plain_http), self.credentials())

    def credentials(self) -> Credentials:
        """Where credentials for registries come from, and the token for Hugging Face's Hub."""
        from ..oci.registry.hub_credentials import HubCredentials
        from ..oci.registry.origin import Origin

        read = self.settings.read
        home = Path(read("HF_HOME") or Path(read("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
        return HubCredentials(
            host=Origin.of(self.settings["hub"]).netloc,
            token=read("HF_TOKEN"),
            path=Path(read("HF_TOKEN_PATH") or home / "token").expanduser(),
            others=self.credential_files(),
        )

    def registry_settings(self, plain_http: tuple[str, ...] = ()) -> RegistrySettings:
        """How registries are reached; ``plain_http`` lists hosts that are spoken to without TLS."""
        from ..oci.registry.certificates import default_folders
        from ..oci.registry.settings import RegistrySettings

        proxies = {
            scheme: url
            for scheme in ("http", "https")
            if (url := self._read_either_case(f"{scheme.upper()}_PROXY")) is not None
        }
        settings = self.settings
        ca_file, cert_dir = settings["ca_file"], settings["cert_dir"]
        own_folder = (Path(cert_dir).expanduser(),) if cert_dir else ()
        return RegistrySettings(
            plain_http=plain_http,
            signatures=self.signature_policy(),
            ca_file=Path(ca_file).expanduser() if ca_file else None,
            certificate_folders=(*own_folder, *default_folders(settings.environ, Path.home())),
            mirrors=settings["mirrors"],
            hub=settings["hub"],
            realm_hosts=settings["token_services"],
            upload_hosts=settings["upload_hosts"],
            internal_hosts=settings["internal_registries"],
            parallel=settings["parallel"],
            download_rate=settings["max_download_rate"],
            upload_rate=settings["max_upload_rate"],
            proxies=proxies,
            no_proxy=tuple(
                filter(None, (self._read_either_case("NO_PROXY") or "").replace(" ", "").split(","))
            ),
        )

    def signature_policy(self) -> SignaturePolicy:
        """Which models must be signed, and by whom.

        Raises: BadPolicy, and what `read_signature_policy` raises.
        """
        from .policy import read_signature_policy

        return read_signature_policy(self.settings)

    def credential_files(self) -> CredentialFiles:
        """The files in which Docker and Podman keep credentials; a login is written to the first."""
        from ..oci.registry.credential_helper import HelperSettings
        from ..oci.registry.credentials import CredentialFiles, default_files

        environ = self.settings.environ
        helpers = HelperSettings(
            environment=environ, search_path=environ.get("PATH") or HelperSettings().search_path
        )
        return CredentialFiles(paths=default_files(environ, Path.home()), helpers=helpers)

    def _read_either_case(self, variable: str) -> str | None:
        return self.settings.read(variable) or self.settings.read(variable.lower())


def session_of(context: typer.Context) -> Session:
    """The session that the application's callback has put into ``context``."""
    return cast(Session, context.find_root().obj)


def complete_model(incomplete: str) -> list[str]:
    """Names of local models that begin with ``incomplete``; nothing when the store is unreadable."""
    from .settings import read_settings

    try:
        session = Session(read_settings())
        tags = session.store().tags()
    except LadingError:
        return []
    names = (session.display(tag.reference) for tag in tags if not is_attachment_tag(tag.reference.tag))
    return [name for name in names if name.startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name.", autocompletion=complete_model)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", "--plain-http", help="Allow plain HTTP to this registry.")
]
ParallelOption = Annotated[
    int | None, typer.Option("--parallel", metavar="N", help="Connections that move data at once.")
]
LimitRateOption = Annotated[
    str | None, typer.Option("--limit-rate", metavar="RATE", help="Bytes a second at most: 10MB, 500KiB.")
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="FORM", help="table, json, or a template such as '{{.name}}'.")
]
