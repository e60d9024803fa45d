"""Which Host and Origin values pass. The refused ones are attacks: DNS rebinding and cross-site requests."""

from __future__ import annotations

import pytest

from lading.server.origin import HostRules, OriginRules

LOOPBACK = HostRules(asked=True, names=frozenset({"build-box", "models.example"}))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:11434",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:11434",
        "127.9.9.9",
        "[::1]",
        "[::1]:11434",
        "0.0.0.0:11434",
        "192.168.1.5:11434",
        "10.0.0.1",
        "",
        "app.localhost:80",
        "printer.local",
        "host.docker.internal:11434",
        "build-box:11434",
        "models.example",
    ],
)
def test_names_of_this_machine_pass(host: str) -> None:
    assert LOOPBACK.allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:11434",
        "8.8.8.8",
        "localhost:99999",
        "localhost:",
        "localhost:1:2",
        "local",
        "internal",
        "[::ffff:8.8.8.8",
        "a b",
        "\x00",
    ],
)
def test_other_names_do_not(host: str) -> None:
    assert not LOOPBACK.allows(host)


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_the_rule_holds_only_while_listening_on_loopback(bind: str, loopback: bool) -> None:
    assert HostRules.of(bind).allows("evil.example") is not loopback


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:8080",
        "http://0.0.0.0:1",
        "app://obsidian.md",
        "tauri://localhost",
        "vscode-webview://abc",
        "file://",
        "http://api.example:11434",
        "https://api.example:11434",
    ],
)
def test_local_origins_pass(origin: str) -> None:
    assert OriginRules().allows(origin, "api.example:11434")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "http://notlocalhost",
        "http://localhost@evil.example",
        "http://localhost:80@evil.example",
        "http://localhost/evil",
        "http://localhost:99999",
        "chrome-extension://abc",
        "ftp://localhost",
        "http://api.example",
        "\x00",
    ],
)
def test_other_origins_do_not(origin: str) -> None:
    assert not OriginRules().allows(origin, "api.example:11434")


@pytest.mark.parametrize(
    ("pattern", "origin", "passes"),
    [
        ("https://ui.example", "https://ui.example", True),
        ("https://ui.example", "https://ui.example.evil", False),
        ("https://*.example", "https://a.example", True),
        ("https://*.example", "https://a.example.evil", False),
        ("https://*.example", "http://a.example", False),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("*", "https://anything", True),
        ("*", "null", True),
    ],
)
def test_configured_patterns(pattern: str, origin: str, passes: bool) -> None:
    assert OriginRules((pattern,)).allows(origin, "h") is passes
