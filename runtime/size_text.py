"""Sizes in bytes as people read them."""

from __future__ import annotations


def size_text(size: int) -> str:
    """``size`` bytes in decimal units, as `ls` and `ps` print them: ``4.7 GB``, ``274 MB``, ``999 B``."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value < 10 and units[0] != "B" else f"{int(value)} {units[0]}"
