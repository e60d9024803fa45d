"""How many processor cores this process may keep busy.

More threads than cores is not a little slower but many times: llama.cpp's threads wait for each other
actively, and each wait lasts until the kernel runs the one that is missing.
"""

from __future__ import annotations

import math
import os

import psutil

from .memory import own_groups


def usable_cores() -> int:
    """Physical cores, within what affinity and the control groups allow; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(physical, allowed, *_quotas()))


def _quotas() -> list[int]:
    """What ``cpu.max`` of this process's control group and its parents grants, in whole cores, rounded up."""
    quotas: list[int] = []
    for group in own_groups():
        try:
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            quotas.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # "max", or no such controller
    return quotas
