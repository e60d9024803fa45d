"""The registry client: the only owner of `oras`.

`RegistryClient` is an `oras.provider.Registry`, so that whatever takes one takes ours, but none of the
inherited code touches the network. As shipped, that code reads blobs into memory, verifies nothing that it
downloads, waits without limit, and shows credentials to any host that a registry names. So every inherited
method that talks to a registry is either done again here, on top of our own `Repository`, or refuses and
says what to use instead. A test goes through the base class and proves it for each method.

Use `repository()`; the methods with oras's names are there for code that knows oras.
"""

from __future__ import annotations

import contextlib
import json as jsonlib
import threading
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import oras.auth.base  # type: ignore[import-untyped]  # oras has no types
import oras.container  # type: ignore[import-untyped]
import oras.provider  # type: ignore[import-untyped]

from ...modelfile.errors import InputError, InternalError, LadingError
from ..canonical import canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..manifest import parse_document
from ..media_type import OCTET_STREAM
from ..reference import Reference
from .auth import Scope, Scopes
from .credentials import Credentials, NoCredentials
from .download import download_file
from .errors import RegistryError
from .login import Login, log_in
from .origin import Origin
from .rate_limit import RateLimit
from .repository import Repository
from .requester import RegistryRequest, Requester, Sleep
from .settings import DOCKER_HUB, DOCKER_HUB_API, HUB_HOSTS, RegistrySettings
from .transport import BytesBody, Response, read_body
from .upload import BlobUpload
from .web_files import WebFiles

_PULL_METHODS = frozenset({"GET", "HEAD"})


class RegistryClient(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """A client of any number of registries. Safe to use from several threads; `close` it at the end.

    credentials are asked once per repository. sleep: how to wait between attempts; it may raise to give up.
    """

    def __init__(
        self,
        settings: RegistrySettings | None = None,
        credentials: Credentials | None = None,
        *,
        sleep: Sleep | None = None,
    ) -> None:
        super().__init__()
        self.session.close()  # type: ignore[has-type]  # the base class's, not yet ours
        self.session = _NoSession()
        self.auth = _NoAuth()
        self.settings = settings or RegistrySettings()
        self.sleep = sleep
        self._incoming = RateLimit(self.settings.download_rate)
        self._outgoing = RateLimit(self.settings.upload_rate)
        self._requester = Requester(self.settings, credentials or NoCredentials(), sleep=sleep or time.sleep)
        self._lock = threading.Lock()
        self._origins: dict[str, Origin] = {}

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._requester.close()

    def cut(self, threads: Container[int]) -> None:
        """Ends at once what these threads (by `threading.get_ident`) are sending or waiting for."""
        self._requester.cut(threads)

    def repository(
        self,
        reference: Reference,
        *,
        writes: bool = False,
        sleep: Sleep | None = None,
        on_busy: Callable[[], None] | None = None,
    ) -> Repository:
        """The repository that a reference is in; `writes`, to push to it; `sleep`, how to wait between
        attempts; `on_busy`, called when the registry has too much to do.

        Asks the registry nothing, unless it may be spoken to without TLS: then, once, which it is.
        Raises: RegistryUnreachable.
        """
        name = reference.repository
        if reference.registry == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        return Repository(
            origin=self.origin(reference.registry),
            name=name,
            writes=writes,
            requester=self._requester.sleeping(sleep or self.sleep or time.sleep, on_busy),
            settings=self.settings,
            sleep=sleep or self.sleep or time.sleep,
            incoming=self._incoming,
            outgoing=self._outgoing,
        )

    def web_files(
        self,
        origin: Origin,
        name: str,
        urls: Mapping[Digest, str],
        *,
        sleep: Sleep | None = None,
        on_busy: Callable[[], None] | None = None,
    ) -> WebFiles:
        """Files at a place that is no registry, by their digests; all URLs begin at ``origin``. ``name`` is
        that of the repository that they are in, for credentials; without one, none are used."""
        return WebFiles(
            origin=origin,
            name=name,
            writes=False,
            requester=self._requester.sleeping(sleep or self.sleep or time.sleep, on_busy),
            settings=self.settings,
            sleep=sleep or self.sleep or time.sleep,
            incoming=self._incoming,
            outgoing=self._outgoing,
            urls=urls,
        )

    def origin(self, registry: str) -> Origin:
        """Where the API of a registry (``host[:port]``) is. Raises: RegistryUnreachable."""
        if registry in HUB_HOSTS:
            return Origin.of(self.settings.hub)
        host = DOCKER_HUB_API if registry in {DOCKER_HUB, f"index.{DOCKER_HUB}"} else registry
        with self._lock:
            found = self._origins.get(host)
        if found is None:
            found = self._find_origin(host)
            with self._lock:
                self._origins[host] = found
        return found

    def log_in(self, registry: str, username: str, password: str) -> Login:
        """Whether a registry (``host[:port]``) takes this user and password, and what to keep of them.

        Raises: LoginRefused, RegistryUnsafe, RegistryError, RegistryUnreachable, RegistryBusy.
        """
        return log_in(self._requester, self.settings, self.origin(registry), username, password)

    def _find_origin(self, host: str) -> Origin:
        secure, plain = Origin.of(f"https://{host}/"), Origin.of(f"http://{host}/")
        if not self.settings.allows_plain_http(plain):
            return secure
        # Both are allowed: plain first, since a TLS server says no to it at once, and in plain text.
        response = self._requester.send(
            RegistryRequest(method="GET", url=f"{plain}/v2/", authorised=False, repeatable=False)
        )
        body = b""
        with contextlib.suppress(LadingError):
            body = read_body(response, 4096, "looking for the registry")
        speaks_tls = response.status_code == 400 and b"HTTPS" in body
        return secure if speaks_tls else plain

    # Methods with oras's names, done again

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: dict[str, str] | bytes | None = None,
        headers: dict[str, str] | None = None,
        json: dict[str, Any] | None = None,
        stream: bool = False,
    ) -> Response:
        """One request by our rules on credentials, redirects, retries and time. The answer's body is
        unread, `stream` or not; `iter_body` and `read_body` read it with a limit.

        Raises: RegistryUnreachable, RegistryUnsafe, RegistryBusy, RegistryDenied, BadUrl.
        """
        if isinstance(data, dict):
            raise InputError("sending a request: expected bytes as data")
        body = jsonlib.dumps(json).encode() if json is not None else data
        typed = {"Content-Type": "application/json"} if json is not None else {}
        return self._requester.send(
            RegistryRequest(
                method=method,
                url=url,
                headers={**typed, **(headers or {})},
                body=BytesBody(body) if body else None,
                scopes=_scopes_of(url, method),
            )
        )

    def get_manifest(
        self,
        container: Any,
        allowed_media_type: list[str] | None = None,
        validation_schema: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The verified manifest as JSON. Use `Repository.fetch_manifest`, which keeps its bytes."""
        if validation_schema is not None:
            raise InputError("fetching a manifest: schemas are not supported; manifests are always checked")
        reference = self._reference(container)
        manifest = self.repository(reference).fetch_manifest(reference)
        if allowed_media_type and manifest.media_type not in allowed_media_type:
            raise RegistryError(reference.registry, "fetching a manifest", f"it is a {manifest.media_type}")
        value: dict[str, Any] = strict_json(manifest.raw)
        return value

    def upload_manifest(self, manifest: Mapping[str, Any], container: Any) -> Response:
        """Pushes a manifest, written canonically. Use `Repository.put_manifest`, which sends exact bytes."""
        reference = self._reference(container)
        document = parse_document(canonical_json(dict(manifest)))
        self.repository(reference, writes=True).put_manifest(document, reference.tag)
        return _done(201)

    def blob_exists(self, layer: Mapping[str, Any], container: Any) -> bool:
        """Whether the registry has the blob of this descriptor."""
        reference = self._reference(container)
        return self.repository(reference).has_blob(_descriptor(layer))

    def get_blob(self, container: Any, digest: str, stream: bool = False, head: bool = False) -> Response:
        """The unverified answer to a HEAD of a blob. A GET refuses: use `download_blob`."""
        if not head:
            _refuse("get_blob", "download_blob, which verifies")
        repository = self.repository(self._reference(container))
        return repository.request("HEAD", f"{repository.base}/blobs/{Digest.parse(digest)}")

    def download_blob(self, container: Any, digest: str, outfile: str) -> str:
        """Downloads a blob into a file, which appears only once it is whole and verified."""
        repository = self.repository(self._reference(container))
        download_file(repository, Digest.parse(digest), Path(outfile))
        return outfile

    def upload_blob(
        self,
        blob: str,
        container: Any,
        layer: Mapping[str, Any],
        do_chunked: bool = False,
        chunk_size: int = 0,
    ) -> Response:
        """Uploads a file as a blob, streamed; how is decided by what the registry takes."""
        repository = self.repository(self._reference(container), writes=True)
        BlobUpload(repository, _descriptor(layer), Path(blob), lambda _: None).run()
        return _done(201)

    def put_upload(self, blob: str, container: Any, layer: Mapping[str, Any]) -> Response:
        """The same as `upload_blob`."""
        return self.upload_blob(blob, container, layer)

    def chunked_upload(
        self, blob: str, container: Any, layer: Mapping[str, Any], chunk_size: int = 0
    ) -> Response:
        """The same as `upload_blob`."""
        return self.upload_blob(blob, container, layer)

    def get_tags(self, container: Any, N: int | None = None) -> list[str]:  # oras's name
        """The tags of a repository, at most `N` of them."""
        return self.repository(self._reference(container)).tags()[:N]

    # Methods that refuse

    def push(self, *args: object, **options: object) -> NoReturn:
        _refuse("push", "transfer.push")

    def pull(self, *args: object, **options: object) -> NoReturn:
        _refuse("pull", "transfer.pull")

    def login(self, *args: object, **options: object) -> NoReturn:
        _refuse("login", "log_in, and credential_store.CredentialStore to keep what it returns")

    def logout(self, *args: object, **options: object) -> NoReturn:
        _refuse("logout", "credential_store.CredentialStore.erase")

    def delete_tag(self, *args: object, **options: object) -> NoReturn:
        _refuse("delete_tag", "the registry's own tools")

    def delete_tags(self, *args: object, **options: object) -> NoReturn:
        _refuse("delete_tags", "the registry's own tools")

    def set_header(self, name: str, value: str) -> NoReturn:
        # A header that is sent to every host is a way to leak what is in it.
        _refuse("set_header", "the headers of one do_request")

    def _do_paginated_request(self, *args: object, **options: object) -> NoReturn:
        _refuse("_do_paginated_request", "Repository.tags")

    def _get_location(self, *args: object, **options: object) -> NoReturn:
        _refuse("_get_location", "BlobUpload")

    def _reference(self, container: Any) -> Reference:
        """Our reference for what oras calls a container."""
        if isinstance(container, Reference):
            return container
        if isinstance(container, oras.container.Container):
            container = container.uri
        return Reference.parse(str(container), default_registry=self.hostname or DOCKER_HUB)


class _NoSession:
    """In place of the base class's session, which would go around all rules."""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"session.{name}", "do_request")


class _NoAuth(oras.auth.base.AuthBackend):  # type: ignore[misc]  # oras has no types
    """In place of the base class's authentication."""

    def get_auth_header(self) -> dict[str, str]:
        return {}

    def load_configs(self, *args: object, **options: object) -> None:
        """Nothing: credentials are the requester's business."""

    def set_basic_auth(self, username: str, password: str) -> NoReturn:
        _refuse("auth.set_basic_auth", "credentials.GivenCredentials")

    def set_token_auth(self, token: str) -> NoReturn:
        _refuse("auth.set_token_auth", "credentials.GivenCredentials")

    def request_anonymous_token(self, *args: object, **options: object) -> NoReturn:
        _refuse("auth.request_anonymous_token", "do_request")


def _refuse(name: str, instead: str) -> NoReturn:
    raise InternalError(f"calling RegistryClient.{name}: this is not available; use {instead}")


def _scopes_of(url: str, method: str) -> Scopes:
    """What a token must allow for this request, from its path; nothing for requests of no repository."""
    path = url.partition("?")[0].split("/", 3)[-1]
    if not path.startswith("v2/"):
        return ()
    for kind in ("/blobs/", "/manifests/", "/tags/", "/referrers/"):
        name, found, _ = path.removeprefix("v2/").partition(kind)
        if found:
            return (Scope(name, ("pull",) if method in _PULL_METHODS else ("pull", "push")),)
    return ()


def _descriptor(layer: Mapping[str, Any]) -> Descriptor:
    return Descriptor.from_json({"mediaType": OCTET_STREAM, **layer})


def _done(status: int) -> Response:
    """An answer for callers that want to see one."""
    response = Response()
    response.status_code = status
    return response
