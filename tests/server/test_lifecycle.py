"""Starting, stopping, crashing, leaving: no answer is lost that need not be, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from live_server import TINY_CHAT, LiveServer, build_model, running_server
from server_processes import processes, runners

NEVER_ENDING = {"logit_bias": {"1269": -100, "1271": -100}, "temperature": 5, "top_k": 0, "top_p": 1}
"""Options under which the model's two end tokens are never chosen."""
COUNT: dict[str, Any] = {
    "model": "tiny",
    "prompt": "1",
    "raw": True,
    "options": {**NEVER_ENDING, "num_predict": 9000},
}
"""A long stream of nonsense."""
SHORT = {**COUNT, "options": {**NEVER_ENDING, "num_predict": 5}, "stream": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lifecycle") / "home"
    build_model(home, "tiny")
    return home


@pytest.fixture
def own_server(home: Path, tmp_path: Path) -> Iterator[LiveServer]:
    with running_server(home, tmp_path) as live:
        yield live


def keeper(server: LiveServer) -> psutil.Process:
    """The runner's parent."""
    return psutil.Process(runners(server)[0].ppid())


def web_worker(server: LiveServer) -> psutil.Process:
    """The child of the master that has no children of its own."""
    master = psutil.Process(server.process.pid)
    return next(child for child in master.children() if not is_gone(child) and not child.children())


def eventually(check: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def long_stream(server: LiveServer) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of an answer that goes on for a while, the first already there."""
    with httpx.stream("POST", f"{server.url}/api/generate", json=COUNT, timeout=60) as response:
        assert response.status_code == 200
        rows = (json.loads(line) for line in response.iter_lines())
        assert next(rows)["done"] is False
        yield rows


def is_at_work(server: LiveServer) -> bool:
    """Whether the runner uses its processor."""
    [runner] = runners(server)
    before = sum(runner.cpu_times()[:2])
    time.sleep(0.5)
    return bool(sum(runner.cpu_times()[:2]) - before > 0.02)


def test_a_client_that_leaves_stops_its_generation(own_server: LiveServer) -> None:
    with long_stream(own_server):
        assert is_at_work(own_server)
    assert eventually(lambda: not is_at_work(own_server), timeout_s=3)
    assert own_server.post("/api/generate", SHORT).json()["done"] is True
    assert '"aborted": true' in own_server.log


def test_a_client_that_leaves_without_streaming_stops_its_generation(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{own_server.url}/api/generate", json={**COUNT, "stream": False}, timeout=0.7)
    assert eventually(lambda: not is_at_work(own_server), timeout_s=3)


def test_a_killed_runner_ends_its_streams_with_an_error_and_is_loaded_again(own_server: LiveServer) -> None:
    with long_stream(own_server) as rows:
        runners(own_server)[0].kill()
        killed = time.monotonic()
        last = list(rows)[-1]
        assert time.monotonic() - killed < 2
    assert "error" in last and "runner" in last["error"]
    assert own_server.post("/api/generate", SHORT).json()["eval_count"] == 5


ONE_WORD = " ".join(["word"] * 20)
SSE_REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": ONE_WORD}], "max_tokens": 9000},
    "/v1/completions": {"prompt": ONE_WORD, "max_tokens": 9000},
    "/v1/responses": {"input": ONE_WORD, "max_output_tokens": 9000},
    "/v1/messages": {"messages": [{"role": "user", "content": ONE_WORD}], "max_tokens": 9000},
}


def test_a_killed_runner_ends_streams_of_every_dialect_with_an_error_and_others_go_on(
    home: Path, tmp_path: Path
) -> None:
    # It says again what it has said, for ever, and needs no options for that, which not all dialects have.
    build_model(home, "endless", "PARAMETER frequency_penalty -5\nPARAMETER repeat_last_n -1")
    build_model(home, "other", source=_another_file(tmp_path))
    with running_server(home, tmp_path) as server, contextlib.ExitStack() as streams:

        def lines_of(path: str, body: dict[str, Any]) -> Iterator[str]:
            response = streams.enter_context(httpx.stream("POST", server.url + path, json=body, timeout=60))
            lines = (line for line in response.iter_lines() if line)
            next(lines)
            return lines

        opened = {
            path: lines_of(path, {"model": "endless", "stream": True, **body})
            for path, body in SSE_REQUESTS.items()
        }
        rows = lines_of("/api/generate", {**COUNT, "model": "other"})
        first, _ = sorted(runners(server), key=lambda runner: runner.create_time())
        first.kill()
        for path, lines in opened.items():
            last = json.loads(list(lines)[-1].removeprefix("data: "))
            assert "error" in last or last["type"] == "response.failed", (path, last)
            assert "runner has unexpectedly stopped" in json.dumps(last), (path, last)
        assert json.loads(next(rows))["done"] is False, "another model's answer goes on"
        assert server.post("/api/generate", SHORT).json()["eval_count"] == 5


def _another_file(folder: Path) -> Path:
    """The tiny chat model in a file that is not the same."""
    data = TINY_CHAT.read_bytes()
    path = folder / "another.gguf"
    path.write_bytes(data.replace(b"general.name", b"general.nama", 1))
    return path


def test_a_killed_keeper_comes_back_and_takes_its_runners_with_it(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    [old_runner], old_keeper = runners(own_server), keeper(own_server)
    old_keeper.kill()
    assert eventually(lambda: not old_runner.is_running() or old_runner.status() == psutil.STATUS_ZOMBIE, 5)
    assert own_server.post("/api/generate", SHORT).json()["eval_count"] == 5
    assert keeper(own_server).pid != old_keeper.pid


def test_a_request_that_waits_for_a_load_outlives_the_keeper(own_server: LiveServer) -> None:
    own_server.post("/api/generate", {**SHORT, "keep_alive": 0})
    assert eventually(lambda: not runners(own_server))
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(own_server.post("/api/generate", SHORT)))
    asking.start()
    assert eventually(lambda: bool(runners(own_server)))
    keeper(own_server).kill()
    asking.join()
    assert answers[0].status_code == 200, answers[0].text


def test_a_killed_web_worker_is_replaced_and_the_model_stays_loaded(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    [runner] = runners(own_server)
    web_worker(own_server).kill()
    answers = []

    def answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answers.append(own_server.post("/api/generate", SHORT).json())
        return bool(answers)

    assert eventually(answered)
    assert answers[0]["eval_count"] == 5
    assert [process.pid for process in runners(own_server)] == [runner.pid]


def test_nothing_is_left_after_the_master_is_killed(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    everything = processes(own_server)
    assert len(everything) >= 5  # master, web worker, arbiter, keeper, runner
    own_server.process.kill()
    assert eventually(lambda: all(is_gone(process) for process in everything), timeout_s=15), [
        process for process in everything if not is_gone(process)
    ]


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; whoever adopted it may still have to take note."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_sigterm_lets_answers_finish_and_takes_no_new_ones(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    everything = processes(own_server)
    body = {**COUNT, "options": {**COUNT["options"], "num_predict": 300}}
    with httpx.stream("POST", f"{own_server.url}/api/generate", json=body, timeout=60) as response:
        rows = response.iter_lines()
        next(rows)
        own_server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            own_server.call("GET", "/")
        last = json.loads(list(rows)[-1])
    assert last["done"] is True and last["done_reason"] in ("length", "stop")
    assert own_server.process.wait(10) == 0
    assert eventually(lambda: all(is_gone(process) for process in everything))


def test_sigterm_while_workers_are_starting_is_not_lost(own_server: LiveServer) -> None:
    for _ in range(3):  # each of them is told to go while it is young
        own_server.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    began = time.monotonic()
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(15) == 0
    assert time.monotonic() - began < 8


def test_sigterm_ends_an_idle_server_soon_despite_open_connections(own_server: LiveServer) -> None:
    with httpx.Client() as client:
        client.get(own_server.url)  # stays connected
        began = time.monotonic()
        own_server.process.send_signal(signal.SIGTERM)
        assert own_server.process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_a_reload_replaces_the_web_workers_and_keeps_models_and_streams(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    [runner], old = runners(own_server), web_worker(own_server)
    body = {**COUNT, "options": {**COUNT["options"], "num_predict": 300}}
    with httpx.stream("POST", f"{own_server.url}/api/generate", json=body, timeout=60) as response:
        rows = response.iter_lines()
        next(rows)
        own_server.process.send_signal(signal.SIGHUP)
        assert json.loads(list(rows)[-1])["done"] is True
    assert eventually(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE)
    assert own_server.post("/api/generate", SHORT).json()["eval_count"] == 5
    assert [process.pid for process in runners(own_server)] == [runner.pid]


@contextlib.contextmanager
def reloaded_during_a_stream(server: LiveServer) -> Iterator[psutil.Process]:
    """The new worker of a server whose old one has an answer to finish."""
    old = web_worker(server)
    with long_stream(server):
        server.process.send_signal(signal.SIGHUP)
        master = psutil.Process(server.process.pid)
        assert eventually(lambda: len(master.children()) == 3)  # the arbiter, and two of them
        yield max(master.children(), key=lambda child: child.create_time())
        assert not is_gone(old)


def test_a_worker_that_dies_while_the_one_before_it_finishes_is_replaced(own_server: LiveServer) -> None:
    with reloaded_during_a_stream(own_server) as new:
        assert eventually(lambda: own_server.call("GET", "/livez").status_code == 200)
        new.kill()

        def answered() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return own_server.call("GET", "/livez", timeout=1).status_code == 200
            return False

        assert eventually(lambda: is_gone(new))
        assert eventually(answered, timeout_s=5)


def test_another_reload_is_not_held_up_by_an_answer_of_before_the_last(own_server: LiveServer) -> None:
    with reloaded_during_a_stream(own_server) as new:
        own_server.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: is_gone(new), timeout_s=5)
        assert own_server.call("GET", "/livez").status_code == 200


def test_ctrl_c_ends_it_at_once_after_a_reload_too(own_server: LiveServer) -> None:
    with long_stream(own_server):
        own_server.process.send_signal(signal.SIGHUP)
        master = psutil.Process(own_server.process.pid)
        assert eventually(lambda: len(master.children()) == 3)
        everything = processes(own_server)
        own_server.process.send_signal(signal.SIGINT)
        own_server.process.wait(8)
    assert eventually(lambda: all(is_gone(process) for process in everything), 3)


@pytest.mark.parametrize("first", ["fresh", "kept alive"])
def test_a_request_that_comes_in_the_same_instant_as_the_end_is_answered(
    own_server: LiveServer, first: str
) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    worker = web_worker(own_server)
    with own_server.connect() as busy, own_server.connect() as connection:
        if first == "kept alive":
            connection.sendall(request)
            assert b'"ok"' in connection.recv(4096)
        assert eventually(lambda: has_connection(worker, connection))
        # While it reads numbers, large ones, it looks at nothing else; then it finds signal and request.
        numbers = b"[" + b"1," * 900_000 + b"9" * 19 + b"]"
        head = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        busy.sendall(head % len(numbers) + numbers)
        time.sleep(0.05)
        worker.terminate()
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert busy.recv(4096).startswith(b"HTTP/1.1 400 ")


def has_connection(worker: psutil.Process, connection: socket.socket) -> bool:
    return any(
        one.raddr and one.raddr.port == connection.getsockname()[1] for one in worker.net_connections("tcp")
    )


def test_ctrl_c_ends_it_at_once(own_server: LiveServer) -> None:
    with long_stream(own_server):
        everything = processes(own_server)
        own_server.process.send_signal(signal.SIGINT)
        own_server.process.wait(8)
    assert eventually(lambda: not any(process.is_running() for process in everything), 3)


def test_ctrl_c_is_ignored_where_it_was_when_the_server_was_started(home: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = contextlib.ExitStack()
        server = started.enter_context(running_server(home, tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    with started:
        server.post("/api/generate", SHORT)
        everything = processes(server)
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        time.sleep(1.5)
        assert not [process for process in everything if is_gone(process)]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_a_port_in_use_is_one_error_and_nothing_is_started(own_server: LiveServer, home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lading.server.gunicorn_app import PortInUse, serve;"
        "from lading.server.settings import ServerSettings\n"
        "try: serve(ServerSettings(store_root=Path(sys.argv[1]), port=int(sys.argv[2])))\n"
        "except PortInUse as error: print(error); sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home), str(own_server.port)], capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout.decode().startswith(f"listening on 127.0.0.1:{own_server.port}: the port is in use")


def test_two_servers_on_one_machine_leave_each_other_alone(
    own_server: LiveServer, home: Path, tmp_path: Path
) -> None:
    own_server.post("/api/generate", SHORT)
    [runner] = runners(own_server)
    with running_server(home, tmp_path) as other:
        assert other.post("/api/generate", SHORT).json()["eval_count"] == 5
        assert [process.pid for process in runners(own_server)] == [runner.pid]
    assert own_server.post("/api/generate", SHORT).json()["eval_count"] == 5
    assert [process.pid for process in runners(own_server)] == [runner.pid]


def test_requests_during_a_load_wait_together_and_others_are_not_held_up(own_server: LiveServer) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(own_server.post("/api/generate", SHORT).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    assert own_server.call("GET", "/api/tags").status_code == 200
    assert own_server.call("GET", "/api/ps").status_code == 200
    assert time.monotonic() - began < 2
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert len(runners(own_server)) == 1


def test_several_web_workers_share_one_keeper(home: Path, tmp_path: Path) -> None:
    with running_server(home, tmp_path, workers=2) as server:
        for _ in range(8):
            assert server.post("/api/generate", SHORT).json()["eval_count"] == 5
        assert len(runners(server)) == 1
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_the_web_worker_has_nothing_of_llama_cpp(own_server: LiveServer) -> None:
    own_server.post("/api/generate", SHORT)
    maps = Path(f"/proc/{web_worker(own_server).pid}/maps").read_text()
    assert "llama" not in maps and "ggml" not in maps
    assert "llama" in Path(f"/proc/{runners(own_server)[0].pid}/maps").read_text()


def test_the_log_is_json_throughout(own_server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", own_server.port)) as connection:
        connection.sendall(b"NOT HTTP\r\n\r\n")
        connection.recv(100)
    entries = [json.loads(line) for line in own_server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
