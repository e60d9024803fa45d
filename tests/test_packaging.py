"""The wheel and the source distribution hold `lading.*` and nothing at the top level, and they run."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("modelfile", "oci", "runtime", "server", "cli")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from that sdist."""
    target = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_package_list_matches_the_disk() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    on_disk = {
        "lading." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
        if path.parent != ROOT / "cli" / "_root"
    }
    assert set(configuration["packages"]) == on_disk | {"lading"}
    assert set(configuration["package-dir"]) == on_disk | {"lading"}


def test_wheel_holds_every_source_file_and_no_other_top_level(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lading"}
    sources = {
        f"lading/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for suffix in ("*.py", "*.lark")
        for path in (ROOT / folder).rglob(suffix)
        if "_root" not in path.parts
    }
    assert sources <= set(names), sorted(sources - set(names))
    assert "lading/py.typed" in names


def test_sdist_builds_without_the_checkout(distributions: Path) -> None:
    # `build` made the wheel from the unpacked sdist, so that it is complete is shown; it carries the licence.
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())


def test_installed_wheel_runs(distributions: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (wheel,) = distributions.glob("*.whl")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        cwd=tmp_path,
    )
    # The dependencies come from the environment that runs this test: compiling them again proves nothing.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    (environment / "dependencies").mkdir()
    for path in paths:
        for entry in Path(path).iterdir():
            if not entry.name.startswith(("__editable__", "lading")):
                (environment / "dependencies" / entry.name).symlink_to(entry)
    done = subprocess.run(
        [environment / "bin" / "lading", "--version"],
        env={**os.environ, "PYTHONPATH": str(environment / "dependencies")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lading version "), done.stdout
    probe = "import lading, sys; assert 'site-packages' in lading.__file__; import importlib.util as u\n"
    probe += f"bad = [n for n in {FOLDERS!r} if u.find_spec(n)]; sys.exit(str(bad) if bad else 0)"
    subprocess.run([python, "-c", probe], check=True, cwd=tmp_path)


def test_no_source_folder_is_importable_at_top_level(tmp_path: Path) -> None:
    probe = (
        f"import importlib.util as u, sys; sys.exit(str([n for n in {FOLDERS!r} if u.find_spec(n)] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "", done.stderr
