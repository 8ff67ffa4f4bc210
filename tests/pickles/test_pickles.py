"""Foreign pickles: what the field writes is read as torch and pickle read it, nothing runs, and small files
stay small."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import os
import pickle
import struct
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from automix_transfer.errors import UserError
from automix_transfer.io import load_arrays, load_npy, load_torch, regular_file
from automix_transfer.pickles import machine
from automix_transfer.pickles.inert import Inert

KINDS = pytest.mark.parametrize("kind", ["zip", "legacy"])


def save(path: Path, value: Any, kind: str = "zip") -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    return path


class Colour(enum.Enum):
    RED = 1


@dataclass
class Options:
    rate: float = 0.1


PASSED = {
    "namespace": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1])),
    "omegaconf": OmegaConf.create({"a": [1, {"b": None}], "c": 0.5}),
    "dataclass": Options(),
    "enum": Colour.RED,
    "path": Path("x/y"),
    "time": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "delta": datetime.timedelta(seconds=3),
    "partial": functools.partial(torch.nn.functional.relu, inplace=True),
    "class": torch.nn.Linear,
    "function": np.mean,
    "device": torch.device("cuda", 1),
    "dtype": np.dtype("float32"),
    "deque": collections.deque([1, 2]),
    "random": np.random.RandomState(0),
    "network": torch.nn.Linear(2, 2),
    "objects": np.array([None, "a"], dtype=object),
    "sparse": torch.eye(2).to_sparse(),
}
READ = {
    "default": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "scalar": (np.float64(0.5), 0.5),
    "whole": (np.int32(7), 7),
    "size": (torch.Size([1, 2]), (1, 2)),
    "dtype": (torch.bfloat16, torch.bfloat16),
    "set": ({1, "a"}, {1, "a"}),
    "large": (2**100, 2**100),
    "bytes": (b"\0\xff", b"\0\xff"),
    "text": ("ä", "ä"),
}


@KINDS
@pytest.mark.filterwarnings("ignore:Sparse")
def test_objects_of_any_library_are_passed_over_and_values_are_read(tmp_path: Path, kind: str) -> None:
    plain = {key: value for key, (value, _) in READ.items()}
    found = load_torch(save(tmp_path / "x.pt", {"a": PASSED, "b": plain, "w": torch.arange(3.0)}, kind))
    passed = {key for key, value in found["a"].items() if isinstance(value, Inert)}
    assert passed == set(PASSED)
    assert found["b"] == {key: value for key, (_, value) in READ.items()}
    assert found["w"].tolist() == [0, 1, 2]


@KINDS
def test_tensors_are_those_of_torch_with_their_shared_memory(tmp_path: Path, kind: str) -> None:
    base = torch.arange(24.0)
    tensors = {
        "whole": base,
        "part": base.view(4, 6).t()[1:, ::2],
        "flat": base.expand(2, 24),
        "none": torch.empty(0, 3),
        "number": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{
            str(kind): torch.ones(3).to(kind)
            for kind in (torch.bfloat16, torch.half, torch.bool, torch.cfloat)
        },
        **({"v3": torch.ones(3, dtype=torch.uint16)} if kind == "zip" else {}),
    }
    path = save(tmp_path / "x.pt", tensors, kind)
    found, wanted = load_torch(path), torch.load(path, weights_only=True)
    for key, value in wanted.items():
        assert torch.equal(found[key], value.detach()) and found[key].dtype == value.dtype, key
        assert found[key].stride() == value.stride() and not found[key].requires_grad, key
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_the_versions_of_modules_stay_with_a_state_dict(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert load_torch(save(tmp_path / "x.pt", state))._metadata == state._metadata  # type: ignore[attr-defined]


def test_a_flipped_byte_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", {"a": torch.arange(1000.0)})
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<2f", 500.0, 501.0)) + 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"][500] != 500  # torch does not notice
    with pytest.raises(UserError, match=r"x\.pt is damaged"):
        load_torch(path)


def test_a_file_without_sums_or_packed_again_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        path = save(tmp_path / "x.pt", {"a": torch.arange(1000.0)})
    finally:
        torch.serialization.set_crc32_options(before)
    assert load_torch(path)["a"][999] == 999
    save(path, {"a": torch.arange(1000.0)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert load_torch(tmp_path / "y.pt")["a"][999] == 999


# --- hostile


class Calls:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, "touch ran"), "system"),
        (Calls(subprocess.Popen, ["touch", "ran"]), "Popen"),
        (Calls(eval, "open('ran', 'w')"), "eval"),
        (Calls(Path.touch, Path("ran")), "Path.touch"),
        (Calls(functools.reduce, os.system, ["touch ran"]), "reduce"),
        (Calls(torch.load, "x.pt"), "torch.serialization.load"),
        (Calls(np.testing.measure, "open('ran', 'w')"), "measure"),
    ],
)
def test_a_call_is_refused_by_its_name_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "pickle":
        Path("x.pt").write_bytes(pickle.dumps({"model": call}))
    else:
        save(Path("x.pt"), {"model": torch.zeros(1), "x": call}, kind)
    with pytest.raises(UserError, match=rf"x\.pt wants to run code .*{name}"):
        load_torch("x.pt")
    assert not Path("ran").exists()


MARK, STOP = b"\x80\x04", b"."
TEXT = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\0"
KEYS = b"".join(b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"K\0" for n in range(9))
#: tuples of one hash, since -1 and -2 have one
ALIKE = b"J\xff\xff\xff\xffq\1J\xfe\xff\xff\xffq\2" + b"".join(
    b"(" + b"".join(b"h\1" if number >> bit & 1 else b"h\2" for bit in range(12)) + b"t"
    for number in range(3000)
)
WALKED = b"N" + b"2\x86" * 60  # a tuple of 2**60 values, counted each time
COMPLEX = (
    b"cnumpy\nscalar\nq\1cnumpy\ndtype\n(X\3\0\0\0c16K\0K\1tRq\2]("
    + b"".join(b"h\1h\2C\x10" + struct.pack("<dd", 7 - 1000003 * n, n) + b"\x86R" for n in range(3000))
    + b"e"
)
BOMBS = {
    "encode": b"(" + TEXT + b"c_codecs\nencode\n(h\0X\x06\0\0\0latin1tR" * 5000 + b"l",
    "codec": b"c_codecs\nencode\n(" + TEXT + b"X\x04\0\0\0idnatR",
    "copies": b"((K\0q\1" + b"h\1" * 200_000 + b"lq\0" + b"cbuiltins\nset\n(h\0tR" * 20_000 + b"l",
    "doubled": b"]q\0K\1a" + b"".join(bytes((0x28, 0x68, n, 0x68, n, 0x6C, 0x71, n + 1)) for n in range(60)),
    "lists": b"(" + b"]" * 60_000 + b"l",
    "sets": b"(" + b"\x8f" * 60_000 + b"l",
    "numbers": b"(" + b"K\0" * 60_000 + b"l",
    "length": b"\x8e" + struct.pack("<Q", 2**40),
    "bytearray": b"\x96" + struct.pack("<Q", 2**40),
    "itself": b"]q\0h\0a",
    "deep": b"]" * 50_000 + b"a" * 49_999,
    "keys": b"}(" + KEYS + b"u",
    "frozen keys": b"(" + KEYS.replace(b"K\0", b"") + b"\x91",
    "tuples": b"(" + ALIKE + b"\x91",
    "walked": b"}" + WALKED + b"Ns",
    "frozen walked": b"(" + WALKED + b"\x91",
    "complex": b"cbuiltins\nset\n(" + COMPLEX + b"tR",
    "digits": b"L" + b"9" * 200_000 + b"L\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_does_not_become_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(machine, "MOST_STEPS", 100_000)
    monkeypatch.setattr(machine, "FREE_BYTES", 2**20)
    path = tmp_path / "x.pkl"
    path.write_bytes(MARK + BOMBS[name] + STOP)
    with pytest.raises(UserError, match=r"x\.pkl is damaged"):
        load_arrays(path, "take another")


def in_zip(path: Path, changes: dict[str, bytes], kind: int = zipfile.ZIP_STORED, value: Any = None) -> Path:
    """A file of torch, some of whose records are others, with sums that are right."""
    save(path, {"a": torch.arange(10.0)} if value is None else value)
    with zipfile.ZipFile(path) as old:
        records = {name.split("/", 1)[1]: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", kind) as new:
        for name, content in {**records, **changes}.items():
            new.writestr(f"x/{name}", content)
    return path


def test_tensors_that_are_larger_than_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(UserError, match=r"x\.pt is damaged"):
        load_torch(in_zip(path, {"data/0": b"\0" * 36}))
    with pytest.raises(UserError, match=r"x\.pt .*unpacks to a large one"):
        load_torch(in_zip(path, {"data/0": b"\0" * 2**27}, zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match=r"x\.pt is damaged"):  # a terabyte of one number
        load_torch(save(path, {"a": torch.zeros(1).expand(2**38)}))
    with pytest.raises(UserError, match=r"x\.pt is damaged"):
        load_torch(save(path, {str(n): torch.zeros(1).expand(2**20) for n in range(1000)}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"ckpt.pth".ljust(257, b"\0") + b"ustar\x0000" + bytes(500), "tar"),
    ],
)
def test_other_files_are_called_by_what_they_are(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_torch(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_archives_of_programs_and_of_arrays_are_no_files_of_tensors(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "y.pt")
    with pytest.raises(UserError, match="TorchScript"):
        load_torch(tmp_path / "y.pt")
    np.savez(tmp_path / "z.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="without tensors"):
        load_torch(tmp_path / "z.npz")


def test_devices_and_pipes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "none", "."):
        for read in (load_torch, lambda path: load_arrays(path, "x"), lambda path: load_npy(path, "x")):
            with pytest.raises(UserError, match="not a file"):
                read(tmp_path / name)


def npy(path: Path, shape: str, kind: str = "<f4", content: bytes = b"\0" * 16) -> Path:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content)
    return path


@pytest.mark.parametrize("lazy", [False, True])
def test_arrays_have_the_bytes_that_their_shape_says(tmp_path: Path, lazy: bool) -> None:
    assert load_npy(npy(tmp_path / "x.npy", "(2, 2)"), "x", lazy).shape == (2, 2)
    for shape in (
        "(-1,)",
        "(-2, -2)",
        "(2, 3)",
        "(1000000000000,)",
        "(99999999999, 99999999999)",
        "(2.0,)",
        "2",
    ):
        with pytest.raises(UserError, match=r"x\.npy is damaged"):
            load_npy(npy(tmp_path / "x.npy", shape), "x", lazy)
    for depth in (500, 9000):
        with pytest.raises(UserError, match=r"x\.npy is damaged"):
            load_npy(npy(tmp_path / "x.npy", "(" * depth + ")" * depth), "x", lazy)
    with pytest.raises(UserError, match=r"x\.npy holds pickled objects"):
        load_npy(npy(tmp_path / "x.npy", "(2,)", "|O"), "x", lazy)
    assert regular_file(tmp_path / "x.npy", "x") == tmp_path / "x.npy"
