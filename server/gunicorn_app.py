"""Starting the server: gunicorn's master, its web workers, and the keeper beside them.

    master ── web workers (Falcon; stateless)
          └── arbiter ── keeper ── runners

`serve` blocks. Everything that can be refused (the address, the store) is refused before a process is
started.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from .. import __version__
from ..modelfile.errors import LadingError, ResourceError
from ..oci.store import Store
from ..runtime.inference import Inference
from ..runtime.socket_dir import SocketDir
from . import health, interrupt, metrics
from .access.allowance import Allowances
from .access.exposure import require_protection
from .access.gate import Gate
from .access.key_ring import KeyRing
from .access.tenant import current_tenant
from .app import create_app
from .body_limit import BodyLimit
from .catalogue import Catalogue
from .content_coding import Compression
from .guard import Application, Guard
from .keeper import app as keeper_app
from .keeper.client import KeeperClient
from .log import ServerLogger
from .master import Master
from .metrics import Metrics
from .names import Names
from .origin import HostRules, OriginRules
from .registry.names import RegistryNames
from .registry.routes import create_registry_app
from .services import Services
from .settings import Limits, ServerSettings
from .tls import server_context
from .web_worker import GuardedWorker

BACKLOG = 2048
_KEEPALIVE_S = 5
_HEARTBEAT_S = 60
_SHM = Path("/dev/shm")

log = logging.getLogger("lading.server")


class PortInUse(ResourceError):
    """Another program listens there."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"listening on {host}:{port}: the port is in use",
            hint="stop the other server, or choose another port",
        )
        self.host, self.port = host, port


class CannotListen(ResourceError):
    """The address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"listening on {host}:{port}: {reason}", hint="choose an address of this machine")
        self.host, self.port = host, port


def serve(settings: ServerSettings) -> None:
    """Run the server until it is told to stop; then leave by SystemExit.

    Raises: PortInUse, CannotListen, NotAStore, BadRuntimeDir, Exposed, BadCertificate, BadKeyFile, BadKey;
        nothing has been started then.
    """
    require_protection(settings)
    tls = None if settings.tls is None else server_context(settings.tls)
    Store.open(settings.store_root)
    listener = listen(settings.host, settings.port)
    sockets = SocketDir.open(settings.runtime.runtime_dir)
    keeper_socket = sockets.path / "keeper.sock"
    keeper_app.KeeperApp.configure(settings, keeper_socket)
    master = os.getpid()
    try:
        _Gunicorn(settings, listener, tls, lambda: web_app(settings, keeper_socket), keeper_socket).run()
    finally:
        if os.getpid() == master:  # the processes that gunicorn forks come through here as well
            sockets.close()


def serve_registry(settings: ServerSettings, names: RegistryNames, *, read_only: bool = False) -> None:
    """Serve the store as an OCI registry and nothing else. Blocks and raises as `serve`."""
    require_protection(settings)
    tls = None if settings.tls is None else server_context(settings.tls)
    Store.open(settings.store_root)
    listener = listen(settings.host, settings.port)

    def make_app() -> Application:
        app = create_registry_app(Store.open(settings.store_root), read_only=read_only, names=names)
        app.add_route("/livez", health.Live())
        return _guarded(app, settings)

    _Gunicorn(settings, listener, tls, make_app, None).run()


def web_app(settings: ServerSettings, keeper_socket: Path) -> Application:
    """The application of one web worker."""
    store = Store.open(settings.store_root)
    names = Names(settings.runtime.default_registry, settings.runtime.default_namespace)
    keeper = KeeperClient(keeper_socket)
    inference = Inference(keeper, tenant=_everybody if settings.shared_prefixes else current_tenant)
    figures = Metrics(_metrics_folder(keeper_socket), names) if settings.metrics else None
    services = Services(
        settings=settings,
        store=store,
        inference=inference,
        keeper=keeper,
        catalogue=Catalogue(store, names),
        names=names,
        version=__version__,
    )
    app = create_app(services, figures)
    app.add_middleware(_Lifespan(keeper, inference))
    return _guarded(app, settings, figures)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Bound here and not by gunicorn, which would retry for seconds and then only log.

    Raises: PortInUse, CannotListen.
    """
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(info[0], info[1])
    except OSError as error:
        raise CannotListen(host, port, error.strerror or str(error)) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from error
        raise CannotListen(host, port, error.strerror or str(error)) from error
    return listener


class _Lifespan:
    """What happens in each web worker when it starts and when it ends."""

    def __init__(self, keeper: KeeperClient, inference: Inference) -> None:
        self._keeper = keeper
        self._inference = inference

    async def process_startup(self, scope: Any, event: Any) -> None:
        self._keeper.attach()

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        await self._inference.aclose()
        await self._keeper.aclose()


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, configured from our settings; it reads no file, no environment and no command line."""

    def __init__(
        self,
        settings: ServerSettings,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        make_app: Callable[[], Application],
        keeper_socket: Path | None,
    ) -> None:
        """`keeper_socket`: where the keeper is to listen; None: there is none."""
        self._settings = settings
        self._address = listener.getsockname()
        self._fd = listener.detach()  # gunicorn closes it
        self.tls = tls
        """What every worker serves with; those of later generations inherit it by fork."""
        self._make_app = make_app
        self._keeper_socket = keeper_socket
        super().__init__()

    @property
    def limits(self) -> Limits:
        """Read by `GuardedWorker`."""
        limits = self._settings.limits
        if self._settings.behind_proxy:  # whose address stands for everybody's
            return replace(limits, connections_per_ip=limits.connections)
        return limits

    def reload(self) -> None:
        """On SIGHUP: a certificate that was renewed counts for new connections. One that cannot be used does
        not: the old one goes on."""
        if self._settings.tls is not None:
            try:
                self.tls = server_context(self._settings.tls)
            except LadingError as error:
                log.error("the certificate stays as it was: %s", error.message)
        super().reload()

    def run(self) -> None:
        """Does not return. Without gunicorn's way of telling RuntimeErrors, which has no place in a log."""
        Master(self).run()

    def load(self) -> Application:
        return self._make_app()

    def load_config(self) -> None:
        settings = self._settings
        drain_s = max(1, round(settings.drain_s))
        values: dict[str, Any] = {
            "bind": f"fd://{self._fd}",
            "workers": settings.workers,
            "worker_class": GuardedWorker,
            "asgi_loop": "uvloop",
            "asgi_lifespan": "on",
            # A client that leaves cancels its request at once; nothing here needs time to say goodbye.
            "asgi_disconnect_grace_period": 0,
            "timeout": _HEARTBEAT_S,
            "graceful_timeout": drain_s,
            "keepalive": _KEEPALIVE_S,
            "limit_request_line": 4094,
            "limit_request_fields": 64,
            "limit_request_field_size": 8190,
            "header_map": "refuse",
            "control_socket_disable": True,
            "umask": _umask(),
            "logger_class": ServerLogger,
            "loglevel": settings.log_level,
            # Unique: gunicorn kills the arbiter of an earlier server of the same name as an orphan.
            "proc_name": f"lading-{self._address[1]}-{os.getpid()}",
            "when_ready": self._announce,
        }
        if _SHM.is_dir():
            values["worker_tmp_dir"] = str(_SHM)
        if self._keeper_socket is not None:
            values |= {
                "raw_env": [f"{metrics.ENVIRONMENT}={_metrics_folder(self._keeper_socket)}"],
                "child_exit": self._forget_figures,
                "dirty_apps": [keeper_app.IMPORT_PATH],
                "dirty_workers": 1,
                "dirty_threads": 1,
                "dirty_timeout": _HEARTBEAT_S,
                "dirty_graceful_timeout": drain_s,
                "on_starting": self._remember,
                "on_dirty_starting": self._start_keepers_side,
                "dirty_post_fork": lambda arbiter, worker: interrupt.stay_ignored(worker),
            }
        for name, value in values.items():
            self.cfg.set(name, value)

    def _remember(self, master: Any) -> None:
        self._master = master

    def _start_keepers_side(self, arbiter: Any) -> None:
        """Runs in the keeper's side of the family. It inherited the listening socket, and while it has that
        open the kernel goes on taking connections that nobody will accept."""
        interrupt.stay_ignored(arbiter)
        for listener in self._master.LISTENERS:
            listener.close()

    def _forget_figures(self, master: Any, worker: Any) -> None:
        if self._settings.metrics and self._keeper_socket is not None:
            metrics.forget_process(_metrics_folder(self._keeper_socket), worker.pid)

    def _announce(self, arbiter: Any) -> None:
        host, port = self._address[:2]
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if self.tls is None else "https"
        keys = KeyRing(self._settings.api_keys, self._settings.api_key).required()
        facts = {"version": __version__, "keys": "required" if keys else "none"}
        log.info("listening on %s://%s:%d", scheme, shown, port, extra={"facts": facts})


def _everybody() -> str:
    return ""


def _metrics_folder(keeper_socket: Path) -> Path:
    return keeper_socket.with_name("metrics")


def _guarded(app: Any, settings: ServerSettings, watcher: Metrics | None = None) -> Application:
    ring = KeyRing(settings.api_keys, settings.api_key)
    inner = Compression(BodyLimit(app, settings.limits.body))
    keep_alive_s = settings.runtime.keep_alive_s
    return Guard(
        Gate(inner, ring, Allowances(settings.workers), keep_alive_s=keep_alive_s),
        hosts=HostRules.of(settings.host, settings.allowed_hosts),
        origins=OriginRules(settings.origins),
        access_log=settings.access_log,
        watcher=watcher,
        request_s=settings.limits.request_s,
    )


def _umask() -> int:
    """The one in force, which gunicorn would replace by its own."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
