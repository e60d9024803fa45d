"""Jinja chat templates as Hugging Face's ``apply_chat_template`` understands them, in a sandbox.

The sandbox keeps a template from reaching Python; it does not keep it from working for ever. Time and memory
are the business of `renderer`, which runs this in a process of its own; here only the size of what is read,
made and multiplied is bounded.

Source: transformers, ``utils/chat_template_utils.py``; the names of variables are those that published
templates use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

from ..errors import BadTemplate

MAX_TEMPLATE = 256 * 1024
"""Characters of a template."""
MAX_OUTPUT = 4 * 1024 * 1024
"""Characters of a rendered prompt."""
_MAX_REPEAT = 1024 * 1024
_MAX_EXPONENT = 64
_MAX_BITS = 4096
_MAX_REASON = 500


class ChatTemplate:
    """A compiled template.

    Raises:
        BadTemplate: too long, or not a template.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE:
            raise BadTemplate(
                f"compiling the chat template: expected at most {MAX_TEMPLATE} characters, got {len(source)}"
            )
        try:
            environment = _environment()
            tree = environment.parse(source)
            self._names = meta.find_undeclared_variables(tree)
            self._template = environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise BadTemplate(f"compiling the chat template: line {error.lineno}: {error.message}") from error
        except (RecursionError, SyntaxError, MemoryError) as error:
            raise BadTemplate("compiling the chat template: it is nested too deeply") from error
        except jinja2.TemplateError as error:
            raise BadTemplate(f"compiling the chat template: {_reason(error)}") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises: BadTemplate; MemoryError where the process has a limit."""
        parts: list[str] = []
        size = 0
        if "functions" in self._names and "tools" not in self._names:
            variables = {**variables, **_functions(variables.get("tools") or ())}
        try:
            for part in self._template.generate(variables):
                size += len(part)
                if size > MAX_OUTPUT:
                    raise BadTemplate(
                        f"rendering the chat template: it writes more than {MAX_OUTPUT} characters"
                    )
                parts.append(part)
        except (BadTemplate, MemoryError):
            raise
        except jinja2.TemplateError as error:
            raise BadTemplate(f"rendering the chat template: {_reason(error)}") from error
        except RecursionError as error:
            raise BadTemplate("rendering the chat template: it is nested too deeply") from error
        except Exception as error:  # a template can make Python raise anything: 1 / 0, none.upper, {}[[]]
            reason = f"{type(error).__name__}: {_reason(error)}"
            raise BadTemplate(f"rendering the chat template: {reason}") from error
        return "".join(parts)


def template_variables(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    think: bool | str | None,
    bos: str,
    eos: str,
) -> dict[str, Any]:
    """What published templates look for. Variables that are undefined mean "as the template likes"."""
    variables: dict[str, Any] = {
        "messages": list(messages),
        "tools": list(tools) or None,
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": bos,
        "eos_token": eos,
    }
    if think is not None:
        variables["enable_thinking"] = variables["thinking"] = variables["reasoning"] = bool(think)
        variables["thinking_mode"] = "enabled" if think else "disabled"
    if think is False:
        variables["thinking_budget"] = 0
    if isinstance(think, str):
        variables["reasoning_effort"] = think
    return variables


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What templates look for that are older than the name "tools"."""
    functions = [tool.get("function", tool) for tool in tools]
    return {"functions": _tojson(functions, indent=4), "datetime": _strftime_now("%Y-%m-%d %H:%M:%S")}


class _Environment(SandboxedEnvironment):
    """The sandbox, with the two operators bounded that make much out of little.

    Templates may change lists and mappings, as some published ones do with those they have made; what they
    are given is theirs alone.
    """

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (not _is_small(left, 2**64) or not _is_small(right, _MAX_EXPONENT)):
            raise jinja2.TemplateRuntimeError("the power is too large")
        if operator == "*":
            for count, repeated in ((left, right), (right, left)):
                is_repeat = isinstance(repeated, str | list | tuple) and isinstance(count, int)
                if is_repeat and count * len(repeated) > _MAX_REPEAT:
                    raise jinja2.TemplateRuntimeError("the repeated value is too long")
            is_product = isinstance(left, int) and isinstance(right, int)
            if is_product and left.bit_length() + right.bit_length() > _MAX_BITS:
                raise jinja2.TemplateRuntimeError("the product is too large")
        return super().call_binop(context, operator, left, right)


class _GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}``, which marks text for training: here, just its body."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
    )
    for name in ("lipsum", "cycler", "joiner"):  # no template needs them, and one is slow on purpose
        environment.globals.pop(name, None)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.filters["tojson"] = _tojson
    return environment


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(str(form)[:200])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escaping of ``<>&'``, which models are not trained on."""
    encode: Callable[..., str] = json.dumps
    return encode(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: Any) -> list[Any]:
    """What filters such as ``map`` make. Raises: TypeError."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _is_small(value: Any, limit: int) -> bool:
    return not isinstance(value, int) or abs(value) <= limit


def _reason(error: BaseException) -> str:
    return str(error)[:_MAX_REASON] or type(error).__name__
