"""Other libraries' caches go to a temporary folder where their own places cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from automix_transfer.host import writable
from automix_transfer.host.writable import can_write, settle

NAMES = ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_HOME", "LOGNAME", "USER", "TMPDIR")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No setting of any place, and an own folder for temporary files."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writable._own_folder.cache_clear()
    monkeypatch.setattr(writable.atexit, "register", lambda *_, **__: None)
    return monkeypatch


def test_what_can_be_written_is_left_alone(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("HOME", str(tmp_path))
    bare.setenv("LOGNAME", "ann")
    settle()
    assert {name: os.environ.get(name) for name in NAMES if name in os.environ} == {
        "HOME": str(tmp_path),
        "LOGNAME": "ann",
    }
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", None])
def test_caches_move_where_home_cannot_be_written(
    bare: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    if home is None:  # and the user has no entry that would name one
        bare.setattr(os.path, "expanduser", lambda path: path.replace("~", os.environ.get("HOME", "~")))
    else:
        bare.setenv("HOME", home)
    bare.setattr(writable, "can_write", lambda folder: tmp_path in Path(folder).parents)
    settle()
    (folder,) = tmp_path.iterdir()
    moved = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_HOME")
    assert os.environ["HOME"] == (home or str(folder))
    assert [os.environ.get(name) for name in moved] == [str(folder) if home else None] * 3


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OSError, match="the current folder"):
        settle()


def test_a_user_without_a_name_gets_one(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found")

    bare.setenv("HOME", str(tmp_path))
    bare.setattr(writable.getpass, "getuser", unknown)
    settle()
    assert os.environ["LOGNAME"] == str(os.getuid())


@pytest.mark.parametrize(
    "words", [["output=HERE/new/run"], ["--output", "HERE/x.json"], ["OUTPUT_DIR", "HERE"]]
)
def test_the_output_stands_in_for_tmp(bare: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    bare.setenv("HOME", str(tmp_path))
    bare.setattr(tempfile, "gettempdir", nowhere)
    bare.setattr(writable, "can_write", lambda folder: tmp_path in (folder, *Path(folder).parents))
    settle([word.replace("HERE", str(tmp_path)) for word in words])
    assert os.environ["TMPDIR"] == tempfile.tempdir == str(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        settle(["output=/proc/none"])
    assert caught.value.filename == "TMPDIR"


def test_a_folder_that_could_be_made_can_be_written(tmp_path: Path) -> None:
    assert can_write(tmp_path / "a" / "b")
    file = tmp_path / "file"
    file.touch()
    assert not can_write(file) and not can_write(file / "below")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setuid") or os.name != "posix" or os.getuid() != 0, reason="needs root")
def test_every_room_is_imported_by_a_user_without_home_name_and_asserts() -> None:
    """As `python -O`, by a user id without an entry; reading stays allowed, writing does not."""
    run = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": "/nowhere"}
    for command in ("pretrain", "localize", "evaluate", "report"):
        done = subprocess.run(
            [*run, *reading, sys.executable, "-O", "-m", "automix_transfer", command, "--help"],
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
