"""GET /metrics."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
from falcon.asgi import Request, Response

from ..modelfile.errors import LadingError
from ..runtime.grant import LoadedModel
from .metrics import Metrics, Sample, label_of
from .services import Services

ENDS = ("crashed", "unresponsive", "failed")
"""Reasons for which runners end that nobody has asked to."""

_KEEPER_TIMEOUT_S = 2.0
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures:
    """Answers for the whole server, whichever worker is asked. A keeper that does not answer is a figure."""

    def __init__(self, services: Services, metrics: Metrics) -> None:
        self._services = services
        self._metrics = metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        samples = [Sample("lading_build_info", 1, (self._services.version,))]
        try:
            async with asyncio.timeout(_KEEPER_TIMEOUT_S):
                loaded = await self._services.inference.loaded()
                health = await self._services.keeper.health()
        except (LadingError, TimeoutError):
            samples.append(Sample("lading_keeper_up", 0))
        else:
            samples.append(Sample("lading_keeper_up", 1))
            told: set[int] = set()
            for model in sorted(loaded, key=lambda model: model.full_name):
                samples += self._of_model(model)
                if model.pid not in told:  # models that share a runner are told its figures once
                    samples += self._of_runner(model)
                told.add(model.pid)
            for reason in ENDS:
                ended = health.runner_ends.get(reason, 0)
                samples.append(Sample("lading_runner_restarts_total", ended, (reason,)))
        resp.data = await asyncio.to_thread(self._render, samples)
        resp.content_type = _TYPE
        resp.cache_control = ["no-store"]

    def _of_model(self, model: LoadedModel) -> list[Sample]:
        name = label_of(self._services.names, model.full_name)
        return [
            Sample("lading_runner_up", int(model.state == "ready"), (name,)),
            Sample("lading_runner_requests_total", model.requests, (name,)),
            Sample("lading_running", model.running, (name,)),
            Sample("lading_queue_depth", model.queued, (name,)),
        ]

    def _of_runner(self, model: LoadedModel) -> list[Sample]:
        name = label_of(self._services.names, model.full_name)
        return [
            Sample("lading_runner_rss_bytes", _resident(model.pid), (name,)),
            *(Sample("lading_runner_memory_bytes", size, (name, use)) for use, size in model.memory.items()),
        ]

    def _render(self, samples: list[Sample]) -> bytes:
        store = self._services.store
        try:
            samples.append(Sample("lading_store_models", len(store.tags())))
            samples.append(Sample("lading_store_bytes", _blob_bytes(self._services.settings.store_root)))
        except (LadingError, OSError):
            pass  # absent from the figures; /readyz says why
        return self._metrics.render(samples)


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.Error:
        return 0


def _blob_bytes(store_root: Path) -> int:
    total = 0
    for algorithm in (store_root / "blobs").iterdir():
        with os.scandir(algorithm) as entries:
            total += sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file())
    return total
