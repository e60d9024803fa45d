"""Every setting, where it came from, and nothing else in the project that reads the environment.

A flag wins over ``LADING_*``, that over the matching ``OLLAMA_*``, that over ``config.toml``, that over
the default. ``lading config`` prints the outcome; ``docs/settings.md`` is generated from ``SETTINGS``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..modelfile.errors import LadingError, UsageError

MAX_CONFIG_SIZE = 1 << 20
"""Bytes of ``config.toml`` that are read at most."""


class BadSetting(UsageError):
    """A setting has a value that cannot be used. ``origin`` says where the value was found."""

    def __init__(self, name: str, value: object, origin: str, expected: str) -> None:
        self.name, self.value, self.origin, self.expected = name, value, origin, expected
        super().__init__(
            f"reading setting {name} from {origin}: expected {expected}, got {value!r}",
            hint="`lading config` prints every setting and where it came from",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table. ``parse`` takes text or a TOML value, and raises ValueError on a misfit."""

    name: str
    parse: Callable[[Any], Any]
    expected: str
    default: Any
    meaning: str
    ollama: str | None = None

    @property
    def secret(self) -> bool:
        """Whether its value is never shown."""
        return self.parse is _secret

    @property
    def variable(self) -> str:
        """The name in the environment: ``LADING_KEEP_ALIVE``."""
        return f"LADING_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value in force and where it was found: ``default``, a variable's name, a path, ``flag``."""

    value: Any
    origin: str


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return raw.strip().strip("\"'")


def _optional_text(raw: Any) -> str | None:
    return _text(raw) or None


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or (number := int(raw)) < 0:
        raise ValueError
    return number


_PLACE = re.compile(r"[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[A-Za-z0-9_.-]+)*")
"""A registry, or a path in one."""

_TRUE = {"1", "t", "true", "yes", "on"}
_FALSE = {"0", "f", "false", "no", "off", ""}


def _switch(raw: Any) -> bool:
    text = str(raw).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE


def _names(raw: Any) -> tuple[str, ...]:
    parts = raw if isinstance(raw, list) else _text(raw).split(",")
    return tuple(part.strip() for part in map(str, parts) if part.strip())


def _secret(raw: Any) -> str | None:
    if not isinstance(raw, str):
        raise ValueError
    return raw.strip() or None


def _duration(raw: Any) -> Any:
    """Seconds, or a Go duration, above 0 and finite; kept as it was written."""
    from ..runtime.keep_alive import parse_keep_alive_setting

    value = raw if isinstance(raw, int) and not isinstance(raw, bool) else _text(raw)
    try:
        seconds = parse_keep_alive_setting(str(value))
    except LadingError:
        raise ValueError from None
    if not 0 < seconds <= 86400:
        raise ValueError
    return value


def _positive(raw: Any) -> int:
    if (number := _whole(raw)) < 1:
        raise ValueError
    return number


def _up_to(most: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        if (number := _positive(raw)) > most:
            raise ValueError
        return number

    return parse


def _size(raw: Any) -> int:
    if (size := _bytes(raw)) < 1:
        raise ValueError
    return size


def _places(raw: Any) -> dict[str, tuple[str, ...]]:
    """``a.example=b.example/path, a.example=c.example``, or a table of TOML with texts or lists."""
    pairs: list[tuple[str, Any]] = []
    if isinstance(raw, dict):
        for name, hosts in raw.items():
            pairs += [(name, host) for host in (hosts if isinstance(hosts, list) else [hosts])]
    else:
        pairs = [(name, host) for name, _, host in (entry.partition("=") for entry in _names(raw))]
    found: dict[str, tuple[str, ...]] = {}
    for name, host in pairs:
        if not isinstance(host, str) or not all(map(_PLACE.fullmatch, (name, host))):
            raise ValueError
        found[name] = (*found.get(name, ()), host)
    return found


def _kv_type(raw: Any) -> str:
    if (text := _text(raw).lower()) not in ("", "f16", "q8_0", "q4_0"):
        raise ValueError
    return text or "f16"


def _flash(raw: Any) -> str:
    if (text := str(raw).strip().lower()) == "auto":
        return "auto"
    return "on" if _switch(text) else "off"


def _url(raw: Any) -> str:
    text = _text(raw).rstrip("/")
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", text):
        raise ValueError
    return text


_MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def _bytes(raw: Any) -> int:
    """``8GB``, ``512MiB``, ``1000``; 0 means automatic."""
    text = str(raw).strip().lower().removesuffix("b")
    binary = text.endswith("i")
    text = text.removesuffix("i")
    if text and text[-1] in _MULTIPLES:
        power = "kmgt".index(text[-1]) + 1
        return int(float(text[:-1]) * (1024**power if binary else 1000**power))
    return _whole(text)


SETTINGS: tuple[Setting, ...] = (
    Setting(name="home", parse=_text, expected="a directory", default=None,
            meaning="the store, an OCI image layout; default `$XDG_DATA_HOME/lading`"),
    Setting(name="host", parse=_text, expected="host:port", default="127.0.0.1:11434", ollama="OLLAMA_HOST",
            meaning="where `serve` listens and where the other commands look for a server"),
    Setting(name="registry", parse=_text, expected="a registry host", default="registry.ollama.ai",
            meaning="the registry of a name without one"),
    Setting(name="namespace", parse=_text, expected="a namespace", default="library",
            meaning="the namespace of a bare name"),
    Setting(name="insecure_registries", parse=_names, expected="hosts, separated by commas", default=(),
            meaning="registries that may be reached over plain HTTP; loopback addresses always may"),
    Setting(name="internal_registries", parse=_names, expected="hosts, separated by commas", default=(),
            meaning="registries at private addresses that clients of `serve` may name"),
    Setting(name="ca_file", parse=_optional_text, expected="a PEM file", default=None,
            meaning="certificate authorities to trust for registries, beside the system's"),
    Setting(name="cert_dir", parse=_optional_text, expected="a folder", default=None,
            meaning="a folder like Docker's `certs.d`, looked at before Docker's and Podman's own"),
    Setting(name="hub", parse=_url, expected="a URL such as https://huggingface.co",
            default="https://huggingface.co", ollama="HF_ENDPOINT", meaning="where `hf.co` is"),
    Setting(name="mirrors", parse=_places, expected="registries and their mirrors, as in a.example=b.example",
            default={}, meaning="where to pull from first: `docker.io=mirror.example.com/hub`"),
    Setting(name="token_services", parse=_places, expected="registries and hosts, as in a.example=b.example",
            default={}, meaning="hosts that may see a registry's credentials, since they give tokens for it"),
    Setting(name="upload_hosts", parse=_names, expected="hosts, separated by commas", default=(),
            meaning="other hosts that a registry may want uploads to go to"),
    Setting(name="parallel", parse=_positive, expected="a whole number above 0", default=4,
            meaning="connections that a pull or push moves data over at once"),
    Setting(name="max_download_rate", parse=_bytes, expected="a size such as 10MB", default=0,
            meaning="bytes a second that a pull takes at most; 0 means no bound"),
    Setting(name="max_upload_rate", parse=_bytes, expected="a size such as 10MB", default=0,
            meaning="bytes a second that a push sends at most; 0 means no bound"),
    Setting(name="policy", parse=_optional_text, expected="a TOML file", default=None,
            meaning="which models must be signed to be used; default `policy.toml` beside `config.toml`"),
    Setting(name="keep_alive", parse=lambda raw: raw if isinstance(raw, int) else _text(raw),
            expected="a duration such as 5m", default="5m", ollama="OLLAMA_KEEP_ALIVE",
            meaning="how long an idle model stays loaded; negative means for ever"),
    Setting(name="context_length", parse=_whole, expected="a number of tokens", default=0,
            ollama="OLLAMA_CONTEXT_LENGTH",
            meaning="default num_ctx; 0 means 4096, or less where the model was trained for less"),
    Setting(name="num_parallel", parse=_whole, expected="a whole number", default=0,
            ollama="OLLAMA_NUM_PARALLEL",
            meaning="requests that one model answers at once; 0 chooses from memory"),
    Setting(name="max_loaded_models", parse=_whole, expected="a whole number", default=0,
            ollama="OLLAMA_MAX_LOADED_MODELS", meaning="models loaded at once; 0 lets memory decide"),
    Setting(name="preload", parse=_names, expected="names of models, separated by commas", default=(),
            meaning="models that `serve` loads when it starts"),
    Setting(name="pin", parse=_names, expected="names of models, separated by commas", default=(),
            meaning="models that `serve` loads when it starts and never lets go"),
    Setting(name="max_queue", parse=_whole, expected="a whole number", default=512, ollama="OLLAMA_MAX_QUEUE",
            meaning="requests that may wait for one model before others are told to come back"),
    Setting(name="load_timeout", parse=lambda raw: raw if isinstance(raw, int) else _text(raw),
            expected="a duration such as 5m", default="5m",
            ollama="OLLAMA_LOAD_TIMEOUT", meaning="how long a load may make no progress"),
    Setting(name="flash_attention", parse=_flash, expected="on, off or auto", default="auto",
            ollama="OLLAMA_FLASH_ATTENTION",
            meaning="flash attention; auto: on GPUs, and for caches that are long or quantised"),
    Setting(name="kv_cache_type", parse=_kv_type, expected="f16, q8_0 or q4_0", default="f16",
            ollama="OLLAMA_KV_CACHE_TYPE", meaning="type of the attention cache"),
    Setting(name="threads", parse=_whole, expected="a whole number", default=0,
            meaning="threads of one model; 0 means one for each core"),
    Setting(name="memory", parse=_bytes, expected="a size such as 8GB", default=0,
            meaning="memory that all loaded models may take together; 0 means what is free"),
    Setting(name="prefix_cache", parse=_bytes, expected="a size such as 2GB", default=0,
            meaning="disk for long prompts, kept evaluated, so that a model loaded again knows them;"
                    " 0 means none; they are in `$XDG_CACHE_HOME/lading/prefixes`"),
    Setting(name="shared_prefixes", parse=_switch, expected="true or false", default=False,
            meaning="whether what was evaluated for one API key's prompts serves those of others, too:"
                    " faster, but tells them what begins alike"),
    Setting(name="workers", parse=_whole, expected="a whole number", default=1,
            meaning="web worker processes"),
    Setting(name="origins", parse=_names, expected="origins, separated by commas", default=(),
            ollama="OLLAMA_ORIGINS", meaning="web origins allowed beside the local ones"),
    Setting(name="allowed_hosts", parse=_names, expected="host names, separated by commas", default=(),
            meaning="names by which clients may call the server, beside this machine's own"),
    Setting(name="api_key", parse=_secret, expected="a key", default=None,
            meaning="the key that commands send to a server; in `serve`, one that may do everything"),
    Setting(name="api_keys", parse=_optional_text, expected="a file", default=None,
            meaning="the file of API keys; default `api-keys.json` beside `config.toml`"),
    Setting(name="insecure_no_auth", parse=_switch, expected="true or false", default=False,
            meaning="listen to a network without keys and TLS"),
    Setting(name="behind_proxy", parse=_switch, expected="true or false", default=False,
            meaning="a proxy in front of the server has TLS"),
    Setting(name="tls_cert", parse=_optional_text, expected="a PEM file", default=None,
            meaning="the server's certificate"),
    Setting(name="tls_key", parse=_optional_text, expected="a PEM file", default=None,
            meaning="its private key"),
    Setting(name="tls_client_ca", parse=_optional_text, expected="a PEM file", default=None,
            meaning="authorities whose clients, and nobody else, may connect"),
    Setting(name="client_cert", parse=_optional_text, expected="a PEM file", default=None,
            meaning="the certificate that commands show to a server that wants one"),
    Setting(name="client_key", parse=_optional_text, expected="a PEM file", default=None,
            meaning="its private key"),
    Setting(name="metrics", parse=_switch, expected="true or false", default=True,
            meaning="serve figures at `/metrics`"),
    Setting(name="access_log", parse=_switch, expected="true or false", default=True,
            meaning="a line in the log for each request"),
    Setting(name="drain", parse=_duration, expected="a duration such as 60s", default="60s",
            meaning="how long running answers may take to finish once the server is told to stop"),
    Setting(name="max_body", parse=_size, expected="a size such as 32MiB", default=32 << 20,
            meaning="largest JSON body of a request, and what a compressed one may grow to; bytes"),
    Setting(name="header_timeout", parse=_duration, expected="a duration such as 10s", default="10s",
            meaning="how long a client may take for a handshake, and for the headers of its first request"),
    Setting(name="body_timeout", parse=_duration, expected="a duration such as 30s", default="30s",
            meaning="in this time a body must bring a kilobyte"),
    Setting(name="write_timeout", parse=_duration, expected="a duration such as 60s", default="60s",
            meaning="how long a client may leave its socket full"),
    Setting(name="request_timeout", parse=_duration, expected="a duration such as 10m", default="1h",
            meaning="longest time that a model's answer may take, loading and waiting included"),
    Setting(name="max_messages", parse=_positive, expected="a whole number above 0", default=1024,
            meaning="messages of one conversation"),
    Setting(name="max_tools", parse=_up_to(512), expected="a whole number from 1 to 512", default=128,
            meaning="tools that one request may offer"),
    Setting(name="max_stops", parse=_up_to(64), expected="a whole number from 1 to 64", default=16,
            meaning="stop texts of one request"),
    Setting(name="max_stop_length", parse=_up_to(1024), expected="a whole number from 1 to 1024", default=256,
            meaning="bytes of one of them"),
    Setting(name="max_images", parse=_up_to(64), expected="a whole number from 1 to 64", default=16,
            meaning="images of one request"),
    Setting(name="max_image", parse=_size, expected="a size such as 10MiB", default=10 << 20,
            meaning="largest of them, as a file; bytes"),
    Setting(name="max_choices", parse=_up_to(128), expected="a whole number from 1 to 128", default=8,
            meaning="answers to one prompt (`n`)"),
    Setting(name="max_connections", parse=_positive, expected="a whole number above 0", default=1024,
            meaning="connections of one web worker"),
    Setting(name="max_connections_per_ip", parse=_positive, expected="a whole number above 0", default=256,
            meaning="those of one address, loopback excepted; not counted behind a proxy"),
    Setting(name="debug", parse=_switch, expected="true or false", default=False, ollama="OLLAMA_DEBUG",
            meaning="log in detail, and show tracebacks of our own bugs"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force, by name, each with its origin. ``environ`` is the environment it was read from."""

    values: Mapping[str, Value]
    config_path: Path
    environ: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    @property
    def home(self) -> Path:
        """The store's root, absolute."""
        return Path(self["home"]).expanduser().absolute()

    @property
    def cache(self) -> Path:
        """The folder for what can be made again at any time."""
        return Path(self.read("XDG_CACHE_HOME") or Path.home() / ".cache") / "lading"

    def given(self, **flags: Any) -> Settings:
        """These settings with those that the command line gives; None means not given. Raises: BadSetting."""
        values = dict(self.values)
        for setting in SETTINGS:
            if (raw := flags.get(setting.name)) is not None:
                try:
                    values[setting.name] = Value(setting.parse(raw), "flag")
                except (ValueError, TypeError):
                    raise BadSetting(setting.name, raw, "flag", setting.expected) from None
        return replace(self, values=values)

    def read(self, variable: str) -> str | None:
        """Another program's variable (``XDG_RUNTIME_DIR``), or None when unset or empty."""
        return self.environ.get(variable) or None


def read_settings(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings in force. ``flags`` holds those of the command line, by name; None means not given.

    Raises: BadSetting, naming the variable or file and what was expected.
    """
    env = dict(os.environ if environ is None else environ)
    path = _config_path(env)
    file = _read_config(path)
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    values = {setting.name: _resolve(setting, given, env, file, path) for setting in SETTINGS}
    if values["home"].value is None:
        data = Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        values["home"] = Value(str(data / "lading"), values["home"].origin)
    return Settings(values, path, env)


def _resolve(
    setting: Setting, flags: Mapping[str, Any], env: Mapping[str, str], file: Mapping[str, Any], path: Path
) -> Value:
    candidates = (
        (flags.get(setting.name), "flag"),
        (env.get(setting.variable), setting.variable),
        (env.get(setting.ollama) if setting.ollama else None, setting.ollama or ""),
        (file.get(setting.name), str(path)),
    )
    for raw, origin in candidates:
        if raw is None or raw == "":
            continue
        try:
            return Value(setting.parse(raw), origin)
        except (ValueError, TypeError):
            raise BadSetting(setting.name, raw, origin, setting.expected) from None
    return Value(setting.default, "default")


def _config_path(env: Mapping[str, str]) -> Path:
    if explicit := env.get("LADING_CONFIG"):
        return Path(explicit)
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lading" / "config.toml"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_SIZE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadSetting("config", str(path), str(path), f"a readable file ({error.strerror})") from error
    if len(data) > MAX_CONFIG_SIZE:
        raise BadSetting("config", len(data), str(path), f"at most {MAX_CONFIG_SIZE} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting("config", str(error), str(path), "TOML") from error
    known = {setting.name for setting in SETTINGS}
    for name in sorted(set(table) - known):
        raise BadSetting(name, table[name], str(path), f"a known setting: {', '.join(sorted(known))}")
    return table
