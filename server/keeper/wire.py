"""What web workers and the keeper process say to each other over a Unix socket.

A 4-byte big-endian length, then MessagePack: JSON has no infinity, which is how long some models stay. One
question on a connection at a time; `Attach` has no answer and says "I am a web worker; stay while I am
connected".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import msgspec

from ...modelfile.errors import InternalError, LadingError
from ...runtime.frame import MAX_FRAME, BadFrame
from ...runtime.grant import Acquire, Grant, LoadedModel


class _Wire(msgspec.Struct, tag=True):
    pass


class AcquireCall(_Wire):
    request: Acquire


class UnloadCall(_Wire):
    model: str


class LoadedCall(_Wire):
    pass


class HealthCall(_Wire):
    pass


class Attach(_Wire):
    pass


class Granted(_Wire):
    grant: Grant


class Unloaded(_Wire):
    was_loaded: bool


class LoadedModels(_Wire):
    models: tuple[LoadedModel, ...]


class SandboxReport(msgspec.Struct, frozen=True, kw_only=True):
    """What confines runners on this machine, as tried out when the keeper started."""

    level: Literal["full", "reduced", "off", "testing", "unknown"] = "unknown"
    """full: every layer holds; reduced: some are not there, or do not hold; off: by the settings."""
    layers: dict[str, str] = {}
    """Each layer, and whether it "holds", is "absent", or is "broken"."""
    landlock_abi: int = 0
    """Version of the kernel's interface; 0: it has none."""
    problem: str = ""
    """Why nothing is known."""


class PreloadState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model that was to be loaded at the start."""

    model: str
    state: Literal["waiting", "loading", "ready", "failed"]
    pinned: bool = False
    error: str = ""


class Health(_Wire):
    sandbox: SandboxReport
    preloads: tuple[PreloadState, ...]
    runner_ends: dict[str, int] = {}
    """How many runners have ended, by reason."""


class Refused(_Wire):
    """An error of ours on its way to the other process."""

    kinds: tuple[str, ...]
    """Its class and the classes above, by name, the narrowest first."""
    message: str
    facts: dict[str, Any] = {}


Call = AcquireCall | UnloadCall | LoadedCall | HealthCall | Attach
Reply = Granted | Unloaded | LoadedModels | Health | Refused

CALLS: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

_encoder = msgspec.msgpack.Encoder()
_T = TypeVar("_T")


def pack(body: Call | Reply) -> bytes:
    data = _encoder.encode(body)
    if len(data) > MAX_FRAME:
        raise BadFrame(f"sending a message: expected at most {MAX_FRAME} bytes, got {len(data)}")
    return len(data).to_bytes(4, "big") + data


def unpack(decoder: msgspec.msgpack.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadFrame(f"reading a message: {error}") from error


def refusal(error: LadingError) -> Refused:
    """What to send for an error; facts that are plain values travel along."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, LadingError))
    facts = {
        name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)
    }
    return Refused(kinds=kinds, message=error.message, facts=facts)


def error_of(refused: Refused) -> LadingError:
    """The error again, of the narrowest of its classes that this process knows."""
    known = {kind.__name__: kind for kind in _tree(LadingError)}
    kind = next((known[name] for name in refused.kinds if name in known), InternalError)
    error = kind.__new__(kind)
    error.args = (refused.message,)
    error.__dict__.update({"hint": None} | refused.facts)
    return error


def _tree(kind: type[LadingError]) -> Iterator[type[LadingError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
