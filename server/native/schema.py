"""Requests and answers of the native API (``/api/*``), as types.

In answers a field that has a default is left out while it has that value; a field without one is always
there. ``null`` is never written. Durations are nanoseconds.

Source: Ollama's api/types.go; which fields clients cannot do without is tested in tests/server.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from ..field_status import Ignored, Partly, Refused

Count = int | msgspec.UnsetType
"""A counter of a last line: there, zero included, or absent."""


class Request(msgspec.Struct):
    """Base of requests: every field may be absent."""


class Answer(msgspec.Struct, omit_defaults=True):
    """Base of answers."""


# Requests


class FunctionCallIn(Request):
    name: str = ""
    arguments: dict[str, Any] | str = {}
    """An object; clients that mix dialects send it as JSON text."""
    index: int = 0


class ToolCallIn(Request):
    id: str = ""
    function: FunctionCallIn = msgspec.field(default_factory=FunctionCallIn)


class MessageIn(Request):
    role: str = ""
    content: str | list[Any] = ""
    """Text. A list of parts is accepted for clients that send OpenAI's form."""
    thinking: str = ""
    images: list[str] = []
    """Base64."""
    tool_calls: list[ToolCallIn] = []
    tool_name: str = ""
    tool_call_id: str = ""
    name: str = ""


class Named(Request):
    """A model is named by ``model``, or by ``name`` as in older clients; an empty ``model`` falls through."""

    model: str = ""
    name: str = ""

    @property
    def model_name(self) -> str:
        return self.model or self.name


class _Inference(Named):
    options: dict[str, Any] = {}
    keep_alive: Any = None
    stream: bool = True
    format: Any = None
    grammar: str | dict[str, Any] = ""
    think: bool | str | None = None
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    # Not Ollama's: some clients put these beside ``options``, where they are taken unless that says
    # otherwise.
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    max_thinking_tokens: int | None = None
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")
    """Answer with the prompt, and generate nothing."""


class GenerateRequest(_Inference):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = []
    raw: bool = False
    images: list[str] = []
    width: Annotated[Any, Refused("no pictures are made")] = None
    height: Annotated[Any, Refused("no pictures are made")] = None
    steps: Annotated[Any, Refused("no pictures are made")] = None


class ChatRequest(_Inference):
    messages: list[MessageIn] = []
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    """Not Ollama's: OpenAI's, which some clients send here, too."""


class EmbedRequest(Named):
    input: Any = None
    truncate: bool = True
    dimensions: int = 0
    keep_alive: Any = None
    options: dict[str, Any] = {}


class EmbeddingsRequest(Named):
    """The older route: one prompt."""

    prompt: str = ""
    keep_alive: Any = None
    options: dict[str, Any] = {}


class ShowRequest(Named):
    verbose: bool = False
    system: str = ""
    options: dict[str, Any] = {}


class CopyRequest(Request):
    source: str = ""
    destination: str = ""


class DeleteRequest(Named):
    pass


class TransferRequest(Named):
    """Pull and push."""

    insecure: bool = False
    stream: bool = True
    username: Annotated[Any, Ignored("log in with `lading login`")] = None
    password: Annotated[Any, Ignored("log in with `lading login`")] = None


class CreateRequest(Named):
    from_: str = msgspec.field(default="", name="from")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    draft_files: dict[str, str] = {}
    template: str = ""
    system: str = ""
    license: str | list[str] = []
    parameters: dict[str, Any] = {}
    messages: list[MessageIn] = []
    quantize: Annotated[str, Partly("one of the types in cli.md")] = ""
    quantization: Annotated[str, Partly("an older name of quantize")] = ""
    draft_quantize: Annotated[str, Refused("a draft model stays as it is")] = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: Annotated[str, Refused("no model runs anywhere else")] = ""
    info: Annotated[Any, Ignored("it is read from the files")] = None
    modelfile: Annotated[Any, Ignored("send its instructions as fields")] = None
    stream: bool = True


# Answers


class TokenLogprobOut(Answer):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TokenLogprobOut] = []


class FunctionCallOut(Answer):
    index: int
    name: str
    arguments: dict[str, Any]


class ToolCallOut(Answer):
    id: str
    function: FunctionCallOut


class MessageOut(Answer):
    role: str
    content: str
    thinking: str = ""
    tool_calls: list[ToolCallOut] = []


class ChatChunk(Answer):
    """One line of a chat. The counters stand on the last line alone."""

    model: str
    created_at: str
    message: MessageOut
    done: bool
    done_reason: str = ""
    total_duration: Count = UNSET
    load_duration: Count = UNSET
    prompt_eval_count: Count = UNSET
    prompt_eval_duration: Count = UNSET
    eval_count: Count = UNSET
    eval_duration: Count = UNSET
    logprobs: list[TokenLogprobOut] = []


class GenerateChunk(Answer, kw_only=True):
    """One line of a completion. The counters stand on the last line alone."""

    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool
    done_reason: str = ""
    context: list[int] = []
    total_duration: Count = UNSET
    load_duration: Count = UNSET
    prompt_eval_count: Count = UNSET
    prompt_eval_duration: Count = UNSET
    eval_count: Count = UNSET
    eval_duration: Count = UNSET
    tool_calls: list[ToolCallOut] = []
    logprobs: list[TokenLogprobOut] = []


class DebugInfo(Answer):
    rendered_template: str
    image_count: int = 0


class RenderedAnswer(Answer):
    """What a request is answered with that is only to be rendered."""

    model: str
    created_at: str
    debug_info: DebugInfo = msgspec.field(name="_debug_info")


class EmbedAnswer(Answer):
    model: str
    embeddings: list[tuple[float, ...]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsAnswer(Answer):
    embedding: tuple[float, ...]


class Details(Answer):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class TagRow(Answer):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    """64 hex digits, no algorithm."""
    details: Details
    capabilities: list[str] = []


class TagsAnswer(Answer):
    models: list[TagRow]


class PsRow(Answer):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int
    pinned: bool | UnsetType = UNSET
    """Lading's own: it stays until the server stops."""


class PsAnswer(Answer):
    models: list[PsRow]


class RoleAndContent(Answer):
    role: str
    content: str


class TensorRow(Answer):
    name: str
    type: str
    shape: list[int]


class ShowAnswer(Answer, kw_only=True):
    license: str = ""
    modelfile: str
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details
    messages: list[RoleAndContent] = []
    model_info: dict[str, Any]
    projector_info: dict[str, Any] = {}
    tensors: list[TensorRow] = []
    capabilities: list[str]
    modified_at: str
    requires: str = ""


class VersionAnswer(Answer):
    version: str
    """Of the Ollama whose API this is: three plain numbers."""
    lading: str


class Cloud(Answer):
    disabled: bool
    source: str


class StatusAnswer(Answer):
    cloud: Cloud


class ProgressLine(Answer):
    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
