"""API keys on a real server: who gets in, what each role may do, in whose words the others are refused."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx
import msgspec
import ollama
import openai
import pytest
from command import Lading
from live_server import LiveServer, build_model, free_port, running_server

from lading.server.access.api_key import ApiKey, BadKey, KeyFile, key_of
from lading.server.access.exposure import Exposed, require_protection
from lading.server.access.role import Role
from lading.server.settings import ServerSettings, TlsSettings

SECRETS = {role: f"lading_{role}-{'x' * 30}" for role in Role}
GIVEN = "a-key-from-the-settings-0123"
SHORT = {"model": "tiny", "prompt": "1", "raw": True, "stream": False, "options": {"num_predict": 2}}


def known(secret: str, *roles: Role, name: str = "", **more: Any) -> ApiKey:
    key = key_of(secret, name=name or secret[:20], roles=roles, created="2026-01-01T00:00:00Z")
    return msgspec.structs.replace(key, **more)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a key for each role, and one in its settings."""
    folder = tmp_path_factory.mktemp("locked")
    build_model(folder / "home", "tiny")
    file = KeyFile(folder / "keys.json")
    for role, secret in SECRETS.items():
        file.add(known(secret, role))
    with running_server(folder / "home", folder, api_keys=str(file.path), api_key=GIVEN) as live:
        yield live


def key_file(server: LiveServer) -> KeyFile:
    return KeyFile(server.store_root.parent / "keys.json")


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def basic(user: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_health_needs_no_key_and_tells_strangers_nothing_but_a_word(locked: LiveServer, path: str) -> None:
    answer = locked.call("GET", path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_details_of_health_are_for_those_with_a_key(locked: LiveServer) -> None:
    assert "store" in locked.call("GET", "/readyz", headers=bearer(SECRETS[Role.METRICS])).json()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/api/version"),
        ("GET", "/api/tags"),
        ("POST", "/api/chat"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:" + "0" * 64),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
        ("GET", "/v2/"),
        ("GET", "/v2/library/tiny/manifests/latest"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("BREW", "/api/tags"),
        ("GET", "/livez/../api/tags"),
        ("GET", "/api/tags%2f..%2flivez"),
        ("GET", "/livez/"),
    ],
)
def test_everything_else_does(locked: LiveServer, method: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", locked.port), timeout=30) as connection:
        # httpx would tidy the path up.
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert b"www-authenticate:" in answer.lower()


MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
ASK = {"model": "tiny", "messages": MESSAGES, "max_tokens": 1}

ROLE_TABLE = [
    ("GET", "/", None, set(Role)),
    ("GET", "/api/version", None, set(Role)),
    ("GET", "/api/tags", None, {Role.INFER, Role.MANAGE, Role.ADMIN}),
    ("GET", "/v1/models/tiny", None, {Role.INFER, Role.MANAGE, Role.ADMIN}),
    ("POST", "/api/generate", SHORT, {Role.INFER, Role.MANAGE, Role.ADMIN}),
    ("POST", "/v1/chat/completions", ASK, {Role.INFER, Role.MANAGE, Role.ADMIN}),
    ("POST", "/v1/messages", ASK, {Role.INFER, Role.MANAGE, Role.ADMIN}),
    ("POST", "/api/copy", {"source": "tiny", "destination": "copy"}, {Role.MANAGE, Role.ADMIN}),
    ("HEAD", "/api/blobs/sha256:" + "0" * 64, None, {Role.MANAGE, Role.ADMIN}),
    ("GET", "/metrics", None, {Role.METRICS, Role.ADMIN}),
    ("GET", "/v2/library/tiny/manifests/latest", None, {Role.PULL, Role.PUSH, Role.ADMIN}),
    ("POST", "/v2/library/new/blobs/uploads/", None, {Role.PUSH, Role.ADMIN}),
    ("POST", "/v2/library/new/blobs/uploads", None, {Role.PUSH, Role.ADMIN}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"), ROLE_TABLE, ids=[f"{row[0]} {row[1]}"[:40] for row in ROLE_TABLE]
)
def test_each_role_may_do_what_it_says(
    locked: LiveServer, method: str, path: str, body: Any, allowed: set[Role]
) -> None:
    for role, secret in SECRETS.items():
        status = locked.call(method, path, json=body, headers=bearer(secret)).status_code
        assert (status != 403) is (role in allowed), (role, status)
        assert status not in (401, 500)


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, f"/api/tags?api_key={SECRETS[Role.ADMIN]}&key={SECRETS[Role.ADMIN]}"),
        ({"authorization": "Bearer"}, "/api/tags"),
        (bearer("wrong"), "/api/tags"),
        (bearer(SECRETS[Role.ADMIN][:-1]), "/api/tags"),
        (bearer(SECRETS[Role.ADMIN] + " x"), "/api/tags"),
        ({"authorization": SECRETS[Role.ADMIN]}, "/api/tags"),
        ({"authorization": f"Token {SECRETS[Role.ADMIN]}"}, "/api/tags"),
        (basic("me", SECRETS[Role.ADMIN]), "/api/tags"),
        ({"authorization": "Basic !!!"}, "/v2/"),
        (basic("me", "wrong"), "/v2/"),
        (basic(SECRETS[Role.ADMIN], ""), "/v2/"),
        ({"x-api-key": ""}, "/api/tags"),
        ({"cookie": f"key={SECRETS[Role.ADMIN]}"}, "/api/tags"),
        (bearer(SECRETS[Role.ADMIN]) | {"x-api-key": "another"}, "/api/tags"),
    ],
)
def test_what_is_no_key_is_refused(locked: LiveServer, headers: dict[str, str], path: str) -> None:
    assert locked.call("GET", path, headers=headers).status_code == 401


def test_two_keys_in_one_request_are_refused(locked: LiveServer) -> None:
    headers = [("Authorization", f"Bearer {SECRETS[Role.ADMIN]}")] * 2
    assert httpx.get(f"{locked.url}/api/tags", headers=headers).status_code == 401
    odd = [(b"Authorization", "Bearer schlüssel".encode())]
    assert httpx.get(f"{locked.url}/api/tags", headers=odd).status_code == 401


def test_each_way_of_showing_a_key(locked: LiveServer) -> None:
    admin = SECRETS[Role.ADMIN]
    for headers in (
        bearer(admin),
        bearer(GIVEN),
        {"authorization": f"bearer  {admin}"},
        {"x-api-key": admin},
        bearer(admin) | {"x-api-key": admin},
    ):
        assert locked.call("GET", "/api/tags", headers=headers).status_code == 200, headers
    assert locked.call("GET", "/v2/", headers=basic("anyone", admin)).status_code == 200


# The words of each dialect


def test_the_sdks_raise_what_they_raise_for_a_bad_key_and_for_one_without_the_role(
    locked: LiveServer,
) -> None:
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            sdk.models.list()
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.PermissionDeniedError, match="role infer"):
            sdk.with_options(api_key=SECRETS[Role.PULL]).models.list()
        assert sdk.with_options(api_key=SECRETS[Role.INFER]).models.list().data
    with anthropic.Anthropic(base_url=locked.url, api_key="wrong", max_retries=0) as claude:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            claude.messages.create(**ASK)  # type: ignore[call-overload]
        assert unknown.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
        with pytest.raises(anthropic.PermissionDeniedError):
            claude.with_options(api_key=SECRETS[Role.PULL]).messages.create(**ASK)  # type: ignore[call-overload]
        answer = claude.with_options(api_key=SECRETS[Role.INFER]).messages.create(**ASK)  # type: ignore[call-overload]
        assert answer.usage.output_tokens == 1
    client = ollama.Client(host=locked.url, headers=bearer("wrong"))
    with pytest.raises(ollama.ResponseError, match="not valid") as native:
        client.list()
    assert native.value.status_code == 401
    client._client.close()
    registry = locked.call("GET", "/v2/")
    assert registry.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert registry.headers["www-authenticate"] == 'Basic realm="lading"'
    denied = locked.call("PUT", "/v2/a/manifests/b", headers=basic("x", SECRETS[Role.PULL]))
    assert (denied.status_code, denied.json()["errors"][0]["code"]) == (403, "DENIED")


def test_nothing_is_done_for_a_request_that_is_refused_and_its_connection_goes_on(locked: LiveServer) -> None:
    with httpx.Client(base_url=locked.url) as client:
        body = {"source": "tiny", "destination": "stolen"}
        assert client.post("/api/copy", json=body).status_code == 401
        assert client.post("/api/copy", json=body, headers=bearer(SECRETS[Role.INFER])).status_code == 403
        assert client.post("/api/show", json={"model": "stolen"}, headers=bearer(GIVEN)).status_code == 404


def test_logs_have_the_id_of_a_key_and_never_the_key(locked: LiveServer) -> None:
    secret = SECRETS[Role.INFER]
    locked.call("GET", "/api/tags", headers=bearer(secret) | {"x-request-id": "who-asked"})
    locked.call("GET", f"/api/tags?key={secret}", headers=bearer("wrong-" + secret))
    lines = [json.loads(line) for line in locked.log.splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "who-asked"]
    assert line["key"] == key_of(secret, name="x", roles=(), created="").id
    assert not any(secret in locked.log for secret in (*SECRETS.values(), GIVEN))


# Keys that come and go


def test_a_key_counts_from_the_moment_it_is_made_until_it_is_revoked_or_expires(locked: LiveServer) -> None:
    file, secret = key_file(locked), "lading_fleeting_key_0001"

    def status() -> int:
        return locked.call("GET", "/api/tags", headers=bearer(secret)).status_code

    assert status() == 401
    file.add(known(secret, Role.INFER, name="fleeting"))
    assert status() == 200
    file.remove("fleeting")
    assert status() == 401
    file.add(known(secret, Role.INFER, name="fleeting", expires=1.0))
    assert status() == 401
    file.remove("fleeting")


def test_a_file_that_breaks_leaves_the_keys_as_they_were(locked: LiveServer) -> None:
    path = key_file(locked).path
    sound = path.read_bytes()
    for broken in (b"", b"[]", b'{"version": 2, "keys": []}', sound[:-20]):
        path.write_bytes(broken)
        assert locked.call("GET", "/api/tags", headers=bearer(SECRETS[Role.INFER])).status_code == 200
        assert locked.call("GET", "/api/tags").status_code == 401
    path.rename(path.with_suffix(".away"))
    assert locked.call("GET", "/api/tags", headers=bearer(SECRETS[Role.INFER])).status_code == 401
    assert locked.call("GET", "/api/tags", headers=bearer(GIVEN)).status_code == 200
    path.write_bytes(sound)
    assert locked.call("GET", "/api/tags", headers=bearer(SECRETS[Role.INFER])).status_code == 200


def test_a_key_has_its_share_and_no_more(locked: LiveServer) -> None:
    file = key_file(locked)
    file.add(known("lading_three_a_minute", Role.INFER, per_minute=3))
    statuses = [locked.call("GET", "/v1/models", headers=bearer("lading_three_a_minute")) for _ in range(5)]
    assert [answer.status_code for answer in statuses[:3]] == [200, 200, 200]
    refused = [answer for answer in statuses if answer.status_code == 429]
    assert refused and int(refused[0].headers["retry-after"]) in range(1, 61)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    file.add(known("lading_one_at_a_time", Role.INFER, at_once=1))
    mine = bearer("lading_one_at_a_time")
    with socket.create_connection(("127.0.0.1", locked.port), timeout=30) as waiting:
        # A request is under way from its headers on, and this one's body does not come.
        waiting.sendall(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            b"Authorization: Bearer lading_one_at_a_time\r\n\r\n"
        )
        assert eventually(lambda: locked.call("GET", "/api/tags", headers=mine).status_code == 429)
        assert locked.call("GET", "/api/tags", headers=bearer(GIVEN)).status_code == 200
    assert eventually(lambda: locked.call("GET", "/api/tags", headers=mine).status_code == 200)


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold; waits for long, so that a busy machine does not decide."""
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# Other programs


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_only_who_manages_the_server_may_have_a_model_stay_for_longer(locked: LiveServer) -> None:
    def stays(role: Role, path: str, **more: Any) -> float:
        """Hours."""
        body = {**SHORT, "max_tokens": 2, **more}
        assert locked.call("POST", path, json=body, headers=bearer(SECRETS[role])).status_code == 200
        [row] = locked.call("GET", "/api/ps", headers=bearer(SECRETS[role])).json()["models"]
        until = datetime.fromisoformat(row["expires_at"])
        return (until - datetime.now(UTC)).total_seconds() / 3600

    for path in ("/api/generate", "/v1/completions"):
        for asked in (-1, "9999h", "-1", 10**6):
            assert stays(Role.INFER, path, keep_alive=asked) < 0.1
        assert stays(Role.MANAGE, path, keep_alive="24h") > 23
        assert stays(Role.ADMIN, path, keep_alive=-1) > 10**5
        assert stays(Role.INFER, path, keep_alive="1m") < 0.1


def test_skopeo_logs_in_pulls_and_pushes(locked: LiveServer, tmp_path: Path) -> None:
    registry, authfile = f"127.0.0.1:{locked.port}", tmp_path / "auth.json"

    def skopeo(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["skopeo", *arguments], input=stdin, capture_output=True, text=True, timeout=100, check=False
        )

    def log_in(secret: str) -> int:
        return skopeo(
            "login", "--tls-verify=false", f"--authfile={authfile}", "-u", "ci", "--password-stdin", registry,
            stdin=secret,
        ).returncode  # fmt: skip

    def copy(source: str, target: str) -> subprocess.CompletedProcess[str]:
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        return skopeo("copy", f"--authfile={authfile}", *plain, source, target)

    model, layout = f"docker://{registry}/library/tiny:latest", f"oci:{tmp_path / 'layout'}:tiny"
    assert "unauthorized" in copy(model, layout).stderr
    assert log_in("wrong") != 0
    assert log_in(SECRETS[Role.PULL]) == 0
    pulled = copy(model, layout)
    assert pulled.returncode == 0, pulled.stderr
    assert copy(layout, f"docker://{registry}/team/pushed:1").returncode != 0
    assert log_in(SECRETS[Role.PUSH]) == 0
    pushed = copy(layout, f"docker://{registry}/team/pushed:1")
    assert pushed.returncode == 0, pushed.stderr


def test_our_own_commands_send_the_key_of_the_settings(locked: LiveServer, tmp_path: Path) -> None:
    mine = {"LADING_HOST": f"127.0.0.1:{locked.port}"}
    stranger = Lading(tmp_path / "home", mine)
    assert "an API key is needed" in stranger.fails(4, "run", "tiny", "hello")
    friend = Lading(tmp_path / "home", mine | {"LADING_API_KEY": SECRETS[Role.INFER]})
    assert "NAME" in friend.ok("ps")
    assert "Paris" in friend.ok("run", "--think=false", "tiny", "What is the capital of France?")
    rows = json.loads(friend.ok("config", "--format", "json"))
    [row] = [row for row in rows if row["setting"] == "api_key"]
    assert row["value"] == "(secret)"


# A server that listens to a network


KEYED = {"api_key": GIVEN}
WITH_TLS = {"tls": TlsSettings(cert=Path("c"), key=Path("k"))}
MUTUAL = {"tls": TlsSettings(cert=Path("c"), key=Path("k"), client_ca=Path("a"))}


@pytest.mark.parametrize(
    ("host", "settings", "missing"),
    [
        ("127.0.0.1", {}, None),
        ("localhost", {}, None),
        ("::1", {}, None),
        ("0.0.0.0", {}, "API keys"),
        ("::", {}, "API keys"),
        ("192.168.1.5", {}, "API keys"),
        ("models.example", {}, "API keys"),
        ("0.0.0.0", {"behind_proxy": True}, "API keys"),
        ("0.0.0.0", WITH_TLS, "API keys"),
        ("0.0.0.0", KEYED, "TLS"),
        ("0.0.0.0", KEYED | WITH_TLS, None),
        ("0.0.0.0", KEYED | {"behind_proxy": True}, None),
        ("0.0.0.0", MUTUAL, None),
        ("0.0.0.0", {"insecure_no_auth": True}, None),
    ],
    ids=str,
)
def test_what_a_server_needs_to_listen_to_a_network(
    tmp_path: Path, host: str, settings: dict[str, Any], missing: str | None
) -> None:
    wanted = ServerSettings(store_root=tmp_path, host=host, **settings)
    if missing is None:
        require_protection(wanted)
    else:
        with pytest.raises(Exposed, match=missing):
            require_protection(wanted)


def test_with_a_key_it_needs_tls_or_a_proxy_that_has_it(lading: Lading) -> None:
    port = free_port()
    assert "API keys" in lading.fails(2, "serve", "--listen", f"0.0.0.0:{port}")
    secret = lading.ok("apikey", "create", "ci", "--role", "pull,push").strip()
    assert "TLS" in lading.fails(2, "registry", "--listen", f"0.0.0.0:{port}")
    flags = ("--listen", f"0.0.0.0:{port}", "--behind-proxy")
    with lading.background("registry", *flags, ready=f"http://127.0.0.1:{port}/livez"):
        assert httpx.get(f"http://127.0.0.1:{port}/v2/").status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port}/v2/", headers=basic("ci", secret)).status_code == 200


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    for secret in ("short", "a" * 15, "with blanks in between", "mit Umläuten geschrieben"):
        with pytest.raises(BadKey, match="16 or more"):
            require_protection(ServerSettings(store_root=tmp_path, api_key=secret))
