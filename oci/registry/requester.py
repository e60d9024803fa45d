"""Requests to registries with everything that may happen on the way: authorisation, redirects, retries.

Rules for editing this file
- ``Authorization`` is set in one place, and only for the registry's own origin. A request that has left that
  origin does not get it back, even when it is sent home again.
- Bodies follow no redirect to another origin.
- A step from https to http is never taken.
- A host that a public registry names must be public, too: checked before connecting, by the address that
  is then connected to. Only configuration makes exceptions.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from .auth import Authenticator, Scopes, TokenRequest
from .challenge import parse_challenges
from .credentials import Credentials, Found
from .errors import RegistryBusy, RegistryUnreachable, RegistryUnsafe
from .origin import BadUrl, Origin, resolve
from .retry import delay_s, retries_status
from .settings import RegistrySettings
from .transport import Body, Response, Transport, header_values

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE = frozenset({"GET", "HEAD"})
_CARRIED_ABROAD = frozenset({"accept", "range", "content-type"})

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRequest:
    """One request to a registry.

    scopes: what a token must allow for it. authorised: whether credentials may be used at all.
    repeatable: whether doing it twice does no harm; None means: by its method.
    timeout_s: longest wait for the answer, where it differs from the settings'.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    scopes: Scopes = ()
    authorised: bool = True
    repeatable: bool | None = None
    timeout_s: float | None = None

    @property
    def may_repeat(self) -> bool:
        return self.method in _SAFE if self.repeatable is None else self.repeatable

    @property
    def doing(self) -> str:
        return f"{self.method} /{self.url.partition('?')[0].split('/', 3)[-1][:200]}"


class Requester:
    """Sends requests. Safe to use from several threads.

    sleep: how waiting between attempts is done; it may raise to give up.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        credentials: Credentials,
        *,
        sleep: Sleep = time.sleep,
        transport: Transport | None = None,
    ) -> None:
        self._settings = settings
        self._sleep = sleep
        self._on_busy: Callable[[], None] = lambda: None
        self._transport = transport or Transport(settings)
        self._auth = Authenticator(settings, credentials, self.fetch_token)
        self._chance = random.SystemRandom().random
        self._lock = threading.Lock()
        self._internal: dict[str, bool] = {}
        self._answered: set[Origin] = set()

    def close(self) -> None:
        self._transport.close()

    def cut(self, threads: Container[int]) -> None:
        """Ends at once what these threads are sending or waiting for."""
        self._transport.cut(threads)

    def sleeping(self, sleep: Sleep, on_busy: Callable[[], None] | None = None) -> Requester:
        """This requester, with all that it knows, waiting in another way; `on_busy` is called whenever it is
        told that it asks too much."""
        other = copy.copy(self)
        other._sleep = sleep
        other._on_busy = on_busy or self._on_busy
        return other

    def send(self, request: RegistryRequest) -> Response:
        """The answer, whatever its status, with its body unread; the caller closes it.

        Raises: RegistryUnreachable, RegistryUnsafe, RegistryBusy, RegistryDenied (from a token service).
        """
        registry = Origin.of(request.url)
        return self._repeat(
            registry,
            request.doing,
            lambda: self._authorised(registry, request),
            repeatable=request.may_repeat,
        )

    def found(self, registry: Origin, scopes: Scopes) -> Found:
        """The credential that would be used, and what was tried to get one; for messages."""
        return self._auth.found(registry, scopes)

    def _repeat(
        self, registry: Origin, doing: str, attempt_once: Callable[[], Response], *, repeatable: bool
    ) -> Response:
        policy = self._settings.retry
        attempt = 1
        while True:
            retry_after = None
            try:
                response = attempt_once()
            except RegistryUnreachable as error:
                # A host that never answered is more likely misspelt or down than having a hiccup.
                tries = policy.tries if registry in self._answered else min(2, policy.tries)
                if not (error.transient and repeatable) or attempt >= tries:
                    raise
            else:
                self._answered.add(registry)
                if response.status_code == 429:
                    self._on_busy()
                if not retries_status(response.status_code, attempt=attempt, repeatable=repeatable):
                    return response
                if attempt >= policy.tries:
                    if response.status_code != 429:
                        return response
                    response.close()
                    raise RegistryBusy(registry.netloc, doing, attempt)
                retry_after = response.headers.get("Retry-After")
                response.close()
            self._sleep(delay_s(policy, attempt, retry_after, self._chance))
            attempt += 1

    def _authorised(self, registry: Origin, request: RegistryRequest) -> Response:
        """Sends it with what authorisation we have, and once more with what a 401 asks for."""
        header = self._auth.header(registry, request.scopes) if request.authorised else None
        response = self._follow(registry, request, header)
        if response.status_code != 401 or not request.authorised or Origin.of(response.url) != registry:
            return response
        challenges = parse_challenges(header_values(response, "WWW-Authenticate"))
        try:
            answer = self._auth.answer(registry, challenges, request.scopes, header)
        except BaseException:
            response.close()
            raise
        if answer is None:
            return response
        response.close()
        return self._follow(registry, request, answer)

    def _follow(self, registry: Origin, request: RegistryRequest, authorization: str | None) -> Response:
        url, at_home = request.url, True
        for _ in range(MAX_REDIRECTS + 1):
            origin = Origin.of(url)
            at_home = at_home and origin == registry
            headers = dict(request.headers)
            if not at_home:
                headers = {k: v for k, v in headers.items() if k.lower() in _CARRIED_ABROAD}
            elif authorization is not None:
                headers["Authorization"] = authorization
            response = self._transport.exchange(
                request.method,
                url,
                headers=headers,
                body=request.body,
                timeout_s=request.timeout_s,
                public_only=self._must_be_public(registry, origin),
            )
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            url = self._next_hop(registry, request, url, response)
        raise RegistryUnsafe(registry.netloc, request.doing, f"more than {MAX_REDIRECTS} redirects")

    def _next_hop(self, registry: Origin, request: RegistryRequest, url: str, response: Response) -> str:
        """Where a redirect leads. Raises: RegistryUnsafe where we do not go."""
        try:
            target = resolve(url, response.headers.get("Location", ""))
        except BadUrl as error:
            raise RegistryUnsafe(
                registry.netloc, request.doing, f"a redirect to nowhere usable ({error})"
            ) from None
        here, there = Origin.of(url), Origin.of(target)
        if there.scheme == "http" and here.scheme == "https":
            raise RegistryUnsafe(registry.netloc, request.doing, f"a redirect from https to {there}")
        if request.method not in _SAFE and (here != there or response.status_code not in {307, 308}):
            raise RegistryUnsafe(registry.netloc, request.doing, f"a redirect of an upload to {there}")
        return target

    def fetch_token(self, request: TokenRequest) -> Response:
        """A token service's answer. A redirect is an answer like any other: credentials go no further."""
        guarded = self._must_be_public(request.registry, Origin.of(request.url))

        def attempt() -> Response:
            return self._transport.exchange(
                request.method, request.url, headers=request.headers, body=request.body, public_only=guarded
            )

        return self._repeat(Origin.of(request.url), "asking for a token", attempt, repeatable=True)

    def _must_be_public(self, registry: Origin, target: Origin) -> bool:
        """Whether `target`, which `registry` has named, may only have public addresses: always, except
        that it is on the registry's own host, is allowed by name, or the registry is internal itself."""
        if target.host == registry.host or self._settings.may_be_internal(target):
            return False
        return not self._is_internal(registry)

    def _is_internal(self, registry: Origin) -> bool:
        if registry.is_loopback:
            return True
        with self._lock:
            known = self._internal.get(registry.host)
        if known is None:
            known = self._transport.has_internal_address(registry)
            with self._lock:
                self._internal[registry.host] = known
        return known
