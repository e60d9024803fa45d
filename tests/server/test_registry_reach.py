"""Names of models do not make the server send requests where its clients have no business."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_server import LiveServer, build_model, running_server

from lading.oci.reference import Reference
from lading.oci.registry.settings import RegistrySettings
from lading.server.registry_reach import RegistryForbidden, require_reachable
from lading.server.settings import ServerSettings

NOWHERE = (
    "169.254.169.254/a/m",
    "169.254.169.254:80/latest/meta-data",
    "metadata.google.internal/computeMetadata/v1",
    "0.0.0.0:5000/a/m",
    "224.0.0.1/a/m",
    "255.255.255.255/a/m",
    "0x7f.1/a/m",
    "127.1/a/m",
    "2130706433:80/a/m",
    "[fe80::1]:5000/a/m",
    "[::]:5000/a/m",
    "[::ffff:169.254.169.254]:80/a/m",
    "[::ffff:7f00:1]:6379/a/m",
)
HERE = ("localhost:6379/a/m", "127.0.0.1:5000/a/m", "[::1]:5000/a/m", "10.0.0.7:5000/a/m", "192.168.1.1/a/m")
ANYWHERE = ("registry.example.com/a/m", "llama3.2", "registry.corp.internal:5000/a/m", "8.8.8.8/a/m")


def allowed(name: str, **settings: object) -> bool:
    made = ServerSettings(store_root=Path("/nowhere"), **settings)  # type: ignore[arg-type]  # the tests know
    try:
        require_reachable(Reference.parse(name), made, "registry.ollama.ai")
    except RegistryForbidden as error:
        assert name.startswith(error.registry) and error.hint
        return False
    return True


@pytest.mark.parametrize("name", NOWHERE)
def test_where_no_registry_is(name: str) -> None:
    assert not allowed(name)
    assert not allowed(name, host="0.0.0.0")


@pytest.mark.parametrize("name", HERE)
def test_this_network_is_for_clients_on_this_machine(name: str) -> None:
    assert allowed(name)
    assert not allowed(name, host="0.0.0.0")
    assert not allowed(name, behind_proxy=True)
    host = Reference.parse(name).registry
    assert allowed(name, host="0.0.0.0", registries=RegistrySettings(plain_http=(host,)))
    assert allowed(name, host="0.0.0.0", registries=RegistrySettings(internal_hosts=(host,)))


@pytest.mark.parametrize("name", ANYWHERE)
def test_other_registries_are_for_all(name: str) -> None:
    assert allowed(name, host="0.0.0.0")


def test_the_default_registry_may_be_anywhere() -> None:
    settings = ServerSettings(store_root=Path("/nowhere"), host="0.0.0.0")
    require_reachable(Reference.parse("10.0.0.7:5000/a/m"), settings, "10.0.0.7:5000")


@pytest.mark.parametrize("stream", [False, True])
def test_pull_push_and_create_are_refused_before_anything_is_sent(tmp_path: Path, stream: bool) -> None:
    build_model(tmp_path / "home", "169.254.169.254/a/m")
    with running_server(tmp_path / "home", tmp_path) as server:
        for path, body in (
            ("/api/pull", {"model": "169.254.169.254/a/other"}),
            ("/api/push", {"model": "169.254.169.254/a/m"}),
            ("/api/create", {"model": "x", "from": "169.254.169.254/a/other"}),
        ):
            _is_refused(server, path, {**body, "stream": stream})


def _is_refused(server: LiveServer, path: str, body: dict[str, object]) -> None:
    answer = server.post(path, body)
    expected = "reaching 169.254.169.254: this server talks to no such address for its clients"
    assert expected in answer.json()["error"], path
    assert answer.status_code == 400
