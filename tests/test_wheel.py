"""What is built is whole: a wheel and a source archive that install and work outside of any checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from automix_transfer import __version__
from automix_transfer.commands.demo import SMALL_DETECTION, SMALL_TRAINING
from tests.test_demo import check_smoke

MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
NAME = f"automix_transfer-{__version__}"
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.wheel,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("build", "detectron2")),
        reason="build or detectron2 is not installed (make setup installs them)",
    ),
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source archive and of the wheel built from it; ``tree/`` has that of the tree."""
    folder = tmp_path_factory.mktemp("built")
    caches = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
    ours = {path.name for path in ROOT.iterdir()} - {"build", "dist", "runs", "datasets"}
    (folder / "source").mkdir()
    for name in sorted(
        ours - set(caches("", ours))
    ):  # copied, for a build leaves files beside what it builds
        path, target = ROOT / name, folder / "source" / name
        shutil.copytree(path, target, ignore=caches) if path.is_dir() else shutil.copy(path, target)
    for kinds, place in (((), "dist"), (("--wheel",), "dist/tree")):
        words = ["-m", "build", "--no-isolation", *kinds, "--outdir", folder / place, folder / "source"]
        done = subprocess.run([sys.executable, "-P", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "DeprecationWarning" not in done.stdout + done.stderr, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [file] = dist.glob("*.whl")
    return file


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = [path for path in (ROOT / "automix_transfer").rglob("*") if path.is_file()]
    expected = {str(path.relative_to(ROOT)) for path in package if "__pycache__" not in path.parts}
    names = {name for name in content(wheel) if not name.startswith(f"{NAME}.dist-info/")}
    assert names == expected and "automix_transfer/py.typed" in names


def test_the_source_archive_builds_the_same_wheel(dist: Path, wheel: Path) -> None:
    [other] = (dist / "tree").glob("*.whl")
    one, two = content(wheel), content(other)
    record = f"{NAME}.dist-info/RECORD"
    assert sorted(one.pop(record).split()) == sorted(two.pop(record).split()) and one == two
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "pretrain/cluster/slurm.sh"} <= names
    assert not any(name.startswith("tests") for name in names)


def test_an_index_can_show_what_it_is(wheel: Path) -> None:
    """As `twine check`: the metadata are valid, and the description renders, with no link into the tree."""
    files = content(wheel)
    found = Metadata.from_email(files[f"{NAME}.dist-info/METADATA"], validate=True)
    assert (found.name, str(found.version)) == ("automix_transfer", __version__)
    assert found.license_expression == "Apache-2.0" and found.license_files == ["LICENSE"]
    assert files[f"{NAME}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert str(found.requires_python) == ">=3.11" and "mixup" in (found.keywords or [])
    assert found.classifiers and not any(name.startswith("License") for name in found.classifiers)
    assert all(link.startswith("https://") for link in (found.project_urls or {}).values())
    assert found.description and found.description_content_type == "text/markdown"
    page = MarkdownIt("commonmark").enable("table").render(found.description)
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert "<table>" in page and links and all(link.startswith("https://") for link in links)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in a stranger's repository; other packages are those of the tests."""
    stranger = tmp_path_factory.mktemp("stranger")
    git = ["git", "-C", str(stranger), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    venv.create(stranger / "venv", with_pip=False)
    [site] = (stranger / "venv").glob("lib/python*/site-packages")
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "-q"]
    into = ["--python", str(stranger / "venv" / "bin" / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(wheel)], check=True)
    # the .pth files of a folder that a .pth names are not read: an editable copy of ours does not come along
    (site / "others.pth").write_text(str(Path(pytest.__file__).parents[1]))
    (stranger / "empty").mkdir()
    return stranger


@pytest.fixture(scope="module")
def run(installed: Path) -> Run:
    """``run("doctor")``: the installed ``automix-transfer doctor`` from the empty folder; it must succeed."""
    ours = ("PYTHONPATH", "PYTHONSAFEPATH", "VIRTUAL_ENV", "DETECTRON2_DATASETS")
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"PATH": f"{installed / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    variables |= {"HOME": str(installed / "home"), "CUDA_VISIBLE_DEVICES": ""}

    def start(*words: str, program: str = "automix-transfer") -> subprocess.CompletedProcess[str]:
        where = {"cwd": installed / "empty", "env": variables}
        command = [str(installed / "venv" / "bin" / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, **where)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{words}: {said}"
        assert not re.search(r"clone|checkout of the|Traceback|make setup", said), said
        return done

    return start


def test_our_code_is_the_installed_one(installed: Path, run: Run) -> None:
    code = (
        "import automix_transfer as a, sys; print(a.__file__, *[m for m in sys.modules if 'editable' in m])"
    )
    found = run("-c", code, program="python").stdout.split()
    assert found == [str(*installed.glob("venv/lib/python*/site-packages/automix_transfer/__init__.py"))]
    assert run("--version").stdout.strip() == __version__


def test_the_demo_runs(installed: Path, run: Run) -> None:
    run("demo", "--smoke")
    check_smoke(installed / "empty" / "runs" / "demo")


def test_every_command_runs(installed: Path, run: Run) -> None:
    """On data that it renders itself, from an empty folder; two chains side by side, for it takes long."""
    place = installed / "empty"
    run("data", "synthetic", "--scale", "0.1")  # done, where the demo has run
    short = [*SMALL_TRAINING, "train.epochs=1", "train.device=cpu"]
    small = [part for word in SMALL_DETECTION for part in word.split("=")]

    def detection() -> None:
        config = ["--config-file", "embedded_r10_automix", "data.root=datasets/imagenet"]
        run("pretrain", *config, "output=runs/pretrain", *short)
        run("export", "--checkpoint=runs/pretrain/last.pt", "--to=detectron2", "--output=backbone.pkl")
        assert "installed already" in run("install-detectron2").stdout
        config = ["--config-file=embedded_R10_FPN", "--num-gpus=0", "--data-root=datasets/VOC2007"]
        run("detect", *config, "MODEL.WEIGHTS", "backbone.pkl", "OUTPUT_DIR", "runs/detect", *small)

    def classification() -> None:
        config = ["--config-file", "embedded_cub", "data.root=datasets/CUB_200_2011"]
        run("finetune", *config, "output=runs/finetune", *short)
        given = ["--dataset=cub", "--root=datasets/CUB_200_2011", "--checkpoint=runs/finetune/last.pt"]
        run("localize", *given, "--output=wsol.json")
        run("evaluate", "--run=runs/finetune", "--suite=clean")
        assert "imagenet_r50_METHOD_100e" in run("pretrain", "--list").stdout
        planned = run("report", "plan", "table1", "--no-measure").stdout  # times take minutes
        assert re.search(r"\b[1-9]\d* runs\b", planned) and "automix-transfer pretrain" in planned
        assert f"{__version__} (installed" in run("doctor").stdout

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(detection), pool.submit(classification)]:
            done.result()
    for file in ("backbone.pkl", "wsol.json", "runs/detect/results.json", "runs/finetune/evaluation.json"):
        assert (place / file).stat().st_size, file
    about = json.loads((place / "runs" / "pretrain" / "run.json").read_text())
    [start] = about["starts"]
    assert start["command"].startswith("automix-transfer pretrain")
    assert about["recipe"]["name"] == "embedded_r10_automix"
    # the commit of the repository that it lies in is somebody else's
    assert (start["version"], start["commit"], start["changed"]) == (__version__, None, None)
    evaluated = json.loads((place / "runs" / "finetune" / "evaluation.json").read_text())["about"]
    assert (evaluated["version"], evaluated["commit"]) == (__version__, None)
