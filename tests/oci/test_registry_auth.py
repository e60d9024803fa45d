"""Who is shown credentials and tokens, and who is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest
from registry_clients import SECRET, USER, impatient_client, known_to
from scripted_registry import Answer, Reply, ScriptedRegistry, Seen, scripted_registry
from store_models import make_manifest

from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.credentials import Credentials, NoCredentials
from lading.oci.registry.errors import RegistryDenied, RegistryError, RegistryUnsafe

BASIC = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        manifest, blobs = make_manifest(b"weights")
        running.add(manifest, blobs, "team/m:v1")
        yield running


@pytest.fixture
def elsewhere() -> Iterator[ScriptedRegistry]:
    """Another host, as far as the rules go: the port differs."""
    with scripted_registry() as running:
        yield running


def fetch(registry: ScriptedRegistry, client: RegistryClient, name: str = "team/m:v1") -> None:
    reference = Reference.parse(f"{registry.host}/{name}")
    client.repository(reference).fetch_manifest(reference)


def demand(realm: str, token: str = "t1", **more: str) -> Answer:
    """Wants a bearer token from `realm`; content with `token`."""

    def answer(seen: Seen) -> Reply | None:
        if seen.authorization == f"Bearer {token}":
            return None
        extra = "".join(f',{key}="{value}"' for key, value in more.items())
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{realm}"{extra}'})

    return answer


def grant(token: str = "t1", **more: object) -> Reply:
    return Reply(body=json.dumps({"token": token, **more}).encode())


def test_without_a_challenge_credentials_stay_here(registry: ScriptedRegistry) -> None:
    with impatient_client(known_to(registry.host)) as client:
        fetch(registry, client)
    assert [seen.authorization for seen in registry.seen] == [None] * len(registry.seen)


def test_basic_is_answered_and_remembered(registry: ScriptedRegistry) -> None:
    def wants_basic(seen: Seen) -> Reply | None:
        right = seen.authorization == BASIC
        return None if right else Reply(401, {"WWW-Authenticate": 'Basic realm="r"'})

    registry.on("*", "/v2/team", wants_basic)
    with impatient_client(known_to(registry.host)) as client:
        fetch(registry, client)
        fetch(registry, client)
    sent = [seen.authorization for seen in registry.requests("GET", "manifests")]
    assert sent == [None, BASIC, BASIC]


def test_wrong_basic_credentials_are_tried_once(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", Reply(401, {"WWW-Authenticate": 'Basic realm="r"'}))
    with impatient_client(known_to(registry.host)) as client, pytest.raises(RegistryDenied) as caught:
        fetch(registry, client)
    assert len(registry.requests("GET", "manifests")) == 2
    assert "the test's file" in str(caught.value)
    assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value!r}"


def test_a_stranger_is_told_to_log_in(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", Reply(401, {"WWW-Authenticate": 'Basic realm="r"'}))
    with impatient_client() as client, pytest.raises(RegistryDenied) as caught:
        fetch(registry, client)
    assert "no credentials were sent" in str(caught.value)
    assert caught.value.hint is not None
    assert f"lading login {registry.host}" in caught.value.hint


def test_403_is_final(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", Reply(403, {"WWW-Authenticate": 'Basic realm="r"'}))
    with impatient_client(known_to(registry.host)) as client, pytest.raises(RegistryDenied):
        fetch(registry, client)
    assert len(registry.requests("GET", "manifests")) == 1


def test_a_token_is_fetched_with_service_and_scope(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token", service="reg.example"))
    registry.on("GET", "/token", grant())
    with impatient_client(known_to(registry.host)) as client:
        fetch(registry, client)
    (asked,) = registry.requests("GET", "/token")
    assert asked.parameters == {"service": ["reg.example"], "scope": ["repository:team/m:pull"]}
    assert asked.authorization == BASIC


def test_without_credentials_the_token_is_asked_for_anonymously(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", grant())
    with impatient_client() as client:
        fetch(registry, client)
    assert registry.requests("GET", "/token")[0].authorization is None


def test_tokens_are_kept_per_repository_and_scope(registry: ScriptedRegistry) -> None:
    registry.manifests["other/m/v1"] = registry.manifests["team/m/v1"]
    registry.on("*", "/v2/(team|other)", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", grant(expires_in=300))
    with impatient_client() as client:
        for _ in range(2):
            fetch(registry, client)
            fetch(registry, client, "other/m:v1")
        writable = client.repository(Reference.parse(f"{registry.host}/team/m:v1"), writes=True)
        writable.tags()
    assert [seen.parameters["scope"] for seen in registry.requests("GET", "/token")] == [
        ["repository:team/m:pull"],
        ["repository:other/m:pull"],
        ["repository:team/m:pull,push"],
    ]
    # Once the realm is known, tokens are fetched ahead: only the very first request was refused.
    bare = [seen for seen in registry.requests("GET", "manifests|tags") if seen.authorization is None]
    assert len(bare) == 1


def test_an_expired_token_is_renewed_ahead(
    registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", grant(expires_in=100))
    now = [1000.0]
    with impatient_client() as client:
        monkeypatch.setattr(client._requester._auth, "_clock", lambda: now[0])
        fetch(registry, client)
        now[0] += 79
        fetch(registry, client)
        assert len(registry.requests("GET", "/token")) == 1
        now[0] += 2  # past four fifths of its life
        fetch(registry, client)
        assert len(registry.requests("GET", "/token")) == 2


def test_a_token_that_is_refused_is_replaced_once(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token", "t2"))
    registry.on("GET", "/token", grant("t2"))
    registry.on("GET", "/token", grant("t1"), times=1)
    with impatient_client() as client:
        with pytest.raises(RegistryDenied):
            fetch(registry, client)  # t1 does not do; one attempt a request
        fetch(registry, client)  # t1 is thrown away, t2 does
    assert len(registry.requests("GET", "/token")) == 2


def test_an_identity_token_is_exchanged_not_sent_as_a_password(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token", service="reg"))
    registry.on("POST", "/token", Reply(body=b'{"access_token":"t1","expires_in":60}'))
    with impatient_client(known_to(registry.host, username="<token>", identity=True)) as client:
        fetch(registry, client)
    (asked,) = registry.requests("POST", "/token")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == [SECRET]
    assert form["service"] == ["reg"]
    assert asked.authorization is None
    assert asked.query == ""


def test_an_identity_token_is_never_a_basic_password(registry: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", Reply(401, {"WWW-Authenticate": 'Basic realm="r"'}))
    credentials = known_to(registry.host, username="<token>", identity=True)
    with impatient_client(credentials) as client, pytest.raises(RegistryDenied):
        fetch(registry, client)
    assert all(seen.authorization is None for seen in registry.seen)


# Realms


def test_a_foreign_realm_sees_no_credentials(registry: ScriptedRegistry, elsewhere: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{elsewhere.url}/token"))
    elsewhere.on("GET", "/token", grant())
    with impatient_client(known_to(registry.host)) as client:
        fetch(registry, client)
    assert len(elsewhere.seen) == 1
    assert elsewhere.seen[0].authorization is None
    assert SECRET not in f"{elsewhere.seen}"


def test_a_foreign_realm_that_wants_credentials_is_explained(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry
) -> None:
    registry.on("*", "/v2/team", demand(f"{elsewhere.url}/token"))
    elsewhere.on("GET", "/token", Reply(401))
    with impatient_client(known_to(registry.host)) as client, pytest.raises(RegistryDenied) as caught:
        fetch(registry, client)
    assert "were kept back" in str(caught.value.hint)
    assert elsewhere.host in str(caught.value.hint)


def test_an_identity_token_stays_home_too(registry: ScriptedRegistry, elsewhere: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{elsewhere.url}/token"))
    elsewhere.on("GET", "/token", grant())
    with impatient_client(known_to(registry.host, identity=True)) as client:
        fetch(registry, client)
    assert [seen.method for seen in elsewhere.seen] == ["GET"]
    assert SECRET not in f"{elsewhere.seen}"


def test_a_realm_bound_by_settings_sees_them(registry: ScriptedRegistry, elsewhere: ScriptedRegistry) -> None:
    registry.on("*", "/v2/team", demand(f"{elsewhere.url}/token"))
    elsewhere.on("GET", "/token", grant())
    bound = {registry.host: (elsewhere.host,)}
    with impatient_client(known_to(registry.host), realm_hosts=bound) as client:
        fetch(registry, client)
    assert elsewhere.seen[0].authorization == BASIC


@pytest.mark.parametrize(
    "realm",
    [
        "file:///etc/passwd",
        "ftp://example.com/token",
        "/token",
        "token",
        "",
        "http://user:pass@127.0.0.1/token",
        "http://auth.example/token",  # plain HTTP to a host that is not allowed it
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_unusable_realms_are_not_visited(registry: ScriptedRegistry, realm: str) -> None:
    registry.on("*", "/v2/team", demand(realm))
    with impatient_client(known_to(registry.host)) as client, pytest.raises((RegistryUnsafe, RegistryDenied)):
        fetch(registry, client)
    assert all(seen.authorization is None for seen in registry.seen)


def test_a_redirect_of_the_token_service_is_not_followed(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry
) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", Reply(302, {"Location": f"{elsewhere.url}/steal"}))
    with impatient_client(known_to(registry.host)) as client, pytest.raises(RegistryError):
        fetch(registry, client)
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body=b"<html>"),
        Reply(body=b"[]"),
        Reply(body=b"{}"),
        Reply(body=b'{"token": 5}'),
        Reply(body=b'{"token": "a\\r\\nX: y"}'),
        Reply(body=b'{"token": "' + b"x" * 20_000 + b'"}'),
        Reply(body=b'{"token": NaN}'),
        Reply(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b"),
        Reply(500),
        Reply(404),
    ],
    ids=["html", "array", "empty", "number", "line break", "long", "nan", "gzip", "500", "404"],
)
def test_unusable_token_answers_are_errors(registry: ScriptedRegistry, answer: Reply) -> None:
    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", answer)
    with impatient_client() as client, pytest.raises(RegistryError):
        fetch(registry, client)


def test_an_endless_token_answer_is_cut_off(registry: ScriptedRegistry) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield b" " * (1 << 16)

    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", lambda _: Reply(body=endless(), length=None))
    with impatient_client() as client, pytest.raises(RegistryError):
        fetch(registry, client)
    assert sent < 64 << 20  # what the socket buffers take, not the gigabyte


def test_tokens_of_one_registry_never_reach_another(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry
) -> None:
    elsewhere.manifests = registry.manifests
    registry.on("*", "/v2/team", demand(f"{registry.url}/token"))
    registry.on("GET", "/token", grant())
    with impatient_client(known_to(registry.host)) as client:
        fetch(registry, client)
        fetch(elsewhere, client)
    assert all(seen.authorization is None for seen in elsewhere.seen)


def test_a_strange_challenge_is_a_denial_not_a_crash(registry: ScriptedRegistry) -> None:
    for challenge in ("Negotiate", 'Bearer service="x"', "", '"', "Basic" * 3000):
        registry.on("*", "/v2/team", Reply(401, {"WWW-Authenticate": challenge}))
        credentials: Credentials = NoCredentials()
        with impatient_client(credentials) as client, pytest.raises(RegistryDenied):
            fetch(registry, client)
