"""How the server runs: one frozen value, made in ``cli/`` and handed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..oci.registry.credentials import Credentials, NoCredentials
from ..oci.registry.settings import RegistrySettings
from ..runtime.settings import RuntimeSettings

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one client may take. Sizes in bytes, times in seconds."""

    body: int = 32 * 1024 * 1024
    header_s: float = 10.0
    """From a connection's start (or the first byte of a later request) to the end of its headers."""
    body_progress_s: float = 30.0
    """Longest silence within a request body."""
    write_stall_s: float = 60.0
    """Longest time that a client may leave its socket full."""
    request_s: float | None = 3600.0
    """Longest time that a model's answer may take, loading and waiting included. None: any."""
    messages: int = 1024
    """Of one conversation, those of earlier responses included."""
    tools: int = 128
    stops: int = 16
    """Texts at which an answer ends, each of at most `stop_length` bytes."""
    stop_length: int = 256
    images: int = 16
    """Of one request, each of at most `image` bytes."""
    image: int = 10 * 1024 * 1024
    choices: int = 8
    """Answers to one prompt."""
    connections: int = 1024
    connections_per_ip: int = 256
    """Loopback is not counted: a proxy on the same machine speaks for many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files in PEM. They are read at the start, and again on SIGHUP."""

    cert: Path
    """The server's certificate, and those between it and its authority."""
    key: Path
    client_ca: Path | None = None
    """Authorities, one of which must have signed a client's certificate. None: clients need none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of the REST server."""

    store_root: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    """0: a free one, which the log names."""
    workers: int = 1
    """Web processes. One serves some 50,000 events a second; models run elsewhere."""
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    preload: tuple[str, ...] = ()
    """Models that are loaded when the server starts, in this order; pinned ones are anyway."""
    origins: tuple[str, ...] = ()
    """Web origins allowed beside those of this machine; one ``*`` in each stands for anything."""
    allowed_hosts: tuple[str, ...] = ()
    """``Host`` names accepted beside this machine's own, while bound to loopback."""
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 60.0
    """How long running answers may take to finish once the server is told to stop."""
    log_level: str = "info"
    access_log: bool = True
    metrics: bool = True
    """Serve figures at ``/metrics``."""
    api_keys: Path | None = None
    """The file of API keys, which need not exist. While there is none, nor `api_key`, nobody needs a key."""
    api_key: str = field(default="", repr=False)
    """One more key, which may do everything. "": there is none."""
    shared_prefixes: bool = False
    """Reuse what was evaluated for one key's prompts for those of others."""
    tls: TlsSettings | None = None
    behind_proxy: bool = False
    """Something in front of the server has TLS and knows the clients' addresses."""
    insecure_no_auth: bool = False
    """Listen to a network without keys or TLS."""
    registry: bool = True
    """Serve the store as a registry at ``/v2/``."""
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    """How ``/api/pull`` and ``/api/push`` reach registries."""
    credentials: Credentials = field(default_factory=NoCredentials)
    """What they log in with."""
