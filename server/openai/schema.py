"""Requests and answers of the OpenAI API (``/v1/*``), as types.

In answers a field that has a default is left out while it has that value. Two nulls are part of OpenAI's
contract and written where it has them: ``finish_reason`` of a chunk that is not the last, and ``content`` of
a message that has only tool calls.

Source: OpenAI's API reference; Ollama's openai package for what ``reasoning`` means.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..field_status import Ignored, Partly, Refused


class Request(msgspec.Struct):
    """Base of requests: every field may be absent."""


class Answer(msgspec.Struct, omit_defaults=True):
    """Base of answers."""


# Requests


class FunctionIn(Request):
    name: str = ""
    arguments: str | dict[str, Any] = ""


class ToolCallIn(Request):
    id: str = ""
    function: FunctionIn = msgspec.field(default_factory=FunctionIn)


class MessageIn(Request):
    role: str = ""
    content: str | list[Any] = ""
    name: str = ""
    tool_calls: list[ToolCallIn] = []
    tool_call_id: str = ""
    reasoning: str = ""
    reasoning_content: str = ""


class StreamOptions(Request):
    include_usage: bool = False


class Reasoning(Request):
    effort: str = ""
    max_tokens: int | None = None


class _Common(Request):
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] = {}
    n: int = 1
    # Ours: what users of Ollama's /v1 ask for and cannot say there.
    options: dict[str, Any] = {}
    num_ctx: int | None = None
    keep_alive: Any = None
    top_k: int | None = None
    min_p: float | None = None
    # llama-server's and vLLM's.
    grammar: str | dict[str, Any] = ""
    structured_outputs: dict[str, Any] = {}
    guided_json: Annotated[Any, Refused("use response_format or structured_outputs")] = None
    guided_regex: Annotated[Any, Refused("use structured_outputs")] = None
    guided_choice: Annotated[Any, Refused("use structured_outputs")] = None
    guided_grammar: Annotated[Any, Refused("use structured_outputs")] = None
    json_schema: Annotated[Any, Refused("use response_format")] = None
    response_format: dict[str, Any] = {}
    user: Annotated[Any, Ignored("nothing is kept of who asked")] = None


class ChatCompletionRequest(_Common):
    messages: list[MessageIn] = []
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning_effort: str = ""
    reasoning: Reasoning = msgspec.field(default_factory=Reasoning)
    max_thinking_tokens: int | None = None
    truncate: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    metadata: Annotated[Any, Ignored("answers are not stored")] = None
    store: Annotated[Any, Ignored("answers are not stored")] = None
    safety_identifier: Annotated[Any, Ignored("nothing is kept of who asked")] = None
    service_tier: Annotated[Any, Ignored("there is one")] = None
    prompt_cache_key: Annotated[Any, Ignored("beginnings that prompts share are always kept")] = None
    prediction: Annotated[Any, Ignored("the answer is the same without it")] = None
    verbosity: Annotated[Any, Ignored("say it in the prompt")] = None
    modalities: Annotated[Any, Ignored("answers are text")] = None
    audio: Annotated[Any, Refused("answers are text")] = None
    web_search_options: Annotated[Any, Refused("the server searches nothing")] = None
    functions: Annotated[Any, Refused("use tools")] = None
    function_call: Annotated[Any, Refused("use tool_choice")] = None


class CompletionRequest(_Common):
    prompt: str | list[Any] = ""
    suffix: str = ""
    echo: Annotated[bool, Partly("not together with logprobs")] = False
    logprobs: int | None = None
    best_of: Annotated[Any, Ignored("as many texts are made as n says")] = None


class EmbeddingRequest(Request):
    model: str = ""
    input: Any = None
    encoding_format: str = "float"
    dimensions: int = 0
    options: dict[str, Any] = {}
    keep_alive: Any = None
    user: Annotated[Any, Ignored("nothing is kept of who asked")] = None


# Answers


class PromptTokensDetails(Answer):
    cached_tokens: int


class CompletionTokensDetails(Answer):
    reasoning_tokens: int


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


class FunctionOut(Answer):
    name: str
    arguments: str


class ToolCallOut(Answer):
    id: str
    type: Literal["function"]
    function: FunctionOut


class ToolCallDelta(Answer):
    index: int
    id: str
    type: Literal["function"]
    function: FunctionOut


class LogprobAlternative(Answer):
    token: str
    logprob: float
    bytes: list[int]


class LogprobContent(Answer):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[LogprobAlternative]


class Logprobs(Answer):
    content: list[LogprobContent]


class MessageOut(Answer):
    role: Literal["assistant"]
    content: str | None
    reasoning: str = ""
    tool_calls: list[ToolCallOut] = []


class Delta(Answer):
    role: str = ""
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = []


class Choice(Answer):
    index: int
    message: MessageOut
    finish_reason: str
    logprobs: Logprobs | None = None


class ChunkChoice(Answer):
    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: Logprobs | None = None


class ChatCompletion(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class ChatCompletionChunk(Answer):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Answer):
    index: int
    text: str
    finish_reason: str | None
    logprobs: TextLogprobs | None = None


class TextCompletion(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | None = None


class EmbeddingRow(Answer):
    object: Literal["embedding"]
    index: int
    embedding: tuple[float, ...] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingUsage


class ModelRow(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    # For Anthropic's clients, which list models at the same address.
    type: Literal["model"]
    display_name: str
    created_at: str


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelRow]
