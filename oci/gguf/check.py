"""Can llama.cpp load this GGUF file without harm? Every rule that can be checked without reading tensors.

llama.cpp is built for files one trusts: a malformed one can end its process by a signal. So every file is
checked before it becomes a layer and again before a runner gets it. All violations are reported at once.

A file without tensors (a vocabulary for tests of tokenizers) is not a model: it is refused unless
``allow_vocabulary_only``. The first shard of a split model may have none.

The rules live beside what they speak of: form in ``parser``, here the layout of the data section,
splits, adapters and projectors, in ``hparams`` the architecture's figures, in ``vocabulary`` the
tokenizer.

Source: gguf.cpp, llama-model.cpp, llama-adapter.cpp, clip.cpp of llama.cpp (0.3.36 of llama-cpp-python).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Final

from .header import GgufHeader, GgufKind, TensorInfo
from .hparams import check_hyperparameters
from .parser import parse_header
from .problem import BadGguf, Problem, ProblemCode, quoted
from .reader import open_regular
from .type_table import ARCHITECTURES, ValueType
from .vocabulary import check_vocabulary

MAX_TRAILING_SIZE: Final = 64 * 1024
MAX_CHAT_TEMPLATE_SIZE: Final = 256 * 1024
MAX_IMAGE_SIZE: Final = 8_192
MAX_PATCH_SIZE: Final = 65_535


def check_file(
    path: Path,
    *,
    expected_size: int | None = None,
    expected_kind: GgufKind | None = None,
    allow_vocabulary_only: bool = False,
) -> GgufHeader:
    """The header of the file at ``path``, when nothing is wrong with it.

    ``expected_size`` is what the descriptor of the blob promises, ``expected_kind`` what its layer is for.

    Raises:
        BadGguf: with every problem found.
    """
    with open_regular(path) as (fd, size):
        header, problems = parse_header(fd, size)
        sound = not problems  # else tensors or values were left out, and the layout has holes
        if expected_size is not None and size != expected_size:
            what = f"the file has {size:,} bytes, expected {expected_size:,}"
            problems.append(Problem(ProblemCode.TRUNCATED, "", what))
        if header is not None:
            if expected_kind is not None and header.kind is not expected_kind:
                what = f"the file is a {header.kind}, expected a {expected_kind}"
                problems.append(Problem(ProblemCode.WRONG_KIND, "", what))
            problems += check_header(header, layout=sound, allow_vocabulary_only=allow_vocabulary_only)
            problems += check_vocabulary(fd, header)
    if header is None or problems:
        raise BadGguf(path.name, problems)
    return header


def check_header(
    header: GgufHeader, *, layout: bool = True, allow_vocabulary_only: bool = False
) -> list[Problem]:
    """What is wrong by the header alone, the contents of long arrays apart (``vocabulary`` reads those)."""
    problems = [*_check_architecture(header), *_check_split(header), *_check_templates(header)]
    if layout:
        problems += _check_layout(header)
    match header.kind:
        case GgufKind.MODEL:
            if not (header.tensors or header.split or allow_vocabulary_only):
                what = "the file has a vocabulary but no tensors: it cannot generate anything"
                problems.append(Problem(ProblemCode.WRONG_KIND, "", what))
            if header.is_first_shard:
                problems += check_hyperparameters(header)
        case GgufKind.ADAPTER:
            problems += _check_adapter(header)
        case GgufKind.PROJECTOR:
            problems += _check_projector(header)
        case GgufKind.OTHER:
            stated = quoted(str(header.metadata["general.type"]))
            what = f"is {stated}, expected 'model', 'adapter' or 'mmproj'"
            problems.append(Problem(ProblemCode.WRONG_KIND, "key 'general.type'", what))
    return problems


def check_shards(headers: Sequence[GgufHeader]) -> list[Problem]:
    """What is wrong with the shards of one split model, given in order, each sound in itself."""
    problems = []
    count = len(headers)
    for index, header in enumerate(headers):
        where = f"shard {index + 1} of {count}"
        if header.split != (index, count):
            stated = f"{header.split[0] + 1} of {header.split[1]}" if header.split else "not a shard"
            problems.append(Problem(ProblemCode.BAD_SPLIT, where, f"the file says it is {stated}"))
    names = [tensor.name for header in headers for tensor in header.tensors]
    stated_count = headers[0].metadata.get("split.tensors.count") if headers else None
    if stated_count != len(names):
        what = f"the shards have {len(names):,} tensors together, expected {stated_count}"
        problems.append(Problem(ProblemCode.BAD_SPLIT, "key 'split.tensors.count'", what))
    if len(set(names)) != len(names):
        problems.append(Problem(ProblemCode.BAD_SPLIT, "", "the same tensor is in two shards"))
    return problems


def check_adapter_fits(adapter: GgufHeader, model: Sequence[GgufHeader]) -> list[Problem]:
    """What keeps a sound adapter from being used with a sound model, given by its shards.

    Source: llama_adapter_lora_init_impl in llama-adapter.cpp.
    """
    architecture = next((header.architecture for header in model if header.architecture), None)
    if adapter.architecture != architecture:
        what = f"is {quoted(adapter.architecture or '')}, but the model is {quoted(architecture or '')}"
        return [Problem(ProblemCode.WRONG_KIND, "key 'general.architecture'", what)]
    targets = {tensor.name: tensor.shape for header in model for tensor in header.tensors}
    halves = {tensor.name: tensor.shape for tensor in adapter.tensors}
    problems = []
    for name, a in halves.items():
        base = name.removesuffix(".lora_a")
        b = halves.get(f"{base}.lora_b")
        if base == name or b is None:
            continue
        where, target = f"tensor {quoted(base)}", targets.get(base)
        if target is None:
            problems.append(Problem(ProblemCode.BAD_TENSOR, where, "the model has no such tensor"))
        elif base == "token_embd.weight" and "output.weight" not in targets:
            what = "the model writes with it, too, which llama.cpp cannot do with an adapter"
            problems.append(Problem(ProblemCode.BAD_TENSOR, where, what))
        elif not _fits(base, a, b, target):
            what = f"shapes {a} and {b} do not fit the model's {target}; the adapter is for another model"
            problems.append(Problem(ProblemCode.BAD_TENSOR, where, what))
    return problems


def _fits(name: str, a: tuple[int, ...], b: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if len(target) < 2 or any(_experts(half) != _experts(target) for half in (a, b)):
        return False
    if name.endswith("token_embd.weight"):  # A and B are the other way round there
        return target[0] == b[1] and target[1] == a[1] and a[0] == b[0]
    return target[0] == a[0] and target[1] == b[1]


def _experts(shape: tuple[int, ...]) -> int:
    """How many matrices a tensor has; llama.cpp leaves it to an assertion whether an adapter has as many."""
    return prod(shape[2:])


def _check_architecture(header: GgufHeader) -> Iterator[Problem]:
    where = "key 'general.architecture'"
    value = header.metadata.get("general.architecture")
    if value is None:
        if header.is_first_shard:
            yield Problem(ProblemCode.UNSUPPORTED_ARCHITECTURE, where, "is missing")
    elif not isinstance(value, str):
        yield Problem(ProblemCode.UNSUPPORTED_ARCHITECTURE, where, "is not a string")
    elif value not in ARCHITECTURES:
        what = f"is {quoted(value)}, which this version of llama.cpp does not know"
        yield Problem(ProblemCode.UNSUPPORTED_ARCHITECTURE, where, what)
    type_ = header.types.get("general.type")
    if type_ is not None and type_ is not ValueType.STRING:
        yield Problem(ProblemCode.BAD_METADATA, "key 'general.type'", f"is of type {type_}, expected string")


def _check_templates(header: GgufHeader) -> Iterator[Problem]:
    for key, value in header.metadata.items():
        if not key.startswith("tokenizer.chat_template") or key == "tokenizer.chat_templates":
            continue
        if not isinstance(value, str):
            yield Problem(ProblemCode.BAD_METADATA, f"key {quoted(key)}", "is not a string")
        elif len(value) > MAX_CHAT_TEMPLATE_SIZE:
            what = f"{len(value):,} characters, expected at most {MAX_CHAT_TEMPLATE_SIZE:,}"
            yield Problem(ProblemCode.TOO_LARGE, f"key {quoted(key)}", what)


def _check_layout(header: GgufHeader) -> Iterator[Problem]:
    """Tensors follow each other without gap, overlap or disorder, and end where the file ends.

    Source: gguf.cpp requires each offset to be the padded sum of the sizes before it.
    """
    expected = 0
    for tensor in header.tensors:
        if tensor.offset != expected:
            yield Problem(ProblemCode.BAD_LAYOUT, _where(tensor), _wrong_offset(header, tensor, expected))
            return  # one wrong offset makes all later ones look wrong
        end = header.data_offset + tensor.offset + tensor.size
        if end > header.file_size:
            what = f"its data end at byte {end:,}, but the file has {header.file_size:,} bytes"
            yield Problem(ProblemCode.TRUNCATED, _where(tensor), what)
            return
        expected += tensor.size + -tensor.size % header.alignment
    trailing = header.file_size - header.data_offset - expected
    if header.tensors and trailing > MAX_TRAILING_SIZE:
        what = f"{trailing:,} bytes follow the last tensor, expected at most {MAX_TRAILING_SIZE:,}"
        yield Problem(ProblemCode.BAD_LAYOUT, "", what)


def _wrong_offset(header: GgufHeader, tensor: TensorInfo, expected: int) -> str:
    if tensor.offset % header.alignment:
        return f"offset {tensor.offset:,}, expected a multiple of {header.alignment}"
    relation = "overlaps the one before" if tensor.offset < expected else "leaves a gap after the one before"
    return f"offset {tensor.offset:,} {relation}, expected {expected:,}"


def _where(tensor: TensorInfo) -> str:
    return f"tensor {quoted(tensor.name)}"


_SPLIT_TYPES = {
    "split.no": ValueType.UINT16,
    "split.count": ValueType.UINT16,
    "split.tensors.count": ValueType.INT32,
}


def _check_split(header: GgufHeader) -> Iterator[Problem]:
    present = [key for key in _SPLIT_TYPES if key in header.metadata]
    if not present:
        return
    sound = True
    for key, type_ in _SPLIT_TYPES.items():
        found = header.types.get(key)
        if found is not type_:
            what = f"is of type {found}, expected {type_}" if found is not None else "is missing"
            yield Problem(ProblemCode.BAD_SPLIT, f"key {key!r}", what)
            sound = False
    if not sound:
        return
    number, count, tensors = (header.metadata[key] for key in _SPLIT_TYPES)
    assert isinstance(number, int) and isinstance(count, int) and isinstance(tensors, int)
    if count < 1:
        yield Problem(ProblemCode.BAD_SPLIT, "key 'split.count'", "is 0, expected 1 or more")
    elif number >= count:
        yield Problem(ProblemCode.BAD_SPLIT, "key 'split.no'", f"is {number}, expected less than {count}")
    if tensors < len(header.tensors):
        what = f"is {tensors}, but this shard alone has {len(header.tensors):,}"
        yield Problem(ProblemCode.BAD_SPLIT, "key 'split.tensors.count'", what)


_ADAPTER_TYPES = frozenset({"F32", "F16", "BF16", "Q8_0"})
"""What llama.cpp's converter writes. Some others it cannot multiply with, and dies of the attempt."""


def _check_adapter(header: GgufHeader) -> Iterator[Problem]:
    stated = header.metadata.get("adapter.type")
    if stated != "lora":
        what = f"is {quoted(str(stated))}, expected 'lora'" if stated is not None else "is missing"
        yield Problem(ProblemCode.BAD_METADATA, "key 'adapter.type'", what)
    alpha = header.metadata.get("adapter.lora.alpha")
    if alpha is not None and header.types["adapter.lora.alpha"] is not ValueType.FLOAT32:
        type_ = header.types["adapter.lora.alpha"]
        what = f"is of type {type_}, expected float32"
        yield Problem(ProblemCode.BAD_METADATA, "key 'adapter.lora.alpha'", what)
    elif isinstance(alpha, float) and not isfinite(alpha):
        what = f"is {alpha}, expected a finite number"
        yield Problem(ProblemCode.BAD_METADATA, "key 'adapter.lora.alpha'", what)
    if not header.tensors:
        yield Problem(ProblemCode.WRONG_KIND, "", "the adapter has no tensors")
    yield from _check_adapter_pairs(header)


def _check_adapter_pairs(header: GgufHeader) -> Iterator[Problem]:
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        base, _, suffix = tensor.name.rpartition(".")
        if suffix in ("lora_a", "lora_b"):
            halves.setdefault(base, {})[suffix] = tensor
        elif not tensor.name.endswith("_norm.weight"):
            what = "expected a name that ends with .lora_a or .lora_b"
            yield Problem(ProblemCode.BAD_TENSOR, _where(tensor), what)
    for base, pair in halves.items():
        where = f"tensor {quoted(base)}"
        if len(pair) < 2:
            (suffix,) = pair
            yield Problem(ProblemCode.BAD_TENSOR, where, f"has .{suffix} without its other half")
            continue
        if unknown := {half.type.name for half in pair.values()} - _ADAPTER_TYPES:
            what = f"is of type {', '.join(sorted(unknown))}, expected {' or '.join(sorted(_ADAPTER_TYPES))}"
            yield Problem(ProblemCode.BAD_TENSOR, where, what)
        a, b = pair["lora_a"].shape, pair["lora_b"].shape
        if len(a) < 2 or len(b) < 2:
            yield Problem(ProblemCode.BAD_TENSOR, where, f"shapes {a} and {b}, expected matrices")
        elif not base.endswith("token_embd.weight") and a[1] != b[0]:
            what = f"ranks {a[1]} of .lora_a and {b[0]} of .lora_b differ"
            yield Problem(ProblemCode.BAD_TENSOR, where, what)


def _check_projector(header: GgufHeader) -> Iterator[Problem]:
    if header.architecture not in ("clip", None):
        what = f"is {quoted(header.architecture or '')}, expected 'clip' for a projector"
        yield Problem(ProblemCode.WRONG_KIND, "key 'general.architecture'", what)
    if not header.tensors:
        yield Problem(ProblemCode.WRONG_KIND, "", "the projector has no tensors")
    for key, low, high in (
        ("clip.vision.image_size", 1, MAX_IMAGE_SIZE),
        ("clip.vision.patch_size", 1, MAX_PATCH_SIZE),
        ("clip.vision.embedding_length", 1, 1 << 20),
        ("clip.vision.block_count", 0, 512),
        ("clip.vision.attention.head_count", 1, 1024),
        ("clip.audio.embedding_length", 1, 1 << 20),
        ("clip.audio.block_count", 0, 512),
        ("clip.audio.attention.head_count", 1, 1024),
        ("clip.audio.num_mel_bins", 1, 256),
    ):
        value, type_ = header.metadata.get(key), header.types.get(key)
        if type_ is None:
            continue
        if type_ not in (ValueType.UINT32, ValueType.INT32):
            yield Problem(ProblemCode.BAD_METADATA, f"key {key!r}", f"is of type {type_}, expected uint32")
        elif isinstance(value, int) and not low <= value <= high:
            what = f"is {value:,}, expected {low} to {high:,}"
            yield Problem(ProblemCode.BAD_METADATA, f"key {key!r}", what)
