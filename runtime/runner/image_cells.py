"""What stands for images among the tokens of a prompt.

Each token's worth of an image is a **cell**: a negative number that follows from what is to be seen. So two
prompts that agree in their cells agree in their images, and whatever compares tokens compares images too. The
first cell of a piece is odd, the others are even: that is how one sees where a prompt may be cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CellArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ImagePiece:
    """A part of an image, or all of it, that is evaluated as one: what a model sees instead of tokens."""

    cells: CellArray
    embeddings: npt.NDArray[np.float32]
    """One row for each cell."""
    positions: npt.NDArray[np.int32]
    """Of each cell, from where the piece begins: one row, or four where positions have dimensions, which are
    time, row, column, and one that does not count from there."""
    span: int
    """How many positions the piece takes up: as many as it has cells, or fewer."""
    causal: bool = True
    """False: each cell looks at all others, so that they are evaluated all at once."""

    def __len__(self) -> int:
        return len(self.cells)

    def positions_from(self, start: int, cells: slice) -> npt.NDArray[np.int32]:
        """Positions of some of the cells, where the piece begins at ``start``."""
        positions = self.positions[:, cells].copy()
        positions[:3] += start
        return positions


ImageParts = tuple[list[int] | ImagePiece, ...]
"""What an image is in a prompt, in order: tokens that mark it, and pieces of it."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedPiece:
    """A piece in a prompt; ``start`` is the index of its first cell."""

    start: int
    piece: ImagePiece

    @property
    def end(self) -> int:
        return self.start + len(self.piece)


def cells_of(digest: bytes, index: int, count: int) -> CellArray:
    """The cells of piece ``index`` of the image with this digest: 29 bits of a hash each."""
    seed = digest + index.to_bytes(4, "big")
    noise = np.frombuffer(hashlib.shake_256(seed).digest(4 * count), "<u4") >> 3
    cells = -2 - 2 * noise.astype(np.int32)  # never -1, which stands for no token
    cells[0] -= 1
    return cells


def whole_images(cells: Sequence[int] | CellArray, size: int) -> int:
    """``size``, or less where a cut there would go through a piece: its beginning."""
    while 0 < size < len(cells) and cells[size] < 0 and not cells[size] & 1:
        size -= 1
    return size
