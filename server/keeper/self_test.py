"""What the keeper knows of its runners' sandbox: it has one process confine itself as runners do, and try
what none of them may do."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from .wire import SandboxReport

MODULE = "lading.runtime.runner.self_test"
_TIMEOUT_S = 30.0

log = logging.getLogger("lading.keeper")


class _Findings(msgspec.Struct):
    """What `runtime.runner.self_test` prints."""

    layers: dict[str, str]
    landlock_abi: int


class SelfTest:
    """`start` it once; `report` says how far it has come."""

    def __init__(self, *, enabled: bool) -> None:
        self.report = SandboxReport(level="testing" if enabled else "off")
        self._enabled = enabled

    def start(self) -> None:
        """Test in a thread of its own, and log a warning where something does not hold."""
        if not self._enabled:
            log.warning("runners are not confined: the sandbox is off")
            return
        threading.Thread(target=self._run, name="sandbox-self-test", daemon=True).start()

    def _run(self) -> None:
        self.report = test_sandbox()
        if self.report.level == "full":
            return
        weak = ", ".join(
            f"{layer} {state}" for layer, state in self.report.layers.items() if state != "holds"
        )
        log.warning("runners are confined less than they could be: %s", self.report.problem or weak)


def test_sandbox() -> SandboxReport:
    """Confine a process, and see. Takes a fraction of a second; never raises."""
    try:
        with tempfile.TemporaryDirectory(prefix="lading-self-test-") as folder:
            secret = Path(folder) / "secret"
            secret.write_text("not to be read")
            (Path(folder) / "sockets").mkdir()
            done = subprocess.run(
                [sys.executable, "-P", "-m", MODULE, str(secret), str(Path(folder) / "sockets")],
                capture_output=True,
                check=True,
                cwd="/",
                env={"PYTHONPATH": ":".join(filter(None, sys.path))},
                timeout=_TIMEOUT_S,
            )
        found = msgspec.json.decode(done.stdout, type=_Findings)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        return SandboxReport(level="unknown", problem=f"the self-test failed: {error}")
    holds = set(found.layers.values()) == {"holds"}
    return SandboxReport(
        level="full" if holds else "reduced", layers=found.layers, landlock_abi=found.landlock_abi
    )
