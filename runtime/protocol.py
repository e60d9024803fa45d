"""What crosses a runner's pipes and socket, as types. No I/O here: `frame` puts these into bytes.

Three conversations:

* **control** (runner's stdin): one `LoadSpec` frame; once the runner is ready, frames of `AddVariant` and
  `DropVariant`, if stdin is a Unix socket. Its end means that the parent is gone, and the runner goes too.
* **status** (runner's stdout): frames of `Loading`, then one `Ready` or `LoadFailed`; from then on one
  `VariantAdded` or `VariantRefused` for each `AddVariant`.
* **requests** (the Unix socket): clients send lists of requests; the runner answers with lists of events.
  Each request carries an ``id``, chosen by the client and unique among its unfinished requests on that
  connection; each event says whose it is. `Generate` is answered by ``Started (Text | Thinking | ToolCall)*
  End`` or, at any point, by one `Failed`; every other request but `Cancel` by one result or one `Failed`. A
  lost connection cancels what it had asked for.

Durations are nanoseconds, sizes bytes. Absent optional fields are left off the wire.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .options import Options
from .placement import LayerSizes

Role = str
Think = bool | Literal["low", "medium", "high", "max"]
EndReason = Literal["stop", "length", "cancelled"]

TemplateKind = Literal["go", "jinja", "stand-in", ""]

FailureCode = Literal[
    "bad_request",  # fields that contradict each other or are out of range
    "bad_template",  # the chat template does not compile, raises, or exceeds its limits
    "bad_format",  # the output format cannot be compiled to a constraint
    "prompt_too_long",  # and truncation was not allowed or could not help
    "unsupported",  # this model or build cannot do what was asked (images, insert, embeddings…)
    "queue_full",  # later may succeed
    "bad_model",  # the model file is refused by llama.cpp
    "out_of_memory",
    "shutting_down",
    "runner_lost",  # made by the client side: the runner is gone
    "internal",
]


class _Wire(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of everything on the wire; unknown fields are ignored so that versions may differ by additions."""


# Loading


class Adapter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A LoRA adapter in GGUF. A runner knows it by its digest, and gets the file as a descriptor: it cannot
    open the path."""

    path: str
    digest: str = ""
    scale: float = 1.0


MAX_ADAPTERS = 16
"""Of one variant."""


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What models of the same weights may differ in: the adapters applied, and the template.

    A runner has several at once; each request says which one it is for. The one without an id has the
    template of the `LoadSpec` and no adapters.
    """

    id: str = ""
    """Never used twice for one runner."""
    adapters: tuple[Adapter, ...] = ()
    template_jinja: str = ""
    """Replaces the GGUF's own chat template."""
    template_go: str = ""
    """Go text/template; wins over Jinja where given (mount decides which of the two it passes)."""


class LoadSpec(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="load"):
    """What a runner loads and how. 0 or "" means "choose for me" where the comment says so."""

    socket_path: str
    """Where to listen; must not exist; the folder should be private (0700). The socket itself is 0600."""
    weights: tuple[str, ...]
    """The GGUF file, or all shards in order."""
    parent_pid: int
    """Whose child the runner is; it refuses to start as an orphan."""
    projector: str = ""
    draft: str = ""
    """The GGUF file of a draft model."""
    n_draft: int = 0
    """Most tokens drafted for one answer in one step, by the draft model or, where there is none, from what
    was said before; 0: none."""
    draft_always: bool = False
    """Draft even where that does not pay: to see whether answers stay the same."""
    template_jinja: str = ""
    """As `Variant.template_jinja`, for requests that name no variant."""
    template_go: str = ""
    n_ctx: int = 0
    """Context of one sequence, tokens; 0: what the model was trained for. Never above that."""
    n_parallel: int = 1
    """Sequences generated at the same time, 1..256."""
    n_batch: int = 512
    """Most tokens evaluated in one step."""
    n_ubatch: int = 0
    """Most of them in one pass over the weights; 0: 512."""
    n_threads: int = 0
    """0: one for each physical core."""
    n_gpu_layers: int = -1
    """-1: as many as fit, 0: none."""
    main_gpu: int = -1
    layers: LayerSizes = LayerSizes()
    """What there is to put on GPUs; empty: llama.cpp puts all there, or as many as are asked for."""
    use_mmap: bool = True
    use_mlock: bool = False
    kv_cache_type: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    embedding: bool = False
    """Load for `Embed` instead of `Generate`. Implied by a model that names a pooling type."""
    max_queue: int = 512
    """Generations waiting for a sequence beyond which `queue_full` is answered."""
    sandbox: Literal["auto", "off"] = "auto"
    prefix_folder: str = ""
    """Where prefixes are saved for the next start: private, for this model and kind of KV cache only; "": not
    at all."""
    prefix_budget: int = 0
    """Bytes that may lie there."""


class AddVariant(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="add_variant"):
    """Make a variant ready. The files of its adapters come along as descriptors (SCM_RIGHTS), in their order,
    open for reading."""

    variant: Variant


class DropVariant(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="drop_variant"):
    """No request will name this variant any more. Those under way go on; then its adapters are freed."""

    id: str


ControlMessage = AddVariant | DropVariant


class Loading(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="loading"):
    """Sent at most every few percent."""

    fraction: float


class Ready(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="ready"):
    """The facts of a loaded model, measured rather than estimated."""

    pid: int
    n_ctx: int
    """Context of one sequence, tokens."""
    n_ctx_train: int
    n_parallel: int
    n_batch: int
    n_vocab: int
    n_embd: int
    n_layer: int
    n_gpu_layers: int
    n_threads: int
    architecture: str
    description: str
    """llama.cpp's own words, e.g. "llama 2.1M F16"."""
    parameter_count: int
    model_size: int
    """Bytes of weights."""
    memory: dict[str, int] = {}
    """Bytes by use as llama.cpp reports them: weights, kv, compute, output; each summed over devices."""
    memory_gpu: dict[str, int] = {}
    """The part of `memory` that is on GPUs."""
    memory_mapped: int = 0
    """The part of `memory` that is mapped from the file: runners of the same file have it in common."""
    flash_attention: bool = False
    """Whether it is in use: "auto" leaves that to llama.cpp."""
    drafts: Literal["model", "lookup", ""] = ""
    """Who drafts: the draft model, whoever looks up what was said before, nobody."""
    no_drafts: str = ""
    """Why nobody drafts although it was asked for, in a clause."""
    capabilities: tuple[str, ...] = ()
    """Of completion, embedding, insert, tools, thinking, as seen in the model and the template in use."""
    template: TemplateKind = ""
    """Which template chat uses: given Go, given or embedded Jinja, one of ours for the family, none."""
    sandbox: tuple[str, ...] = ()
    """Layers of isolation in force."""
    load_duration_ns: int = 0


class LoadFailed(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="load_failed"):
    code: FailureCode
    message: str
    hint: str = ""
    log: tuple[str, ...] = ()
    """The last error lines of llama.cpp."""


class VariantAdded(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="variant_added"):
    id: str


class VariantRefused(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="variant_refused"):
    """Nothing has changed; requests for other variants go on."""

    id: str
    code: FailureCode
    message: str
    hint: str = ""


StatusMessage = Loading | Ready | LoadFailed | VariantAdded | VariantRefused


# Requests


class FunctionCall(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    arguments: dict[str, Any] = {}


class MessageToolCall(msgspec.Struct, frozen=True, omit_defaults=True):
    function: FunctionCall
    id: str = ""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation, in the shape that templates see."""

    role: Role
    content: str = ""
    thinking: str = ""
    images: tuple[bytes, ...] = ()
    """Files."""
    image_at: tuple[int, ...] = ()
    """Where in `content` each image stands, in characters, ascending. Empty: where it says ``[img]``, the
    others before all of it."""
    tool_calls: tuple[MessageToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""
    name: str = ""


class Grammar(msgspec.Struct, frozen=True):
    """What an answer must be, where it need not be JSON: all of it, from its first character to its last."""

    syntax: Literal["regex", "lark", "gbnf"]
    """A regular expression; a grammar as Lark writes them, with llguidance's extensions, whose rule ``start``
    holds; a grammar in llama.cpp's notation, whose rule ``root`` holds."""
    definition: str


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model may do with the tools that it is offered."""

    mode: Literal["auto", "required"] = "auto"
    """"required": call one."""
    names: tuple[str, ...] = ()
    """Of the tools that may be called; none: any."""
    parallel: bool = True
    """Several calls in one answer."""


class Generate(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="generate"):
    """Generate text: from a conversation (`messages`), or from a `prompt`, which the template wraps unless
    `raw`.

    A prompt may follow earlier `messages` and have a `system`; it may come with a `suffix` (fill in the
    middle).
    """

    id: int
    variant: str = ""
    """Which of the runner's variants answers."""
    tenant: str = ""
    """Whose request it is: what is kept of its prompt serves prompts of the same tenant alone."""
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    raw: bool = False
    system: str = ""
    """Only beside `prompt`; a conversation carries its system message itself."""
    suffix: str = ""
    template: str = ""
    """Go text/template of this request alone."""
    context: tuple[int, ...] = ()
    """Tokens put before the rendered prompt (Ollama's deprecated ``context``)."""
    return_context: bool = False
    """Put all tokens of prompt and answer into `End.context`."""
    images: tuple[bytes, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    """OpenAI's shape: {"type": "function", "function": {"name", "description", "parameters"}}."""
    tool_choice: ToolChoice = ToolChoice()
    think: Think | None = None
    """None: as the template does by itself, without splitting thoughts from content."""
    max_thinking_tokens: int | None = None
    """Tokens of thoughts after which they are closed and the answer begins; None: as many as the model likes.
    Means nothing where the model has no thoughts."""
    format: Literal["json"] | dict[str, Any] | None = None
    """"json", or a JSON Schema."""
    grammar: Grammar | None = None
    """Not beside `format`."""
    options: Options = Options()
    truncate: bool = True
    """Drop the oldest messages (or the start of the prompt) where all do not fit the context."""
    shift: bool = True
    """Drop the oldest tokens when the context is full, where the model can; otherwise end with "length"."""
    logprobs: bool = False
    top_logprobs: int = 0
    """0..20 alternatives to each token; above 0 implies `logprobs`."""


class Render(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="render"):
    """Show the prompt that a `Generate` would evaluate."""

    id: int
    request: Generate
    whole: bool = False
    """Do not cut it to the context."""


class Tokenize(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="tokenize"):
    id: int
    text: str
    add_special: bool = True
    parse_special: bool = True


class Detokenize(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="detokenize"):
    id: int
    tokens: tuple[int, ...]


class Embed(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="embed"):
    """One vector for each text, pooled as the model says and of unit length."""

    id: int
    texts: tuple[str, ...]
    variant: str = ""
    truncate: bool = True
    dimensions: int = 0
    """Cut vectors to this many and normalise again; 0: all."""


class Rank(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="rank"):
    """How well each document answers the query, as a model made for that judges it."""

    id: int
    query: str
    documents: tuple[str, ...]
    variant: str = ""


class Status(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    id: int


class Cancel(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="cancel"):
    """Stop the request with this id. A `Generate` still answers, with ``End(reason="cancelled")``, as soon as
    it has stopped; an unknown id is ignored (the answer may have crossed the cancellation)."""

    id: int


Request = Generate | Render | Tokenize | Detokenize | Embed | Rank | Status | Cancel


# Events


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token's text, its natural-log probability before sampling filters, and its bytes."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top: tuple[TokenLogprob, ...] = ()


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    prompt_tokens: int = 0
    """All tokens of the prompt, cached ones included."""
    cached_tokens: int = 0
    """Prompt tokens that did not have to be evaluated."""
    eval_tokens: int = 0
    """Tokens generated, the end token not included."""
    thinking_tokens: int = 0
    """Those of them that were thoughts, whether shown or not."""
    drafted_tokens: int = 0
    """Guesses at tokens of the answer that were checked; see `accepted_tokens`."""
    accepted_tokens: int = 0
    """Tokens of the answer that had been guessed, and so took no step of their own."""
    queue_duration_ns: int = 0
    prompt_duration_ns: int = 0
    eval_duration_ns: int = 0


class Started(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="started"):
    """The request has a sequence; its prompt is being evaluated."""

    id: int
    prompt_tokens: int
    cached_tokens: int = 0


class Text(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="text"):
    """A piece of the answer; whole UTF-8 characters. May be empty where only `logprobs` are due."""

    id: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Thinking(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="thinking"):
    id: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCall(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="tool_call"):
    """One whole call: never a part of one."""

    id: int
    index: int
    """0, 1, … within the answer."""
    call_id: str
    """"call_" and eight of [a-z0-9]."""
    name: str
    arguments: dict[str, Any] = {}


class End(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="end"):
    id: int
    reason: EndReason
    usage: Usage
    stop_sequence: str = ""
    """Which of the stop strings ended it, if one did."""
    context: tuple[int, ...] = ()


class Failed(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """The request is over without an answer, or with the part of one already sent."""

    id: int
    code: FailureCode
    message: str
    hint: str = ""


class Rendered(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="rendered"):
    id: int
    prompt: str
    tokens: int


class Tokens(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="tokens"):
    id: int
    tokens: tuple[int, ...]


class Detokenized(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="detokenized"):
    id: int
    text: str


class Embeddings(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="embeddings"):
    id: int
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class Scores(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="scores"):
    """One for each document, in order: the higher the better, on a scale that is the model's own."""

    id: int
    scores: tuple[float, ...]
    prompt_tokens: int


class VariantUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `RunnerStatus` says of the runner, of one variant alone."""

    running: int = 0
    queued: int = 0
    idle_ns: int = 0
    requests: int = 0


class RunnerStatus(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="runner_status"):
    id: int
    running: int
    queued: int
    connections: int
    """Open client connections, the asking one included."""
    idle_ns: int
    """Time since the last generation or embedding ended or was asked for; 0 while one is at work."""
    requests: int
    """Generations and embeddings accepted since start."""
    prompt_tokens: int
    cached_tokens: int
    eval_tokens: int
    memory_rss: int
    steps: int = 0
    """Batches evaluated since start: fewer than tokens where several answers shared one, a format left no
    choice, or tokens had been guessed."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """As in `Usage`, of all answers that have ended or are under way."""
    variants: dict[str, VariantUse] = {}
    """Those that were added, by id."""


Event = Started | Text | Thinking | ToolCall | End | Failed
Result = Rendered | Tokens | Detokenized | Embeddings | Scores | RunnerStatus
Reply = Event | Result
