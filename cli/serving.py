"""Models at work: ``run``, ``serve``, ``ps``, ``stop``, ``show``; ``version``, ``config``, ``completion``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..modelfile.errors import InputError, NotFoundError, UsageError
from .human import format_size, format_until
from .listening import (
    BehindProxyOption,
    InsecureNoAuthOption,
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
    exposure_flags,
    server_settings,
)
from .output import print_json, print_rows
from .session import COMPLETION_VARIABLE, FormatOption, InsecureOption, ModelArgument, Session, session_of
from .settings import SETTINGS, Setting

if TYPE_CHECKING:
    from ..runtime.inference import Settings as InferenceSettings
    from .backend import Backend
    from .client import ServerClient

PS_FIELDS = ("name", "id", "digest", "size", "processor", "context", "until", "pinned")
SHELLS = ("bash", "zsh", "fish", "powershell")
MAX_PROMPT_SIZE = 32 << 20
"""Bytes of standard input that are read as a prompt at most."""


def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option("--host", "--listen", "-H", metavar="HOST:PORT", help="Where to listen.")
    ] = None,
    preload: Annotated[
        list[str] | None,
        typer.Option("--preload", metavar="MODEL", help="Load this model at the start. Repeatable."),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="MODEL", help="Load it at the start and keep it loaded. Repeatable."),
    ] = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    behind_proxy: BehindProxyOption = False,
    insecure_no_auth: InsecureNoAuthOption = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name by which clients may call the server."),
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", help="Log a line for each request.")
    ] = None,
) -> None:
    """Serve the store's models over REST until told to stop.

    Speaks Ollama's API, OpenAI's, Anthropic's, and OCI's for registries. Models are loaded when first asked
    for, unless --preload or --pin names them. Beyond this machine it listens only with keys (see `lading
    apikey`) and TLS.
    """
    from ..server.gunicorn_app import serve as serve_forever

    session = session_of(context)
    flags = exposure_flags(tls_cert, tls_key, tls_client_ca, behind_proxy, insecure_no_auth)
    flags |= {"allowed_hosts": allowed_host or None, "access_log": access_log}
    settings = server_settings(session, host or session.settings["host"], flags, default_port=11434)
    pinned = tuple(pin or session.settings["pin"])
    serve_forever(
        replace(
            settings,
            preload=tuple(preload or session.settings["preload"]),
            runtime=replace(settings.runtime, pinned=pinned),
        )
    )


def ps(
    context: typer.Context,
    form: FormatOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """List the models that the server has loaded."""
    models = _client(context).call("GET", "/api/ps").get("models") or []
    now = datetime.now(UTC)
    rows = [
        {
            "name": model["name"],
            "id": model["digest"][:12],
            "digest": model["digest"],
            "size": model["size"],
            "processor": _processor(model["size"], model["size_vram"]),
            "context": model.get("context_length", 0),
            "until": model.get("expires_at"),
            "pinned": model.get("pinned", False),
        }
        for model in models
    ]
    table = {
        "NAME": lambda row: row["name"],
        "ID": lambda row: row["id"],
        "SIZE": lambda row: format_size(row["size"]),
        "PROCESSOR": lambda row: row["processor"],
        "CONTEXT": lambda row: row["context"],
        "UNTIL": lambda row: (
            "Forever (pinned)"
            if row["pinned"]
            else format_until(datetime.fromisoformat(row["until"]) if row["until"] else None, now=now)
        ),
    }
    print_rows("json" if as_json else form, rows, table, PS_FIELDS)


def _processor(size: int, size_vram: int) -> str:
    if size_vram <= 0 or size <= 0:
        return "100% CPU"
    if size_vram >= size:
        return "100% GPU"
    cpu = round(100 * (size - size_vram) / size)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def stop(context: typer.Context, model: ModelArgument) -> None:
    """Unload a model from the server's memory once it is idle."""
    client = _client(context)
    try:
        client.call("POST", "/api/generate", {"model": model, "keep_alive": 0})
    except NotFoundError:
        raise NotFoundError(
            f'couldn\'t find model "{model}" to stop', hint="`lading ps` lists them"
        ) from None


def run(
    context: typer.Context,
    model: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Without one: a conversation.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="A parameter, such as temperature=0."),
    ] = None,
    system: Annotated[str, typer.Option("--system", help="Replace the model's system prompt.")] = "",
    form: Annotated[
        str, typer.Option("--format", metavar="json|SCHEMA", help="Answer in JSON, or to a JSON Schema.")
    ] = "",
    think: Annotated[
        str | None, typer.Option("--think", metavar="true|false|LEVEL", help="Whether to think first.")
    ] = None,
    hide_thinking: Annotated[bool, typer.Option("--hidethinking", help="Do not print thoughts.")] = False,
    keep_alive: Annotated[
        str | None, typer.Option("--keepalive", metavar="DURATION", help="How long to stay loaded.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print figures after the answer.")] = False,
    insecure: InsecureOption = False,
) -> None:
    """Ask a model one question, or talk with it.

    The prompt may come from arguments, a pipe, or both (the pipe first). Where the model can see, pictures
    are named by their paths, such as ./cat.png. A running server answers; without one, the model is loaded
    for as long as the command runs. A model that is missing is pulled.
    """
    from .attachments import names_images, take_images
    from .printer import Printer

    session = session_of(context)
    settings = _inference_settings(option or [], form, think, keep_alive)
    piped, words = _read_prompt(prompt or [])
    printer = Printer(hide_thinking=hide_thinking, verbose=verbose)
    backend = _backend(session, model, insecure=insecure)
    try:
        if piped is None:
            _converse(session, backend, model, settings, printer, system)
            return
        from ..runtime.inference import GenerateRequest

        images: tuple[bytes, ...] = ()
        if names_images(words) and backend.sees(model):
            words, images = take_images(words)
        text = "\n\n".join(part for part in (piped, words) if part)
        request = GenerateRequest(model=model, prompt=text, system=system, images=images, settings=settings)
        printer.print_answer(backend.generate(request))
    finally:
        backend.close()


def _read_prompt(given: list[str]) -> tuple[str | None, str]:
    """Standard input, where it is not a terminal, and the words; None and nothing: a conversation.

    Raises: UsageError.
    """
    words, piped = " ".join(given), ""
    if not sys.stdin.isatty():
        data = sys.stdin.buffer.read(MAX_PROMPT_SIZE + 1)
        if len(data) > MAX_PROMPT_SIZE:
            raise UsageError(
                f"reading the prompt: expected at most {MAX_PROMPT_SIZE} bytes on standard input"
            )
        try:
            piped = data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"reading the prompt: expected UTF-8 text, got byte {data[error.start]:#04x}"
            ) from error
    elif not words and sys.stdout.isatty():
        return None, ""
    if not piped and not words:
        raise UsageError("reading the prompt: there is none", hint="give it as an argument or through a pipe")
    return piped, words


def _inference_settings(
    pairs: list[str], form: str, think: str | None, keep_alive: str | None
) -> InferenceSettings:
    from ..modelfile.parameters import parse_value
    from ..runtime.inference import Settings
    from ..runtime.keep_alive import parse_keep_alive_setting

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"reading --option {pair!r}: expected NAME=VALUE")
        parsed = parse_value(name, value)
        options[name] = [*options.get(name, []), *parsed] if isinstance(parsed, list) else parsed
    return Settings(
        options=options,
        format=_output_format(form),
        think=_think(think),
        keep_alive=None if keep_alive is None else parse_keep_alive_setting(keep_alive),
    )


def _output_format(text: str) -> Any:
    if not text:
        return None
    if text == "json":
        return "json"
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UsageError(f"reading --format: expected json or a JSON Schema, got {text[:60]!r}") from error
    if not isinstance(schema, dict):
        raise UsageError(f"reading --format: expected json or a JSON Schema, got {text[:60]!r}")
    return schema


def _think(text: str | None) -> Any:
    values = {
        None: None,
        "true": True,
        "false": False,
        "low": "low",
        "medium": "medium",
        "high": "high",
        "max": "max",
    }
    if text not in values:
        raise UsageError(f"reading --think: expected true, false, low, medium, high or max, got {text!r}")
    return values[text]


def _backend(session: Session, model: str, *, insecure: bool) -> Backend:
    from .backend import EmbeddedBackend, ServerBackend

    client = session.server_client()
    if client.answers():
        return ServerBackend(client)
    _pull_if_missing(session, model, insecure=insecure)
    return EmbeddedBackend(session.settings.home, session.runtime_settings())


def _pull_if_missing(session: Session, model: str, *, insecure: bool) -> None:
    from ..oci.errors import ModelNotFound
    from .progress import show_progress

    reference = session.reference(model)
    store = session.store()
    try:
        store.resolve(reference)
    except ModelNotFound:
        from ..oci.transfer import pull

        client = session.registry_client(insecure=insecure, reference=reference)
        with show_progress() as progress:
            pull(store, client, reference, progress=progress)


def _converse(
    session: Session, backend: Backend, model: str, settings: InferenceSettings, printer: Any, system: str
) -> None:
    from .conversation import Conversation
    from .description import describe

    def names() -> str:
        return "".join(f"{session.display(tag.reference)}\n" for tag in session.store().tags())

    state = session.settings.read("XDG_STATE_HOME")
    history = (Path(state) if state else Path.home() / ".local" / "state") / "lading" / "history"
    Conversation(
        backend=backend,
        model=model,
        settings=settings,
        printer=printer,
        describe=lambda name, facet: describe(session, name, facet),
        list_models=names,
        system=system or None,
    ).run(history)


SHOWN_ALONE = ("license", "modelfile", "parameters", "system", "template", "messages")


def show(
    context: typer.Context,
    model: ModelArgument,
    license_: Annotated[bool, typer.Option("--license", help="Only the licences.")] = False,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only the Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only the parameters.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only the system prompt.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only the template.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Only the messages.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All metadata and tensors.")] = False,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Describe a model."""
    from .description import describe, describe_json

    flags = (license_, modelfile, parameters, system, template, messages)
    asked = [facet for facet, flag in zip(SHOWN_ALONE, flags, strict=True) if flag]
    if len(asked) > 1:
        raise UsageError(f"only one of --{' --'.join(SHOWN_ALONE)} can be given, got --{' --'.join(asked)}")
    session = session_of(context)
    if form == "json":
        print_json(describe_json(session, model))
    elif form != "text":
        raise InputError(f"reading --format {form!r}: expected text or json")
    else:
        print(describe(session, model, asked[0] if asked else ("verbose" if verbose else "info")))


def version(
    context: typer.Context,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Print the version."""
    del context
    if form == "json":
        print_json({"version": __version__, "python": sys.version.split()[0]})
    else:
        print(f"lading version {__version__}")


def config(context: typer.Context, form: FormatOption = "table") -> None:
    """Print every setting in force and where it came from."""
    settings = session_of(context).settings
    rows = [
        {
            "setting": setting.name,
            "value": _shown(setting, settings.values[setting.name].value),
            "origin": settings.values[setting.name].origin,
        }
        for setting in SETTINGS
    ]
    table = {
        "SETTING": lambda row: row["setting"],
        "VALUE": lambda row: ",".join(row["value"]) if isinstance(row["value"], list) else row["value"],
        "ORIGIN": lambda row: row["origin"],
    }
    print_rows(form, rows, table, ("setting", "value", "origin"))


def _shown(setting: Setting, value: Any) -> Any:
    if setting.secret and value:
        return "(secret)"
    return list(value) if isinstance(value, tuple) else value


def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish|powershell", help="Your shell.")],
) -> None:
    """Print a shell's completion script.

    For bash: eval "$(lading completion bash)"
    """
    # What typer's own --show-completion prints; it needs no guess of the shell that runs us.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # not re-exported

    if shell not in SHELLS:
        raise UsageError(f"reading the shell {shell!r}: expected one of {', '.join(SHELLS)}")
    print(get_completion_script(prog_name="lading", complete_var=COMPLETION_VARIABLE, shell=shell))


def _client(context: typer.Context) -> ServerClient:
    return session_of(context).server_client()


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("run", context_settings={"ignore_unknown_options": False})(run)
    app.command("serve")(serve)
    app.command("start", hidden=True)(serve)
    app.command("ps")(ps)
    app.command("stop")(stop)
    app.command("unload", hidden=True)(stop)
    app.command("show")(show)
    app.command("version")(version)
    app.command("config")(config)
    app.command("completion")(completion)
