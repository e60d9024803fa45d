"""What a login shows to whom, and what it keeps: with a scripted registry and token service."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry

from lading.oci.registry.client import RegistryClient
from lading.oci.registry.credential_store import CredentialStore
from lading.oci.registry.credentials import Credential, CredentialFiles
from lading.oci.registry.errors import RegistryError, RegistryUnsafe
from lading.oci.registry.login import LoginRefused
from lading.oci.registry.settings import RegistrySettings

SECRET = "hunter2"
BASIC = f"Basic {base64.b64encode(f'u:{SECRET}'.encode()).decode()}"


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        yield running


@pytest.fixture
def client() -> Iterator[RegistryClient]:
    with RegistryClient(RegistrySettings()) as made:
        yield made


def wants(registry: ScriptedRegistry, realm: str, **answer: object) -> None:
    """The registry asks for tokens of `realm`, which answers the right password so."""

    def check(seen: Seen) -> Reply | None:
        if seen.authorization == "Bearer t":
            return None
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})

    def token(seen: Seen) -> Reply:
        return Reply(body=json.dumps(answer).encode()) if seen.authorization == BASIC else Reply(401)

    registry.on("GET", "^/v2/$", check)
    registry.on("GET", "^/token$", token)


def test_an_identity_token_takes_the_place_of_the_password(
    registry: ScriptedRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    wants(registry, f"{registry.url}/token", token="t", refresh_token="refresh-me")
    found = client.log_in(registry.host, "u", SECRET)
    assert found.verified
    assert (found.credential.identity_token, found.credential.secret) == (True, "refresh-me")
    (asked,) = registry.requests("GET", "/token")
    assert asked.parameters == {
        "service": ["s"], "account": ["u"], "client_id": ["lading"], "offline_token": ["true"]
    }  # fmt: skip
    path = tmp_path / "config.json"
    CredentialStore(path=path).save(registry.host, found.credential)
    assert SECRET not in path.read_text()
    read = CredentialFiles(paths=(path,)).find(registry.host).credential
    assert read is not None and read.identity_token and read.secret == "refresh-me"


def test_without_one_the_password_is_kept(registry: ScriptedRegistry, client: RegistryClient) -> None:
    wants(registry, f"{registry.url}/token", access_token="t")
    found = client.log_in(registry.host, "u", SECRET)
    assert (found.credential.identity_token, found.credential.secret) == (False, SECRET)


def test_the_token_service_refuses(registry: ScriptedRegistry, client: RegistryClient) -> None:
    wants(registry, f"{registry.url}/token", token="t")
    with pytest.raises(LoginRefused) as caught:
        client.log_in(registry.host, "u", "wrong")
    assert "wrong" not in f"{caught.value}{caught.value.hint}"


def test_a_token_that_the_registry_does_not_take(registry: ScriptedRegistry, client: RegistryClient) -> None:
    wants(registry, f"{registry.url}/token", token="another")
    with pytest.raises(LoginRefused):
        client.log_in(registry.host, "u", SECRET)


def test_a_stranger_is_not_shown_the_password(registry: ScriptedRegistry, client: RegistryClient) -> None:
    with scripted_registry() as stranger:
        wants(registry, f"{stranger.url}/token", token="t")
        with pytest.raises(RegistryUnsafe, match="not sent"):
            client.log_in(registry.host, "u", SECRET)
        assert stranger.seen == []
    with (
        RegistryClient(RegistrySettings(realm_hosts={registry.host: (stranger.host,)})) as knowing,
        pytest.raises(RegistryError),
    ):
        knowing.log_in(registry.host, "u", SECRET)  # it would be asked, but has gone


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="http://reg.example/token"',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="https://u:p@reg.example/"',
        'Negotiate realm="x"',
        "",
    ],
)
def test_no_usable_way_to_log_in(registry: ScriptedRegistry, client: RegistryClient, challenge: str) -> None:
    registry.on("GET", "^/v2/$", Reply(401, {"WWW-Authenticate": challenge}))
    with pytest.raises(RegistryError):
        client.log_in(registry.host, "u", SECRET)
    assert all(seen.authorization is None for seen in registry.seen)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"token": 5}', b'{"token": "a\\nb"}', b'{"x":"' + SECRET.encode()]
)
def test_an_answer_that_is_none(registry: ScriptedRegistry, client: RegistryClient, body: bytes) -> None:
    wants(registry, f"{registry.url}/token")
    registry.on("GET", "^/token$", Reply(body=body))
    with pytest.raises(RegistryError) as caught:
        client.log_in(registry.host, "u", SECRET)
    assert SECRET not in str(caught.value)


def test_the_password_does_not_follow_a_redirect(registry: ScriptedRegistry, client: RegistryClient) -> None:
    with scripted_registry() as stranger:

        def away(seen: Seen) -> Reply:
            if seen.authorization:
                return Reply(307, {"Location": f"{stranger.url}/v2/"})
            return Reply(401, {"WWW-Authenticate": 'Basic realm="r"'})

        registry.on("GET", "^/v2/$", away)
        client.log_in(registry.host, "u", SECRET)
        assert [seen.authorization for seen in stranger.seen] == [None]


def test_an_open_registry_cannot_check(registry: ScriptedRegistry, client: RegistryClient) -> None:
    assert not client.log_in(registry.host, "u", SECRET).verified


def test_of_many_logins_at_once_none_is_lost(tmp_path: Path) -> None:
    store = CredentialStore(path=tmp_path / "config.json")

    def save(number: int) -> None:
        store.save(f"r{number}.example", Credential(username="u", secret=str(number), source="test"))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = CredentialFiles(paths=(store.path,))
    for number in range(12):
        found = files.find(f"r{number}.example").credential
        assert found is not None and found.secret == str(number)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_is_kept_under_its_old_name(tmp_path: Path, name: str) -> None:
    store = CredentialStore(path=tmp_path / "config.json")
    store.save(name, Credential(username="u", secret="s", source="test"))
    assert list(json.loads(store.path.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    assert store.erase("docker.io")
    assert not store.erase("docker.io")
