"""One owner a folder: its lock dies with its process, and a second writer is refused at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from automix_transfer import owner
from automix_transfer.errors import UserError
from automix_transfer.io import temporary_name
from automix_transfer.owner import LOCK, owned, owned_file, refuse_foreign, refuse_top_folder
from automix_transfer.training.record.run_folder import refuse_overwriting

HOLD = """
import sys
from automix_transfer import owner
if sys.argv[3] == "without locks":
    from tests.test_owner import without_locks
    without_locks(owner)
alone = {"alone": True} if sys.argv[1] == "alone" else {}
with getattr(owner, "owned_file" if alone else sys.argv[1])(sys.argv[2], **alone):
    print("mine", flush=True)
    input()
"""


def without_locks(module=owner) -> None:
    """A file system that has none."""
    module.BEAT, module.WATCH = 0.2, 1.0

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    module.fcntl.lockf = refuse


@pytest.fixture(params=["locks", "without locks"])
def locks(request, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without locks":
        for name in ("BEAT", "WATCH"):
            monkeypatch.setattr(owner, name, getattr(owner, name))
        monkeypatch.setattr(owner.fcntl, "lockf", owner.fcntl.lockf)
        without_locks()
    return request.param


@contextmanager
def another(output: Path, locks: str, kind: str = "owned") -> Iterator[subprocess.Popen]:
    arguments = [sys.executable, "-c", HOLD, kind, str(output), locks]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"mine\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path, locks: str) -> None:
    folder = tmp_path / "v1.5"
    with another(folder, locks) as process:
        for _ in range(2):
            with (
                pytest.raises(UserError, match=f"v1.5 .*{process.pid}.*{os.uname().nodename}"),
                owned(folder),
            ):
                pass
        process.kill()
        process.wait()
        assert (folder / LOCK).exists()
        with owned(folder), owned(folder):  # a process may enter it again
            assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
    assert not list(folder.iterdir())


def test_a_lock_that_was_copied_with_its_folder_holds_nothing(tmp_path: Path, locks: str) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": 1.0}))
    with owned(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_only_has_the_name_of_a_lock_is_neither_emptied_nor_waited_for(
    kind: str, tmp_path: Path, locks: str
) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.write_text("mine")
    run.mkdir()
    for lock in (run / LOCK, run / ".x.json.lock"):
        if kind == "pipe":
            os.mkfifo(lock)
        elif kind == "folder":
            lock.mkdir()
        else:
            lock.symlink_to(precious if kind == "link" else tmp_path / "new")
    with pytest.raises(UserError, match=r"\.owner\.lock"), owned(run):
        pass
    with pytest.raises(UserError, match=r"\.x\.json\.lock"), owned_file(run / "x.json", alone=True):
        pass
    assert precious.read_text() == "mine" and not (tmp_path / "new").exists()


def test_one_output_has_one_writer_and_a_run_has_one_for_all(tmp_path: Path, locks: str) -> None:
    with another(tmp_path / "out.json", locks, "owned_file"):
        with owned_file(tmp_path / "other.json"):
            pass
        with pytest.raises(UserError, match="out.json"), owned_file(tmp_path / "out.json"):
            pass
    (tmp_path / "run.json").touch()
    with (
        another(tmp_path, locks),
        pytest.raises(UserError, match=str(tmp_path)),
        owned_file(tmp_path / "evaluation.json"),
    ):
        pass


def test_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    """As loader workers do not that outlive a process which was killed."""
    with owned(tmp_path):
        child = os.fork()
        if not child:
            os.execvp("sleep", ["sleep", "60"])
    try:
        with another(tmp_path, "locks"):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_what_a_killed_owner_left_half_written_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("last.pt", ".hidden", "x.part")]
    for file in (*kept, temporary_name(tmp_path / "last.pt")):
        file.touch()
    with owned(tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_what_was_left_below_is_removed_but_where_another_owns(tmp_path: Path) -> None:
    (tmp_path / "maps" / "cat").mkdir(parents=True)
    mine = temporary_name(tmp_path / "maps" / "cat" / "1.npy")
    mine.touch()
    with another(tmp_path / "run", "locks"):
        theirs = temporary_name(tmp_path / "run" / "last.pt")
        theirs.touch()
        with owned(tmp_path):
            pass
        assert theirs.exists() and not mine.exists()


def test_an_outputs_owner_removes_its_half_written_files_only(tmp_path: Path) -> None:
    mine = [temporary_name(tmp_path / name) for name in ("out.json", "out.csv", "out")]
    others = [temporary_name(tmp_path / name) for name in ("out2.json", "other.json")]
    for file in (*mine, *others):
        file.touch()
    with owned_file(tmp_path / "out.json"):
        assert sorted(tmp_path.glob("*.part")) == sorted(others)


def test_a_file_that_no_run_has_needs_no_lock_of_the_run(tmp_path: Path) -> None:
    with owned(tmp_path), another(tmp_path / "r50.pkl", "locks", "alone"):
        with pytest.raises(UserError, match="r50.pkl"), owned_file(tmp_path / "r50.pkl", alone=True):
            pass


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(UserError), owned(tmp_path / "a" / "b"):
        raise UserError("bad input")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_something_else_stays(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    with owned_file(file, lambda path: False, "output"):
        file.touch()
    refuse_foreign(file, lambda path: False, "output")  # empty
    file.write_text('{"about": 1}')
    refuse_foreign(file, lambda path: "about" in path.read_text(), "output")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path in (file, tmp_path, tmp_path / "link", tmp_path / "pipe"):
        with pytest.raises(UserError, match=str(path)):
            refuse_foreign(path, lambda path: False, "output")
    assert file.read_text() == '{"about": 1}'


@pytest.mark.parametrize("folder", ["/", "/usr", "~", "/usr/../"])
def test_a_folder_of_other_things_is_no_runs_folder(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="output"):
        refuse_top_folder(os.path.expanduser(folder), "output")
    refuse_top_folder(tmp_path, "output")
    refuse_top_folder("/nowhere-at-all", "output")


def test_a_run_does_not_write_over_files_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refuse_overwriting(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="config.yaml"):
        refuse_overwriting(tmp_path)
    (tmp_path / "run.json").write_text("{}")  # a run that ended before its first checkpoint
    refuse_overwriting(tmp_path)


@pytest.mark.parametrize("above", ["a file", "closed"])
def test_an_output_whose_folder_cannot_be_made_is_known_first(tmp_path: Path, above: str) -> None:
    place = tmp_path / above
    if above == "closed":
        place.mkdir(mode=0o500)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write everywhere")
    else:
        place.touch()
    with pytest.raises(UserError, match=str(place)), owned_file(place / "new" / "out.json"):
        pytest.fail("the work has begun")
