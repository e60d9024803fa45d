"""The tokenizer in a GGUF file: tokens, scores, types, merges, special tokens.

Everything here has ended llama.cpp by a signal at some time, or would end it while a request is served:
a token that comes twice, a byte token that is none, an array that is too short.

Tokens are read again in windows; no copy of the vocabulary is held.

Source: llama_vocab::impl::load in llama-vocab.cpp of llama.cpp.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Final

from . import charsmap as charsmap
from .header import MAX_ELEMENT_SIZE, GgufArray, GgufHeader, GgufKind
from .problem import Problem, ProblemCode, quoted
from .stream import HeaderFault, HeaderStream
from .type_table import TOKEN_TYPE_BYTE, TOKEN_TYPES, TOKENIZER_MODELS, ValueType

MAX_TOKENS: Final = 1024 * 1024
MAX_BYTE_TOKENS: Final = 22 * 22  # as many ways there are to write <0xNN>

_PREFIX = "tokenizer.ggml."
_BUCKETS = 16  # so that only one of 16 sets of hashes is in memory at a time

_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_MERGE = re.compile(rb"[^ \0]+ [^ \0]+")

# tokenizers that have merges, without which llama.cpp refuses them
_BPE_MODELS = frozenset({"gpt2", "hybriddna", "whitespace", "gemma4"})

# Special tokens that a tokenizer has when the file does not say; those beyond the vocabulary do not count.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2},
    "bert": {"bos": 101, "seperator": 102},
    "t5": {"eos": 1},
    **{model: {"bos": 11, "eos": 11} for model in ("gpt2", "hybriddna", "whitespace")},
}

# Pre-tokenizers with which a text begins with the bos token, unless the file says otherwise, …
_ADD_BOS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}
    | {"tekken", "chameleon"}
)
# … those with which it does whatever the file says, …
_ALWAYS_BOS = frozenset({"gemma4", "granite-embed-multi-311m"})
# … and those without a bos token of their own.
_NO_BOS = frozenset({"chatglm-bpe", "glm4", "glm5"})

# The tokens by which a tokenizer writes bytes that no other token covers: of each tuple, one must be there.
# SentencePiece has two forms, but NUL has only the first. RWKV escapes its tokens as Python does.
_FALLBACKS: Mapping[str, tuple[tuple[bytes, ...], ...]] = {
    "llama": tuple((b"<0x%02X>" % byte, bytes([byte])) if byte else (b"<0x00>",) for byte in range(256)),
    "rwkv": tuple((repr(bytes([byte]))[2:-1].encode(),) for byte in range(256)),
}


def check_vocabulary(fd: int, header: GgufHeader) -> list[Problem]:
    """What is wrong with the tokenizer in the open file ``fd``. Nothing when the file has none."""
    return _Checker(fd, header).run()


class _Checker:
    def __init__(self, fd: int, header: GgufHeader) -> None:
        self._fd = fd
        self._header = header
        self._problems: list[Problem] = []

    def run(self) -> list[Problem]:
        model = self._header.metadata.get(_PREFIX + "model")
        tokens = self._array("tokens", ValueType.STRING)
        if model is None:
            if tokens is not None or (self._header.kind is GgufKind.MODEL and self._header.is_first_shard):
                self._note("model", "is missing")
            return self._problems
        if model in ("none", "no_vocab"):
            self._note("model", f"is {model!r}: without a vocabulary no text goes in or out")
            return self._problems
        if model not in TOKENIZER_MODELS:
            self._note("model", f"is {quoted(str(model))}, expected one of {_listed(TOKENIZER_MODELS)}")
        if tokens is not None:
            self._vocabulary(str(model), tokens)
        elif _PREFIX + "tokens" not in self._header.metadata:
            self._note("tokens", "is missing")
        self._merges(str(model))
        self._charsmap()
        return self._problems

    def _note(self, suffix: str, what: str) -> None:
        where = f"key {quoted(_PREFIX + suffix)}"
        self._problems.append(Problem(ProblemCode.BAD_VOCABULARY, where, what))

    def _array(self, suffix: str, *types: ValueType) -> GgufArray | None:
        """The array, when it is there and has elements of one of ``types``."""
        key = _PREFIX + suffix
        value = self._header.metadata.get(key)
        if value is None:
            return None
        expected = " or ".join(map(str, types))
        if not isinstance(value, GgufArray):
            self._note(suffix, f"is of type {self._header.types[key]}, expected an array of {expected}")
            return None
        if value.element_type not in types:
            self._note(suffix, f"is an array of {value.element_type}, expected {expected}")
            return None
        return value

    # tokens and what goes with each of them

    def _vocabulary(self, model: str, tokens: GgufArray) -> None:
        count = tokens.count
        if not 1 <= count <= MAX_TOKENS:
            self._note("tokens", f"{count:,} tokens, expected 1 to {MAX_TOKENS:,}")
            return
        stated = self._header.kv("vocab_size")
        if isinstance(stated, int) and stated != count:
            where = f"key {quoted(f'{self._header.architecture}.vocab_size')}"
            what = f"is {stated:,}, but there are {count:,} tokens"
            self._problems.append(Problem(ProblemCode.BAD_VOCABULARY, where, what))
        self._special_tokens(count)
        self._needed_tokens(model, count)
        self._pre_tokenizer(model)
        self._scores(count)
        byte_ids = self._token_types(count)
        if model == "bert" and byte_ids:
            self._note("token_type", "a WordPiece vocabulary has tokens that stand for bytes")
        try:
            self._tokens(model, tokens, byte_ids)
        except HeaderFault as fault:  # the file shrank while it was checked
            self._note("tokens", fault.what)

    def _tokens(self, model: str, tokens: GgufArray, byte_ids: frozenset[int]) -> None:
        buckets = [array("q") for _ in range(_BUCKETS)]
        add: list[Callable[[int], None]] = [bucket.append for bucket in buckets]
        wanted = {form for forms in _FALLBACKS.get(model, ()) for form in forms}
        found: set[bytes] = set()
        index = 0
        for batch in self._strings(tokens):
            batch = _as_loaded(batch, index)
            for value in map(hash, batch):
                add[value & (_BUCKETS - 1)](value)
            if wanted:
                here = wanted.intersection(batch)
                wanted -= here
                found |= here
            if byte_ids:
                for at in byte_ids.intersection(range(index, index + len(batch))):
                    self._byte_token(at, batch[at - index])
            index += len(batch)
        for number, bucket in enumerate(buckets):
            if len(set(bucket)) != len(bucket):
                self._duplicates(tokens, number)
                break  # one example is enough, and each costs a pass
        self._fallbacks(model, found)

    def _fallbacks(self, model: str, found: set[bytes]) -> None:
        """Every byte must have a token: on others llama.cpp aborts, or never ends."""
        missing = [forms[0] for forms in _FALLBACKS.get(model, ()) if found.isdisjoint(forms)]
        if missing:
            shown = ", ".join(form.decode() for form in missing[:3]) + (", …" if len(missing) > 3 else "")
            self._note("tokens", f"no token for {len(missing)} of 256 bytes: {shown}")

    def _duplicates(self, tokens: GgufArray, bucket: int) -> None:
        """Find the token that comes twice among those whose hash falls into ``bucket``."""
        seen: set[bytes] = set()
        index = 0
        for batch in self._strings(tokens):
            for at, token in enumerate(_as_loaded(batch, index)):
                if hash(token) & (_BUCKETS - 1) != bucket:
                    continue
                if token in seen:
                    self._note("tokens", f"token {index + at} {quoted(token)} comes twice")
                    return
                seen.add(token)
            index += len(batch)

    def _byte_token(self, index: int, token: bytes) -> None:
        if not _BYTE_TOKEN.fullmatch(token):
            self._note("tokens", f"token {index} stands for a byte but is {quoted(token)}, expected '<0xNN>'")

    def _token_types(self, count: int) -> frozenset[int]:
        """The ids of the tokens that stand for a byte."""
        found = self._array("token_type", ValueType.INT32)
        if found is None or not self._long_enough("token_type", found, count):
            return frozenset()
        types = self._numbers(found, "i")
        if types and not (min(types) >= TOKEN_TYPES.start and max(types) < TOKEN_TYPES.stop):
            index = next(at for at, value in enumerate(types) if value not in TOKEN_TYPES)
            what = f"token {index} has type {types[index]}, expected {TOKEN_TYPES[0]} to {TOKEN_TYPES[-1]}"
            self._note("token_type", what)
        bytes_count = types.count(TOKEN_TYPE_BYTE)
        if bytes_count > MAX_BYTE_TOKENS:
            what = f"{bytes_count:,} tokens stand for bytes, expected at most {MAX_BYTE_TOKENS}"
            self._note("token_type", what)
        if not 0 < bytes_count <= MAX_BYTE_TOKENS:
            return frozenset()
        return frozenset(at for at, value in enumerate(types) if value == TOKEN_TYPE_BYTE and at < count)

    def _scores(self, count: int) -> None:
        found = self._array("scores", ValueType.FLOAT32, ValueType.INT32)
        if found is None or not self._long_enough("scores", found, count):
            return
        if found.element_type is ValueType.FLOAT32:
            scores = self._numbers(found, "f")
            if not all(map(isfinite, scores)):
                index = next(at for at, value in enumerate(scores) if not isfinite(value))
                self._note("scores", f"token {index} has score {scores[index]}, expected a finite number")

    def _long_enough(self, suffix: str, found: GgufArray, count: int) -> bool:
        if found.count < count:
            self._note(suffix, f"{found.count:,} elements, expected one for each of {count:,} tokens")
            return False
        if found.count > MAX_TOKENS:
            self._note(suffix, f"{found.count:,} elements, expected at most {MAX_TOKENS:,}")
            return False
        return True

    def _special_tokens(self, count: int) -> None:
        for key, value in self._header.metadata.items():
            if not (key.startswith(_PREFIX) and key.endswith("_token_id")):
                continue
            suffix, type_ = key.removeprefix(_PREFIX), self._header.types[key]
            if type_ is not ValueType.UINT32:
                self._note(suffix, f"is of type {type_}, expected uint32")
            elif isinstance(value, int) and value >= count:
                self._note(suffix, f"is {value:,}, but there are {count:,} tokens")

    def _pre_tokenizer(self, model: str) -> None:
        if self._header.metadata.get(_PREFIX + "pre") == "whitespace" and model != "whitespace":
            self._note("pre", f"is 'whitespace', which does not go with a tokenizer of type {model}")

    def _needed_tokens(self, model: str, count: int) -> None:
        """The special tokens that are put around every text must exist: llama.cpp asserts it each time."""
        pre = self._header.metadata.get(_PREFIX + "pre")
        defaults = dict(_DEFAULT_IDS.get(model, {}))
        needed = set()
        if model == "bert":
            needed = {"bos", "seperator"}
        elif model in _BPE_MODELS or model in ("llama", "t5"):
            begins = model == "llama" or (model in _BPE_MODELS and pre in _ADD_BOS)
            needed = {
                name
                for name, default in (("bos", begins), ("eos", model == "t5"))
                if self._header.metadata.get(f"{_PREFIX}add_{name}_token", default) is True
            }
            if model == "gemma4" or (model in _BPE_MODELS and pre in _ALWAYS_BOS):
                needed.add("bos")
        if pre in _NO_BOS:
            defaults.pop("bos", None)
        for name in sorted(needed):
            suffix = f"{name}_token_id"
            default = defaults.get(name)
            if _PREFIX + suffix not in self._header.metadata and (default is None or default >= count):
                self._note(suffix, "is missing, but this token is put around every text")

    # merges and normalisation

    def _merges(self, model: str) -> None:
        merges = self._array("merges", ValueType.STRING)
        if merges is None:
            pre = self._header.metadata.get(_PREFIX + "pre")
            if model in _BPE_MODELS and pre != "kimi-k2" and _PREFIX + "merges" not in self._header.metadata:
                self._note("merges", f"is missing, but a tokenizer of type {model} needs them")
            return
        index = 0
        is_merge = _MERGE.fullmatch
        try:
            for batch in self._strings(merges):
                if not all(map(is_merge, batch)):
                    at = next(at for at, item in enumerate(batch) if not is_merge(item))
                    what = f"merge {index + at} is {quoted(batch[at])}, expected two parts and one space"
                    self._note("merges", what)
                    return
                index += len(batch)
        except HeaderFault as fault:
            self._note("merges", fault.what)

    def _charsmap(self) -> None:
        """The normalisation table of T5: a 32-bit size, then that many bytes, then more."""
        suffix = "precompiled_charsmap"
        found = self._array(suffix, ValueType.INT8, ValueType.UINT8)
        if found is None:
            return
        if found.count > charsmap.MAX_SIZE:
            self._note(suffix, f"{found.count:,} bytes, expected at most {charsmap.MAX_SIZE:,}")
        elif fault := charsmap.fault_of(self._bytes(found, found.size)):
            self._note(suffix, fault)

    # reading

    def _strings(self, found: GgufArray) -> Iterator[list[bytes]]:
        return self._stream(found).strings(found.count, MAX_ELEMENT_SIZE)

    def _numbers(self, found: GgufArray, code: str) -> array[int] | array[float]:
        numbers = array(code)
        numbers.frombytes(self._bytes(found, found.size))
        return numbers

    def _bytes(self, found: GgufArray, size: int) -> bytes:
        return self._stream(found).take(size)

    def _stream(self, found: GgufArray) -> HeaderStream:
        end = found.offset + found.size
        return HeaderStream(self._fd, self._header.file_size, limit=end, position=found.offset)


def _as_loaded(batch: list[bytes], index: int) -> list[bytes]:
    """Tokens from number ``index`` on as llama.cpp has them: each up to a NUL, empty ones with a name."""
    if b"\0" in b"".join(batch):
        batch = [item[: item.index(0)] if 0 in item else item for item in batch]
    if b"" in batch:
        return [item or b"[EMPTY_%d]" % (index + at) for at, item in enumerate(batch)]
    return batch


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
