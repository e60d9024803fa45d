"""Sizes and ages as people read them, in the forms that Ollama's and Docker's users already parse."""

from __future__ import annotations

from datetime import datetime

_BYTE_UNITS = ("B", "KB", "MB", "GB", "TB")


def format_size(size: int) -> str:
    """``size`` bytes in decimal units: one decimal below ten (``4.7 GB``), none from ten up (``42 GB``).

    Source: Ollama's list output; 42520393152 truncates to ``42 GB``.

    >>> [format_size(n) for n in (999, 1500, 4683073184, 274302450, 42520393152, 9960000000)]
    ['999 B', '1.5 KB', '4.7 GB', '274 MB', '42 GB', '10.0 GB']
    """
    value = float(size)
    unit = _BYTE_UNITS[0]
    for unit in _BYTE_UNITS:
        if value < 1000 or unit == _BYTE_UNITS[-1]:
            break
        value /= 1000
    if unit == "B":
        return f"{size} B"
    return f"{int(value)} {unit}" if value >= 10 else f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """A length of time in its largest unit, in words.

    >>> [format_duration(s) for s in (0.2, 1, 42, 61, 600, 3600, 7200, 3 * 86400, 20 * 86400)]
    ['Less than a second', '1 second', '42 seconds', 'About a minute', '10 minutes', 'About an hour', \
'2 hours', '3 days', '2 weeks']
    """
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    table = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    return next((words for fits, words in table if fits), f"{hours // 24 // 365} years")


def format_ago(moment: datetime, *, now: datetime) -> str:
    """``3 weeks ago``. Both moments carry a time zone."""
    return f"{format_duration(max(0.0, (now - moment).total_seconds()))} ago"


def format_until(moment: datetime | None, *, now: datetime) -> str:
    """``4 minutes from now``; ``Forever`` for None or twenty years ahead; ``Stopping...`` if past."""
    if moment is None:
        return "Forever"
    seconds = (moment - now).total_seconds()
    if seconds > 20 * 365 * 86400:
        return "Forever"
    if seconds <= 0:
        return "Stopping..."
    return f"{format_duration(seconds)} from now"
