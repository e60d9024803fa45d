"""The layout's promises: which folder may import which, who owns a third party, what start-up may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("modelfile", "oci", "runtime", "server", "cli")  # each may import itself and those before it

# Third party → the only modules that import it ("*" at the end: any module of that folder that starts so).
OWNERS = {
    "oras": {"oci/registry/client.py"},
    "lark": {"modelfile/"},
    "typer": {"cli/"},
    "rich": {"cli/"},
    "gunicorn": {"server/"},
    "falcon": {"server/"},
    "llama_cpp": {"runtime/runner/"},
    "llguidance": {"runtime/runner/"},
    "jinja2": {"runtime/runner/"},
    "prometheus_client": {"server/metrics.py"},
    "cryptography": {
        "oci/signing/key.py",
        "oci/signing/secretbox.py",
        "oci/encryption/jwe.py",
        "oci/encryption/layer_cipher.py",
    },
}


def _sources() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, imported module); ours as ``lading.<folder>.<module>``, whatever way it was written."""
    package = ("lading", *path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield node.lineno, module
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def _edges() -> list[tuple[Path, int, str]]:
    return [(path, line, module) for path in _sources() for line, module in _imports(path)]


def test_dependencies_point_one_way() -> None:
    wrong = []
    for path, line, module in _edges():
        importer = LAYERS.index(path.relative_to(ROOT).parts[0])
        parts = module.split(".")
        if parts[0] == "lading" and len(parts) > 1 and parts[1] in LAYERS[importer + 1 :]:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "imports against the direction cli → server → runtime → oci → modelfile:\n" + "\n".join(
        wrong
    )


def test_source_folders_import_each_other_relatively() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {node.module}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and (node.module or "").split(".")[0] == "lading"
    ]
    assert not wrong, "absolute imports of our own packages in source folders:\n" + "\n".join(wrong)


@pytest.mark.parametrize("party", OWNERS)
def test_each_third_party_has_its_owner(party: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path, line, module in _edges()
        if module.split(".")[0] == party
        and not any(str(path.relative_to(ROOT)).startswith(owner) for owner in OWNERS[party])
    ]
    assert not wrong, f"{party} belongs to {', '.join(sorted(OWNERS[party]))}:\n" + "\n".join(wrong)


def test_only_cli_reads_the_environment_and_prints() -> None:
    wrong = []
    for path in _sources():
        relative = path.relative_to(ROOT)
        if relative.parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and _is_os(node.value):
                wrong.append(f"{relative}:{node.lineno} reads os.{node.attr}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{relative}:{node.lineno} prints")
    assert not wrong, "\n".join(wrong)


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


HEAVY = (
    "llama_cpp",
    "llguidance",
    "numpy",
    "falcon",
    "gunicorn",
    "oras",
    "requests",
    "rich",
    "jinja2",
    "lark",
    "cryptography",
)


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["version"]], ids=" ".join)
def test_quick_commands_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom lading.cli.main import run\n"
        f"code = run({arguments!r})\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print(heavy, file=sys.stderr)\nsys.exit(code or (1 if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"LADING_HOME": str(tmp_path / "home"), "PATH": "", "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
