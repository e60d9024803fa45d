"""Services over an empty store and no keeper, for tests that look at an application and ask it nothing."""

from __future__ import annotations

from pathlib import Path

from lading.oci.store import Store
from lading.runtime.inference import Inference
from lading.server.catalogue import Catalogue
from lading.server.keeper.client import KeeperClient
from lading.server.names import Names
from lading.server.services import Services
from lading.server.settings import ServerSettings


def bare_services(folder: Path) -> Services:
    store, names = Store.open(folder), Names()
    keeper = KeeperClient(folder / "none.sock")
    return Services(
        settings=ServerSettings(store_root=folder),
        store=store,
        inference=Inference(keeper),
        keeper=keeper,
        catalogue=Catalogue(store, names),
        names=names,
        version="0",
    )
