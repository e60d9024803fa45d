"""Fixtures of the runtime's tests: models in a store, and keepers that are always closed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from model_shelf import ModelShelf

from lading.runtime.keeper import Keeper
from lading.runtime.settings import RuntimeSettings

MakeKeeper = Callable[..., Keeper]


@pytest.fixture
def shelf(tmp_path: Path, tiny_chat: Path) -> ModelShelf:
    """A store in which ``tiny`` is the tiny chat model, at temperature 0."""
    folder = tmp_path / "files"
    folder.mkdir()
    made = ModelShelf(tmp_path / "store", folder)
    made.create("tiny", f"FROM {tiny_chat}\nPARAMETER temperature 0\n")
    return made


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A private folder with a short name: sockets have no room for long ones."""
    folder = tempfile.mkdtemp(prefix="lading-test-")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def keeper_of(runtime_dir: Path) -> Iterator[MakeKeeper]:
    """Makes keepers of a shelf with the settings given."""
    made: list[Keeper] = []

    def make(shelf: ModelShelf, **settings: object) -> Keeper:
        chosen = RuntimeSettings(runtime_dir=runtime_dir, **settings)  # type: ignore[arg-type]  # the tests know
        made.append(Keeper(shelf.root, chosen))
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()
