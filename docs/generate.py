"""Fill the tables of the documentation from the code that they describe.

    python docs/generate.py            rewrite the pages
    python docs/generate.py --check    exit with 1 if a page is not what this would write

A page holds ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; what stands between is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import api_tables
import typer

from lading.cli.exit_code import ExitCode
from lading.cli.main import create_app
from lading.cli.settings import SETTINGS
from lading.modelfile.linter import RULES
from lading.modelfile.parameters import PARAMETERS
from lading.oci.dialects.modelpack import media_type_of
from lading.oci.gguf.quantisation import ALIASES, QUANTISATIONS
from lading.oci.layer import FIXED_PATHS, Role
from lading.runtime.runner.thinking import KNOWN_TAGS
from lading.runtime.runner.tool_formats import harmony
from lading.runtime.runner.tool_formats.registry import FORMATS

DOCS = Path(__file__).parent
PAGES = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"]
BLOCK = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a `|` within a cell is escaped."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def parameters() -> str:
    """What PARAMETER and a request's options may set."""
    return table(
        ("parameter", "type", "default", "range", "meaning"),
        (
            (
                f"`{spec.name}`",
                spec.type,
                "automatic" if spec.default is None else f"`{spec.default}`",
                spec.range,
                f"{spec.meaning}{' *(decides how the model is loaded)*' if spec.load_time else ''}",
            )
            for spec in PARAMETERS.values()
            if spec.deprecated is None
        ),
    )


def lint_rules() -> str:
    """What `lading lint` finds."""
    return table(
        ("code", "what it means"), ((rule.code, f"{rule.meaning}. {rule.why}") for rule in RULES.values())
    )


def settings() -> str:
    """Every setting, its variables and its default."""
    return table(
        ("in `config.toml`", "variables", "default", "meaning"),
        (
            (
                f"`{setting.name}`",
                ", ".join(f"`{name}`" for name in (setting.variable, setting.ollama) if name),
                f"`{setting.default}`" if setting.default not in (None, (), {}, False, 0) else "",
                setting.meaning,
            )
            for setting in SETTINGS
        ),
    )


def quantisations() -> str:
    """What weights can be quantised to."""
    aliases = {name: alias for alias, name in ALIASES.items()}
    return table(
        ("type", "also", "bits a weight", "what to expect"),
        (
            (f"`{name}`", f"`{aliases[name]}`" if name in aliases else "", f"{one.bits:g}", one.meaning)
            for name, one in QUANTISATIONS.items()
        ),
    )


def exit_codes() -> str:
    """What the process exits with."""
    return table(("code", "meaning"), ((int(code), code.meaning) for code in ExitCode))


def commands() -> str:
    """Every command that `--help` shows."""
    group = typer.main.get_command(create_app())
    context = typer.Context(group, info_name="lading")
    rows = []
    for name in group.list_commands(context):  # type: ignore[attr-defined]  # it is a group
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        if not command.hidden:
            rows.append((f"`lading {name}`", command.get_short_help_str(limit=200)))
    return table(("command", "does"), rows)


def roles() -> str:
    """The kinds of layers, where they lie in the artifact, and their media types."""
    made_by = {
        Role.WEIGHTS: "`FROM`",
        Role.PROJECTOR: "`FROM` of a projector",
        Role.ADAPTER: "`ADAPTER`",
        Role.DRAFT: "`DRAFT`",
        Role.TEMPLATE_GO: "`TEMPLATE`",
        Role.TEMPLATE_JINJA: "`TEMPLATE` in Jinja, or `COPY`",
        Role.SYSTEM: "`SYSTEM`",
        Role.PARAMS: "`PARAMETER`",
        Role.MESSAGES: "`MESSAGE`",
        Role.LICENSE: "`LICENSE`",
        Role.README: "`COPY`",
        Role.DOC: "`COPY`",
        Role.MODELFILE: "the Modelfile, local paths replaced by digests",
    }
    rows = (
        (
            f"`{role}`",
            f"`{path}`" if (path := FIXED_PATHS.get(role)) else "its own name",
            f"`{media_type_of(role)}`",
            origin,
        )
        for role, origin in made_by.items()
    )
    return table(("role", "path", "media type", "made by"), rows)


def tool_formats() -> str:
    """How calls are written, by an example."""
    call = ("get_weather", {"city": "Paris", "days": 2})
    shapes = [(name, form.shape) for name, form in FORMATS.items()]
    shapes.append(("harmony", harmony.SHAPE))
    return table(
        ("format", "a call"),
        (
            (f"`{name}`", f"`` {shape.example(*call).replace(chr(10), '⏎')} ``")
            for name, shape in shapes
            if shape is not None
        ),
    )


def thinking_tags() -> str:
    """What stands around thoughts, and around the answer after them."""
    return table(
        ("a thought stands between", "and the answer between"),
        (
            (
                f"`{tags.opening}` and `{tags.closing}`",
                " and ".join(f"`{tag}`" for tag in (tags.answer_opening, tags.answer_closing) if tag),
            )
            for tags in KNOWN_TAGS
        ),
    )


GENERATORS = {
    "tool-formats": tool_formats,
    "thinking-tags": thinking_tags,
    "roles": roles,
    "parameters": parameters,
    "lint-rules": lint_rules,
    "settings": settings,
    "exit-codes": exit_codes,
    "quantisations": quantisations,
    "commands": commands,
    "native-fields": lambda: api_tables.field_table(api_tables.NATIVE, table),
    "openai-fields": lambda: api_tables.field_table(api_tables.OPENAI, table),
    "responses-fields": lambda: api_tables.field_table(api_tables.RESPONSES, table),
    "anthropic-fields": lambda: api_tables.field_table(api_tables.ANTHROPIC, table),
    "llama-fields": lambda: api_tables.field_table(api_tables.LLAMA, table),
    "routes": lambda: api_tables.route_table(table),
    "roles-of-keys": lambda: api_tables.role_table(table),
    "metrics": lambda: api_tables.metric_table(table),
    "error-table": lambda: api_tables.error_table(table),
}


def fill(text: str) -> str:
    """``text`` with every block made anew."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{GENERATORS[match[2]]()}\n{match[3]}", text)


def main() -> int:
    stale = [page for page in PAGES if fill(page.read_text("utf-8")) != page.read_text("utf-8")]
    if "--check" in sys.argv[1:]:
        for page in stale:
            print(f"{page.relative_to(DOCS.parent)} is out of date: python docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for page in stale:
        page.write_text(fill(page.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
