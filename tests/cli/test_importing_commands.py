"""`lading import`, and `lading pull` from hf.co, as a user types them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from command import TINY_CHAT, Lading
from fake_hub import fake_hub
from ggufmaker import make_shards

TYPE = "application/vnd.ollama.image."


def ollama_model(root: Path, name: str, layers: dict[str, bytes]) -> list[Path]:
    """Puts a model into a folder of Ollama's; the files of its layers."""
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def described(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        paths.append(root / "blobs" / f"sha256-{digest}")
        paths[-1].write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "config": described("application/vnd.docker.container.image.v1+json", b'{"model_format":"gguf"}'),
        "layers": [described(TYPE + kind, data) for kind, data in layers.items()],
    }
    path = root / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    return paths[1:]


def test_ollama_s_models(lading: Lading) -> None:
    root = lading.home.parent / "user" / ".ollama" / "models"
    ollama_model(root, "tiny", {"model": TINY_CHAT.read_bytes(), "system": b"You are a pirate."})
    damaged = ollama_model(root, "bad", {"model": b"GGUF" + b"x" * 5000})[0]
    assert "it has: bad:latest, tiny:latest" in lading.fails(2, "import", "ollama")
    assert "no such model" in lading.fails(3, "import", "ollama", "nothing")
    planned = lading.ok("import", "ollama", "--all", "--dry-run", "--format", "json")
    assert {row["name"]: row["status"] for row in json.loads(planned)} == {
        "bad:latest": "would be imported",
        "tiny:latest": "would be imported",
    }
    assert lading.ok("ls", "-q") == ""
    damaged.write_bytes(b"GGUF" + b"y" * 5000)
    done = lading.run("import", "ollama", "--all")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "SHARED", "STATUS"]
    assert f"skipped: {damaged.name} is damaged" in lines[1] and "ollama pull bad" in lines[1]
    assert lines[2].endswith("imported")
    assert lading.ok("ls", "-q") == "tiny:latest\n"
    question = "What is the capital of France?"
    assert lading.ok("run", "tiny", question).strip() == "Arr! The capital of France is Paris."


def test_a_cache_a_folder_and_a_url(lading: Lading) -> None:
    folder = lading.home.parent
    snapshot = folder / "user" / ".cache/huggingface/hub/models--org--repo/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(TINY_CHAT, snapshot / "m-Q8_0.gguf")
    assert lading.ok("import", "hf", "org/repo", "-q") == "hf.co/org/repo:Q8_0\n"
    shutil.copy(TINY_CHAT, folder / "Tiny Chat.gguf")
    assert lading.ok("import", "Tiny Chat.gguf", "-q") == "tiny-chat:latest\n"
    assert lading.ok("import", str(snapshot), "--name", "mine:v1", "-q") == "mine:v1\n"
    assert "expected one repository" in lading.fails(2, "import", "hf")
    assert "no such file or folder" in lading.fails(3, "import", "./nothing")
    assert "64 hexadecimal digits" in lading.fails(2, "import", "http://127.0.0.1:9/m.gguf", "--sha256", "1")
    assert "connection refused" in lading.fails(5, "import", "http://127.0.0.1:9/m.gguf")


def test_pulled_from_hugging_face(lading: Lading) -> None:
    shards = {f"Q8_0/m-0000{number}-of-00002.gguf": data for number, data in enumerate(make_shards(2), 1)}
    with fake_hub() as hub:
        hub.add("org/closed", shards, private=True)
        hub.add("org/one", {"tiny.gguf": TINY_CHAT.read_bytes()})
        anonymous = Lading(lading.home, {"HF_ENDPOINT": hub.url})
        assert "HF_TOKEN" in anonymous.fails(4, "pull", "hf.co/org/closed:Q8_0")
        known = Lading(lading.home, {"LADING_HUB": hub.url, "HF_TOKEN": hub.token})
        assert known.ok("pull", "hf.co/org/closed:Q8_0", "-q").startswith("hf.co/org/closed:Q8_0@sha256:")
        url = f"{hub.url}/org/one/blob/main/tiny.gguf"  # the page about it
        digest = hashlib.sha256(TINY_CHAT.read_bytes()).hexdigest()
        assert known.ok("import", url, "--sha256", digest, "-q") == "tiny:latest\n"
        assert all(seen.authorization is None for seen in hub.storage.seen)
