"""How many cores may be used, where affinity allows fewer than there are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lading.runtime.processors import usable_cores


def test_at_least_one_and_at_most_all() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lading.runtime.processors import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
