"""When to try again, and after how long. Pure: no clock and no chance of its own.

- 429 says that nothing was done: any request may be repeated.
- 408, 502, 503, 504 and broken connections leave open what was done: only requests that may safely be
  done twice are repeated.
- 500 is tried once more: often a hiccup, else a bug that more attempts only make worse.
- Everything else is final.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from datetime import UTC, datetime

from .settings import RetryPolicy

_UNCERTAIN = frozenset({408, 502, 503, 504})


def retries_status(status: int, *, attempt: int, repeatable: bool) -> bool:
    """Whether an answer deserves another attempt; `attempt` counts from 1."""
    if status == 429:
        return True
    if not repeatable:
        return False
    return status in _UNCERTAIN or (status == 500 and attempt == 1)


def delay_s(policy: RetryPolicy, attempt: int, retry_after: str | None, chance: Callable[[], float]) -> float:
    """Seconds to wait before attempt ``attempt + 1``.

    What the server asks for counts, up to the policy's cap; what it says in no sane way does not.
    Otherwise full jitter over an exponentially growing range, so that many clients spread out.
    chance: a number in [0, 1).
    """
    asked = parse_retry_after(retry_after, datetime.now(UTC)) if retry_after is not None else None
    if asked is not None:
        return min(asked, policy.retry_after_cap_s)
    longest = min(policy.cap_s, policy.base_s * 2.0 ** min(attempt, 20))
    return (
        policy.base_s / 2 + chance() * (longest - policy.base_s / 2) if longest > policy.base_s else longest
    )


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for; None when it makes no sense. Source: RFC 9110, 10.2.3."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())
