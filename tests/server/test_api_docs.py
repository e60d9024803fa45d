"""The table of operations, which keys, metrics and documents go by, has the routes of the application."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bare_services import bare_services
from falcon import inspect

from lading.server.app import create_app
from lading.server.metrics import Metrics
from lading.server.names import Names
from lading.server.native.hosted import ROUTES as HOSTED
from lading.server.operations import OPERATIONS, Dialect, find_operation

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SINKS = ("/v1/models/{id+}",)
"""Their fields may hold slashes, which those of routes cannot."""


def test_the_table_of_operations_is_that_of_the_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    metrics = Metrics(tmp_path / "metrics", Names())
    app = create_app(bare_services(tmp_path / "store"), metrics)
    metrics.close()
    routes = {
        (method.method, route.path)
        for route in inspect.inspect_routes(app)
        for method in route.methods
        if not method.internal and route.path not in HOSTED
    }
    operations = {
        (one.method, one.path)
        for one in OPERATIONS
        if one.dialect is not Dialect.REGISTRY and one.path not in SINKS
    }
    assert operations == routes


def test_the_page_lists_every_operation() -> None:
    rows = re.findall(r"^\| ([A-Z, ]+) \| `(\S+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    written = {(method, path) for methods, path in rows for method in methods.split(", ")}
    assert written == {(one.method, one.path) for one in OPERATIONS}


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/", "/"),
        ("GET", "/v1/models", "/v1/models"),
        ("GET", "/v1/models/a/b:c", "/v1/models/{id+}"),
        ("GET", "/v1/models/a\nb", "/v1/models/{id+}"),
        ("POST", "/api/blobs/sha256:0", "/api/blobs/{digest}"),
        ("POST", "/api/blobs/a/b", None),
        ("GET", "/api/blobs/a", None),
        ("PUT", "/v2/a/b/c/manifests/x", "/v2/{name+}/manifests/{reference}"),
        ("POST", "/v2/a/blobs/uploads/", "/v2/{name+}/blobs/uploads/"),
        ("PATCH", "/v2/a/blobs/uploads/1", "/v2/{name+}/blobs/uploads/{upload}"),
        ("GET", "/livez/", None),
        ("GET", "/LIVEZ", None),
        ("get", "/livez", None),
    ],
)
def test_finding_an_operation(method: str, path: str, found: str | None) -> None:
    operation = find_operation(method, path)
    assert (operation.path if operation else None) == found
