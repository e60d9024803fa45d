"""What crosses the pipes of the process that quantises, as types; `frame` puts these into bytes.

One `QuantiseSpec` on its stdin, which then stays open and silent: its end means that nobody waits any more.
On its stdout one `Planned`, then one `Written`; or, at any point, one `Refused`. Sizes are bytes.
"""

from __future__ import annotations

import msgspec


class _Wire(msgspec.Struct, frozen=True, tag_field="type"):
    """Unknown fields are ignored."""


class QuantiseSpec(_Wire, frozen=True, kw_only=True, tag="quantise"):
    """What to quantise and how. Paths are links in a folder of ours: others may be no UTF-8, and shards have
    to have llama.cpp's names."""

    sources: tuple[str, ...]
    """The GGUF file, or all shards in order."""
    output: str
    """An existing empty file; nothing else can be written."""
    file_type: int
    """llama.cpp's number."""
    threads: int
    alignment: int
    """Of the source, as its header says."""
    largest_size: int
    """Most bytes that the output may get."""
    parent_pid: int
    sandbox: bool = True


class Planned(_Wire, frozen=True, kw_only=True, tag="planned"):
    """How much the tensors will take; nothing is written yet."""

    tensors_size: int


class Written(_Wire, frozen=True, tag="written"):
    """The output is complete."""


class Refused(_Wire, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """llama.cpp gave up; ``reason`` is in its words."""

    reason: str
    writing: bool = False
    """The output could not be written."""


Outcome = Planned | Written | Refused

SPEC = msgspec.json.Decoder(QuantiseSpec)
OUTCOME: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)
