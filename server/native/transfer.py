"""``/api/pull``, ``/api/push`` and ``/api/create``: long work, told line by line.

Source: Ollama's server/routes.go and create.go; the status texts are the store's and the registry client's,
which have them from there.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from falcon.asgi import Request, Response

from ...modelfile.instructions import Modelfile
from ...oci.building.build import build
from ...oci.building.quantising import Quantising
from ...oci.errors import BadReference, ModelNotFound
from ...oci.manifest import Manifest
from ...oci.progress import Progress, ProgressSink
from ...oci.reference import Reference
from ...oci.registry.errors import RemoteModelNotFound
from ...runtime.quantiser import SandboxedQuantiser
from ..errors import BadField, NoSuchModel, asked_for
from ..guard import Scope, note
from ..json_body import read_request
from ..services import Services
from ..streaming import Body, gathered, open_stream
from ..wire import JSON, NDJSON, json_bytes, ndjson_line
from ..work import progress_of
from . import schema as schema
from .create import modelfile_of, quantisation_of
from .encode import problem_line
from .models import required

NOT_IN_REGISTRY = "pull model manifest: file does not exist"
"""Ollama's words: its clients look for them to tell a wrong name from a broken registry."""


class Pull:
    """POST /api/pull"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.TransferRequest)
        reference = _reference(self._services, request.model_name)
        note(req.scope, model=request.model_name)
        pull = functools.partial(pull_model, self._services, reference, request.insecure)
        await answer(resp, counted(pull, req.scope), stream=request.stream)


class Push:
    """POST /api/push"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.TransferRequest)
        reference = _reference(self._services, required(request.model_name))
        note(req.scope, model=request.model_name)
        push = functools.partial(_push_model, self._services, request.model_name, reference, request.insecure)
        await answer(resp, counted(push, req.scope), stream=request.stream)


class Create:
    """POST /api/create: from a model, or from blobs that were uploaded; never from the server's files."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.CreateRequest)
        reference = _reference(self._services, request.model_name)
        note(req.scope, model=request.model_name)
        modelfile = modelfile_of(request, self._services.names)
        type_ = quantisation_of(request)
        quantising = None
        if type_ is not None:
            quantising = Quantising(type_, SandboxedQuantiser(self._services.settings.runtime))
        create = functools.partial(_create_model, self._services, reference, modelfile, quantising)
        await answer(resp, create, stream=request.stream)


async def answer(resp: Response, work: Callable[[ProgressSink], object], *, stream: bool) -> None:
    """Run `work`, and answer with its progress or, not streamed, with the last of it."""
    opened = await open_stream(progress_of(work))
    if stream:
        resp.content_type, resp.stream = NDJSON, Body(opened, _lines, problem_line)
    else:
        resp.data, resp.content_type = json_bytes(await gathered(opened, _last)), JSON


def counted(work: Callable[[ProgressSink], object], scope: Scope) -> Callable[[ProgressSink], object]:
    """The same work; how many bytes it has moved is noted as it goes on."""
    blobs: dict[str, list[int]] = {}

    def tell(report: Progress, progress: ProgressSink) -> None:
        if report.digest is not None:
            seen = blobs.setdefault(str(report.digest), [])
            # A single report of all of a blob says that it was there already.
            seen[:] = (
                [report.completed] if not seen and report.completed == report.total else [0, report.completed]
            )
            note(scope, transferred_bytes=sum(one[1] for one in blobs.values() if len(one) > 1))
        progress(report)

    return lambda progress: work(lambda report: tell(report, progress))


def pull_model(services: Services, reference: Reference, insecure: bool, progress: ProgressSink) -> Manifest:
    """Fetch a model into the store. Blocks."""
    from ...oci.transfer import pull  # requests and oras: only for those who use them

    with services.registry_client(reference, insecure=insecure) as client:
        try:
            return pull(services.store, client, reference, progress=progress)
        except RemoteModelNotFound as error:
            raise NoSuchModel(NOT_IN_REGISTRY) from error


def _push_model(
    services: Services, name: str, reference: Reference, insecure: bool, progress: ProgressSink
) -> None:
    from ...oci.transfer import push

    with asked_for(name), services.registry_client(reference, insecure=insecure) as client:
        push(services.store, client, reference, progress=progress)


def _create_model(
    services: Services,
    reference: Reference,
    modelfile: Modelfile,
    quantising: Quantising | None,
    progress: ProgressSink,
) -> None:
    def base(model: Reference) -> Manifest:
        """The model to start from, fetched where it is not here."""
        try:
            return services.store.resolve(model)
        except ModelNotFound:
            return pull_model(services, model, False, progress)

    # Names of the request must never mean files of the server: they are looked for in an empty folder.
    with tempfile.TemporaryDirectory(prefix="lading-create-") as empty:
        build(
            modelfile,
            context=Path(empty),
            store=services.store,
            reference=reference,
            base=base,
            parse_reference=services.names.parse,
            quantising=quantising,
            progress=progress,
        )


async def _lines(reports: AsyncIterator[Progress]) -> AsyncIterator[bytes]:
    async for report in reports:
        yield ndjson_line(_line(report))


async def _last(reports: AsyncIterator[Progress]) -> schema.ProgressLine:
    last = Progress("success")
    async for report in reports:
        last = report
    return _line(last)


def _line(report: Progress) -> schema.ProgressLine:
    return schema.ProgressLine(
        status=report.status,
        digest=str(report.digest) if report.digest is not None else "",
        total=report.total,
        completed=report.completed,
    )


def _reference(services: Services, name: str) -> Reference:
    try:
        return services.names.parse(name)
    except BadReference as error:
        raise BadField("invalid model name", field="model") from error
