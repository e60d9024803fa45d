"""Figures for Prometheus: what the web workers count, and what is asked of the keeper when somebody looks.

A worker counts into files in memory that it shares with the others (prometheus-client's multiprocess mode),
so that whichever of them is asked answers for all, and a worker that dies takes no count with it.

Labels have few values: routes are those of `operations`, models those that have answered. Never a prompt, a
tag, a key or an address.

The owner of `prometheus_client`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..modelfile.errors import LadingError
from .guard import Ended
from .names import Names
from .operations import METHODS, Dialect, Operation, find_operation

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the folder of its files; gunicorn sets it."""
MAX_MODELS = 200
"""Names of models that become labels in one process; later ones are ``other``."""
OTHER = "other"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


@dataclass(frozen=True, slots=True)
class Definition:
    """One figure. The docs list them."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    means: str
    buckets: tuple[float, ...] = _SECONDS


COUNTED = (
    Definition("lading_requests_total", "counter", ("method", "route", "code"), "requests that ended"),
    Definition(
        "lading_request_seconds", "histogram", ("method", "route"),
        "from a request's headers to the last byte of its answer",
    ),
    Definition("lading_requests_active", "gauge", (), "requests under way"),
    Definition("lading_active_streams", "gauge", (), "answers that are being generated, or wait to be"),
    Definition(
        "lading_ttft_seconds", "histogram", ("model",),
        "from a request's headers to the first token of its answer",
    ),
    Definition(
        "lading_queue_wait_seconds", "histogram", ("model",),
        "how long a request waited for its turn in a model that was loaded",
    ),
    Definition(
        "lading_inter_token_seconds", "histogram", ("model",),
        "between two tokens, on the average of an answer", _TOKEN_SECONDS,
    ),
    Definition(
        "lading_tokens_total", "counter", ("model", "kind"),
        "tokens; `kind` is prompt (evaluated), cached (known before) or generated",
    ),
    Definition(
        "lading_drafted_tokens_total", "counter", ("model", "outcome"),
        "tokens guessed ahead; `outcome` is accepted (and so generated) or rejected",
    ),
    Definition(
        "lading_cancelled_total", "counter", ("stage",),
        "answers whose client left; `stage` is waiting or generating",
    ),
    Definition(
        "lading_auth_failures_total", "counter", ("code",), "requests refused for their key: 401, 403, 429"
    ),
    Definition("lading_pull_bytes_total", "counter", (), "bytes that `/api/pull` has fetched"),
    Definition("lading_push_bytes_total", "counter", (), "bytes that `/api/push` has brought to registries"),
    Definition("lading_gc_removed_bytes_total", "counter", (), "bytes that deleting models has freed"),
    Definition(
        "lading_registry_bytes_total", "counter", ("direction",),
        "bytes of bodies at `/v2/`; `direction` is in or out",
    ),
)  # fmt: skip
"""What workers count."""
ASKED = (
    Definition("lading_build_info", "gauge", ("version",), "1"),
    Definition("lading_keeper_up", "gauge", (), "1 where the keeper answers"),
    Definition("lading_runner_up", "gauge", ("model",), "1 for a model that is ready, else 0"),
    Definition(
        "lading_runner_rss_bytes", "gauge", ("model",),
        "memory of the model's process; of models that share one, the first by name has it",
    ),
    Definition(
        "lading_runner_memory_bytes", "gauge", ("model", "use"),
        "what llama.cpp has taken, told likewise; `use` is weights, kv, compute, output or adapters",
    ),
    Definition("lading_runner_requests_total", "counter", ("model",), "requests to the model since its load"),
    Definition("lading_running", "gauge", ("model",), "requests that the model is answering"),
    Definition("lading_queue_depth", "gauge", ("model",), "requests that wait for the model"),
    Definition(
        "lading_runner_restarts_total", "counter", ("reason",),
        "model processes that ended by themselves: crashed, unresponsive, or failed to load",
    ),
    Definition("lading_store_bytes", "gauge", (), "bytes of all blobs in the store"),
    Definition("lading_store_models", "gauge", (), "names in the store"),
)  # fmt: skip
"""What is asked of the keeper and the store when somebody looks. Of models that differ in their tags alone,
the sum."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of one of `ASKED`."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class Metrics:
    """The counters of one web worker. Made after the fork: its files bear the process's number."""

    def __init__(self, folder: Path, names: Names) -> None:
        from prometheus_client import Counter, Gauge, Histogram, values

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The library looks at the environment when it is imported, which may have been before it was set.
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # it has no types
        self._folder = folder
        self._names = names
        self._models: set[str] = set()
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for one in COUNTED:
            if one.kind == "counter":
                made: Any = Counter(one.name, one.means, one.labels, registry=None)
            elif one.kind == "gauge":
                made = Gauge(one.name, one.means, one.labels, registry=None, multiprocess_mode="livesum")
            else:
                made = Histogram(one.name, one.means, one.labels, registry=None, buckets=one.buckets)
            self._made[one.name] = made

    def close(self) -> None:
        """Let go of the files; nothing can be counted any more."""
        from prometheus_client import values

        values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]  # it has no types

    # What the guard tells

    def request_began(self, method: str, path: str) -> None:
        self._made["lading_requests_active"].inc()
        if _generates(find_operation(method, path)):
            self._made["lading_active_streams"].inc()

    def request_ended(self, ended: Ended) -> None:
        operation = find_operation(ended.method, ended.path)
        route = operation.path if operation is not None else OTHER
        method = ended.method if ended.method in METHODS else OTHER
        made = self._made
        made["lading_requests_active"].dec()
        self._child("lading_requests_total", method, route, str(ended.status or 499)).inc()
        self._child("lading_request_seconds", method, route).observe(ended.seconds)
        if ended.facts.get("refused") == "key":
            made["lading_auth_failures_total"].labels(str(ended.status)).inc()
        if operation is not None and operation.dialect is Dialect.REGISTRY:
            made["lading_registry_bytes_total"].labels("in").inc(ended.received)
            made["lading_registry_bytes_total"].labels("out").inc(ended.sent)
        if "transferred_bytes" in ended.facts and route in ("/api/pull", "/api/push"):
            name = f"lading_{route.removeprefix('/api/')}_bytes_total"
            made[name].inc(ended.facts["transferred_bytes"])
        if "freed_bytes" in ended.facts:
            made["lading_gc_removed_bytes_total"].inc(ended.facts["freed_bytes"])
        if _generates(operation):
            made["lading_active_streams"].dec()
            if ended.aborted:
                stage = "generating" if "ttft_ms" in ended.facts else "waiting"
                made["lading_cancelled_total"].labels(stage).inc()
        if "prompt_tokens" in ended.facts:
            self._count_tokens(ended.facts)

    def _child(self, name: str, *labels: str) -> Any:
        """The metric for these labels; looked up here, in a third of the time that the library takes."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._made[name].labels(*labels)
        return child

    def _count_tokens(self, facts: Mapping[str, Any]) -> None:
        model = self._label(str(facts.get("model", "")))
        cached, generated = facts.get("cached_tokens", 0), facts.get("eval_tokens", 0)
        tokens = self._made["lading_tokens_total"]
        tokens.labels(model, "prompt").inc(max(0, facts["prompt_tokens"] - cached))
        tokens.labels(model, "cached").inc(cached)
        tokens.labels(model, "generated").inc(generated)
        if drafted := facts.get("drafted_tokens", 0):
            accepted = facts.get("accepted_tokens", 0)
            made = self._made["lading_drafted_tokens_total"]
            made.labels(model, "accepted").inc(accepted)
            made.labels(model, "rejected").inc(drafted - accepted)
        if "ttft_ms" in facts:
            self._made["lading_ttft_seconds"].labels(model).observe(facts["ttft_ms"] / 1000)
            self._made["lading_queue_wait_seconds"].labels(model).observe(facts.get("queue_ms", 0.0) / 1000)
        if generated > 1 and "eval_ms" in facts:
            gap = facts["eval_ms"] / 1000 / (generated - 1)
            self._made["lading_inter_token_seconds"].labels(model).observe(gap)

    def _label(self, name: str) -> str:
        """A model's name without its tag. Only models that have answered come here, so that the names are
        those of models that there are or were."""
        label = label_of(self._names, name)
        if label not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(label)
        return label

    def render(self, samples: Iterable[Sample]) -> bytes:
        """Everything, in Prometheus' text format. Reads the files of all workers; for a thread."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]  # as above
        registry.register(_Asked(samples))
        return generate_latest(registry)


class _Asked:
    """Samples as prometheus-client wants them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for one in ASKED:
            kind = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            family = kind(one.name, one.means, labels=one.labels)
            sums: dict[tuple[str, ...], float] = defaultdict(float)
            for sample in self._samples:
                if sample.name == one.name:
                    sums[sample.labels] += sample.value
            for labels, value in sums.items():
                family.add_metric(labels, value)
            yield family


def label_of(names: Names, name: str) -> str:
    """``team/answers`` for ``team/answers:1.0``."""
    try:
        return names.short(names.parse(name).with_tag("latest")).removesuffix(":latest")
    except LadingError:
        return OTHER


def forget_process(folder: Path, pid: int) -> None:
    """A worker has ended: its gauges count no more, its counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # as above


def _generates(operation: Operation | None) -> bool:
    return operation is not None and operation.generates
