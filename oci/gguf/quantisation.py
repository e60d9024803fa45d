"""What weights can be quantised to, and which weights can be: the one table, and a pure check.

Types that llama.cpp makes only with an importance matrix (IQ1, IQ2, IQ3_XXS, IQ3_XS, Q2_K_S) or for models
that were trained for them (TQ, MXFP4, Q1_0, Q2_0) are left out.

Source: llama.h, tools/quantize of llama.cpp (0.3.36 of llama-cpp-python); the words of the errors and the
first six types: Ollama, ggml.ParseFileType and server.createModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ...modelfile.errors import InputError
from ..errors import quoted
from .header import GgufHeader

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Types of tensors that nothing was lost in: what may be quantised."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A mixture of tensor types. ``file_type``: its number in ``general.file_type``. ``bits``: of a weight on
    average, for a llama of 8B."""

    name: str
    file_type: int
    bits: float
    meaning: str


QUANTISATIONS: Mapping[str, Quantisation] = MappingProxyType(
    {
        row[0]: Quantisation(*row)
        for row in (
            ("F32", 0, 32.0, "as computed with; for conversion"),
            ("F16", 1, 16.0, "half precision"),
            ("BF16", 32, 16.0, "half precision with the range of F32, as models are trained"),
            ("Q8_0", 7, 8.5, "hardly to be told from F16"),
            ("Q6_K", 18, 6.6, "very good"),
            ("Q5_K_M", 17, 5.7, "very good; attention and output in more bits"),
            ("Q5_K_S", 16, 5.6, "very good"),
            ("Q5_1", 9, 6.0, "older than Q5_K; for rows that K types cannot have"),
            ("Q5_0", 8, 5.5, "older than Q5_K; for rows that K types cannot have"),
            ("Q4_K_M", 15, 4.9, "the usual choice; attention and output in more bits"),
            ("Q4_K_S", 14, 4.7, "good, a little smaller"),
            ("Q4_1", 3, 5.0, "older than Q4_K; for rows that K types cannot have"),
            ("Q4_0", 2, 4.5, "older than Q4_K; fast on ARM"),
            ("IQ4_NL", 25, 4.7, "for rows that IQ4_XS cannot have"),
            ("IQ4_XS", 30, 4.5, "about as good as Q4_K_S, smaller, slower on CPUs"),
            ("Q3_K_L", 13, 4.3, "noticeable losses; the largest of its kind"),
            ("Q3_K_M", 12, 4.0, "noticeable losses"),
            ("Q3_K_S", 11, 3.6, "considerable losses"),
            ("IQ3_M", 27, 3.8, "better than Q3_K_M where memory is short, slower on CPUs"),
            ("IQ3_S", 26, 3.7, "better than Q3_K_S where memory is short, slower on CPUs"),
            ("Q2_K", 10, 3.2, "considerable losses; for models that fit in no other way"),
        )
    }
)
ALIASES: Mapping[str, str] = MappingProxyType({"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"})


class UnknownQuantisation(InputError):
    """A text (``given``) is not the name of a type that weights can be quantised to."""

    def __init__(self, given: str) -> None:
        self.given = given
        super().__init__(
            f"unsupported quantization type {quoted(given)[1:-1]} - supported types are "
            f"{', '.join(QUANTISATIONS)}"
        )


class NotQuantisable(InputError):
    """The weights called ``name`` are of ``type_``, which has lost too much already to be quantised."""

    def __init__(self, name: str, type_: str) -> None:
        self.name = name
        self.type = type_
        super().__init__(
            f"quantization is only supported for F16, BF16 and F32 models: {name} is {type_}",
            hint="name the original weights in FROM, or leave them as they are",
        )


def parse_quantisation(text: str) -> Quantisation:
    """The type that ``text`` names, in any case. Raises: UnknownQuantisation.

    >>> [parse_quantisation(text).name for text in ("q4_K_M", "Q4_k", " q8_0 ")]
    ['Q4_K_M', 'Q4_K_M', 'Q8_0']
    """
    name = text.strip().upper()
    try:
        return QUANTISATIONS[ALIASES.get(name, name)]
    except KeyError:
        raise UnknownQuantisation(text) from None


def require_quantisable(name: str, headers: Sequence[GgufHeader]) -> str:
    """The type of the weights that ``headers`` are the shards of, such as ``F16``.

    What counts is what the tensors are, whatever the file says of itself. Raises: NotQuantisable.
    """
    stated = next((found for header in headers if (found := header.file_type)), "unknown")
    lossy = sorted({t.type.name for header in headers for t in header.tensors if t.type.block > 1})
    if lossy:
        raise NotQuantisable(name, stated if stated not in FLOAT_TYPES else " and ".join(lossy))
    return next((found for header in headers if (found := header.commonest_type)), stated)


def largest_size(headers: Sequence[GgufHeader]) -> int:
    """The most bytes that these weights, of floats, take in one file, whatever they are quantised to."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    alignment = max(header.alignment for header in headers)
    elements = sum(tensor.elements for tensor in tensors)
    # Each shard has a table of tensors; in one file they stand one after another. 8 bytes: I64, F64.
    return sum(header.data_offset + alignment for header in headers) + 8 * elements + alignment * len(tensors)
