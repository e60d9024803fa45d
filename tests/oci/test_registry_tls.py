"""TLS with real servers: authorities and client certificates from certs.d, tunnels through proxies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority, Issued
from connect_proxy import connect_proxy
from registry_clients import Waits, impatient_client, known_to
from registry_server import INSTALLED, PASSWORD, USER, WHY_NOT, RunningRegistry, running_registry
from store_models import put_model

from lading.oci.reference import Reference
from lading.oci.registry.certificates import (
    BadCertificate,
    ClientCertificate,
    HostCertificates,
    default_folders,
    find_certificates,
)
from lading.oci.registry.errors import RegistryUnreachable
from lading.oci.registry.origin import Origin
from lading.oci.registry.proxy import proxies_for
from lading.oci.store import Store
from lading.oci.transfer import pull, push

needs_registry = pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)


@dataclass(frozen=True)
class Secured:
    """A registry with TLS that wants certificates of clients, and passwords."""

    registry: RunningRegistry
    authority: Authority
    clients: Authority

    def certs_d(self, folder: Path, *, client: Issued | None) -> Path:
        """A folder as Docker's, for this registry."""
        here = folder / self.registry.host
        here.mkdir(parents=True)
        shutil.copy(self.authority.certificate, here / "ca.crt")
        if client is not None:
            shutil.copy(client.certificate, here / "client.cert")
            shutil.copy(client.key, here / "client.key")
        return folder


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    folder = tmp_path_factory.mktemp("tls")
    authority, clients = Authority(folder / "servers"), Authority(folder / "clients", "clients")
    with running_registry(
        folder / "registry",
        auth="htpasswd",
        server=authority.issue("127.0.0.1"),
        client_ca=clients.certificate,
    ) as registry:
        yield Secured(registry, authority, clients)


def test_a_model_travels_with_certificates_on_both_sides(
    secured: Secured, store: Store, tmp_path: Path
) -> None:
    folder = secured.certs_d(tmp_path / "certs.d", client=secured.clients.issue("porter", client=True))
    other, reference = Store.open(tmp_path / "other"), Reference.parse(f"{secured.registry.host}/team/m:v1")
    put_model(store, str(reference), b"weights" * 100_000)
    known = known_to(secured.registry.host, username=USER, secret=PASSWORD)
    with impatient_client(known, certificate_folders=(folder,), part_size=100_000) as client:
        push(store, client, reference)
        assert pull(other, client, reference) == store.resolve(reference)
    assert other.fsck().clean


def unknown_client(secured: Secured, folder: Path) -> Path:
    stranger = Authority(folder / "stranger", "strangers").issue("porter", client=True)
    return secured.certs_d(folder / "certs.d", client=stranger)


def no_client(secured: Secured, folder: Path) -> Path:
    return secured.certs_d(folder / "certs.d", client=None)


@pytest.mark.parametrize("prepared", [no_client, unknown_client])
def test_a_registry_that_wants_another_certificate_is_explained(
    secured: Secured, tmp_path: Path, prepared: Callable[[Secured, Path], Path]
) -> None:
    folder, waits = prepared(secured, tmp_path), Waits()
    with (
        impatient_client(certificate_folders=(folder,), sleep=waits) as client,
        pytest.raises(RegistryUnreachable) as caught,
    ):
        client.do_request(f"https://{secured.registry.host}/v2/")
    assert "certificate" in str(caught.value.hint)
    assert waits.seconds == []


def test_without_the_authority_nothing_is_sent(secured: Secured, tmp_path: Path) -> None:
    with impatient_client() as client, pytest.raises(RegistryUnreachable, match="certificate is not valid"):
        client.do_request(f"https://{secured.registry.host}/v2/")


# Which files count

HOST = Origin.of("https://reg.example:5000")


def found(*folders: Path) -> HostCertificates:
    return find_certificates(folders, HOST)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "certs.d" / "reg.example:5000"
    folder.mkdir(parents=True)
    return folder


def test_suffixes_say_what_a_file_is(here: Path) -> None:
    for name in ("a.crt", "b.crt", "c.cert", "c.key", "notes.txt"):
        (here / name).touch()
    assert found(here.parent) == HostCertificates(
        authorities=(here / "a.crt", here / "b.crt"),
        clients=(ClientCertificate(here / "c.cert", here / "c.key"),),
    )


def test_the_first_folder_that_has_the_registry_counts(here: Path, tmp_path: Path) -> None:
    first = tmp_path / "first" / "reg.example:5000"
    first.mkdir(parents=True)
    (first / "a.crt").touch()
    (here / "b.crt").touch()
    assert found(first.parent, here.parent).authorities == (first / "a.crt",)
    assert found(tmp_path / "missing", here.parent).authorities == (here / "b.crt",)


def test_other_registries_have_none_of_it(here: Path) -> None:
    (here / "a.crt").touch()
    for url in ("https://reg.example", "https://reg.example:5001", "https://a.reg.example:5000"):
        assert find_certificates([here.parent], Origin.of(url)) == HostCertificates()


@pytest.mark.parametrize("name", ["reg.example", "reg.example:443"])
def test_the_port_of_https_may_be_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.crt").touch()
    assert find_certificates([tmp_path], Origin.of("https://reg.example/v2/")).authorities


def only_a_certificate(folder: Path, authority: Authority) -> None:
    shutil.copy(authority.issue("porter", client=True).certificate, folder / "client.cert")


def only_a_key(folder: Path, authority: Authority) -> None:
    shutil.copy(authority.issue("porter", client=True).key, folder / "client.key")


def an_encrypted_key(folder: Path, authority: Authority) -> None:
    issued = authority.issue("porter", client=True, password=b"secret")
    shutil.copy(issued.certificate, folder / "client.cert")
    shutil.copy(issued.key, folder / "client.key")


def another_key(folder: Path, authority: Authority) -> None:
    shutil.copy(authority.issue("porter", client=True).certificate, folder / "client.cert")
    shutil.copy(authority.issue("other", client=True).key, folder / "client.key")


def junk(folder: Path, authority: Authority) -> None:
    (folder / "ca.crt").write_text("junk")


@pytest.mark.parametrize("fault", [only_a_certificate, only_a_key, an_encrypted_key, another_key, junk])
def test_unusable_files_are_an_error_that_names_them(
    here: Path, tmp_path: Path, fault: Callable[[Path, Authority], None]
) -> None:
    fault(here, Authority(tmp_path / "authority"))
    with (
        impatient_client(certificate_folders=(here.parent,)) as client,
        pytest.raises(BadCertificate) as caught,
    ):
        client.do_request("https://reg.example:5000/v2/")
    assert str(here) in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_the_folders_of_podman_and_docker() -> None:
    home = Path("/home/p")
    folders = default_folders({}, home)
    assert folders[0] == home / ".config/containers/certs.d"
    assert Path("/etc/docker/certs.d") in folders
    assert default_folders({"XDG_CONFIG_HOME": "/x"}, home)[0] == Path("/x/containers/certs.d")


# Proxies


@needs_registry
def test_a_tunnel_through_a_proxy_with_a_password(tmp_path: Path, store: Store) -> None:
    authority = Authority(tmp_path / "ca")
    reference = Reference.parse("registry.test:5443/team/m:v1")
    put_model(store, str(reference), b"weights" * 50_000)
    with (
        running_registry(tmp_path / "registry", server=authority.issue("registry.test")) as registry,
        connect_proxy({"registry.test:5443": registry.host}, user="me:s3cret-word") as proxy,
    ):
        through = {"https": proxy.url("me:s3cret-word")}
        with impatient_client(proxies=through, ca_file=authority.certificate) as client:
            push(store, client, reference)
            other = Store.open(tmp_path / "other")
            assert pull(other, client, reference) == store.resolve(reference)
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT registry.test:5443"}
        waits = Waits()
        wrong = {"https": proxy.url("me:wr0ng-word")}
        with (
            impatient_client(proxies=wrong, ca_file=authority.certificate, sleep=waits) as client,
            pytest.raises(RegistryUnreachable, match=r"proxy.*407") as caught,
        ):
            pull(other, client, reference)
        assert "wr0ng" not in f"{caught.value}{caught.value.hint}"
        assert waits.seconds == []


def test_a_proxy_that_cannot_reach_the_registry_is_named_as_the_cause() -> None:
    with (
        connect_proxy({}) as proxy,
        impatient_client(proxies={"https": proxy.url()}) as client,
        pytest.raises(RegistryUnreachable, match=r"proxy.*502") as caught,
    ):
        client.do_request("https://registry.test/v2/")
    assert "NO_PROXY" in str(caught.value.hint)
    assert len(proxy.asked) == 1


NO_PROXY = [
    ("reg.example", "https://reg.example", True),
    ("reg.example", "https://a.reg.example", True),
    ("reg.example", "https://areg.example", False),
    (".reg.example", "https://a.reg.example", True),
    (".reg.example", "https://reg.example", False),
    ("*.reg.example", "https://a.reg.example", True),
    ("REG.example", "https://reg.example", True),
    ("reg.example:5000", "https://reg.example:5000", True),
    ("reg.example:5000", "https://reg.example", False),
    ("10.0.0.0/8", "https://10.1.2.3", True),
    ("10.0.0.0/8", "https://11.1.2.3", False),
    ("10.0.0.0/8", "https://reg.example", False),
    ("10.1.2.3", "https://10.1.2.3:5000", True),
    ("10.1.2.3", "https://10.1.2.33", False),
    ("fd00::/8", "https://[fd00::1]", True),
    ("[fd00::1]:5000", "https://[fd00::1]:5000", True),
    ("fd00::1", "https://[fd00::1]", True),
    ("10.0.0.0/99", "https://10.1.2.3", False),
    ("*", "https://reg.example", True),
    ("", "https://reg.example", False),
    ("other.example", "http://127.0.0.1:5000", True),
    ("other.example", "http://localhost:5000", True),
]


@pytest.mark.parametrize(("entry", "url", "direct"), NO_PROXY, ids=lambda value: str(value))
def test_what_is_reached_without_the_proxy(entry: str, url: str, direct: bool) -> None:
    proxies = {"https": "http://proxy.example:3128"}
    assert (proxies_for(Origin.of(url), proxies, [entry]) == {}) == direct
