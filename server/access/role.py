"""What the holder of a key may do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """A right. Some hold others; see `rights_of`."""

    INFER = "infer"
    PULL = "pull"
    PUSH = "push"
    MANAGE = "manage"
    METRICS = "metrics"
    ADMIN = "admin"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Role.INFER: "ask models; list and describe them",
    Role.PULL: "read models at `/v2/`, as registry clients do",
    Role.PUSH: "write models at `/v2/`; holds `pull`",
    Role.MANAGE: "have the server pull, push, create, copy and delete models; holds `infer`",
    Role.METRICS: "read `/metrics`",
    Role.ADMIN: "everything",
}

_HELD = {
    Role.PUSH: frozenset({Role.PULL}),
    Role.MANAGE: frozenset({Role.INFER}),
    Role.ADMIN: frozenset(Role),
}


def rights_of(roles: Iterable[Role]) -> frozenset[Role]:
    """The roles, and those that they hold.

    >>> sorted(rights_of([Role.PUSH]))
    [<Role.PULL: 'pull'>, <Role.PUSH: 'push'>]
    """
    given = frozenset(roles)
    return given.union(*(_HELD.get(role, frozenset()) for role in given))
