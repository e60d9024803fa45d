"""What can be told of a generation request without its model. Done by the client, so that no other request on
its connection suffers, and again by the runner, which trusts nobody.
"""

from __future__ import annotations

import math

from .errors import BadRequest
from .options import Options
from .protocol import Generate

_MAX_TENANT = 64
_MAX_STOPS = 64
_MAX_STOP = 1024
_MAX_TOOLS = 512
_MAX_IMAGES = 64
_MAX_TOP_LOGPROBS = 20


def check(request: Generate) -> None:
    """Raises: BadRequest: what can be told without the model."""
    if request.prompt is None and not request.messages:
        raise BadRequest("reading the request: expected messages or a prompt")
    if request.raw and request.prompt is None:
        raise BadRequest("reading the request: raw needs a prompt")
    if len(request.tenant) > _MAX_TENANT:
        raise BadRequest(f"reading tenant: expected at most {_MAX_TENANT} characters")
    _check_images(request)
    if not 0 <= request.top_logprobs <= _MAX_TOP_LOGPROBS:
        raise BadRequest(
            f"reading top_logprobs: expected 0 to {_MAX_TOP_LOGPROBS}, got {request.top_logprobs}"
        )
    if request.max_thinking_tokens is not None and request.max_thinking_tokens < 0:
        raise BadRequest(
            f"reading max_thinking_tokens: expected 0 or more, got {request.max_thinking_tokens}"
        )
    if request.format is not None and request.grammar is not None:
        raise BadRequest("reading the request: expected a format or a grammar, got both")
    if len(request.tools) > _MAX_TOOLS:
        raise BadRequest(f"reading tools: expected at most {_MAX_TOOLS}, got {len(request.tools)}")
    _check_options(request.options)


def _check_images(request: Generate) -> None:
    count = len(request.images) + sum(len(message.images) for message in request.messages)
    if count > _MAX_IMAGES:
        raise BadRequest(f"reading images: expected at most {_MAX_IMAGES}, got {count}")
    for message in request.messages:
        at = message.image_at
        ends = [0, *at, len(message.content)]
        if at and (len(at) != len(message.images) or ends != sorted(ends)):
            raise BadRequest("reading images: expected a place in its message for each")


def _check_options(options: Options) -> None:
    if len(options.stop) > _MAX_STOPS or any(len(stop) > _MAX_STOP for stop in options.stop):
        raise BadRequest(
            f"reading stop: expected at most {_MAX_STOPS} strings of at most {_MAX_STOP} characters"
        )
    numbers = {name: getattr(options, name) for name in _FINITE}
    numbers["logit_bias"] = sum(bias for _, bias in options.logit_bias)
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise BadRequest(f"reading {name}: expected a number, got {value}")
    if options.repeat_penalty <= 0:  # llama.cpp divides by it
        raise BadRequest(f"reading repeat_penalty: expected more than 0, got {options.repeat_penalty:g}")
    if options.mirostat not in (0, 1, 2):
        raise BadRequest(f"reading mirostat: expected 0, 1 or 2, got {options.mirostat}")


_FINITE = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat_tau",
    "mirostat_eta",
)
