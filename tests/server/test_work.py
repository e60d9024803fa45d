"""Long work in threads: its progress, its failures, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lading.modelfile.errors import InputError
from lading.oci.progress import Progress, ProgressSink
from lading.server.work import MAX_AT_ONCE, ClientGone, TooMuchWork, progress_of


def test_reports_come_in_order_and_the_last_one_always() -> None:
    def work(report: ProgressSink) -> None:
        report(Progress("first"))
        for done in range(1000):
            report(Progress("moving", completed=done, total=1000))
        report(Progress("last"))

    async def collect() -> list[Progress]:
        return [progress async for progress in progress_of(work)]

    reports = asyncio.run(collect())
    statuses = [report.status for report in reports]
    assert statuses[0] == "first" and statuses[-1] == "last"
    moved = [report.completed for report in reports if report.status == "moving"]
    assert moved == sorted(moved) and moved[-1] == 999
    assert len(reports) < 1002


def test_what_the_work_raises_comes_after_its_reports() -> None:
    def work(report: ProgressSink) -> None:
        report(Progress("one"))
        raise InputError("no good")

    async def collect() -> list[str]:
        seen = []
        with pytest.raises(InputError, match="no good"):
            async for progress in progress_of(work):
                seen.append(progress.status)
        return seen

    assert asyncio.run(collect()) == ["one"]


def test_work_whose_client_left_ends_at_its_next_report() -> None:
    ended = threading.Event()

    def work(report: ProgressSink) -> None:
        try:
            while True:
                report(Progress("on and on"))
                time.sleep(0.01)
        except ClientGone:
            ended.set()
            raise

    async def leave() -> None:
        stream = progress_of(work)
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert ended.wait(2)


def test_more_than_a_bounded_number_is_refused_and_places_come_back() -> None:
    release = threading.Event()

    def work(report: ProgressSink) -> None:
        report(Progress("begun"))
        release.wait(10)

    async def crowd() -> None:
        streams = [progress_of(work) for _ in range(MAX_AT_ONCE)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(TooMuchWork):
            await anext(progress_of(work))
        release.set()
        for stream in streams:
            assert [progress async for progress in stream] == []
        assert (await anext(progress_of(work))).status == "begun"

    asyncio.run(crowd())
