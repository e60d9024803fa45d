"""The subclass of oras's registry, where the API is, and plain HTTP and TLS."""

from __future__ import annotations

import datetime
import inspect
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oras.provider
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from registry_clients import Waits, impatient_client, known_to
from scripted_registry import Reply, ScriptedRegistry, scripted_registry
from store_models import describe, make_manifest

from lading import __version__
from lading.modelfile.errors import InputError, InternalError, LadingError
from lading.oci.digest import Digest
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.errors import RegistryUnreachable, RegistryUnsafe
from lading.oci.registry.origin import Origin
from lading.oci.registry.settings import RegistrySettings
from lading.oci.registry.transport import Transport

BLOB = b"weights" * 1000
MANIFEST, BLOBS = make_manifest(BLOB)

LOCAL = {
    # Inherited methods that stay: they compute, and touch no network, file or process.
    "get_container", "version", "__repr__", "__str__", "_validate_path", "_parse_manifest_ref",
    "_check_200_response", "_parse_response_errors",
    # Old names that only call the new ones, which are ours.
    "_download_blob", "_put_upload", "_chunked_upload", "_upload_manifest", "_upload_blob",
}  # fmt: skip


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


def test_every_inherited_method_is_done_again_or_harmless() -> None:
    inherited = {name for name, _ in inspect.getmembers(oras.provider.Registry, inspect.isfunction)}
    ours = set(vars(RegistryClient))
    assert inherited - ours - LOCAL == set(), (
        "new methods in oras: override them, or show that they are local"
    )
    assert inherited >= LOCAL, "methods that oras no longer has"


@pytest.mark.parametrize(
    "name", sorted(name for name, _ in inspect.getmembers(oras.provider.Registry, inspect.isfunction))
)
def test_no_inherited_method_uses_requests_by_itself(
    name: str, registry: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "__init__":
        pytest.skip("opens no connection")

    def caught(*args: object, **options: object) -> None:
        raise AssertionError("a request that went around our rules")

    monkeypatch.setattr(requests.Session, "request", caught)
    monkeypatch.setattr(requests.Session, "send", caught)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blob").write_bytes(BLOB)
    container = f"{registry.host}/team/m:v1"
    layer = {"digest": str(Digest.of(BLOB)), "size": len(BLOB), "mediaType": "application/octet-stream"}
    values: dict[str, Any] = {
        "container": container, "name": container, "target": container, "hostname": registry.host,
        "url": f"{registry.url}/v2/", "digest": layer["digest"], "layer": layer, "blob": "blob",
        "outfile": str(tmp_path / "out"), "tag": "v1", "tags": ["v1"], "username": "u", "password": "p",
        "manifest": {"schemaVersion": 2, "config": describe(b"{}").to_json(), "layers": []},
        "path": "x", "ref": "x:a/b", "callable": bool, "value": "v", "response": Reply(), "r": Reply(),
    }  # fmt: skip
    with impatient_client() as client:
        method = getattr(client, name)
        try:
            parameters = inspect.signature(getattr(oras.provider.Registry, name)).parameters.values()
            needed = [p.name for p in parameters if p.name != "self" and p.default is p.empty]
            method(*[values[parameter] for parameter in needed])
        except (LadingError, AttributeError):
            pass  # refused, or not for a Reply


@pytest.mark.parametrize(
    "name", ["push", "pull", "login", "logout", "delete_tag", "delete_tags", "set_header"]
)
def test_what_is_refused_says_what_to_use(name: str) -> None:
    with impatient_client() as client, pytest.raises(InternalError, match="use "):
        getattr(client, name)("a", "b")


def test_the_base_class_has_no_way_around(registry: ScriptedRegistry) -> None:
    with impatient_client() as client:
        with pytest.raises(InternalError):
            client.session.get(registry.url)
        with pytest.raises(InternalError):
            client.auth.set_basic_auth("u", "p")
        with pytest.raises(InternalError):
            client.auth.request_anonymous_token(None, {})


def test_code_that_knows_oras_works(registry: ScriptedRegistry, tmp_path: Path) -> None:
    container = f"{registry.host}/team/m:v1"
    with impatient_client() as client:
        manifest = client.get_manifest(container)
        assert manifest["layers"][0]["digest"] == str(Digest.of(BLOB))
        out = client.download_blob(container, manifest["layers"][0]["digest"], str(tmp_path / "out"))
        assert Path(out).read_bytes() == BLOB
        new = tmp_path / "new"
        new.write_bytes(b"new blob")
        layer = {"digest": str(Digest.of(b"new blob")), "size": 8, "mediaType": "a/b"}
        assert not client.blob_exists(layer, container)
        assert client.upload_blob(str(new), container, layer).status_code == 201
        assert client.blob_exists(layer, container)
        assert client.get_blob(container, layer["digest"], head=True).status_code == 200
        assert client.upload_manifest({**manifest, "layers": [layer]}, container).status_code == 201
        assert client.get_manifest(container)["layers"] == [layer]
        assert client.get_tags(container) == ["v1"]
        with pytest.raises(InternalError, match="download_blob"):
            client.get_blob(container, layer["digest"])


def test_do_request_keeps_oras_signature(registry: ScriptedRegistry) -> None:
    registry.on("POST", "/echo", Reply(200, body=b"{}"))
    with impatient_client() as client:
        response = client.do_request(f"{registry.url}/echo", "POST", json={"a": 1}, headers={"X-A": "b"})
        assert response.json() == {}
        response.close()
        with pytest.raises(InputError):
            client.do_request(f"{registry.url}/echo", "POST", data={"a": "b"})
    (seen,) = registry.seen
    assert seen.body == b'{"a": 1}'
    assert seen.headers["x-a"] == "b"


def test_requests_say_who_we_are_and_carry_nothing_else(
    registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What the requests library would read from the environment is not for registries.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password netrc-secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    for key, value in {
        "HOME": str(tmp_path),
        "http_proxy": "http://127.0.0.1:9",
        "all_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(key, value)
    registry.on("GET", "/v2/", Reply(200, {"Set-Cookie": "session=1"}), times=1)
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    with impatient_client() as client:
        client.repository(reference).fetch_manifest(reference)
    last = registry.seen[-1].headers
    assert last["user-agent"] == f"lading/{__version__}"
    assert last["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & set(last)


# Where the API is


@pytest.mark.parametrize(
    ("registry_name", "expected"),
    [
        ("ghcr.io", "https://ghcr.io"),
        ("reg.example:5000", "https://reg.example:5000"),
        ("docker.io", "https://registry-1.docker.io"),
        ("index.docker.io", "https://registry-1.docker.io"),
    ],
)
def test_other_hosts_are_spoken_to_with_tls(registry_name: str, expected: str) -> None:
    with impatient_client() as client:
        assert str(client.origin(registry_name)) == expected


def test_one_word_names_on_docker_hub_are_in_its_library() -> None:
    with impatient_client() as client:
        assert client.repository(Reference("docker.io", "llama", "v1")).name == "library/llama"
        assert client.repository(Reference("docker.io", "ai/llama", "v1")).name == "ai/llama"
        assert client.repository(Reference("ghcr.io", "llama", "v1")).name == "llama"


def test_plain_http_is_for_loopback_and_listed_hosts() -> None:
    settings = RegistrySettings(plain_http=("reg.example:5000", "lan.example"))

    def allowed(url: str) -> bool:
        return settings.allows_plain_http(Origin.of(url))

    assert allowed("http://127.0.0.1:5000")
    assert allowed("http://localhost:5000")
    assert allowed("http://[::1]:5000")
    assert allowed("http://reg.example:5000")
    assert allowed("http://lan.example:81")
    assert not allowed("http://reg.example:5001")
    assert not allowed("http://evil.reg.example:5000")
    assert not allowed("http://other.example")


def test_plain_http_elsewhere_is_refused_before_anything_is_sent() -> None:
    with impatient_client(known_to("reg.example")) as client, pytest.raises(RegistryUnsafe) as caught:
        client.do_request("http://reg.example/v2/")
    assert "--insecure" in str(caught.value.hint)


# TLS


def make_certificate(folder: Path, name: str = "127.0.0.1", *, days: int = 1) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[str]:
    """A TLS server that answers every request with an empty JSON object; gives its ``host:port``. To plain
    HTTP it says what Go's server says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve_one(plain: socket.socket) -> None:
        with plain:
            plain.settimeout(5)
            try:
                if plain.recv(1, socket.MSG_PEEK) != b"\x16":
                    plain.recv(65536)
                    said = b"Client sent an HTTP request to an HTTPS server.\n"
                    plain.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" + said)
                    return
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            except OSError:
                return

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            serve_one(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_a_certificate_of_an_unknown_authority_fails_at_once(tmp_path: Path) -> None:
    waits = Waits()
    with (
        tls_server(*make_certificate(tmp_path)) as host,
        impatient_client(sleep=waits) as client,
        pytest.raises(RegistryUnreachable, match="certificate") as caught,
    ):
        client.do_request(f"https://{host}/v2/")
    assert waits.seconds == []
    assert "authority" in str(caught.value.hint)


def test_an_authority_that_is_given_is_trusted(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with tls_server(certificate, key) as host, impatient_client(ca_file=certificate) as client:
        response = client.do_request(f"https://{host}/v2/")
        assert response.status_code == 200
        response.close()


@pytest.mark.parametrize(("name", "days"), [("other.example", 1), ("127.0.0.1", -1)], ids=["name", "expired"])
def test_a_trusted_authority_is_not_enough(tmp_path: Path, name: str, days: int) -> None:
    certificate, key = make_certificate(tmp_path, name, days=days)
    with (
        tls_server(certificate, key) as host,
        impatient_client(ca_file=certificate) as client,
        pytest.raises(RegistryUnreachable, match="certificate"),
    ):
        client.do_request(f"https://{host}/v2/")


def test_a_bad_authority_file_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("not a certificate")
    for path in (tmp_path / "ca", tmp_path / "missing"):
        with impatient_client(ca_file=path) as client, pytest.raises(InputError, match="authorities"):
            client.do_request("https://127.0.0.1:1/v2/")


def test_tls_to_a_plain_server_suggests_insecure(registry: ScriptedRegistry) -> None:
    with impatient_client() as client, pytest.raises(RegistryUnreachable) as caught:
        client.do_request(f"https://{registry.host}/v2/")
    assert "--insecure" in str(caught.value.hint)


def test_a_loopback_registry_with_tls_is_found(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with tls_server(certificate, key) as host, impatient_client(ca_file=certificate) as client:
        assert str(client.origin(host)) == f"https://{host}"


# Internal addresses


def test_a_guarded_exchange_does_not_connect_inside(registry: ScriptedRegistry) -> None:
    transport = Transport(RegistrySettings())
    with pytest.raises(RegistryUnsafe, match="internal"):
        transport.exchange("GET", f"{registry.url}/v2/", headers={}, public_only=True)
    transport.close()
    assert registry.seen == []


def test_a_name_with_one_internal_address_is_refused(registry: ScriptedRegistry) -> None:
    settings = RegistrySettings(plain_http=("mixed.example",))
    transport = Transport(settings, resolver=lambda host, port: ["1.1.1.1", "127.0.0.1"])
    port = registry.host.partition(":")[2]
    with pytest.raises(RegistryUnsafe, match="internal"):
        transport.exchange("GET", f"http://mixed.example:{port}/v2/", headers={}, public_only=True)
    transport.close()
    assert registry.seen == []


def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    asked: list[str] = []

    def changes_its_mind(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) > 1 else ["10.0.0.1"]

    transport = Transport(RegistrySettings(plain_http=("flip.example",)), resolver=changes_its_mind)
    with pytest.raises(RegistryUnsafe):
        transport.exchange("GET", "http://flip.example/", headers={}, public_only=True)
    transport.close()
    assert asked == ["flip.example"]


# Proxies


def test_a_proxy_is_used_for_others_and_never_for_loopback(registry: ScriptedRegistry) -> None:
    registry.on("GET", "", Reply(200, body=b"via proxy"))
    settings = RegistrySettings(
        plain_http=("far.example", "near.example"),
        proxies={"http": registry.url, "https": registry.url},
        no_proxy=("near.example",),
    )
    with RegistryClient(settings, sleep=Waits()) as client:
        response = client.do_request("http://far.example/v2/")
        assert response.content == b"via proxy"
        with pytest.raises(RegistryUnreachable):
            client.do_request("http://near.example/v2/")
        with scripted_registry() as other:
            client.do_request(f"{other.url}/v2/").close()
            assert len(other.seen) == 1


def test_known_token_services_are_trusted_with_their_registry_only() -> None:
    settings = RegistrySettings(realm_hosts={"reg.example": ("auth.example",)})

    def trusts(registry: str, realm: str) -> bool:
        return settings.trusts_realm(Origin.of(registry), Origin.of(realm))

    assert trusts("https://registry-1.docker.io", "https://auth.docker.io/token")
    assert trusts("https://reg.example", "https://auth.example/token")
    assert trusts("https://reg.example", "https://reg.example/token")
    assert not trusts("https://registry-1.docker.io", "http://auth.docker.io/token")
    assert not trusts("https://ghcr.io", "https://auth.docker.io/token")
    assert not trusts("https://reg.example", "https://reg.example:8443/token")
    assert not trusts("https://reg.example", "http://reg.example/token")
    assert not trusts("https://reg.example", "https://auth.example.evil/token")
