"""What a file is for, by its name: where nothing better says it, and for files packed in archives."""

from __future__ import annotations

import re

from ..descriptor import Descriptor
from ..layer import FIXED_PATHS, Layer, Role
from ..media_type import FILEPATH, ROLE, TITLE

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_FIXED = {path.lower(): role for role, path in FIXED_PATHS.items()}
_ROLES = {str(role): role for role in Role}


def stated_role(descriptor: Descriptor) -> Role | None:
    """The role that our annotation states; None where there is none."""
    stated = descriptor.annotations.get(ROLE)
    return _ROLES.get(stated, Role.OTHER) if stated is not None else None


def role_by_name(path: str) -> Role:
    """The role of a file of this name; OTHER where the name says nothing."""
    name = path.rpartition("/")[2].lower()
    if name in _FIXED:
        return _FIXED[name]
    if name.endswith(".gguf"):
        return Role.PROJECTOR if "mmproj" in name else Role.WEIGHTS
    if name.startswith("readme"):
        return Role.README
    if name.startswith(("license", "licence", "copying")):
        return Role.LICENSE
    return Role.OTHER


def stated_path(descriptor: Descriptor) -> str:
    """The path that a layer's annotations state, when it is relative and clean; an empty text otherwise."""
    return clean_path(descriptor.annotations.get(FILEPATH) or descriptor.annotations.get(TITLE) or "")


def clean_path(path: str) -> str:
    """The path, when it is relative and plain; an empty text otherwise."""
    parts = path.split("/")
    if len(path) > 255 or "\\" in path or any(part in ("", ".", "..") for part in parts):
        return ""
    return path if path.isprintable() else ""


def shard_number(layer: Layer) -> int:
    """By which shards are sorted; everything else keeps its place (sorting is stable)."""
    match = _SHARD.search(layer.filepath)
    return int(match[1]) if match else 0
