"""Printing an answer as it streams: the answer on stdout, everything else where it belongs."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from ..runtime.inference import Done, InferenceEvent
from ..runtime.protocol import Text, Thinking, ToolCall


@dataclass(slots=True)
class Answer:
    """What was printed, for the history of a conversation."""

    text: str = ""
    done: Done | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printer:
    """How to print answers. Thoughts go to a terminal only: a pipe gets the answer and nothing else."""

    hide_thinking: bool = False
    verbose: bool = False

    def print_answer(self, events: Iterator[InferenceEvent]) -> Answer:
        """Print ``events`` as they come and return what they were; ends with a newline.

        An interruption (Ctrl-C, a closed pipe) passes through after what has come so far was printed, and
        ends the generation: ``events`` is closed in any case.
        """
        try:
            return self._print(events)
        finally:
            if isinstance(events, Generator):
                events.close()

    def _print(self, events: Iterator[InferenceEvent]) -> Answer:
        answer, thinking = Answer(), False
        show_thoughts = sys.stdout.isatty() and not self.hide_thinking
        for event in events:
            if isinstance(event, Thinking):
                if show_thoughts:
                    _write(("" if thinking else "Thinking...\n") + event.text)
                    thinking = True
            elif isinstance(event, Text):
                if thinking:
                    _write("\n...done thinking.\n\n")
                    thinking = False
                _write(event.text)
                answer.text += event.text
            elif isinstance(event, ToolCall):
                answer.tool_calls.append(event)
                _write(
                    json.dumps({"name": event.name, "arguments": event.arguments}, ensure_ascii=False) + "\n"
                )
            elif isinstance(event, Done):
                answer.done = event
        _write("\n")
        if self.verbose and answer.done is not None:
            _print_figures(answer.done)
        return answer


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_figures(done: Done) -> None:
    usage = done.usage
    rows = [
        ("total duration", f"{done.total_duration_ns / 1e9:.3f} s"),
        ("load duration", f"{done.load_duration_ns / 1e9:.3f} s"),
        ("prompt eval count", f"{usage.prompt_tokens} token(s)"),
        ("prompt eval rate", _rate(usage.prompt_tokens - usage.cached_tokens, usage.prompt_duration_ns)),
        ("eval count", f"{usage.eval_tokens} token(s)"),
        ("eval rate", _rate(usage.eval_tokens, usage.eval_duration_ns)),
    ]
    if usage.drafted_tokens:
        rows.append(("drafted", f"{usage.drafted_tokens} token(s), {usage.accepted_tokens} accepted"))
    for name, value in rows:
        print(f"{name + ':':20} {value}", file=sys.stderr)


def _rate(tokens: int, duration_ns: int) -> str:
    return f"{tokens / (duration_ns / 1e9):.2f} tokens/s" if duration_ns > 0 else "-"
