"""The interactive prompt of `run`: a conversation, and commands that begin with a slash.

The commands and their words are Ollama's, which users' fingers know. Each is one method of `Conversation`,
found through the table at the end; `/?` prints that table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..modelfile.errors import LadingError
from ..modelfile.parameters import parse_value
from ..runtime.inference import ChatRequest, Settings
from ..runtime.protocol import Message
from .attachments import names_images, take_images
from .backend import Backend
from .printer import Printer

PROMPT, CONTINUATION = ">>> ", "... "
HISTORY_LENGTH = 1000
QUOTES = '"""'


@dataclass(slots=True)
class Conversation:
    """One interactive session with one model."""

    backend: Backend
    model: str
    settings: Settings
    printer: Printer
    describe: Callable[[str, str], str]
    """Text of one facet (``info``, ``modelfile``, …) of a model; raises LadingError."""
    list_models: Callable[[], str]
    messages: list[Message] = field(default_factory=list)
    system: str | None = None
    prompt: str = PROMPT

    def run(self, history_file: Path | None) -> None:
        """Read, answer and print until the user leaves. Ctrl-C ends an answer, Ctrl-D the conversation."""
        with _line_editing(history_file):
            while True:
                try:
                    text = self._read_message()
                except EOFError:
                    print()
                    return
                except KeyboardInterrupt:
                    print("\nUse Ctrl + d or /bye to exit.")
                    continue
                if not text.strip():
                    continue
                try:
                    if text.startswith("/") and not self._command(text):
                        return
                    if not text.startswith("/"):
                        self._answer(text)
                except LadingError as error:
                    print(
                        f"Error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr
                    )
                except KeyboardInterrupt:
                    print()

    def _read_message(self) -> str:
        line = input(self.prompt)
        if not line.startswith(QUOTES):
            return line
        lines = [line.removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES):
            lines.append(input(CONTINUATION))
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        return "\n".join(lines)

    def _answer(self, text: str) -> None:
        images: tuple[bytes, ...] = ()
        if names_images(text) and self.backend.sees(self.model):
            text, images = take_images(text)
        question = Message(role="user", content=text, images=images)
        system = [Message(role="system", content=self.system)] if self.system else []
        request = ChatRequest(
            model=self.model, messages=(*system, *self.messages, question), settings=self.settings
        )
        answer = self.printer.print_answer(self.backend.chat(request))
        print()
        self.messages += [question, Message(role="assistant", content=answer.text)]

    def _command(self, text: str) -> bool:
        """Carry out a slash command; False to leave."""
        name, _, rest = text[1:].strip().partition(" ")
        if name in ("bye", "exit"):
            return False
        action = _COMMANDS.get(name)
        if action is None:
            print(f"Unknown command '/{name}'. Type /? for help")
        else:
            action.carry_out(self, rest.strip())
        return True

    def help(self, _rest: str) -> None:
        print("Available commands:")
        for name, action in _COMMANDS.items():
            print(f"  /{name + ' ' + action.arguments:34} {action.meaning}")
        print(f"  /{'bye':34} leave\n\nUse {QUOTES} to begin and end a message of several lines.\n")

    def clear(self, _rest: str) -> None:
        self.messages.clear()
        print("Cleared session context")

    def load(self, rest: str) -> None:
        print(f"Loading model '{rest}'")
        self.describe(rest, "info")  # raises where there is no such model
        self.model = rest
        self.messages.clear()

    def list(self, _rest: str) -> None:
        print(self.list_models(), end="")

    def show(self, rest: str) -> None:
        print(self.describe(self.model, rest or "info"))

    def set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        value = value.strip()
        changes: dict[str, Callable[[], str]] = {
            "parameter": lambda: self._set_parameter(value),
            "system": lambda: self._set_system(value),
            "format": lambda: self._set(format="json", said="Set format to 'json' mode."),
            "noformat": lambda: self._set(format=None, said="Disabled format."),
            "think": lambda: self._set(think=value or True, said="Set 'think' mode."),
            "nothink": lambda: self._set(think=False, said="Set 'nothink' mode."),
            "verbose": lambda: self._set_verbose(True),
            "quiet": lambda: self._set_verbose(False),
        }
        if what not in changes:
            print(f"Unknown setting '{what}'. Settings: {', '.join(changes)}")
        else:
            print(changes[what]())

    def _set(self, *, said: str, **changes: Any) -> str:
        self.settings = replace(self.settings, **changes)
        return said

    def _set_parameter(self, text: str) -> str:
        name, _, value = text.partition(" ")
        parsed = parse_value(name, value.strip())
        options = {**self.settings.options, name: parsed}
        return self._set(options=options, said=f"Set parameter '{name}' to '{value.strip()}'")

    def _set_system(self, text: str) -> str:
        self.system = text.removeprefix(QUOTES).removesuffix(QUOTES).strip()
        return "Set system message."

    def _set_verbose(self, wanted: bool) -> str:
        self.printer = replace(self.printer, verbose=wanted)
        return "Set 'verbose' mode." if wanted else "Set 'quiet' mode."


@dataclass(frozen=True, slots=True)
class _Command:
    carry_out: Callable[[Conversation, str], None]
    arguments: str
    meaning: str


_COMMANDS = {
    "set": _Command(Conversation.set, "parameter|system|format|think|…", "change the session"),
    "show": _Command(Conversation.show, "info|license|modelfile|…", "look at the model"),
    "load": _Command(Conversation.load, "MODEL", "go on with another model"),
    "list": _Command(Conversation.list, "", "list the models"),
    "clear": _Command(Conversation.clear, "", "forget the conversation"),
    "?": _Command(Conversation.help, "", "this help"),
    "help": _Command(Conversation.help, "", "this help"),
}


@contextmanager
def _line_editing(history_file: Path | None) -> Iterator[None]:
    """Arrow keys and a history that outlives the session, where `readline` exists."""
    try:
        import readline
    except ImportError:
        yield
        return
    if history_file is None:
        yield
        return
    try:
        if history_file.exists():
            readline.read_history_file(history_file)
    except OSError:
        print(f"warning: the history {history_file} cannot be read", file=sys.stderr)
    try:
        yield
    finally:
        readline.set_history_length(HISTORY_LENGTH)
        try:
            history_file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history_file)
            history_file.chmod(0o600)
        except OSError as error:
            print(f"warning: the history {history_file} cannot be written: {error.strerror}", file=sys.stderr)
