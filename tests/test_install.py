"""The set-up: one installer for Detectron2, declared and tested versions that agree, and a Makefile that
installs once."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from automix_transfer.command_line import command
from automix_transfer.commands import install_detectron2

ROOT = Path(__file__).resolve().parents[1]
INSTALLER = ROOT / "automix_transfer" / "commands" / "install_detectron2.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1].strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def archive(folder: Path, files: dict[str, str]) -> Path:
    """A source archive as the index has it."""
    path = folder / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(path, "w:gz") as target:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(text.encode())
            target.addfile(member, io.BytesIO(text.encode()))
    return path


TREE = {
    "LICENSE": "Apache",
    "setup.py": "raise SystemExit('must not run')",
    "tools/train.py": "",
    "detectron2/__init__.py": "x = 1\n",
    "detectron2/modeling/__init__.py": "",
    "detectron2/model_zoo/configs/COCO-Detection/a.yaml": "VERSION: 2\n",
    "detectron2/layers/csrc/vision.cpp": "int main;",
    "detectron2/../../evil.py": "",
    "projects/DeepLab/deeplab/__init__.py": "y = 2\n",
    "projects/DeepLab/train_net.py": "",
}


def test_wheel_holds_the_python_tree_and_nothing_else(tmp_path: Path) -> None:
    wheel = install_detectron2.build_wheel(archive(tmp_path, TREE), tmp_path)
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        assert {name for name in names if ".dist-info" not in name} == {
            "detectron2/__init__.py",
            "detectron2/modeling/__init__.py",
            "detectron2/model_zoo/configs/COCO-Detection/a.yaml",
            "detectron2/projects/deeplab/__init__.py",
        }
        record = content.read("detectron2-0.6.dist-info/RECORD").decode().split()
        assert {line.split(",")[0] for line in record} == names
        line = next(line for line in record if line.startswith("detectron2/__init__.py"))
        assert line.split(",")[1] == f"sha256={install_detectron2.digest(b'x = 1' + bytes([10]))}"
        metadata = content.read("detectron2-0.6.dist-info/METADATA").decode()
        assert (
            "Name: detectron2\n" in metadata
            and "Requires-Dist: omegaconf>=2.1,<2.4\n" in metadata
            and "black" not in metadata
        )


@pytest.mark.slow
def test_pip_accepts_the_wheel(tmp_path: Path) -> None:
    wheel = install_detectron2.build_wheel(archive(tmp_path, TREE), tmp_path)
    options = [
        "-q",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(tmp_path / "site"),
    ]
    assert (
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, str(wheel)], capture_output=True
        ).returncode
        == 0
    )
    assert (tmp_path / "site" / "detectron2" / "__init__.py").read_text() == "x = 1\n"


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Python tree"):
        install_detectron2.build_wheel(archive(tmp_path, {"setup.py": ""}), tmp_path)


def test_the_archive_is_pinned_by_hash() -> None:
    assert (
        re.fullmatch(r"[0-9a-f]{64}", install_detectron2.SHA256)
        and install_detectron2.SHA256 != hashlib.sha256(b"").hexdigest()
    )


@pytest.mark.slow
def test_installing_again_does_nothing() -> None:
    if importlib.util.find_spec("detectron2") is None:
        pytest.skip("Detectron2 is not installed")
    done = subprocess.run(command("install-detectron2"), capture_output=True, text=True)
    assert done.returncode == 0 and "installed already" in done.stdout


def test_tested_versions_lie_in_the_declared_ranges() -> None:
    for requirement in map(Requirement, [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]):
        name = canonicalize_name(requirement.name)
        assert name in PINS, f"{name} is declared, but constraints.txt has no version of it"
        assert requirement.specifier.contains(PINS[name], prereleases=True), (
            f"{requirement} does not admit {PINS[name]}"
        )


def imported() -> set[str]:
    """Top-level modules that the library imports, lazily or not."""
    found = set()
    for file in (ROOT / "automix_transfer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).split(".")[0])
    return found


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_what_is_imported_is_declared() -> None:
    """No package comes along only because another one needs it; Detectron2 has an installer of ours."""
    users = sum((EXTRAS[extra] for extra in EXTRAS if extra not in ("dev", "docs")), PROJECT["dependencies"])
    packages = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}
    for module in imported() - sys.stdlib_module_names - {"automix_transfer", "detectron2"}:
        name = canonicalize_name(packages.get(module, module))
        assert name in names(users), f"{module} is imported, but pyproject.toml does not declare {name}"


@pytest.mark.parametrize("extra, module", [("fast-eval", "hotcoco"), ("detection", "pycocotools")])
def test_extras_are_used(extra: str, module: str) -> None:
    assert module in names(EXTRAS[extra]) & imported()


def test_a_range_begins_with_the_lowest_version() -> None:
    """`make test-lowest` installs exactly it."""
    for line in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]:
        assert re.match(r"[\w-]+>=[\w.]+(,<[\w.]+)?$", line), line


def test_constraints_are_plain_versions() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text and "--hash" not in text and "file:" not in text and len(PINS) > 50


@pytest.mark.parametrize("name", ["omegaconf", "iopath", "hydra-core"])
def test_versions_that_detectron2_needs_are_installed(name: str) -> None:
    assert version(name) == PINS[canonicalize_name(name)]


@pytest.mark.slow
def test_make_installs_once() -> None:
    """Where the stamp of this very state of the files is there, `make setup` has nothing to do."""
    if not list((ROOT / ".venv").glob(".installed-*")):
        pytest.skip("not installed by make")
    dry = subprocess.run(["make", "-n", "-C", str(ROOT), "setup"], capture_output=True, text=True)
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt", INSTALLER)
    joined = (
        subprocess.run(["cksum"], input=b"".join(file.read_bytes() for file in files), capture_output=True)
        .stdout.split()[0]
        .decode()
    )
    assert dry.returncode == 0
    assert ("pip install" in dry.stdout) == (not (ROOT / ".venv" / f".installed-{joined}").exists())


@pytest.mark.slow
def test_make_help_names_the_targets() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True).stdout
    assert all(f"make {target}" in shown for target in ("setup", "demo", "test", "lint", "clean"))


@pytest.mark.slow
def test_pythons_that_are_missing_are_passed_over_by_name() -> None:
    dry = subprocess.run(["make", "-n", "-C", str(ROOT), "test-pythons"], capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr
    for minor in (11, 12, 13):
        there = re.search(rf"^Python 3\.{minor} in (\S+)$", dry.stdout, re.M)
        ran = there and f'{there[1]}/bin/python -m pytest -q -n 2 -m "not slow"' in dry.stdout
        assert ran or f"Python 3.{minor} is not installed here" in dry.stdout


def test_ci_runs_targets_that_exist_within_half_an_hour() -> None:
    stages = re.findall(r"^stage (\S+) (\d+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"lint", "test", "test-slow", "test-wheel", "docs"} == {name for name, _ in stages} <= {*targets}
    assert sum(int(minutes) for _, minutes in stages) < 30
