"""How this machine runs models: one frozen value, made in ``cli/`` and handed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY
from ..oci.signing.policy import SignaturePolicy

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]

DEFAULT_CONTEXT = 4096
"""Tokens of context of one sequence where neither the request, the model nor the settings say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """Settings of the runtime; 0 means "choose for me" wherever a number would make no sense as 0."""

    num_parallel: int = 0
    """Requests that one model answers at once; 0: as memory allows, at most 8."""
    context_length: int = 0
    """Context of one sequence in tokens where nothing else says; 0: `DEFAULT_CONTEXT`."""
    keep_alive_s: float = 300.0
    """How long an idle model stays loaded: 0: not at all, ``math.inf``: until it is stopped."""
    max_queue: int = 512
    """Requests that may wait, for one model's runner and for loads; above it they are refused as busy."""
    pinned: tuple[str, ...] = ()
    """Names of models that stay loaded once they are: no request, expiry or lack of room ends them."""
    max_loaded_models: int = 0
    """0: as many as memory allows."""
    memory_budget: int = 0
    """Bytes that all loaded models together may take; 0: what the machine (or its control group) has free."""
    load_timeout_s: float = 300.0
    """How long a load may go on without progress."""
    kv_cache_type: CacheType = "f16"
    flash_attention: FlashAttention = "auto"
    threads: int = 0
    """Threads of one runner; 0: one for each core that this process may use."""
    grant_grace_s: float = 10.0
    """How long a grant keeps a runner without its request being seen."""
    hung_after_s: float = 60.0
    """A runner that answers nothing for so long is killed."""
    runtime_dir: Path | None = None
    """Where sockets go. ``None``: a fresh private folder under the system's temporary folder. A folder that
    is given is used through a private sub-folder of its own, so that two servers may share it."""
    template: Literal["auto", "go", "jinja"] = "auto"
    """Which of the two to use in models that have both; auto: the one that can do more."""
    default_registry: str = DEFAULT_REGISTRY
    """The registry meant by model names that name none."""
    default_namespace: str = DEFAULT_NAMESPACE
    signatures: SignaturePolicy = field(default_factory=SignaturePolicy)
    """Which models must be signed to be run."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables for runners, which otherwise get none of this process's."""
    prefix_cache_dir: Path | None = None
    """Where evaluated prompts are kept for the next start of a model; ``None``: nowhere."""
    prefix_cache_bytes: int = 0
    """Disk that they may take, over all models; 0: nothing is saved."""
    sandbox: bool = True
    """Whether runners give up the file system, the network and exec before they read a model."""
