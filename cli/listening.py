"""What `serve` and `registry` have in common: where they listen, and what keeps strangers out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..modelfile.errors import UsageError
from .address import parse_address
from .session import Session
from .settings import Settings, read_settings

if TYPE_CHECKING:
    from ..server.settings import Limits, ServerSettings, TlsSettings

TlsCertOption = Annotated[
    str | None, typer.Option("--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
]
TlsKeyOption = Annotated[
    str | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's private key (PEM).")
]
TlsClientCaOption = Annotated[
    str | None,
    typer.Option("--tls-client-ca", metavar="FILE", help="Take only clients with a certificate of this CA."),
]
BehindProxyOption = Annotated[
    bool, typer.Option("--behind-proxy", help="A proxy in front of the server has TLS.")
]
InsecureNoAuthOption = Annotated[
    bool,
    typer.Option(
        "--insecure-no-auth", help="Listen to a network without keys: whoever reaches it may use it."
    ),
]


def exposure_flags(
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    behind_proxy: bool,
    insecure_no_auth: bool,
) -> dict[str, Any]:
    """The options above as flags that win over settings."""
    return {
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "behind_proxy": True if behind_proxy else None,
        "insecure_no_auth": True if insecure_no_auth else None,
    }


def server_settings(
    session: Session, address: str, flags: Mapping[str, Any], *, default_port: int
) -> ServerSettings:
    """The settings of a server at `address`; `flags` win over what is set elsewhere.

    Raises: BadAddress, UsageError for half a pair of TLS files, BadKeepAlive.
    """
    from ..runtime.keep_alive import parse_keep_alive_setting
    from ..server.settings import ServerSettings

    given = {"debug": session.settings["debug"], **flags}
    settings = read_settings(given, session.settings.environ)
    host, port = parse_address(address, default_port=default_port)
    return ServerSettings(
        store_root=settings.home,
        host=host,
        port=port,
        workers=max(1, settings["workers"]),
        runtime=session.runtime_settings(),
        origins=settings["origins"],
        allowed_hosts=settings["allowed_hosts"],
        limits=_limits(settings),
        drain_s=parse_keep_alive_setting(str(settings["drain"])),
        registries=session.registry_settings(settings["insecure_registries"]),
        credentials=session.credentials(),
        log_level="debug" if settings["debug"] else "info",
        access_log=settings["access_log"],
        metrics=settings["metrics"],
        api_keys=key_file_path(settings),
        api_key=settings["api_key"] or "",
        shared_prefixes=settings["shared_prefixes"],
        tls=_tls(settings),
        behind_proxy=settings["behind_proxy"],
        insecure_no_auth=settings["insecure_no_auth"],
    )


def key_file_path(settings: Settings) -> Path:
    """Where API keys are kept: beside ``config.toml``, unless the settings say otherwise."""
    given = settings["api_keys"]
    return Path(given).expanduser().absolute() if given else settings.config_path.parent / "api-keys.json"


def _limits(settings: Settings) -> Limits:
    from ..runtime.keep_alive import parse_keep_alive_setting
    from ..server.settings import Limits

    return Limits(
        body=settings["max_body"],
        header_s=parse_keep_alive_setting(str(settings["header_timeout"])),
        body_progress_s=parse_keep_alive_setting(str(settings["body_timeout"])),
        write_stall_s=parse_keep_alive_setting(str(settings["write_timeout"])),
        request_s=parse_keep_alive_setting(str(settings["request_timeout"])),
        messages=settings["max_messages"],
        tools=settings["max_tools"],
        stops=settings["max_stops"],
        stop_length=settings["max_stop_length"],
        images=settings["max_images"],
        image=settings["max_image"],
        choices=settings["max_choices"],
        connections=settings["max_connections"],
        connections_per_ip=settings["max_connections_per_ip"],
    )


def _tls(settings: Settings) -> TlsSettings | None:
    from ..server.settings import TlsSettings

    cert, key, client_ca = (settings[name] for name in ("tls_cert", "tls_key", "tls_client_ca"))
    if cert and key:
        return TlsSettings(
            cert=Path(cert).expanduser(),
            key=Path(key).expanduser(),
            client_ca=Path(client_ca).expanduser() if client_ca else None,
        )
    if cert or key or client_ca:
        raise UsageError(
            "setting up TLS: expected both a certificate and its key", hint="--tls-cert and --tls-key"
        )
    return None
