"""Files that are never half-written, and files that cannot run code."""

import errno
import os
import pickle
import stat
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import pytest
import torch

from automix_transfer.errors import UserError, run_script
from automix_transfer.io import atomic_write, load_torch, read_json, save_torch, write_json
from automix_transfer.rng import derive_generator, derive_seed, reseed_globals
from automix_transfer.shown import LONGEST_LINE, LONGEST_WORD, clean
from automix_transfer.text_files import read_text


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.pt"
    save_torch(path, {"a": 1})

    def full_disk(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"x\.pt .*No space left"):
        atomic_write(path, full_disk)
    assert load_torch(path) == {"a": 1} and os.listdir(tmp_path) == ["x.pt"]


def test_a_full_disk_under_torch_save_is_known_by_its_number(tmp_path):
    """torch raises an error of its own words in place of the file's."""

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    def save(file):
        file._file = Full()
        torch.save({"a": torch.zeros(9)}, file)

    with pytest.raises(UserError, match=r"x\.pt .*No space left"):
        atomic_write(tmp_path / "x.pt", save)
    assert not os.listdir(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, [1])

    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, interrupted)
    assert read_json(path) == [1] and os.listdir(tmp_path) == ["x.json"]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile_was_here",)


def test_pickles_that_run_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Hostile()}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(UserError, match=name):
            load_torch(tmp_path / name)
    assert not (tmp_path / "hostile_was_here").exists()


def test_truncated_files_are_one_sentence(tmp_path):
    save_torch(tmp_path / "x.pt", {"a": torch.zeros(100)})
    content = (tmp_path / "x.pt").read_bytes()
    for length in (0, 1, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "x.pt").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.pt"):
            load_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "9" * 5000, "[" * 100000, "\x00"])
def test_wrong_json_is_one_sentence(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json.* is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_key_that_stands_twice_is_named(tmp_path):
    (tmp_path / "x.json").write_text('[{"images": [1], "info": 0, "images": [2]}]')
    with pytest.raises(UserError, match=r"x\.json.*'images'"):
        read_json(tmp_path / "x.json")


def test_scripts_exit_with_2_and_one_line(capsys):
    def fails():
        raise UserError("field x of y.yaml is wrong; set it to z")

    with pytest.raises(SystemExit) as caught:
        run_script(fails)
    assert (
        caught.value.code == 2
        and capsys.readouterr().err == "error: field x of y.yaml is wrong; set it to z\n"
    )


@pytest.mark.parametrize(
    ("number", "files", "shown"),
    [
        (errno.ENAMETOOLONG, ("a" * 300,), "a" * 300),
        (errno.EACCES, (b"x/y.pt",), "x/y.pt"),
        (errno.EXDEV, ("x", None, "y"), "x -> y"),
    ],
)
def test_the_systems_word_on_a_file_is_one_line(capsys, number, files, shown):
    def fails():
        raise OSError(number, os.strerror(number), *files)

    with pytest.raises(SystemExit) as caught:
        run_script(fails)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: {shown} cannot be used ({os.strerror(number)}); ")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EPIPE, "Broken pipe"),
        OSError("no number"),
        OSError(errno.EBADF, "Bad descriptor", 7),
        HTTPError("https://host/x", 404, "Not Found", Message(), None),
    ],
)
def test_a_failure_that_names_no_file_keeps_its_traceback(error):
    def fails():
        raise error

    with pytest.raises(OSError) as caught:
        run_script(fails)
    assert caught.value is error


def test_randomness_depends_on_its_coordinates_alone():
    # on every machine, or no run could be resumed elsewhere
    assert derive_seed(0, "sample", 1, 2) == 1299218403789085138
    seeds = {
        derive_seed(s, p, a, b) for s in range(3) for p in ("x", "y") for a in range(3) for b in range(3)
    }
    assert len(seeds) == 54 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a", 11) != derive_seed(1, "a", 1, 1)
    first = torch.rand(3, generator=derive_generator(0, "x", 5))
    assert torch.equal(first, torch.rand(3, generator=derive_generator(0, "x", 5)))
    reseed_globals(0, "x", 1)
    one = torch.rand(2)
    reseed_globals(0, "x", 1)
    assert torch.equal(one, torch.rand(2))
    torch.manual_seed(derive_seed(0, "x", 1))
    assert torch.equal(one, torch.rand(2))


def test_text_of_null_bytes_is_no_text(tmp_path):
    """UTF-16 without its mark would be read as other names, and a sparse file would fill the memory."""
    (tmp_path / "names.txt").write_bytes("bird\nfish\n".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"names\.txt.*UTF-16"):
        read_text(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("bird\n", encoding="utf-16")
    assert read_text(tmp_path / "names.txt") == "bird\n"
    for name, read in (("large.txt", read_text), ("large.json", read_json)):
        (tmp_path / name).write_text('{"images": [')
        os.truncate(tmp_path / name, 50 << 30)
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


def test_long_foreign_names_are_shortened_where_they_are_shown():
    assert clean("a" * LONGEST_WORD) == "a" * LONGEST_WORD
    word = clean(f"image {'a' * 10**6}z.jpg is missing")
    assert len(word) < LONGEST_WORD + 30 and word.endswith("az.jpg is missing") and "aaa...aaa" in word
    assert len(clean("some words " * 10**5)) == LONGEST_LINE
    assert clean("a name of a class", 10) == "a name...s"
    with pytest.raises(UserError) as caught:
        raise UserError("x" * 10**6, "another line")
    assert len(str(caught.value)) < LONGEST_WORD + 30


def test_names_that_are_no_utf_8_come_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "x.json", {name: [name]})
    assert read_json(tmp_path / "x.json") == {name: [name]}
    assert clean(f"{name}\x1b]0;x") == r"caf\udce9\x1b]0;x"


def test_a_file_system_that_syncs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMB, some FUSE: the file itself is synced, and that is all that can be had."""
    sync = os.fsync

    def no_folders(number: int, error: int = errno.EINVAL) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(error, os.strerror(error))
        sync(number)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    monkeypatch.setattr(os, "fsync", lambda number: no_folders(number, errno.EIO))
    with pytest.raises(UserError, match=r"a\.json"):
        write_json(tmp_path / "a.json", {"a": 2})
