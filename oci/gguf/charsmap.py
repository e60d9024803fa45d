"""The normalisation table of SentencePiece in a GGUF file (``tokenizer.ggml.precompiled_charsmap``).

    size of the trie, 32 bits | trie | replacement texts, each ending with NUL

The trie is an XOR-compressed double array (XCDA) of 32-bit entries: bits 10-30 say where an entry's
children are, bit 8 that the entry ends a text, bits 0-7 by which byte it is reached. llama.cpp walks it for
each text it tokenises, and ends its process when an index leaves the array, so every index is followed here.

Source: llm_tokenizer_ugm_session::normalize_prefix in llama-vocab.cpp of llama.cpp.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

MAX_SIZE: Final = 2 << 20

_LEAF = 1 << 8
_WIDE = 1 << 9
_CHECK = 1 << 31 | 0xFF
_VALUE = (1 << 31) - 1


def fault_of(charsmap: bytes) -> str | None:
    """What is wrong with the table, in words; None where nothing is."""
    if len(charsmap) < 4:
        return "is too short"
    size = int.from_bytes(charsmap[:4], "little")
    if size + 4 >= len(charsmap):
        return f"{len(charsmap):,} bytes, fewer than the table in it says"
    entries = array("I")
    entries.frombytes(charsmap[4 : 4 + size - size % 4])
    if sys.byteorder == "big":
        entries.byteswap()
    texts = charsmap[4 + size :]
    return _walk(entries, last_text=texts.rfind(b"\0")) if entries else None


def _walk(entries: array[int], last_text: int) -> str | None:
    """Follow every way through the trie. A replacement text must begin at or before ``last_text``."""
    children = _children(entries)
    pending = [_base(entries[0])]
    seen: set[int] = set(pending)
    while pending:
        base = pending.pop()
        if base | 0xFF >= len(entries):  # any byte may be looked up here
            return f"an entry refers to {base:,}, but there are {len(entries):,} entries"
        for index in children.get(base, ()):
            entry = entries[index]
            target = index ^ _base(entry)
            if entry & _LEAF and (target >= len(entries) or entries[target] & _VALUE > last_text):
                return f"entry {index:,} has no replacement text"
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return None


def _base(entry: int) -> int:
    return entry >> 10 << ((entry & _WIDE) >> 6)


def _children(entries: array[int]) -> dict[int, list[int]]:
    """The entries that are reached from each base."""
    children: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        byte = entry & _CHECK
        if 0 < byte <= 0xFF:
            children.setdefault(index ^ byte, []).append(index)
    return children
