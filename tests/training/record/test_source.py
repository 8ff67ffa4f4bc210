"""A record names our own checkout's commit, and never that of a repository that it happens to lie in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from automix_transfer import __version__
from automix_transfer.runs.folder import commit_of
from automix_transfer.training.record import run_folder
from automix_transfer.training.record.run_folder import git_commit

OURS = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
STRANGERS = '[project]\nname = "thesis"\ndependencies = ["automix_transfer"]\n'


def git(folder: Path, *arguments: str) -> str:
    words = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path, project: str, package: str, tracked: bool = True) -> Path:
    """A repository with ``project`` as its pyproject.toml and a copy of us below ``package``."""
    module = folder / package / "automix_transfer" / "training" / "record" / "run_folder.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", "pyproject.toml", *(["."] if tracked else []))
    git(folder, "commit", "-qm", "all")
    return module


pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_a_checkout_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = repository(tmp_path / "ours", OURS, "")
    repository(tmp_path / "theirs", STRANGERS, "")
    monkeypatch.setattr(run_folder, "__file__", str(module))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))  # as in a hook of theirs
    monkeypatch.chdir(tmp_path / "theirs")
    found = git_commit()
    monkeypatch.delenv("GIT_DIR")
    commit = git(tmp_path / "ours", "rev-parse", "HEAD")
    assert found == {"version": __version__, "commit": commit, "changed": False}
    assert commit_of(found) == commit[:10]
    module.write_text("x = 1")
    assert git_commit()["changed"] and commit_of(git_commit()) == commit[:10] + "+"


@pytest.mark.parametrize(
    "project, package, tracked",
    [
        (STRANGERS, ".venv/lib/python3.11/site-packages", False),  # an environment inside of their repository
        (OURS, ".venv/lib/python3.11/site-packages", False),  # and inside of ours
        (STRANGERS, "", False),  # pip install --target .
        (STRANGERS, "", True),  # and they committed it
        (OURS, "vendor/automix", True),
    ],
)
def test_a_copy_inside_of_a_repository_names_its_version(
    project: str, package: str, tracked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = repository(tmp_path, project, package, tracked)
    monkeypatch.setattr(run_folder, "__file__", str(module))
    found = git_commit()
    assert found == {"version": __version__, "commit": None, "changed": None}
    assert commit_of(found) == f"v{__version__}" and commit_of({}) == ""
