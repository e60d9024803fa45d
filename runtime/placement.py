"""Which layers of a model go to which GPU. Pure: devices and sizes in, numbers of layers out.

llama.cpp offloads from the end: the output first, then the last layer, and so on. What is offloaded is dealt
to the devices in their order, each taking a run of layers as long as its part of ``tensor_split``. So a
placement is a number of layers for each device; the rest stays in main memory.

Source: llama.cpp, src/llama-model.cpp, ``load_tensors`` (``i_gpu_start``, ``get_layer_buft_list``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

HEADROOM = 512 * 1024 * 1024
"""Bytes of a device that are left alone: its driver's own, and what estimates miss."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, as llama.cpp sees it; in its order."""

    name: str
    free: int
    """Bytes."""
    total: int = 0


class LayerSizes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model takes where its layers lie, in bytes."""

    blocks: tuple[int, ...] = ()
    """Weights and KV cache of each layer."""
    output: int = 0
    """The last step, from the last layer to the vocabulary: it counts as one layer more."""
    compute: int = 0
    """Buffers that every device in use needs."""

    @property
    def count(self) -> int:
        """Layers, the output included; 0 where nothing is known."""
        return len(self.blocks) + 1 if self.blocks else 0

    def last(self, count: int) -> tuple[int, ...]:
        """The sizes of the last ``count`` layers."""
        every = (*self.blocks, self.output)
        return every[len(every) - count :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """``layers[i]`` layers go to device i; none go anywhere where it is empty."""

    layers: tuple[int, ...] = ()
    size: int = 0
    """Bytes on devices, compute buffers included, as estimated."""

    @property
    def count(self) -> int:
        """llama.cpp's ``n_gpu_layers``."""
        return sum(self.layers)

    @property
    def tensor_split(self) -> tuple[float, ...]:
        """llama.cpp's: the parts may have any sum."""
        return tuple(map(float, self.layers))


def place(
    devices: Sequence[Device], sizes: LayerSizes, *, num_gpu: int = -1, main_gpu: int = -1
) -> Placement:
    """Where to put the layers.

    ``num_gpu``: how many, -1: as many as fit, one device taking them all if one can. ``main_gpu``: the only
    device to use, -1: any. A number that is asked for is kept to even if it seems not to fit, for this is an
    estimate: then devices take layers in proportion to their room.
    """
    rooms = [max(device.free - HEADROOM - sizes.compute, 0) for device in devices]
    if main_gpu >= 0:
        rooms = [room if i == main_gpu else 0 for i, room in enumerate(rooms)]
    if not sizes.count or num_gpu == 0 or not rooms or (main_gpu >= len(rooms)):
        return Placement()
    most = sizes.count if num_gpu < 0 else min(num_gpu, sizes.count)
    least = 0 if num_gpu < 0 else most
    for count in range(most, least - 1, -1):
        layers = _dealt(sizes.last(count), rooms)
        if layers is not None:
            return _placement(layers, sizes)
    return _placement(_in_proportion(most, rooms, main_gpu), sizes)


def remaining(devices: Sequence[Device], used: int) -> tuple[Device, ...]:
    """The devices once ``used`` bytes of them are taken, from where the most is free."""
    free = [device.free for device in devices]
    for i in sorted(range(len(free)), key=lambda i: -free[i]):
        taken = min(used, free[i])
        free[i], used = free[i] - taken, used - taken
    replace = msgspec.structs.replace
    return tuple(replace(device, free=left) for device, left in zip(devices, free, strict=True))


def _dealt(sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """How many of these layers each device takes, in order; None where they do not fit."""
    total = sum(sizes)
    alone = [i for i, room in enumerate(rooms) if room >= total and room]
    if alone:
        best = max(alone, key=lambda i: rooms[i])
        return [len(sizes) if i == best else 0 for i in range(len(rooms))]
    counts, at = [], 0
    for room in rooms:
        start = at
        while at < len(sizes) and sizes[at] <= room:
            room -= sizes[at]
            at += 1
        counts.append(at - start)
    return counts if at == len(sizes) else None


def _in_proportion(count: int, rooms: Sequence[int], main_gpu: int) -> list[int]:
    if main_gpu >= 0 or not any(rooms):
        only = max(main_gpu, 0)
        return [count if i == only else 0 for i in range(len(rooms))]
    bounds = [round(count * sum(rooms[: i + 1]) / sum(rooms)) for i in range(len(rooms))]
    return [bound - before for bound, before in zip(bounds, [0, *bounds], strict=False)]


def _placement(layers: Sequence[int], sizes: LayerSizes) -> Placement:
    count = sum(layers)
    if not count:
        return Placement()
    used = sum(1 for number in layers if number)
    return Placement(layers=tuple(layers), size=sum(sizes.last(count)) + used * sizes.compute)
