"""Quantising weights on their way into a model.

llama.cpp does the work, and may be harmed by what it reads, so it is not called here: whoever builds hands in
a `Quantiser`, which does it somewhere safe. Here is what is around it: which file may be written and how
large it may get, room on the disk, progress, and what came of it, which is checked like any other file.

The output is an ingest file of the store: it becomes a blob when all is well, and is gone otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...modelfile.errors import LadingError
from ..digest import Digest
from ..errors import SourceChanged
from ..gguf.check import check_file
from ..gguf.header import GgufHeader, GgufKind
from ..gguf.problem import BadGguf, Problem, ProblemCode
from ..gguf.quantisation import Quantisation, largest_size, require_quantisable
from ..progress import Progress, ProgressSink
from ..store import Store
from ..store.disk import require_room, translating
from ..store.importer import hash_source, open_source
from .recipe import FromStore
from .source import fingerprint

_SHARD_SUFFIX = re.compile(r"-\d{5}-of-\d{5}$")
_FLOAT_SUFFIX = re.compile(r"[-._](f32|fp32|f16|fp16|bf16)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisationJob:
    """Weights to be quantised.

    ``name`` is for messages. ``sources`` are sound GGUF files, the shards of one model in order. ``output``
    is an empty file, to be filled and not replaced. ``alignment`` is that of the first source.
    ``header_size``: about the bytes before the tensors. ``largest_size``: no output has more bytes.
    """

    name: str
    type: Quantisation
    sources: tuple[Path, ...]
    output: Path
    alignment: int
    header_size: int
    largest_size: int


class Quantiser(Protocol):
    """Quantises somewhere safe."""

    def __call__(self, job: QuantisationJob, report: Callable[[int], None]) -> None:
        """Fill ``job.output``; the bytes depend on the sources and the type only.

        ``report`` is told how many bytes the output will have, 0 where that is not known yet, several times a
        second, and once before anything is written. What it raises ends the work.

        Raises: OSError where the output cannot be written; LadingError. Then, too, nobody writes any more.
        """


@dataclass(frozen=True, slots=True)
class Quantising:
    """What a build is asked for: the type, and who does it."""

    type: Quantisation
    quantiser: Quantiser


@dataclass(frozen=True, slots=True)
class Original:
    """A file of weights to be quantised: a blob, with its ``digest``, or a file outside the store, with the
    ``fingerprint`` that it had before it was checked."""

    path: Path
    header: GgufHeader
    digest: Digest | None = None
    fingerprint: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Quantised:
    """New weights, in the store. ``origin`` is what the annotation says of the originals."""

    content: FromStore
    header: GgufHeader
    origin: str


def quantise_weights(
    store: Store, how: Quantising, originals: Sequence[Original], *, name: str, progress: ProgressSink
) -> Quantised | None:
    """Quantise a model's weights; None where they are of the wanted type already. ``name`` is for messages.

    Raises:
        NotQuantisable: something was lost in them before.
        SourceChanged: a file was written to meanwhile.
        DiskFull: there is no room, as is known before anything is written, or shows later.
        BadGguf: what came out is not what it should be.
        Whatever the quantiser and ``progress`` raise. Then nothing is left in the store.
    """
    headers = [original.header for original in originals]
    type_ = require_quantisable(name, headers)
    if type_ == how.type.name:
        return None
    digests = [_digest_of(original, progress) for original in originals]
    status = f"quantizing {type_} model to {how.type.name}"
    with store.ingest() as ingest:
        room_is_known = False

        def report(size: int) -> None:
            nonlocal room_is_known
            written = ingest.path.stat().st_size
            if size and not room_is_known:
                require_room(ingest.path, size - written)
                room_is_known = True
            total = size or sum(header.file_size for header in headers)
            progress(Progress(status, digests[0], completed=min(written, total), total=total))

        job = QuantisationJob(
            name=name,
            type=how.type,
            sources=tuple(original.path for original in originals),
            output=ingest.path,
            alignment=headers[0].alignment,
            header_size=headers[0].data_offset,
            largest_size=largest_size(headers),
        )
        try:
            with translating("writing", ingest.path):
                how.quantiser(job, report)
        except LadingError:
            _require_unchanged(originals)  # that explains whatever else went wrong
            raise
        _require_unchanged(originals)
        size = ingest.path.stat().st_size
        progress(Progress(status, digests[0], completed=size, total=size))
        progress(Progress("verifying conversion"))
        ingest.take_over()
        header = _checked(ingest.path, quantised_name(name, how.type.name), headers)
        return Quantised(FromStore(ingest.commit(), size), header, ",".join(map(str, digests)))


def quantised_name(name: str, type_name: str) -> str:
    """A file name for what ``name`` becomes.

    >>> [quantised_name(name, "Q8_0") for name in ("a.gguf", "b-F16.gguf", "c.bf16-00001-of-00002.gguf")]
    ['a-Q8_0.gguf', 'b-Q8_0.gguf', 'c-Q8_0.gguf']
    """
    stem = name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
    stem = _FLOAT_SUFFIX.sub("", _SHARD_SUFFIX.sub("", stem))
    return f"{stem}-{type_name}.gguf"


def _digest_of(original: Original, progress: ProgressSink) -> Digest:
    """That of the file's content; it tells forever what the new weights were made from."""
    if original.digest is not None:
        return original.digest
    done, total = 0, original.header.file_size

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress(Progress(f"hashing file {original.path.name}", completed=done, total=total))

    source = open_source(original.path)
    try:
        return hash_source(source, original.path, report).digest
    finally:
        os.close(source)


def _require_unchanged(originals: Sequence[Original]) -> None:
    for original in originals:
        if original.fingerprint is None:
            continue  # blobs are never written
        try:
            same = fingerprint(original.path) == original.fingerprint
        except OSError:
            same = False
        if not same:
            raise SourceChanged(original.path)


def _checked(path: Path, name: str, originals: Sequence[GgufHeader]) -> GgufHeader:
    """The header of the new weights, which are sound and have the tensors of the old."""
    try:
        header = check_file(path, expected_kind=GgufKind.MODEL)
    except BadGguf as error:
        raise BadGguf(name, error.problems, hint=error.hint) from error
    if header.split is not None or _shapes([header]) != _shapes(originals):
        raise BadGguf(name, [Problem(ProblemCode.BAD_TENSOR, "", "has not the tensors of the original")])
    return header


def _shapes(headers: Sequence[GgufHeader]) -> dict[str, tuple[int, ...]]:
    """Of each tensor, without the ones at the end, which need not be written."""
    found = {}
    for tensor in (tensor for header in headers for tensor in header.tensors):
        count = len(tensor.shape)
        while count > 1 and tensor.shape[count - 1] == 1:
            count -= 1
        found[tensor.name] = tensor.shape[:count]
    return found
