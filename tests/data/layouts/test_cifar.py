"""CIFAR as released: pixels and labels are those of torchvision; anything else is one sentence."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.datasets import CIFAR10 as TheirCIFAR10

from automix_transfer.data.check import check_root
from automix_transfer.data.layouts.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.errors import UserError

NAMES = {release: [f"class {n}" for n in range(release.classes)] for release in (CIFAR10, CIFAR100)}


def parts(release, count: int = 6):
    """(file name, pixels, labels) of every batch."""
    rng = np.random.default_rng(0)
    for name in (*release.train, *release.test):
        yield (
            name,
            rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            rng.integers(release.classes, size=count).tolist(),
        )


def write_python(release, root: Path) -> Path:
    folder = root / release.python
    folder.mkdir(parents=True)
    for name, data, labels in parts(release):
        (folder / name).write_bytes(
            pickle.dumps({"data": data, release.label_key: labels, "batch_label": name}, protocol=2)
        )
    (folder / release.meta).write_bytes(pickle.dumps({release.names_key: NAMES[release]}, protocol=2))
    return root


def write_binary(release, root: Path) -> Path:
    folder = root / release.binary
    folder.mkdir(parents=True)
    for name, data, labels in parts(release):
        coarse = [] if release.label_bytes == 1 else [np.zeros((len(data), 1), np.uint8)]
        (folder / f"{name}.bin").write_bytes(
            np.hstack([*coarse, np.array(labels, np.uint8)[:, None], data]).tobytes()
        )
    (folder / release.names_file).write_text(
        "\n".join(name.replace(" ", "_") for name in NAMES[release]) + "\n\n"
    )
    return root


@pytest.mark.parametrize(("release", "read"), [(CIFAR10, cifar10), (CIFAR100, cifar100)])
def test_both_archives_hold_the_same(release, read, tmp_path: Path) -> None:
    ours, binary = (
        read(write_python(release, tmp_path / "p"), "train"),
        read(write_binary(release, tmp_path / "b"), "train"),
    )
    assert len(ours) == 6 * len(release.train) and ours.labels == binary.labels
    np.testing.assert_array_equal(ours.pixels, binary.pixels)
    assert ours.classes == NAMES[release] and binary.classes == [
        name.replace(" ", "_") for name in NAMES[release]
    ]
    inside = read(tmp_path / "p" / release.python, "val")  # the folder itself may be given
    np.testing.assert_array_equal(inside.pixels, read(tmp_path / "p", "test").pixels)
    expected = (
        next(data for name, data, _ in parts(release) if name == release.test[0])[0]
        .reshape(3, 32, 32)
        .transpose(1, 2, 0)
    )
    np.testing.assert_array_equal(inside.pixels[0], expected)
    assert inside.paths[3] == tmp_path / "p" / release.python / release.test[0] / "3"


def as_python_2_wrote_it(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch in protocol 2 as in the released files: byte strings, the array by NumPy 1's names."""

    def text(content: bytes) -> bytes:
        return (
            b"U" + bytes([len(content)]) if len(content) < 256 else b"T" + struct.pack("<i", len(content))
        ) + content

    def whole(number: int) -> bytes:
        return b"J" + struct.pack("<i", number)

    state = whole(3) + text(b"|") + b"NNN" + whole(-1) * 2 + whole(0)
    kind = b"cnumpy\ndtype\n(" + text(b"u1") + whole(0) + whole(1) + b"tR(" + state + b"tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
        + whole(0)
        + b"t"
        + text(b"b")
        + b"tR("
        + whole(1)
        + b"("
        + b"".join(map(whole, data.shape))
        + b"t"
        + kind
        + b"I00\n"
        + text(data.tobytes())
        + b"tb"
    )
    return (
        b"\x80\x02}("
        + text(b"batch_label")
        + text(b"testing batch 1 of 1")
        + text(b"labels")
        + b"]("
        + b"".join(map(whole, labels))
        + b"e"
        + text(b"data")
        + array
        + b"u."
    )


def test_a_batch_that_python_2_wrote(tmp_path: Path) -> None:
    _, data, labels = next(parts(CIFAR10))
    content = as_python_2_wrote_it(data, labels)
    # it is what it claims to be
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1")["data"], data)
    (write_python(CIFAR10, tmp_path) / CIFAR10.python / "test_batch").write_bytes(content)
    listing = cifar10(tmp_path, "test")
    np.testing.assert_array_equal(listing.pixels.transpose(0, 3, 1, 2).reshape(6, 3072), data)
    assert listing.labels == labels


def test_it_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_python(CIFAR10, tmp_path)
    monkeypatch.setattr(TheirCIFAR10, "_check_integrity", lambda self: True)  # the released files' digests
    digest = hashlib.md5((tmp_path / CIFAR10.python / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(
        TheirCIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest}
    )
    theirs, ours = TheirCIFAR10(str(tmp_path), train=True), cifar10(tmp_path, "train")
    np.testing.assert_array_equal(ours.pixels, theirs.data)
    assert ours.labels == theirs.targets and ours.classes == theirs.classes


def test_a_data_set_of_it(tmp_path: Path) -> None:
    config = DataConfig(
        dataset="cifar10",
        root=str(write_python(CIFAR10, tmp_path)),
        image_size=32,
        crop="pad",
        test_crop_ratio=1.0,
        limit_per_class=2,
    )
    train, test = train_dataset(config, seed=3), eval_dataset(config)
    assert train[(1, 2)][0].shape == (3, 32, 32) and torch.equal(train[(1, 2)][0], train[(1, 2)][0])
    restored = test[4][0] * torch.tensor(config.std).view(3, 1, 1) + torch.tensor(config.mean).view(3, 1, 1)
    np.testing.assert_array_equal(
        (255 * restored).round().byte().permute(1, 2, 0).numpy(), test.listing.pixels[4]
    )
    assert len(train) == len(train.listing.pixels) <= 20
    assert "every image decodes" in str(check_root(config)) and "32" in str(check_root(config))


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def batch(release, **changes) -> bytes:
    _, data, labels = next(parts(release))
    return pickle.dumps({"data": data, release.label_key: labels, **changes}, protocol=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x", "damaged"),
        (pickle.dumps(Hostile()), "run code"),
        (pickle.dumps([1]), "no batch of CIFAR"),
        (batch(CIFAR10, data=3), "no 'data'"),
        (batch(CIFAR10, data=np.zeros((6, 3072))), "no 'data'"),
        (batch(CIFAR10, data=np.zeros((6, 5), np.uint8)), "no 'data'"),
        (batch(CIFAR10, labels=[1, 2]), "each of its 6 images"),
        (batch(CIFAR10, labels=[1, 2, 3, 4, 5, 10]), "class of 0 to 9"),
        (batch(CIFAR10, labels=["a"] * 6), "class of 0 to 9"),
        (batch(CIFAR10, labels=None), "no 'labels'"),
    ],
)
def test_damaged_batches(tmp_path: Path, content: bytes, words: str) -> None:
    file = write_python(CIFAR10, tmp_path) / CIFAR10.python / "data_batch_3"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        cifar10(tmp_path, "train")
    assert str(file) in str(error.value)


def test_damaged_binaries_and_names(tmp_path: Path) -> None:
    folder = write_binary(CIFAR100, tmp_path) / CIFAR100.binary
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])
    with pytest.raises(UserError, match="train.bin"):
        cifar100(tmp_path, "train")
    (folder / "train.bin").write_bytes(bytes([0, 100]) + bytes(3072))
    with pytest.raises(UserError, match="train.bin has label 100"):
        cifar100(tmp_path, "train")
    (folder / "fine_label_names.txt").write_text("one two")
    with pytest.raises(UserError, match="names of 100 classes"):
        cifar100(tmp_path, "test")
    (folder / "fine_label_names.txt").unlink()
    with pytest.raises(UserError, match="fine_label_names.txt"):
        cifar100(tmp_path, "test")
    with pytest.raises(UserError, match="no split 'dev'"):
        cifar100(tmp_path, "dev")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_are_one_sentence_or_load(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / CIFAR10.python).exists():
        write_python(CIFAR10, tmp_path)
    name = data.draw(st.sampled_from(["test_batch", "batches.meta"]))
    original = (
        batch(CIFAR10)
        if name == "test_batch"
        else pickle.dumps({CIFAR10.names_key: NAMES[CIFAR10]}, protocol=2)
    )
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        # the first bytes hold the structure
        place = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1)))
        content[place % len(content)] ^= data.draw(st.integers(1, 255))
    (tmp_path / CIFAR10.python / name).write_bytes(content)
    try:
        listing = cifar10(tmp_path, "test")
        assert listing.pixels is not None and listing.pixels.shape == (len(listing), 32, 32, 3)
        assert all(0 <= label < len(set(listing.classes)) for label in listing.labels)
    except UserError as error:
        assert str(tmp_path) in str(error)
    finally:
        (tmp_path / CIFAR10.python / name).write_bytes(original)
