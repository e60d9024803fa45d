"""Reading the header of a GGUF file.

    header = read_header(path)
    header.architecture, header.parameter_count, header.file_type

Only the header is read, never tensor data, so a 100 GB file takes as long as a small one. What
``read_header`` returns is well formed: every tensor has a known type, a sane shape and a unique name. It
need not make a loadable model; ``check.check_file`` decides that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from struct import iter_unpack

from .header import MAX_ELEMENT_SIZE, Element, GgufArray, GgufHeader, GgufKind, TensorInfo, Value
from .parser import parse_header
from .problem import BadGguf, Problem, ProblemCode
from .stream import HeaderFault, HeaderStream
from .type_table import STRUCT_CODES, ValueType

__all__ = [
    "BadGguf",
    "GgufArray",
    "GgufHeader",
    "GgufKind",
    "TensorInfo",
    "Value",
    "open_regular",
    "read_array",
    "read_header",
]


def read_header(path: Path) -> GgufHeader:
    """The header of the file at ``path``.

    Raises:
        BadGguf: it cannot be opened as a regular file, is not GGUF, or its header is malformed.
    """
    with open_regular(path) as (fd, size):
        header, problems = parse_header(fd, size)
    if header is None or problems:
        raise BadGguf(path.name, problems)
    return header


def read_array(path: Path, array: GgufArray) -> tuple[Element, ...]:
    """The values of an array of the header of ``path``. Token texts that are not UTF-8 are escaped.

    Raises:
        BadGguf: the file changed since the header was read.
    """
    if array.values is not None:
        return array.values
    try:
        with open_regular(path) as (fd, size):
            return _decode(fd, size, array)
    except HeaderFault as fault:
        raise BadGguf(path.name, [Problem(fault.code, "", fault.what)]) from fault


def _decode(fd: int, size: int, array: GgufArray) -> tuple[Element, ...]:
    stream = HeaderStream(fd, size, limit=array.offset + array.size, position=array.offset)
    if array.element_type is ValueType.STRING:
        batches = stream.strings(array.count, MAX_ELEMENT_SIZE)
        return tuple(item.decode("utf-8", "backslashreplace") for batch in batches for item in batch)
    code = "<" + STRUCT_CODES[array.element_type]
    return tuple(value for (value,) in iter_unpack(code, stream.take(array.size)))


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[int, int]]:
    """(descriptor, size) of a regular file; never blocks on a FIFO, never follows a symbolic link.

    Raises:
        BadGguf: it is something else, or cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as error:
        what = "is a symbolic link" if path.is_symlink() else f"cannot be opened ({error.strerror})"
        raise BadGguf(path.name, [Problem(ProblemCode.NOT_GGUF, "", what)]) from error
    try:
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode):
            raise BadGguf(path.name, [Problem(ProblemCode.NOT_GGUF, "", "is not a regular file")])
        yield fd, status.st_size
    finally:
        os.close(fd)
