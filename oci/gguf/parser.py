"""Bytes to GgufHeader. Every fault is recorded with its place; what can be read past it is read.

Rules for editing this file: no integer from the file is used before it was compared with a limit or with
the bytes that are left. Python's integers do not wrap, so products are compared as they are.

The limits bound the work that a hostile file can ask for; real files are far below. They are chosen so that
any input is answered within a second and in 64 MiB. Largest seen: 262,144 tokens and 514,906 merges in a
header of 16 MB.
"""

from __future__ import annotations

from struct import Struct, iter_unpack
from types import MappingProxyType
from typing import Final

from .header import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ELEMENT_SIZE,
    Element,
    GgufArray,
    GgufHeader,
    TensorInfo,
    Value,
)
from .problem import Problem, ProblemCode, quoted
from .stream import HeaderFault, HeaderStream
from .type_table import STRUCT_CODES, TENSOR_TYPES, ValueType

VERSIONS: Final = (2, 3)
MIN_FILE_SIZE: Final = 24  # magic, version, two counts

MAX_HEADER_SIZE: Final = 256 * 1024 * 1024
MAX_TENSORS: Final = 65_536
MAX_VALUES: Final = 4_096
MAX_KEY_SIZE: Final = 65_535
MAX_STRING_SIZE: Final = 16 * 1024 * 1024
MAX_STRINGS_SIZE: Final = 16 * 1024 * 1024  # of all scalar strings together
MAX_ARRAY_ELEMENTS: Final = 16 * 1024 * 1024  # of all arrays together
MAX_STRING_ELEMENTS: Final = 2 * 1024 * 1024  # of all arrays of strings together
MAX_TENSOR_NAME_SIZE: Final = 63  # GGML_MAX_NAME is 64, with the final NUL
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 2**63 - 1
ALIGNMENTS: Final = tuple(1 << shift for shift in range(3, 17))  # 8 … 65,536

# the least that one of them takes in the file
_MIN_VALUE_SIZE = 8 + 1 + 4 + 1
_MIN_TENSOR_SIZE = 8 + 1 + 4 + 8 + 4 + 8

# Arrays up to this long keep their values, until so many were kept in all.
_KEPT_COUNT = 1_024
_KEPT_TOTAL = 65_536
_KEPT_SIZE = 64 * 1024

_U32 = Struct("<I")
_U64 = Struct("<Q")
_SCALARS = {type_: Struct("<" + code) for type_, code in STRUCT_CODES.items()}
_U8 = Struct("<B")


def parse_header(fd: int, size: int) -> tuple[GgufHeader | None, list[Problem]]:
    """The header of the open file ``fd`` of ``size`` bytes, and all that is malformed in it.

    The header is None when it cannot be read to its end. Tensors and values that are malformed are left
    out of it.
    """
    parser = _Parser(fd, size)
    return parser.run(), parser.problems


class _Parser:
    def __init__(self, fd: int, size: int) -> None:
        self.problems: list[Problem] = []
        self._size = size
        self._stream = HeaderStream(fd, size, limit=min(size, MAX_HEADER_SIZE))
        self._where = ""
        self._metadata: dict[str, Value] = {}
        self._types: dict[str, ValueType] = {}
        self._tensors: list[TensorInfo] = []
        self._strings_size = 0
        self._elements = 0
        self._string_elements = 0
        self._kept = 0

    def run(self) -> GgufHeader | None:
        try:
            return self._header()
        except HeaderFault as fault:
            self._note(fault.code, fault.what)
            return None

    def _note(self, code: ProblemCode, what: str) -> None:
        self.problems.append(Problem(code, self._where, what))

    def _header(self) -> GgufHeader:
        version = self._version()
        n_tensors = self._count("tensors", MAX_TENSORS, _MIN_TENSOR_SIZE)
        n_values = self._count("metadata values", MAX_VALUES, _MIN_VALUE_SIZE)
        for index in range(n_values):
            self._where = f"metadata value {index}"
            self._key_and_value()
        self._where = ""
        alignment = self._alignment()
        names: set[str] = set()
        for index in range(n_tensors):
            self._where = f"tensor {index}"
            self._tensor(names)
        self._where = ""
        end = self._stream.position
        return GgufHeader(
            version=version,
            metadata=MappingProxyType(self._metadata),
            types=MappingProxyType(self._types),
            tensors=tuple(self._tensors),
            alignment=alignment,
            data_offset=end + -end % alignment if n_tensors else end,
            file_size=self._size,
        )

    def _version(self) -> int:
        magic = self._stream.take(min(len(MAGIC), self._size))
        if magic != MAGIC:
            start = magic + self._stream.take(min(12, self._stream.remaining))
            raise HeaderFault(ProblemCode.NOT_GGUF, _not_gguf(start))
        if self._size < MIN_FILE_SIZE:
            what = f"the file has {self._size} bytes, expected at least {MIN_FILE_SIZE}"
            raise HeaderFault(ProblemCode.TRUNCATED, what)
        version = self._stream.number(_U32)
        if version not in VERSIONS:
            if version and not version & 0xFFFF:
                what = "big-endian GGUF file; this program reads little-endian ones"
            else:
                what = f"GGUF version {version}, expected 2 or 3"
            raise HeaderFault(ProblemCode.UNSUPPORTED_VERSION, what)
        return version

    def _count(self, what: str, limit: int, min_size: int) -> int:
        count = self._stream.number(_U64)
        if count > limit:
            raise HeaderFault(ProblemCode.TOO_LARGE, f"{count:,} {what}, expected at most {limit:,}")
        if count * min_size > self._stream.remaining:
            raise HeaderFault(
                ProblemCode.TRUNCATED,
                f"{count:,} {what} need {count * min_size:,} bytes or more, "
                f"but only {self._stream.remaining:,} bytes of the file are left",
            )
        return count

    # metadata

    def _key_and_value(self) -> None:
        raw = self._stream.string(MAX_KEY_SIZE)
        key = raw.decode("ascii", "backslashreplace")
        self._where = f"key {quoted(key)}" if raw else self._where
        if not raw:
            self._note(ProblemCode.BAD_METADATA, "the key is empty")
        elif not (key.isprintable() and raw.isascii()) or b" " in raw:
            self._note(ProblemCode.BAD_METADATA, "the key has other characters than printable ASCII")
        elif key in self._metadata:
            self._note(ProblemCode.BAD_METADATA, "the key comes twice")
        type_ = self._value_type("value")
        value = self._array() if type_ is ValueType.ARRAY else self._scalar(type_)
        if value is not None and key not in self._metadata:
            self._metadata[key] = value
            self._types[key] = type_

    def _value_type(self, of: str) -> ValueType:
        number = self._stream.number(_U32)
        try:
            return ValueType(number)
        except ValueError:
            raise HeaderFault(
                ProblemCode.BAD_METADATA, f"{of} of type {number}, expected 0 to {max(ValueType):d}"
            ) from None

    def _scalar(self, type_: ValueType) -> Value | None:
        if type_ is ValueType.STRING:
            return self._text()
        if type_ is not ValueType.BOOL:
            return self._stream.number(_SCALARS[type_])
        flag = self._stream.number(_U8)
        if flag > 1:
            self._note(ProblemCode.BAD_METADATA, f"bool of value {flag}, expected 0 or 1")
            return None
        return bool(flag)

    def _text(self) -> str | None:
        raw = self._stream.string(MAX_STRING_SIZE)
        self._strings_size += len(raw)
        if self._strings_size > MAX_STRINGS_SIZE:
            raise HeaderFault(
                ProblemCode.TOO_LARGE, f"all strings together have more than {MAX_STRINGS_SIZE:,} bytes"
            )
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self._note(
                ProblemCode.BAD_METADATA, f"not UTF-8 at byte {error.start}: {quoted(raw[error.start :][:8])}"
            )
            return None

    def _array(self) -> GgufArray | None:
        type_ = self._value_type("element")
        if type_ is ValueType.ARRAY:
            raise HeaderFault(ProblemCode.BAD_METADATA, "an array of arrays, which the format does not have")
        count = self._stream.number(_U64)
        is_text = type_ is ValueType.STRING
        self._limit_elements(count, 8 if is_text else _SCALARS[type_].size, is_text)
        offset = self._stream.position
        keep = count <= _KEPT_COUNT and self._kept + count <= _KEPT_TOTAL
        values: tuple[Element, ...] | None = None
        if is_text:
            if keep:
                values = self._kept_strings(count)
            else:
                self._stream.skip_strings(count, MAX_ELEMENT_SIZE)
        elif type_ is ValueType.BOOL or keep:
            data = self._stream.take(count * _SCALARS[type_].size)
            if type_ is ValueType.BOOL and data.translate(None, b"\0\1"):
                self._note(ProblemCode.BAD_METADATA, "an array of bools has values other than 0 and 1")
                return None
            if keep:
                values = tuple(value for (value,) in iter_unpack(_SCALARS[type_].format, data))
        else:
            self._stream.skip(count * _SCALARS[type_].size)
        if values is not None:
            self._kept += count
        size = self._stream.position - offset
        return GgufArray(element_type=type_, count=count, offset=offset, size=size, values=values)

    def _limit_elements(self, count: int, min_size: int, is_text: bool) -> None:
        if count * min_size > self._stream.remaining:
            raise HeaderFault(
                ProblemCode.TRUNCATED,
                f"an array of {count:,} elements needs {count * min_size:,} bytes or more, "
                f"but only {self._stream.remaining:,} bytes of the file are left",
            )
        self._elements += count
        self._string_elements += count if is_text else 0
        if self._string_elements > MAX_STRING_ELEMENTS:
            raise HeaderFault(
                ProblemCode.TOO_LARGE,
                f"{count:,} strings in an array, expected at most {MAX_STRING_ELEMENTS:,} in the whole file",
            )
        if self._elements > MAX_ARRAY_ELEMENTS:
            raise HeaderFault(
                ProblemCode.TOO_LARGE,
                f"{count:,} elements in an array, expected at most {MAX_ARRAY_ELEMENTS:,} in the whole file",
            )

    def _kept_strings(self, count: int) -> tuple[str, ...] | None:
        """The strings, or None where they are too large together to be kept."""
        kept: list[bytes] | None = []
        size = 0
        for batch in self._stream.strings(count, MAX_ELEMENT_SIZE):
            size += sum(map(len, batch))
            if size > _KEPT_SIZE:
                kept = None
            if kept is not None:
                kept += batch
        if kept is None:
            return None
        return tuple(item.decode("utf-8", "backslashreplace") for item in kept)

    def _alignment(self) -> int:
        key = "general.alignment"
        if key not in self._metadata:
            return DEFAULT_ALIGNMENT
        value, type_ = self._metadata[key], self._types[key]
        self._where = f"key {key!r}"
        if type_ is not ValueType.UINT32:
            self._note(ProblemCode.BAD_METADATA, f"is of type {type_}, expected uint32")
        elif value not in ALIGNMENTS:
            self._note(ProblemCode.BAD_METADATA, f"is {value}, expected a power of two from 8 to 65,536")
        else:
            assert isinstance(value, int)
            return value
        return DEFAULT_ALIGNMENT

    # tensors

    def _tensor(self, names: set[str]) -> None:
        """Read one tensor info; keep it only when it is sound in itself."""
        before = len(self.problems)
        raw = self._stream.string(MAX_KEY_SIZE)
        name = raw.decode("utf-8", "backslashreplace")
        self._where = f"tensor {quoted(name)}" if raw else self._where
        self._check_name(raw, name, names)
        n_dims = self._stream.number(_U32)
        if not 1 <= n_dims <= MAX_DIMENSIONS:
            what = f"{n_dims:,} dimensions, expected 1 to {MAX_DIMENSIONS}"
            if n_dims:  # how far the shape reaches is anyone's guess
                raise HeaderFault(ProblemCode.BAD_TENSOR, what)
            self._note(ProblemCode.BAD_TENSOR, what)
        shape = tuple(self._stream.number(_U64) for _ in range(n_dims))
        type_id = self._stream.number(_U32)
        offset = self._stream.number(_U64)
        self._check_shape(shape, type_id)
        if len(self.problems) == before:
            tensor = TensorInfo(name=name, shape=shape, type=TENSOR_TYPES[type_id], offset=offset)
            if tensor.size > self._size:
                what = f"{tensor.size:,} bytes of data in a file of {self._size:,} bytes"
                self._note(ProblemCode.TRUNCATED, what)
            self._tensors.append(tensor)

    def _check_name(self, raw: bytes, name: str, names: set[str]) -> None:
        if not 1 <= len(raw) <= MAX_TENSOR_NAME_SIZE:
            what = f"the name has {len(raw):,} bytes, expected 1 to {MAX_TENSOR_NAME_SIZE}"
            self._note(ProblemCode.BAD_TENSOR, what)
        elif not name.isprintable() or "\\x" in name:
            self._note(ProblemCode.BAD_TENSOR, "the name has control characters or is not UTF-8")
        elif name in names:
            self._note(ProblemCode.BAD_TENSOR, "the name comes twice")
        names.add(name)

    def _check_shape(self, shape: tuple[int, ...], type_id: int) -> None:
        elements = 1
        for dimension in shape:
            elements *= dimension
        if any(not 1 <= dimension <= MAX_ELEMENTS for dimension in shape):
            self._note(
                ProblemCode.BAD_TENSOR, f"shape {_shape(shape)}, expected every dimension in 1..2^63-1"
            )
        elif elements > MAX_ELEMENTS:
            self._note(ProblemCode.BAD_TENSOR, f"shape {_shape(shape)} has more than 2^63-1 elements")
        type_ = TENSOR_TYPES.get(type_id)
        if type_ is None:
            self._note(ProblemCode.BAD_TENSOR, f"unknown or removed tensor type {type_id}")
        elif shape and shape[0] % type_.block:
            what = f"rows of {shape[0]:,} elements, expected a multiple of {type_.block} for {type_.name}"
            self._note(ProblemCode.BAD_TENSOR, what)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


# what users mistake for GGUF, by its first bytes
_OTHER_MAGICS = (
    (b"ggml", "a GGML file, the format before GGUF"),
    (b"lmgg", "a GGML file, the format before GGUF"),
    (b"tjgg", "a GGJT file, the format before GGUF"),
    (b"fmgg", "a GGMF file, the format before GGUF"),
    (b"PK\x03\x04", "a zip archive, or weights of PyTorch"),
    (b"\x80\x02", "a Python pickle, perhaps weights of PyTorch"),
    (b"\x7fELF", "a program"),
    (b"<!DO", "a web page; the download went wrong"),
    (b"<htm", "a web page; the download went wrong"),
    (b"version https", "a Git LFS pointer; fetch the real file with 'git lfs pull'"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
)


def _not_gguf(start: bytes) -> str:
    if not start:
        return "the file is empty"
    for other, what in _OTHER_MAGICS:
        if start.lower().startswith(other.lower()):
            return f"not a GGUF file: this is {what}"
    if start[8:9] == b"{" and not start[6:8].strip(b"\0"):
        return "not a GGUF file: this looks like safetensors"
    return f"not a GGUF file: it starts with {start[:4]!r}, expected {MAGIC!r}"
