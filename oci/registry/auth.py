"""Proving to a registry who we are, and to nobody else.

Rules for editing this file
- Credentials go to the registry's own origin, or to a realm that the settings bind to it. A realm is named
  by the server: it is followed, but without credentials, unless it is one of those.
- Tokens go to the origin that asked for them. They are kept per (origin, realm, service, scope), renewed at
  four fifths of their life, and thrown away when a 401 comes back in spite of them.
- No secret reaches a message, a repr or a URL.

Source: docs.docker.com registry token specification (GET form) and its OAuth2 form (POST, for identity
tokens); OCI distribution-spec 1.1; DESIGN 7.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from ...modelfile.errors import LadingError
from ..canonical import strict_json
from .challenge import Challenge
from .credentials import Credential, Credentials, Found
from .errors import RegistryDenied, RegistryError, RegistryUnsafe
from .origin import BadUrl, Origin, resolve
from .settings import RegistrySettings
from .transport import Body, BytesBody, Response, read_body

MAX_TOKEN_ANSWER = 1024 * 1024

_DEFAULT_LIFE_S = 60.0  # where the answer does not say. Source: Docker token specification
_LONGEST_LIFE_S = 24 * 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_SCOPE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Actions on one repository, as ``repository:NAME:pull,push``."""

    repository: str
    actions: tuple[str, ...] = ("pull",)

    def __str__(self) -> str:
        return f"repository:{self.repository}:{','.join(self.actions)}"

    def covers(self, text: str) -> bool:
        """Whether a scope in text form asks for no more than this one."""
        head, _, actions = text.rpartition(":")
        return head == f"repository:{self.repository}" and set(actions.split(",")) <= set(self.actions)


Scopes = tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class _Realm:
    """Where an origin sends us for tokens, and for which service."""

    url: str
    service: str | None


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float

    @property
    def header(self) -> str:
        return f"Bearer {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A question to a token service, on behalf of `registry`."""

    registry: Origin
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: Body | None = field(default=None, repr=False)


FetchToken = Callable[[TokenRequest], Response]
"""Sends the request without following redirects, repeating it where that helps."""


class Authenticator:
    """What to put into ``Authorization``, per origin and scope. Safe to use from several threads: while one
    fetches a token for a registry, the others that want to talk to it wait."""

    def __init__(
        self,
        settings: RegistrySettings,
        credentials: Credentials,
        fetch: FetchToken,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._locks: dict[Origin, threading.RLock] = {}
        self._locks_guard = threading.Lock()
        self._realms: dict[Origin, _Realm] = {}
        self._direct: set[Origin] = set()
        self._found: dict[tuple[Origin, str], Found] = {}
        self._tokens: dict[tuple[Origin, _Realm, Scopes], _Token] = {}

    def header(self, registry: Origin, scopes: Scopes) -> str | None:
        """The header value for a request, as far as the registry has said what it wants; None to send the
        request bare. Fetches a token in advance where the realm is known."""
        with self._lock(registry):
            if registry in self._direct:
                credential = self.found(registry, scopes).credential
                return _direct(credential) if credential is not None else None
            realm = self._realms.get(registry)
            return self._token(registry, realm, scopes, "").header if realm is not None else None

    def answer(
        self, registry: Origin, challenges: Sequence[Challenge], scopes: Scopes, rejected: str | None
    ) -> str | None:
        """The header value that answers a 401; None when we have nothing new to say.

        rejected: the header value that the 401 was the answer to.
        Raises: RegistryDenied when the token service refuses, RegistryUnsafe for a realm we do not visit.
        """
        with self._lock(registry):
            credential = self.found(registry, scopes).credential if challenges else None
            if credential is not None and credential.bearer:
                return self._answer_directly(registry, credential, rejected)
            for challenge in challenges:
                # A realm that is no URL names no token service: the registry only says that it wants a token.
                if challenge.scheme == "bearer" and "://" in challenge.parameters.get("realm", ""):
                    return self._answer_bearer(registry, challenge, scopes, rejected)
            if any(challenge.scheme == "basic" for challenge in challenges):
                return self._answer_basic(registry, scopes, rejected)
            return None

    def found(self, registry: Origin, scopes: Scopes) -> Found:
        """The credential for the first scope's repository, and what was tried to get one."""
        repository = scopes[0].repository if scopes else ""
        with self._lock(registry):
            key = (registry, repository)
            if key not in self._found:
                self._found[key] = self._credentials.find(registry.netloc, repository)
            return self._found[key]

    def _lock(self, registry: Origin) -> threading.RLock:
        """One lock a registry, so that a slow one holds up nobody else."""
        with self._locks_guard:
            return self._locks.setdefault(registry, threading.RLock())

    def _answer_basic(self, registry: Origin, scopes: Scopes, rejected: str | None) -> str | None:
        credential = self.found(registry, scopes).credential
        if credential is None or credential.identity_token:
            return None
        return self._answer_directly(registry, credential, rejected)

    def _answer_directly(self, registry: Origin, credential: Credential, rejected: str | None) -> str | None:
        self._direct.add(registry)
        value = _direct(credential)
        return value if value != rejected else None

    def _answer_bearer(
        self, registry: Origin, challenge: Challenge, scopes: Scopes, rejected: str | None
    ) -> str | None:
        realm = _Realm(
            self._checked_realm(registry, challenge.parameters["realm"]), challenge.parameters.get("service")
        )
        wanted = challenge.parameters.get("scope", "")
        self._direct.discard(registry)
        self._realms[registry] = realm
        key = (registry, realm, scopes)
        cached = self._tokens.get(key)
        if cached is not None and cached.header != rejected and cached.renew_at > self._clock():
            return cached.header  # another thread has renewed it meanwhile
        self._tokens.pop(key, None)
        return self._token(registry, realm, scopes, wanted).header

    def _checked_realm(self, registry: Origin, url: str) -> str:
        """Raises: RegistryUnsafe for a realm that is not to be visited at all."""
        doing = "asking for a token"
        try:
            realm = Origin.of(url)
        except BadUrl as error:
            raise RegistryUnsafe(
                registry.netloc, doing, f"a token service without usable URL ({error})"
            ) from None
        if realm.scheme == "http" and (
            registry.scheme == "https" or not self._settings.allows_plain_http(realm)
        ):
            raise RegistryUnsafe(registry.netloc, doing, f"a token service without encryption, {realm}")
        return resolve(url, url)

    def _token(self, registry: Origin, realm: _Realm, scopes: Scopes, wanted: str) -> _Token:
        key = (registry, realm, scopes)
        cached = self._tokens.get(key)
        if cached is not None and cached.renew_at > self._clock():
            return cached
        token = self._request_token(
            registry, realm, _scope_texts(scopes, wanted), self.found(registry, scopes)
        )
        self._tokens[key] = token
        return token

    def _request_token(self, registry: Origin, realm: _Realm, scopes: list[str], found: Found) -> _Token:
        service = Origin.of(realm.url)
        trusted = self._settings.trusts_realm(registry, service)
        credential = found.credential if trusted else None
        request = _token_request(registry, realm, scopes, credential)
        asked_at = self._clock()
        response = self._fetch(request)
        doing = f"asking {service.netloc} for a token"
        if response.status_code != 200:
            response.close()
            raise self._refused(registry, service, response.status_code, found, trusted=trusted)
        answer = read_body(response, MAX_TOKEN_ANSWER, doing)
        return _parse_token(answer, registry, doing, asked_at)

    def _refused(
        self, registry: Origin, service: Origin, status: int, found: Found, *, trusted: bool
    ) -> LadingError:
        doing = f"asking {service.netloc} for a token"
        if status not in {400, 401, 403}:
            return RegistryError(registry.netloc, doing, f"status {status}", status=status)
        credential = found.credential
        notes = found.notes
        if credential is not None and not trusted:
            notes += (
                f"the credentials from {credential.source} were kept back, because {service.netloc} is "
                f"another host than {registry.netloc} and not among its token_services",
            )
            credential = None
        return RegistryDenied(
            registry.netloc,
            doing,
            f"status {status}",
            status=status,
            tried=credential.source if credential else None,
            notes=notes,
        )


def _direct(credential: Credential) -> str:
    """The header value of a credential that needs no token service."""
    return f"Bearer {credential.secret}" if credential.bearer else credential.basic()


def _scope_texts(scopes: Scopes, wanted: str) -> list[str]:
    """Our scopes, then what the challenge names beyond them (some registries name repositories otherwise)."""
    texts = [str(scope) for scope in scopes]
    if len(wanted) <= 2048 and _SCOPE.fullmatch(wanted):
        texts += [text for text in wanted.split(" ") if not any(scope.covers(text) for scope in scopes)]
    return texts


def _token_request(
    registry: Origin, realm: _Realm, scopes: list[str], credential: Credential | None
) -> TokenRequest:
    accept = {"Accept": "application/json"}
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credential.secret,
            "client_id": "lading",
            "scope": " ".join(scopes),
            **({"service": realm.service} if realm.service else {}),
        }
        return TokenRequest(
            registry=registry,
            method="POST",
            url=realm.url,
            headers={**accept, "Content-Type": "application/x-www-form-urlencoded"},
            body=BytesBody(urlencode(form).encode("ascii")),
        )
    query = [("service", realm.service)] if realm.service else []
    query += [("scope", text) for text in scopes]
    joint = "&" if urlsplit(realm.url).query else "?"
    return TokenRequest(
        registry=registry,
        method="GET",
        url=f"{realm.url}{joint}{urlencode(query)}" if query else realm.url,
        headers={**accept, "Authorization": credential.basic()} if credential is not None else accept,
    )


def _parse_token(data: bytes, registry: Origin, doing: str, asked_at: float) -> _Token:
    try:
        answer = strict_json(data, limit=MAX_TOKEN_ANSWER)
    except LadingError as error:
        raise RegistryError(registry.netloc, doing, f"expected a JSON answer ({error})") from None
    if not isinstance(answer, dict):
        raise RegistryError(registry.netloc, doing, "expected a JSON object")
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise RegistryError(registry.netloc, doing, "expected a token in the answer")
    life = answer.get("expires_in")
    if not isinstance(life, int | float) or isinstance(life, bool) or life <= 0:
        life = _DEFAULT_LIFE_S
    # Counted from before the question was sent, on a clock that is never set back.
    return _Token(value, asked_at + 0.8 * min(float(life), _LONGEST_LIFE_S))
