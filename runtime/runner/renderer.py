"""Rendering chat templates in a process of its own, which may hang, exhaust memory or crash without harm.

Grammars are tried there for the same reason before the runner compiles them.

Two processes are forked from the runner while it is still small and has one thread: a **worker**, which
renders, and above it a **guard**, which forks a new worker when one dies. A job has a limit of processor
time (a template's endless loop is broken from within by a signal; should that fail the kernel kills the
worker) and of memory. Both processes die with the runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import mmap
import os
import resource
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...modelfile.errors import InputError
from ..errors import BadFormat, BadTemplate, RunnerFault
from ..frame import BadFrame, pack, read_frame, receive_frame, unpack
from ..protocol import Think
from .chat_template import ChatTemplate, template_variables
from .sandbox import confine, die_with_parent, forbid_privileges
from .template_traits import TemplateTraits, traits_of_go, traits_of_jinja

if TYPE_CHECKING:
    from ...modelfile.go_template import GoTemplate

CPU_LIMIT_S = 2.0
"""Processor time of one job."""
_KILL_AFTER_S = 3
_MEMORY_LIMIT = 512 * 1024 * 1024
_STACK_LIMIT = 4 * 1024 * 1024
"""Half of what the runner's threads have, so that a grammar that passes here has room there."""
_ANSWER_TIMEOUT_S = 30.0
_COMPILED = 8


Kind = Literal["jinja", "go"]


class RenderJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="render"):
    """A conversation, or for Go templates a prompt with what belongs to it, to be put into a template."""

    id: int = 0
    kind: Kind = "jinja"
    template: str
    describe: bool = False
    """Tell the template's traits instead of rendering it."""
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tool_list: bool = False
    """No tools are an empty list, and not none."""
    think: Think | None = None
    bos: str = ""
    eos: str = ""
    prompt: str | None = None
    """Only for Go templates, which tell a prompt from a conversation."""
    suffix: str = ""
    system: str = ""


class GrammarJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="grammar"):
    """A grammar to be tried, or to be translated from llama.cpp's notation to Lark's."""

    id: int = 0
    text: str
    is_gbnf: bool = False


class RenderOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: int
    text: str = ""
    error: str = ""
    exhausted: bool = False
    """A limit was exceeded."""
    traits: TemplateTraits | None = None


_JOB = msgspec.json.Decoder(RenderJob | GrammarJob)
_OUTCOME = msgspec.json.Decoder(RenderOutcome)


class Renderer:
    """The runner's end. Make it with `start`, before there are threads; then use it from one event loop."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        """Of the guard."""
        self._socket = connection
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ids = itertools.count(1)
        self._turn = asyncio.Lock()
        self._strangers_turn = asyncio.Lock()
        """Who brings a template or a grammar, and perhaps seconds of work, has this first: whoever does not
        waits for two of them at most."""

    @classmethod
    def start(cls, *, close_in_child: tuple[int, ...] = ()) -> Renderer:
        """Fork the guard and its worker, which must not keep the runner's pipes open: ``close_in_child``."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        guard = os.fork()
        if guard == 0:
            ours.close()
            for fd in close_in_child:
                os.close(fd)
            _run_and_exit(lambda: _guard(theirs, parent))
        theirs.close()
        return cls(ours, guard)

    async def render(self, job: RenderJob, *, is_strange: bool = False) -> str:
        """The text of ``job``, whose ``id`` is ignored. Jobs are done one after another. ``is_strange``: the
        template is not the model's.

        Raises:
            BadTemplate: it does not compile, raises, or exceeds a limit.
            RunnerFault: the processes are gone.
        """
        outcome = await self._outcome(job, is_strange=is_strange)
        if outcome.exhausted:
            raise BadTemplate(f"rendering the chat template: {outcome.error}")
        if outcome.error:
            raise BadTemplate(outcome.error)
        return outcome.text

    async def try_grammar(self, grammar: str) -> None:
        """See whether llguidance compiles ``grammar`` within the limits.

        Raises:
            BadFormat: it does not.
            RunnerFault: the processes are gone.
        """
        await self._grammar(GrammarJob(text=grammar))

    async def lark_of_gbnf(self, text: str) -> str:
        """A grammar in llama.cpp's notation in that of Lark. Raises: as `try_grammar`."""
        return await self._grammar(GrammarJob(text=text, is_gbnf=True))

    async def _grammar(self, job: GrammarJob) -> str:
        outcome = await self._outcome(job, is_strange=True)
        if outcome.error:
            hint = "make it smaller or simpler" if outcome.exhausted else None
            raise BadFormat(f"compiling the format: {outcome.error}", hint=hint)
        return outcome.text

    async def _outcome(self, job: RenderJob | GrammarJob, *, is_strange: bool) -> RenderOutcome:
        """A caller who gives up leaves the line. What has been begun goes on, in its turn, until it has
        ended: an answer half read would be taken for the beginning of the next."""
        with contextlib.ExitStack() as held:
            for turn in (self._strangers_turn, self._turn) if is_strange else (self._turn,):
                await turn.acquire()
                held.callback(turn.release)
            asking = asyncio.create_task(self._ask(msgspec.structs.replace(job, id=next(self._ids))))
            until_done = held.pop_all()
        asking.add_done_callback(lambda _: until_done.close())
        asking.add_done_callback(_retrieve)
        return await asyncio.shield(asking)

    def describe(self, kind: Kind, template: str) -> TemplateTraits:
        """The traits of a template. Blocks, so only before there is an event loop.

        Raises: as `render`.
        """
        job = RenderJob(id=next(self._ids), kind=kind, template=template, describe=True)
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        try:
            self._socket.sendall(pack(job))
            with self._socket.makefile("rb") as stream:
                body = read_frame(stream)
        except OSError as error:
            raise RunnerFault(f"reading the chat template: the renderer does not answer: {error}") from error
        outcome = unpack(_OUTCOME, body) if body is not None else RenderOutcome(id=0, error="it is gone")
        if outcome.error or outcome.traits is None:
            raise BadTemplate(outcome.error)
        return outcome.traits

    async def traits(self, kind: Kind, template: str) -> TemplateTraits:
        """As `describe`, where there is an event loop."""
        outcome = await self._outcome(RenderJob(kind=kind, template=template, describe=True), is_strange=True)
        if outcome.error or outcome.traits is None:
            raise BadTemplate(outcome.error)
        return outcome.traits

    async def _ask(self, job: RenderJob | GrammarJob) -> RenderOutcome:
        if self._streams is None:
            self._socket.setblocking(False)
            self._streams = await asyncio.open_unix_connection(sock=self._socket)
        reader, writer = self._streams
        try:
            writer.write(pack(job))
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await writer.drain()
                while (body := await receive_frame(reader)) is not None:
                    outcome = unpack(_OUTCOME, body)
                    if outcome.id == job.id:  # others answer jobs that nobody waits for any more
                        return outcome
        except (OSError, TimeoutError) as error:
            raise RunnerFault(
                f"rendering the chat template: the renderer does not answer: {error}"
            ) from error
        raise RunnerFault("rendering the chat template: the renderer is gone")

    async def aclose(self) -> None:
        """Close the connection, by whose end the guard and the worker know to exit."""
        if self._streams:
            self._streams[1].close()
            await self._streams[1].wait_closed()
        self._socket.close()


def _retrieve(task: asyncio.Task[RenderOutcome]) -> None:
    """Nobody may be left who would look at the task's failure."""
    if not task.cancelled():
        task.exception()


# The guard


def _guard(connection: socket.socket, parent: int) -> None:
    """Keep a worker alive. Returns once the runner has closed the connection."""
    die_with_parent(parent)
    _let_go_of_pipes()
    forbid_privileges()
    current = mmap.mmap(-1, 8)  # the id of the job at hand, 0 between jobs; shared with the worker
    guard = os.getpid()
    while True:
        worker = os.fork()
        if worker == 0:
            _run_and_exit(lambda: _work(connection, current, guard))
        _, status = os.waitpid(worker, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        if job := int.from_bytes(current[:8], "big"):
            current[:8] = bytes(8)
            error = "it takes too long or too much memory"
            connection.sendall(pack(RenderOutcome(id=job, error=error, exhausted=True)))


def _let_go_of_pipes() -> None:
    """The runner's pipes to its parent must not stay open here when the runner is gone."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)


def _run_and_exit(body: Callable[[], None]) -> None:
    """Never return into the code that forked."""
    status = 70
    try:
        body()
        status = 0
    except (BadFrame, OSError):
        status = 71
    finally:
        os._exit(status)


# The worker


Compiled = OrderedDict[tuple[Kind, str], "ChatTemplate | GoTemplate"]


class _TimeUp(BaseException):
    """Raised by a signal; not an Exception, so that nothing on the way takes it for its own."""


def _work(connection: socket.socket, current: mmap.mmap, guard: int) -> None:
    """Render until the connection ends."""
    die_with_parent(guard)
    confine()
    resource.setrlimit(resource.RLIMIT_AS, (_memory_in_use() + _MEMORY_LIMIT, resource.RLIM_INFINITY))
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_LIMIT, most))
    signal.signal(signal.SIGVTALRM, _raise_time_up)
    templates: Compiled = OrderedDict()
    stream = connection.makefile("rb")
    while (body := read_frame(stream)) is not None:
        job = unpack(_JOB, body)
        current[:8] = job.id.to_bytes(8, "big")
        outcome = _limited(job, templates)
        current[:8] = bytes(8)
        connection.sendall(pack(outcome))


def _limited(job: RenderJob | GrammarJob, templates: Compiled) -> RenderOutcome:
    """Do a job within the limits."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    kill_at = int(used.ru_utime + used.ru_stime) + _KILL_AFTER_S + 1
    resource.setrlimit(resource.RLIMIT_CPU, (kill_at, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT_S)
    try:
        if isinstance(job, GrammarJob):
            return _tried(job)
        if job.describe:
            return RenderOutcome(id=job.id, traits=_describe(job, templates))
        return RenderOutcome(id=job.id, text=_render(job, templates))
    except InputError as error:  # of either language
        return RenderOutcome(id=job.id, error=error.message)
    except MemoryError:
        templates.clear()
        return RenderOutcome(id=job.id, error="it takes too much memory", exhausted=True)
    except _TimeUp:
        return RenderOutcome(id=job.id, error=f"it takes over {CPU_LIMIT_S:g} s", exhausted=True)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _tried(job: GrammarJob) -> RenderOutcome:
    from . import guidance  # few need it

    if job.is_gbnf:
        return RenderOutcome(id=job.id, text=guidance.lark_of_gbnf(job.text))
    return RenderOutcome(id=job.id, error=guidance.problem_of(job.text))


def _render(job: RenderJob, templates: Compiled) -> str:
    template = _compiled(job, templates)
    if not isinstance(template, ChatTemplate):
        return _render_go(template, job)
    variables = template_variables(job.messages, job.tools, think=job.think, bos=job.bos, eos=job.eos)
    if job.tool_list and not job.tools:
        variables["tools"] = []
    return template.render(variables)


def _render_go(template: GoTemplate, job: RenderJob) -> str:
    from ...modelfile.go_template import render_chat, render_generate

    if job.prompt is None:
        return render_chat(template, job.messages, job.tools, job.think)
    return render_generate(template, job.prompt, job.suffix, job.system, job.messages, job.think)


def _describe(job: RenderJob, templates: Compiled) -> TemplateTraits:
    template = _compiled(job, templates)
    if isinstance(template, ChatTemplate):
        return traits_of_jinja(template, job.template)
    return traits_of_go(template)


def _compiled(job: RenderJob, templates: Compiled) -> ChatTemplate | GoTemplate:
    key = job.kind, job.template
    template = templates.get(key)
    if template is None:
        template = templates[key] = _parse(job)
        if len(templates) > _COMPILED:
            templates.popitem(last=False)
    templates.move_to_end(key)
    return template


def _parse(job: RenderJob) -> ChatTemplate | GoTemplate:
    if job.kind == "jinja":
        return ChatTemplate(job.template)
    # Here, because it takes longer to import than a small model to load, and few need it.
    from ...modelfile.go_template import parse_template

    return parse_template(job.template)


def _raise_time_up(_number: int, _frame: object) -> None:
    raise _TimeUp


def _memory_in_use() -> int:
    """Address space in use, bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - no Path in a hot small process
        return int(statm.read().split()[0]) * resource.getpagesize()
