"""Frames: a 4-byte big-endian length, then that many bytes of JSON. The same on pipes and on the socket.

A frame holds one struct, or a list of structs, of `protocol`; the decoder is told which. Lengths are checked
before anything is allocated or parsed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol, TypeVar

import msgspec

from ..modelfile.errors import InputError
from .protocol import ControlMessage, LoadSpec, Reply, Request, StatusMessage

MAX_FRAME = 48 * 1024 * 1024
"""Longest body of a frame, bytes: more than the body of a request may have, images included."""


class Readable(Protocol):
    """A blocking binary stream: a pipe, a socket's file, a raw file."""

    def read(self, size: int, /) -> bytes | None: ...


HEADER = 4
"""Bytes before a frame's body."""
_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()

SPEC = msgspec.json.Decoder(LoadSpec)
CONTROL: msgspec.json.Decoder[ControlMessage] = msgspec.json.Decoder(ControlMessage)
STATUS: msgspec.json.Decoder[StatusMessage] = msgspec.json.Decoder(StatusMessage)
REQUESTS: msgspec.json.Decoder[list[Request]] = msgspec.json.Decoder(list[Request])
REPLIES: msgspec.json.Decoder[list[Reply]] = msgspec.json.Decoder(list[Reply])


class BadFrame(InputError):
    """Bytes that are not a frame: too long, cut short, not the JSON expected."""


def pack(body: object) -> bytes:
    """The frame of a struct or a list of structs.

    Raises:
        BadFrame: the body is longer than `MAX_FRAME`.
    """
    data = _encoder.encode(body)
    if len(data) > MAX_FRAME:
        raise BadFrame(f"sending a message: expected at most {MAX_FRAME} bytes, got {len(data)}")
    return len(data).to_bytes(HEADER, "big") + data


def unpack(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """The value of a frame's body.

    Raises:
        BadFrame: it is not what the decoder expects.
    """
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"reading a message: {error}") from error


def read_frame(stream: Readable) -> bytes | None:
    """The next frame's body, blocking; None at a clean end.

    Raises:
        BadFrame: the stream ends within a frame, or the frame is too long.
    """
    header = _read_up_to(stream, HEADER)
    if not header:
        return None
    size = body_size(header)
    body = _read_up_to(stream, size)
    if len(body) < size:
        raise BadFrame(f"reading a message: expected {size} bytes, got {len(body)}")
    return body


async def receive_frame(reader: asyncio.StreamReader) -> bytes | None:
    """As `read_frame`, for asyncio."""
    try:
        header = await reader.readexactly(HEADER)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise BadFrame(f"reading a message: expected {HEADER} bytes, got {len(error.partial)}") from error
    size = body_size(header)
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise BadFrame(f"reading a message: expected {size} bytes, got {len(error.partial)}") from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to a blocking file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def body_size(header: bytes) -> int:
    """What a frame's first `HEADER` bytes announce.

    Raises:
        BadFrame: the header is cut short, or the frame too long.
    """
    if len(header) < HEADER:
        raise BadFrame(f"reading a message: expected {HEADER} bytes, got {len(header)}")
    size = int.from_bytes(header, "big")
    if size > MAX_FRAME:
        raise BadFrame(f"reading a message: expected at most {MAX_FRAME} bytes, got {size}")
    return size


def _read_up_to(stream: Readable, size: int) -> bytes:
    """`size` bytes, or what is left before the end; a raw stream may give less than asked for at a time."""
    parts: list[bytes] = []
    while size:
        part = stream.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
