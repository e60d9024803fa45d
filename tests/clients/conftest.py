"""Where the server is that these clients talk to: whoever runs them says so in the environment."""

import os

import pytest


@pytest.fixture(scope="session")
def url() -> str:
    return os.environ["LADING_TEST_URL"]


@pytest.fixture(scope="session")
def model() -> str:
    return "tiny"


@pytest.fixture(scope="session")
def embedder() -> str:
    return "embedder"
