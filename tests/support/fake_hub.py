"""Hugging Face's Hub, in the shapes in which it was seen to answer, and a storage host that it redirects to.

Repositories are files by path. Large ones are with "LFS": the list of files tells their SHA-256, and their
bytes are at the storage host, behind addresses that are signed. Small ones are served as they are.

Source: Hugging Face, "Hub API Endpoints" and "Use Ollama with any GGUF model"; huggingface_hub.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry

LFS_FROM = 1000
"""Bytes from which a file is with LFS."""
PAGE = 3
"""Files in one answer of the listing."""


@dataclass
class FakeHub:
    """``private``: repositories that are there for ``token`` alone."""

    hub: ScriptedRegistry
    storage: ScriptedRegistry
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    token: str = "hf_secret"

    @property
    def url(self) -> str:
        return self.hub.url

    def add(self, name: str, files: Mapping[str, bytes], *, private: bool = False) -> None:
        self.repositories[name] = dict(files)
        if private:
            self.private.add(name)

    def answer(self, seen: Seen) -> Reply | None:
        for pattern, reply in (
            (r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<rest>[^/]+)", self._tree),
            (r"/v2/(?P<name>[^/]+/[^/]+)/(?P<rest>.+)", self._registry),
            (r"/(?P<name>[^/]+/[^/]+)/resolve/main/(?P<rest>.+)", self._resolve),
        ):
            match = re.fullmatch(pattern, seen.path)
            if match is None:
                continue
            name = match["name"]
            if name not in self.repositories:
                # Strangers are not told what does not exist.
                return _refused() if seen.authorization is None else Reply(404, {}, b'{"error":"not found"}')
            if name in self.private and seen.authorization != f"Bearer {self.token}":
                return _refused()
            return reply(seen, name, match["rest"])
        return None

    def _tree(self, seen: Seen, name: str, revision: str) -> Reply:
        assert seen.parameters["recursive"] == ["true"]
        if revision != "main":
            return Reply(404, {}, b'{"error":"Invalid rev id"}')
        files = self.repositories[name]
        start = int(seen.parameters.get("cursor", ["0"])[0])
        entries: list[dict[str, object]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "x"}]
        for path, data in list(files.items())[start : start + PAGE]:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"type": "file", "oid": git, "size": len(data), "path": path}
            if len(data) >= LFS_FROM:
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if start + PAGE < len(files):
            headers["Link"] = f'<{self.url}{seen.path}?recursive=true&cursor={start + PAGE}>; rel="next"'
        return Reply(200, headers, json.dumps(entries).encode())

    def _resolve(self, seen: Seen, name: str, path: str) -> Reply:
        data = self.repositories[name].get(path)
        if data is None:
            return Reply(404, {"X-Error-Code": "EntryNotFound"}, b"Entry not found")
        if len(data) < LFS_FROM:
            return Reply(200, {"ETag": '"x"'}, data)
        headers = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        return self._elsewhere(data, 302, headers)

    def _elsewhere(self, data: bytes, status: int, headers: Mapping[str, str]) -> Reply:
        self.storage.blobs[f"sha256:{sha256(data)}"] = data
        signed = f"{self.storage.url}/v2/x/blobs/sha256:{sha256(data)}?X-Amz-Signature=secret"
        return Reply(status, {**headers, "Location": signed}, b"")

    def _registry(self, seen: Seen, name: str, rest: str) -> Reply:
        files = self.repositories[name]
        if rest.startswith("blobs/"):
            digest = rest.removeprefix("blobs/sha256:")
            for data in (*files.values(), _CONFIG):
                if sha256(data) == digest:
                    return self._elsewhere(data, 307, {}) if len(data) >= LFS_FROM else Reply(200, {}, data)
            return Reply(404, {}, b'{"error":"not found"}')
        tag = rest.removeprefix("manifests/")
        fitting = [p for p in files if p.endswith(".gguf") and (tag == "latest" or tag.lower() in p.lower())]
        if len(fitting) != 1:
            said = "The specified tag is a sharded GGUF. Ollama does not support this yet."
            return Reply(400, {"Content-Type": "application/json"}, json.dumps({"error": said}).encode())
        layers = [("model", files[fitting[0]])]
        layers += [(kind, files[kind]) for kind in ("template", "system", "params") if kind in files]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": _described("application/vnd.docker.container.image.v1+json", _CONFIG),
            "layers": [_described(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers],
        }
        return Reply(200, {"Content-Type": "text/plain; charset=utf-8"}, json.dumps(manifest).encode())


_CONFIG = b'{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}


def _refused() -> Reply:
    headers = {"WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"'}
    return Reply(401, headers, b'{"error":"Invalid username or password."}')


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Runs one until the end of the block."""
    with scripted_registry() as hub, scripted_registry() as storage:
        made = FakeHub(hub, storage)
        hub.on("*", "/", made.answer)
        yield made
