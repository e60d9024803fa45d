"""Whose request is being handled, for those deep within who keep the work of one client from another.

A context variable and no argument: what a handler could forget to pass on would be shared with everybody.
"""

from __future__ import annotations

from contextvars import ContextVar

from .api_key import ApiKey

_TENANT: ContextVar[str] = ContextVar("lading.tenant", default="")


def current_tenant() -> str:
    """Of the request in whose task this is called; "" where nobody needs a key."""
    return _TENANT.get()


def enter_tenant(key: ApiKey | None) -> None:
    """From now on this task, and those that it starts, are at work for the holder of ``key``."""
    _TENANT.set(key.id if key is not None else "")
