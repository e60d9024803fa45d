"""Wall time of `lading --help` and `lading ls` as whole processes, beside a bare Python start.

    python benchmarks/startup.py [--runs 15] [--json]

The commands take turns, so that a machine whose speed drifts slows all of them; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(commands: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Median wall seconds of each command; one uncounted warm-up first."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LADING_HOME": home}
        for turn in range(runs + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lading = str(Path(sys.executable).with_name("lading"))
    if not Path(lading).exists():
        lading = shutil.which("lading") or sys.exit("lading is not installed beside this Python: make venv")
    medians = measure(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "lading --help": [lading, "--help"],
            "lading ls": [lading, "ls"],
        },
        arguments.runs,
    )
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in medians.items()}))
        return
    for name, value in medians.items():
        print(f"{name:16} {value * 1000:6.0f} ms")


if __name__ == "__main__":
    main()
