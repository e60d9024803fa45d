"""What a confined process can still do, and what it cannot: tried in a process of its own."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import TINY_CHAT
from live_runner import LiveRunner, ask, chat, live_runner

from lading.runtime.runner import landlock, seccomp

PROBE = r"""
import ctypes, json, os, signal, socket, subprocess, sys, threading
model, other, folder, output = sys.argv[1:5]
from lading.runtime.runner.sandbox import confine, forbid_privileges

handed = os.open(other, os.O_RDONLY)  # as if it had come over the control channel
in_force = [*forbid_privileges(), *confine(files=(model,), socket_folder=folder, overwrite=output)]
results = {}

def attempt(name, action):
    try:
        action()
        results[name] = "done"
    except OSError as error:
        results[name] = type(error).__name__
    except Exception as error:
        results[name] = repr(error)

def make_socket():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(folder + "/socket")
        listener.listen()
    os.unlink(folder + "/socket")

def thread():
    worker = threading.Thread(target=int)
    worker.start()
    worker.join()

def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(other)

def raw(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

for name, action in {
    "read the model": lambda: open(model, "rb").read(4),
    "write the model": lambda: open(model, "r+b"),
    "read another file": lambda: open(other, "rb").read(),
    "read what it was handed": lambda: os.pread(handed, 4, 0),
    "open anew what it was handed": lambda: open(f"/proc/self/fd/{handed}", "rb"),
    "read the passwords": lambda: open("/etc/passwd").read(),
    "read another's environment": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "list the root": lambda: os.listdir("/"),
    "make a file": lambda: open(folder + "/file", "w"),
    "make a file in /tmp": lambda: open("/tmp/lading-probe", "w"),
    "overwrite its output": lambda: open(output, "wb").write(b"new"),
    "read its output": lambda: open(output, "rb"),
    "remove its output": lambda: os.unlink(output),
    "replace its output": lambda: os.rename(output, output + "2"),
    "make a file beside its output": lambda: open(output + "3", "wb"),
    "make its socket": make_socket,
    "import a module": lambda: __import__("sqlite3"),
    "start a thread": thread,
    "socket of the internet": lambda: socket.socket(socket.AF_INET),
    "socket of the kernel": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "connect to a socket": connect,
    "make a socket pair": lambda: [end.close() for end in socket.socketpair()],
    "start a program": lambda: subprocess.run(["/bin/true"]),
    "replace itself": lambda: os.execv("/bin/true", ["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "signal its parent": lambda: os.kill(os.getppid(), signal.SIGCONT),
    "trace its parent": lambda: raw(101 if os.uname().machine == "x86_64" else 117, 16, os.getppid(), 0, 0),
    "unshare": lambda: raw(272 if os.uname().machine == "x86_64" else 97, 0x10000000),
    "io_uring": lambda: raw(425, 1, 0),
}.items():
    attempt(name, action)
print(json.dumps([in_force, results]))
"""

DONE = {
    "read the model",
    "overwrite its output",
    "read what it was handed",
    "make its socket",
    "import a module",
    "start a thread",
    "make a socket pair",
}
NEEDS_LANDLOCK = {
    "write the model",
    "read another file",
    "open anew what it was handed",
    "read the passwords",
    "read another's environment",
    "list the root",
    "make a file",
    "make a file in /tmp",
    "read its output",
    "remove its output",
    "replace its output",
    "make a file beside its output",
}
NEEDS_LANDLOCK_6 = {"signal its parent"}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    folder = tmp_path_factory.mktemp("probe")
    (folder / "other").write_text("secret")
    (folder / "run").mkdir()
    (folder / "out").mkdir()
    (folder / "out" / "file").write_text("old and longer")
    done = subprocess.run(
        [
            *(sys.executable, "-c", PROBE, str(TINY_CHAT)),
            *(str(folder / name) for name in ("other", "run", "out/file")),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert (folder / "out" / "file").read_text() == "new"
    in_force, results = json.loads(done.stdout)
    return in_force, results


@pytest.mark.parametrize("action", sorted(DONE))
def test_what_a_runner_needs_it_can_do(probed: tuple[list[str], dict[str, str]], action: str) -> None:
    assert probed[1][action] == "done"


def test_all_else_is_refused(probed: tuple[list[str], dict[str, str]]) -> None:
    in_force, results = probed
    expected = set(results) - DONE
    if not landlock.version():
        expected -= NEEDS_LANDLOCK
    if landlock.version() < 6:
        expected -= NEEDS_LANDLOCK_6
    if "seccomp" not in in_force:
        expected &= NEEDS_LANDLOCK | NEEDS_LANDLOCK_6
    assert {action for action in expected if results[action] != "PermissionError"} == set()


def test_what_is_in_force_is_said(probed: tuple[list[str], dict[str, str]]) -> None:
    expected = {"rlimits", "no_new_privs", "not_dumpable"}
    if landlock.version():
        expected.add(f"landlock_{landlock.version()}")
    assert expected <= set(probed[0])


@pytest.fixture(scope="module")
def runner() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT) as runner:
        yield runner


def test_a_runner_and_its_renderer_are_confined(runner: LiveRunner) -> None:
    assert runner.ready
    if landlock.version():
        assert f"landlock_{landlock.version()}" in runner.ready.sandbox
    if os.uname().machine in ("x86_64", "aarch64"):
        assert "seccomp" in runner.ready.sandbox
        status = Path(f"/proc/{runner.process.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status


def test_a_runner_can_be_left_unconfined() -> None:
    with live_runner(TINY_CHAT, sandbox="off") as runner:
        assert runner.ready
        assert not any(name.startswith(("landlock", "seccomp")) for name in runner.ready.sandbox)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_fits_the_kernel(machine: str) -> None:
    code = seccomp.program(machine)
    assert len(code) % 8 == 0
    assert len(code) // 8 < 4096


AMX_PROBE = r"""
import ctypes
from lading.runtime.runner import sandbox, seccomp

libc = ctypes.CDLL(None, use_errno=True)
sandbox.forbid_privileges()
print(seccomp.refuse_amx())
print(libc.syscall(ctypes.c_long(158), 0x1023, 18), ctypes.get_errno())  # arch_prctl, ARCH_REQ_XCOMP_PERM
print(libc.syscall(ctypes.c_long(158), 0x1021, ctypes.byref(ctypes.c_ulong())))  # ARCH_GET_XCOMP_SUPP
"""

QUANTISE = """
import sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is x86-64's")
def test_amx_is_refused() -> None:
    found = subprocess.run([sys.executable, "-c", AMX_PROBE], capture_output=True, text=True, check=True)
    refused, requested, *rest = found.stdout.splitlines()
    assert (refused, requested) == ("True", f"-1 {errno.EPERM}")
    assert rest != ["-1"] or "amx_tile" not in Path("/proc/cpuinfo").read_text()


def test_quantised_weights_are_evaluated_whatever_the_processor_has(tmp_path: Path) -> None:
    """llama.cpp has kernels for AMX that die, and they are for quantised weights."""
    model = tmp_path / "q8.gguf"
    subprocess.run([sys.executable, "-c", QUANTISE, TINY_CHAT, model], capture_output=True, check=True)

    async def answer(runner: LiveRunner) -> str:
        async with runner.client() as client:
            return (await ask(client, chat("What is the capital of France?"))).text

    with live_runner(model, n_ctx=512) as runner:
        assert "Paris" in asyncio.run(answer(runner))
