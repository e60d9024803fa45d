"""Keys at the door: a request without the right one is answered here and goes no further.

Rules for editing this file: what `operations` does not know needs a key; nothing is decided by a body, which
has not been read yet.
"""

from __future__ import annotations

import math

from ..answers import dialect_of, send_problem
from ..errors import KeyRequired, RoleMissing, TooManyRequests, problem_of
from ..guard import Application, Receive, Scope, Send, note
from ..operations import Dialect, Operation, find_operation
from .allowance import Allowances
from .api_key import ApiKey
from .key_ring import KeyRing
from .presented import presented_secret
from .role import Role
from .stay import bounded_stay
from .tenant import enter_tenant

_CHALLENGES = {Dialect.REGISTRY: 'Basic realm="lading"'}
_BEARER = 'Bearer realm="lading"'


_STRANGER = "lading.stranger"


def is_stranger(scope: Scope) -> bool:
    """Whether a request that may come without a key has come without one where others need it."""
    return bool(scope.get(_STRANGER, False))


class Gate:
    """The ASGI application that wraps another."""

    def __init__(
        self, app: Application, ring: KeyRing, allowances: Allowances, *, keep_alive_s: float = math.inf
    ) -> None:
        """`keep_alive_s`: the longest that keys which do not manage the server may have a model stay."""
        self._app = app
        self._ring = ring
        self._allowances = allowances
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        enter_tenant(None)
        if scope["type"] != "http" or not self._ring.required():
            await self._app(scope, receive, send)
            return
        operation = find_operation(scope["method"], scope["path"])
        if operation is not None and operation.public:
            scope[_STRANGER] = self._key_of(scope)[0] is None
            await self._app(scope, receive, send)
            return
        try:
            key = self._admit(scope, operation)
            self._allowances.enter(key)
            enter_tenant(key)
        except KeyRequired as error:
            note(scope, refused="key")
            challenge = _CHALLENGES.get(dialect_of(scope["path"]), _BEARER)
            await send_problem(scope, send, problem_of(error), {"www-authenticate": challenge})
            return
        except (RoleMissing, TooManyRequests) as error:
            note(scope, refused="key")
            await send_problem(scope, send, problem_of(error))
            return
        stay = bounded_stay(math.inf if Role.MANAGE in key.rights else self._keep_alive_s)
        try:
            with stay:
                await self._app(scope, receive, send)
        finally:
            self._allowances.leave(key)

    def _admit(self, scope: Scope, operation: Operation | None) -> ApiKey:
        """The key of the request. Raises: KeyRequired, RoleMissing."""
        key, given = self._key_of(scope)
        if key is None:
            raise KeyRequired(given=given, registry=dialect_of(scope["path"]) is Dialect.REGISTRY)
        note(scope, key=key.id)
        needed = operation.role if operation is not None else _role_of_unknown(scope)
        if needed is not None and needed not in key.rights:
            raise RoleMissing(needed)
        return key

    def _key_of(self, scope: Scope) -> tuple[ApiKey | None, bool]:
        """The key of the request, and whether it came with anything of the kind."""
        secret = presented_secret(scope["headers"], basic=dialect_of(scope["path"]) is Dialect.REGISTRY)
        return (self._ring.find(secret) if secret else None), secret is not None


def _role_of_unknown(scope: Scope) -> Role | None:
    """A request that no operation stands for: it will be refused, but not before it has a key."""
    if dialect_of(scope["path"]) is not Dialect.REGISTRY:
        return None
    return Role.PULL if scope["method"] in ("GET", "HEAD") else Role.PUSH
