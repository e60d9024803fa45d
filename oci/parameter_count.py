"""Counts of parameters for people: 8030261312 is "8.0B"."""

from __future__ import annotations

_BILLION, _MILLION, _THOUSAND = 10**9, 10**6, 10**3


def format_parameter_count(count: int) -> str:
    """``count`` as Ollama shows it in ``parameter_size``.

    Source: Ollama, format.HumanNumber.

    >>> [format_parameter_count(n) for n in (8030261312, 10**9, 137000000, 22700000, 1500, 500)]
    ['8.0B', '1B', '137M', '22.70M', '2K', '500']
    """
    for unit, letter, decimals in ((_BILLION, "B", 1), (_MILLION, "M", 2)):
        if count >= unit:
            return f"{count // unit}{letter}" if count % unit == 0 else f"{count / unit:.{decimals}f}{letter}"
    return f"{count / _THOUSAND:.0f}K" if count >= _THOUSAND else str(count)
