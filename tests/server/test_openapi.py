"""The OpenAPI document is what the server does: schemathesis asks every operation with what the document
allows and with what it does not, and finds no 5xx, no undocumented status or type, no body of another shape.

A few examples of each operation here; `make fuzz` runs many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from live_server import LiveServer, build_model, running_server
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lading.server.openapi import document
from lading.server.operations import OPERATIONS

EXAMPLES = int(os.environ.get("LADING_FUZZ_EXAMPLES", "3"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

TRANSFERS = ("/api/pull", "/api/push", "/api/create")
"""They reach for a registry, and there is none."""

CONFIG = {
    "generation": {"mode": "all", "max-examples": EXAMPLES},
    "phases": {"coverage": {"enabled": EXAMPLES > 10}, "examples": {"enabled": False}},
}
described = schemathesis.openapi.from_dict(
    document(OPERATIONS, "0"), config=schemathesis.Config.from_dict(CONFIG)
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Has models, and a default registry that does not exist: nothing leaves this machine."""
    folder: Path = tmp_path_factory.mktemp("described")
    for name in ("tiny", "127.0.0.1:9/library/tiny:latest"):
        build_model(folder / "home", name)
    with running_server(folder / "home", folder, runtime={"default_registry": "127.0.0.1:9"}) as live:
        yield live


def test_the_document_that_is_served_is_the_one_of_the_table(target: LiveServer) -> None:
    served = target.call("GET", "/openapi.json").json()
    version = served["info"]["version"]
    assert served == document(OPERATIONS, version)
    assert served["openapi"].startswith("3.1.")
    described.validate()


@described.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 10,  # here always the same ones; luck is for `make fuzz`
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_every_operation_does_what_the_document_says(case: schemathesis.Case, target: LiveServer) -> None:
    if isinstance(case.body, dict):
        case.body = tamed(case.body, case.operation.path)
    response = case.call(base_url=target.url, timeout=60)
    unreachable = response.status_code == 502 and case.operation.path in TRANSFERS
    case.validate_response(response, checks=CHECKS[1:] if unreachable else CHECKS)


def tamed(body: dict[str, Any], path: str) -> dict[str, Any]:
    """The same, for a model that there is, and with a short answer; where what was drawn is of another type
    than it should be, it stays."""
    body = dict(body)
    if isinstance(body.get("model", ""), str):
        body["model"] = "scratch" if path in (*TRANSFERS, "/api/delete") else "tiny"
    if isinstance(body.get("name"), str):
        body["name"] = body["model"]
    if isinstance(body.get("options", {}), dict) and path.startswith("/api/"):
        body["options"] = {**body.get("options", {}), "num_predict": 2, "num_ctx": 1024}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(body.get(name), int):
            body[name] = min(body[name], 2)
    if path.startswith("/v1/"):
        body.setdefault("max_output_tokens" if path == "/v1/responses" else "max_tokens", 2)
    return body
