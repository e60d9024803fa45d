"""Fixtures for every folder. Ports are free ones on loopback; folders are temporary."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from command import TINY_CHAT, Lading


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="record answers anew: tests/server/golden")


def pytest_configure() -> None:
    """Ctrl-C works in what the tests start, also where they run behind ``nohup`` or ``&``."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def lading(tmp_path: Path) -> Lading:
    """The command, over an empty store."""
    return Lading(tmp_path / "home")


@pytest.fixture
def tiny_chat() -> Path:
    """The chat model of two million parameters."""
    return TINY_CHAT


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives ports on which nothing listens now."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
