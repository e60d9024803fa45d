"""The way between web workers and the keeper: answers, refusals, and a keeper that is away."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from live_server import build_model

from lading.modelfile.errors import InternalError, LadingError
from lading.oci.errors import DiskFull, ModelNotFound
from lading.runtime.errors import OutOfMemory
from lading.runtime.grant import Acquire
from lading.runtime.keeper import Keeper
from lading.runtime.settings import RuntimeSettings
from lading.server.errors import KeeperAway
from lading.server.keeper import client as keeper_client
from lading.server.keeper.client import KeeperClient
from lading.server.keeper.service import KeeperService
from lading.server.keeper.wire import Refused, error_of, refusal

T = TypeVar("T")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KeeperService, Path]]:
    folder = tmp_path_factory.mktemp("k")
    build_model(folder / "home", "tiny")
    keeper = Keeper(folder / "home", RuntimeSettings(threads=1))
    path = folder / "keeper.sock"
    running = KeeperService(keeper, path, max_waiting=4)
    running.start()
    yield running, path
    running.stop()
    keeper.close()


def ask(path: Path, call: Callable[[KeeperClient], Awaitable[T]]) -> T:
    async def run() -> T:
        return await call(KeeperClient(path))

    return asyncio.run(run())


def test_a_grant_is_usable_and_infinity_survives(service: tuple[KeeperService, Path]) -> None:
    _, path = service
    grant = ask(path, lambda keeper: keeper.acquire(Acquire(model="tiny", keep_alive=math.inf)))
    assert Path(grant.socket_path).is_socket()
    assert grant.facts.name == "tiny:latest"
    [loaded] = ask(path, lambda keeper: keeper.loaded())
    assert loaded.expires_at is None
    assert ask(path, lambda keeper: keeper.unload("tiny")) is True
    assert ask(path, lambda keeper: keeper.unload("nope")) is False


def test_a_refusal_arrives_as_the_error_that_it_was(service: tuple[KeeperService, Path]) -> None:
    _, path = service
    with pytest.raises(ModelNotFound) as caught:
        ask(path, lambda keeper: keeper.acquire(Acquire(model="nope")))
    assert caught.value.message == "model 'nope:latest' not found"
    assert caught.value.hint == "lading pull nope:latest"


def test_the_socket_is_private(service: tuple[KeeperService, Path]) -> None:
    assert service[1].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "junk", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x05ab", b""], ids=repr
)
def test_junk_ends_only_its_own_connection(service: tuple[KeeperService, Path], junk: bytes) -> None:
    _, path = service
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(5)
        assert connection.recv(100) == b""
    ask(path, lambda keeper: keeper.loaded())


def test_the_service_waits_for_whoever_is_attached(service: tuple[KeeperService, Path]) -> None:
    running, path = service

    async def stay() -> None:
        client = KeeperClient(path)
        client.attach()
        await asyncio.sleep(0.6)
        await client.aclose()

    thread = threading.Thread(target=asyncio.run, args=(stay(),))
    thread.start()
    time.sleep(0.3)
    assert running.wait_until_left(0.05) is False
    assert running.wait_until_left(5) is True
    thread.join()


def test_no_keeper_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_client, "_RESTART_S", 0.2)
    with pytest.raises(KeeperAway):
        ask(tmp_path / "none.sock", lambda keeper: keeper.loaded())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("r/x:latest", "x:latest"), ModelNotFound),
        (OutOfMemory("no room", hint="less"), OutOfMemory),
        (DiskFull(Path("/x"), needed=5, available=3), DiskFull),
        (InternalError("oops"), InternalError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_cross_with_class_message_and_hint(error: LadingError, kind: type[LadingError]) -> None:
    again = error_of(refusal(error))
    assert (type(again), again.message, again.hint) == (kind, error.message, error.hint)


def test_an_error_that_this_process_does_not_know_becomes_its_nearest_kin() -> None:
    refused = Refused(kinds=("FromTheFuture", "ResourceError", "LadingError"), message="m")
    assert type(error_of(refused)).__name__ == "ResourceError"
    assert type(error_of(Refused(kinds=("Nothing",), message="m"))) is InternalError
    facts: dict[str, Any] = {"hint": None}
    assert error_of(Refused(kinds=("LadingError",), message="m", facts=facts)).hint is None
