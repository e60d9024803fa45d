"""TLS on a real server: versions, client certificates, renewal, slow and mistaken clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from command import Lading
from live_server import LiveServer, build_model, free_port, running_server

from lading.server.settings import TlsSettings
from lading.server.tls import BadCertificate, server_context

pytestmark = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("curl")), reason="openssl or curl is not installed"
)

HOSTS = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def openssl(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, timeout=60, check=False)


class Authority:
    """Makes certificates, with the real program."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.cert, self.key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                  "-keyout", str(self.key), "-out", str(self.cert), "-days", "2", "-subj", f"/CN={name}",
                  "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip

    def issue(self, name: str, extension: str = HOSTS) -> tuple[Path, Path]:
        """A certificate and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                  "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}",
                  "-CA", str(self.cert), "-CAkey", str(self.key), "-addext", extension,
                  "-addext", "basicConstraints=critical,CA:false")  # fmt: skip
        return cert, key

    @staticmethod
    def _run(*arguments: str) -> None:
        done = openssl(*arguments)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    build_model(made / "home", "tiny")
    return made


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def secure(folder: Path, authority: Authority) -> Iterator[LiveServer]:
    """HTTPS, with little patience for handshakes."""
    cert, key = authority.issue("server")
    options = {"verify": ssl.create_default_context(cafile=str(authority.cert))}
    tls = {"cert": str(cert), "key": str(key)}
    with running_server(folder / "home", folder, options=options, tls=tls, limits={"header_s": 2.0}) as live:
        yield live


@pytest.fixture(scope="module")
def mutual(folder: Path, authority: Authority) -> Iterator[LiveServer]:
    """HTTPS for clients of the authority alone."""
    cert, key = authority.issue("mutual-server")
    mine = authority.issue("client", "extendedKeyUsage=clientAuth")
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.load_cert_chain(*mine)
    tls = {"cert": str(cert), "key": str(key), "client_ca": str(authority.cert)}
    with running_server(folder / "home", folder, options={"verify": context}, tls=tls) as live:
        yield live


def test_requests_streams_and_large_answers_go_through(secure: LiveServer) -> None:
    assert secure.call("GET", "/api/version").status_code == 200
    body = {"model": "tiny", "prompt": "1", "raw": True, "options": {"num_predict": 20}}
    assert len(secure.post("/api/generate", body).text.splitlines()) > 2
    manifest = secure.call("GET", "/v2/library/tiny/manifests/latest").json()
    [weights] = [layer for layer in manifest["layers"] if layer["size"] > 1_000_000]
    blob = secure.call("GET", f"/v2/library/tiny/blobs/{weights['digest']}")
    assert len(blob.content) == weights["size"]
    assert '"level": "error"' not in secure.log


def test_the_scheme_is_known_to_the_application(secure: LiveServer) -> None:
    origin = f"https://127.0.0.1:{secure.port}"
    answer = secure.call("GET", "/api/version", headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("flags", "accepted"),
    [(["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False), (["-tls1_2"], True), (["-tls1_3"], True)],
    ids=str,
)
def test_old_versions_are_refused(secure: LiveServer, flags: list[str], accepted: bool) -> None:
    done = openssl("s_client", "-connect", f"127.0.0.1:{secure.port}", *flags, stdin=b"Q\n")
    assert (b"BEGIN CERTIFICATE" in done.stdout) is accepted, done.stderr


def test_http_on_the_port_is_told_what_is_wrong(secure: LiveServer) -> None:
    body = b"x" * 100_000
    with socket.create_connection(("127.0.0.1", secure.port), timeout=30) as connection:
        connection.sendall(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + body)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ") and b"https://" in answer
    curl = ["curl", "-sS", f"http://127.0.0.1:{secure.port}/"]
    done = subprocess.run(curl, capture_output=True, timeout=60, check=False)
    assert b"https://" in done.stdout, done.stderr


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "byte", "half"])
def test_handshakes_that_do_not_come_end_the_connection(secure: LiveServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), timeout=60) as connection:
        connection.sendall(sent)
        assert closed(connection)


def test_headers_that_do_not_come_after_the_handshake_do_too(secure: LiveServer) -> None:
    plain = socket.create_connection(("127.0.0.1", secure.port), timeout=60)
    with secure.options["verify"].wrap_socket(plain, server_hostname="localhost") as dressed:
        dressed.sendall(b"GET / HT")
        assert closed(dressed)


def test_rubbish_after_the_first_byte_leaves_the_server_as_it_was(secure: LiveServer) -> None:
    for rubbish in (b"\x16" + os.urandom(500), b"\x16\x03\x01\x00\x05hello", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=60) as connection:
            connection.sendall(rubbish)
            assert closed(connection)
    assert secure.call("GET", "/").status_code == 200
    assert "Traceback" not in secure.log


def closed(connection: socket.socket) -> bool:
    """Reads to the end; the connection's own timeout is what ends a server that does not hang up."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


# Clients' certificates


def test_only_clients_of_the_authority_get_through_the_handshake(
    mutual: LiveServer, authority: Authority, folder: Path
) -> None:
    assert mutual.call("GET", "/api/version").status_code == 200
    nobody = ssl.create_default_context(cafile=str(authority.cert))
    stranger = ssl.create_default_context(cafile=str(authority.cert))
    stranger.load_cert_chain(
        *Authority(folder, "other-authority").issue("stranger", "extendedKeyUsage=clientAuth")
    )
    for context in (nobody, stranger):
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            httpx.get(f"{mutual.url}/api/version", verify=context)
    assert mutual.call("GET", "/api/version").status_code == 200


def test_our_own_commands_trust_and_show_what_the_settings_say(
    mutual: LiveServer, authority: Authority, tmp_path: Path
) -> None:
    at = {"LADING_HOST": mutual.url}
    assert "ca_file" in Lading(tmp_path / "home", at).fails(5, "ps")
    trusting = at | {"LADING_CA_FILE": str(authority.cert)}
    assert "client_cert" in Lading(tmp_path / "home", trusting).fails(5, "ps")
    shown = {"LADING_CLIENT_CERT": str(authority.folder / "client.pem")}
    shown |= {"LADING_CLIENT_KEY": str(authority.folder / "client.key")}
    assert "NAME" in Lading(tmp_path / "home", trusting | shown).ok("ps")


# Files


def test_a_renewed_certificate_counts_after_sighup_and_a_broken_one_never(
    folder: Path, authority: Authority
) -> None:
    cert, key = authority.issue("renewed")
    options = {"verify": ssl.create_default_context(cafile=str(authority.cert))}
    with running_server(
        folder / "home", folder, options=options, tls={"cert": str(cert), "key": str(key)}
    ) as live:
        first = certificate(live)
        live.post("/api/generate", {"model": "tiny", "keep_alive": -1})
        authority.issue("renewed")
        assert certificate(live) == first
        live.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: certificate(live) != first)
        second = certificate(live)
        assert [row["name"] for row in live.call("GET", "/api/ps").json()["models"]] == ["tiny:latest"]
        assert eventually(lambda: len(web_workers(live)) == 1)
        before = web_workers(live)
        cert.write_text("rubbish")
        live.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "stays as it was" in live.log)
        assert eventually(lambda: len(now := web_workers(live)) == 1 and now != before)
        assert live.call("GET", "/").status_code == 200
        assert certificate(live) == second


def web_workers(server: LiveServer) -> list[int]:
    """Those that listen; one that is being replaced does not any more."""
    listening = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if any(one.status == psutil.CONN_LISTEN for one in child.net_connections("tcp")):
                listening.append(child.pid)
    return listening


def certificate(server: LiveServer) -> str:
    """Asked for again where the worker that was about to say it has just been replaced."""
    while True:
        assert server.process.poll() is None
        try:
            return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=60)
        except (ConnectionError, ssl.SSLEOFError):
            time.sleep(0.1)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_bad_files_are_one_sentence_at_the_start(
    lading: Lading, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("good")
    _, other_key = authority.issue("other")
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked))
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    half = tmp_path / "half.pem"
    half.write_bytes(cert.read_bytes()[:200])
    for tls, words in (
        (TlsSettings(cert=tmp_path / "none.pem", key=key), "No such file"),
        (TlsSettings(cert=cert, key=other_key), "not the key of"),
        (TlsSettings(cert=key, key=cert), "expected a certificate in PEM"),
        (TlsSettings(cert=cert, key=cert), "expected a private key in PEM"),
        (TlsSettings(cert=empty, key=key), "expected a certificate in PEM"),
        (TlsSettings(cert=half, key=key), "expected a certificate|OpenSSL refuses it"),
        (TlsSettings(cert=cert, key=locked), "it is encrypted"),
        (TlsSettings(cert=cert, key=key, client_ca=empty), "expected certificates of authorities"),
    ):
        with pytest.raises(BadCertificate, match=words):
            server_context(tls)
    server_context(TlsSettings(cert=cert, key=key, client_ca=authority.cert))
    told = lading.fails(
        1,
        "serve",
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--tls-cert",
        str(cert),
        "--tls-key",
        str(other_key),
    )
    assert "it is not the key of" in told
