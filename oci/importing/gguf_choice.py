"""Which GGUF files of many make the model that is meant: by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...modelfile.errors import InputError, NotFoundError

DEFAULT_QUANTIZATION = "Q4_K_M"
"""What is taken where there are several and none is named, as Hugging Face does."""

CONVERT_HINT = (
    "only GGUF files can be run: look for a repository that has them, or convert the model first, "
    "for example with convert_hf_to_gguf.py of llama.cpp"
)

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP\d\w*)|BF16|F16|F32)(?![A-Za-z0-9])", re.IGNORECASE
)
_TENSORS = (".safetensors", ".bin", ".pth", ".pt")


class NoGguf(NotFoundError):
    """There are no GGUF files where they were looked for."""

    def __init__(self, place: str, others: Iterable[str] = ()) -> None:
        tensors = next((name for name in others if name.lower().endswith(_TENSORS)), None)
        reason = f"it has {tensors}, but no GGUF file" if tensors else "it has no GGUF file"
        super().__init__(f"importing {place}: {reason}", hint=CONVERT_HINT if tensors else None)


class UnclearChoice(InputError):
    """There are several models, or none of the name that was given."""

    def __init__(self, place: str, reason: str, names: Sequence[str]) -> None:
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        hint = f"there are: {', '.join(names[:12])}{more}; name one by its quantisation or file"
        super().__init__(f"importing {place}: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class Choice:
    """Paths of the files of one model: the weights, shards in order, and a projector where there is one.

    ``label`` is the quantisation that the name says; the file's stem where it says none."""

    weights: tuple[str, ...]
    projector: str | None
    label: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.weights, self.projector) if self.projector is not None else self.weights


def choose_gguf(paths: Iterable[str], wanted: str | None, place: str) -> Choice:
    """The files of the model that ``wanted`` names: a quantisation (in any case) or a file; None or "latest"
    for the only one, or the one in DEFAULT_QUANTIZATION. ``place`` is for messages.

    Raises: NoGguf, UnclearChoice.
    """
    known = sorted(paths)
    found = [path for path in known if path.lower().endswith(".gguf")]
    models = _models([path for path in found if "mmproj" not in _name(path).lower()], place)
    if not models:
        raise NoGguf(place, known)
    projector = _projector([path for path in found if "mmproj" in _name(path).lower()])
    weights = _chosen(models, wanted, place)
    return Choice(weights, projector, _label(weights))


def _models(paths: Sequence[str], place: str) -> list[tuple[str, ...]]:
    """The files, shards of one model together and in order."""
    models: list[tuple[str, ...]] = []
    shards: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        match = _SHARD.fullmatch(path)
        if match is None:
            models.append((path,))
        else:
            shards.setdefault((match["stem"], match["count"]), []).append(path)
    for (stem, count), found in shards.items():
        if len(found) != int(count):
            raise UnclearChoice(place, f"{stem} has {len(found)} of its {int(count)} shards", found)
        models.append(tuple(found))
    return models


def _chosen(models: list[tuple[str, ...]], wanted: str | None, place: str) -> tuple[str, ...]:
    labels = [_label(model) for model in models]
    if wanted is None or wanted.lower() == "latest":
        if len(models) == 1:
            return models[0]
        wanted, reason = DEFAULT_QUANTIZATION, f"it has {len(models)} models, and none is named"
    else:
        reason = f"it has no {wanted}"
    lowered = wanted.lower()
    by_name = [model for model in models if lowered in (_name(model[0]).lower(), _stem(model[0]).lower())]
    fitting = by_name or [
        model for model, label in zip(models, labels, strict=True) if label.lower() == lowered
    ]
    if len(fitting) != 1:
        if len(fitting) > 1:
            reason = f"it has {len(fitting)} models that are {wanted}"
            labels = [_name(model[0]) for model in fitting]
        raise UnclearChoice(place, reason, labels)
    return fitting[0]


def _label(model: tuple[str, ...]) -> str:
    """The quantisation: in the file's name, or else in that of its folder."""
    folder, _, name = model[0].rpartition("/")
    for text in (name, folder):
        if found := _QUANTIZATION.findall(text):
            return str(found[-1])
    return _stem(model[0])


def _projector(paths: Sequence[str]) -> str | None:
    """The one in F16, as other programs prefer it, or else the first."""
    exact = [path for path in paths if re.search(r"(?<!b)f16", _name(path).lower())]
    return next(iter((*exact, *paths)), None)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    name = _name(path)
    match = _SHARD.fullmatch(name)
    return match["stem"] if match is not None else name[: -len(".gguf")]
