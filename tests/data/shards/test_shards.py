"""Tar shards: the samples of the folder that was packed, in its order, and no traceback from any file."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automix_transfer.data import check
from automix_transfer.data.loader import train_loader
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.shards import packing
from automix_transfer.data.shards.index import shards
from automix_transfer.data.shards.tar import TarError, members
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.errors import UserError
from tests.data import trees


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 21 + 21 images in 3 classes, and the same in shards."""
    root, output = trees.folders(tmp_path / "folders", classes=3, images=7), tmp_path / "shards"
    for split in ("train", "val"):
        packing.pack(load_listing(DataConfig(root=str(root)), split), output, split)
    return root, output


def write(path: Path, files: dict[str, bytes], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def png(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    trees.Image.new("RGB", (4, 4), (seed, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_batches_are_those_of_the_folder(packed: tuple[Path, Path]) -> None:
    """Training on shards has the bits of training on the folder, with workers and from mid-epoch, too."""
    folder, output = packed
    options = {"image_size": 8, "val_split": "val"}
    first = train_dataset(DataConfig(root=str(folder), **options), seed=3)
    second = train_dataset(DataConfig(root=str(output), dataset="shards", **options), seed=3)
    assert first.classes == second.classes and first.labels.tolist() == second.labels.tolist()
    ours = list(train_loader(second, 4, seed=1, epoch=2, start_batch=2, workers=2))
    theirs = list(train_loader(first, 4, seed=1, epoch=2, start_batch=2))
    assert len(ours) == 3
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert torch.equal(
        eval_dataset(DataConfig(root=str(output), dataset="shards", **options))[20][0],
        eval_dataset(DataConfig(root=str(folder), **options))[20][0],
    )


def test_limits_and_the_check(packed: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    _, output = packed
    config = DataConfig(root=str(output), dataset="shards", limit_classes=2, limit_per_class=3)
    listing = load_listing(config, "train")
    assert (
        (len(listing), listing.classes) == (6, ["class_0", "class_1"])
        and listing.packed is not None
        and len(listing.packed.spans) == 6
    )
    assert check.main(["--dataset", "shards", "--root", str(output)]) == 0
    text = capsys.readouterr().out
    assert (
        "every image decodes" in text and "train: 21 images of 3 classes" in text and "16 to 16 wide" in text
    )


def test_a_bad_image_in_a_shard(tmp_path: Path) -> None:
    """Named by shard and member, left out with on_bad_image=skip, judged anew when the shard changes."""
    bad = png()[:30]
    shard = write(
        tmp_path / "train-0.tar", {"a/0.png": png(), "a/1.png": bad, "b/2.png": png(), "b/3.png": b""}
    )
    config = DataConfig(
        root=str(tmp_path), dataset="shards", val_split="train", image_size=4, on_bad_image="skip"
    )
    assert len(train_dataset(config)) == len(train_dataset(config)) == 2
    with pytest.raises(UserError, match="train-0.tar/a/1.png is"):
        train_dataset(DataConfig(root=str(tmp_path), dataset="shards", image_size=4))[1]
    with pytest.raises(UserError, match="train-0.tar/b/3.png is empty"):
        train_dataset(DataConfig(root=str(tmp_path), dataset="shards", image_size=4))[3]
    write(shard, {"a/0.png": png(), "a/1.png": png(), "b/2.png": png()})
    assert len(train_dataset(config)) == 3


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_layouts_of_others(tmp_path: Path, form: int) -> None:
    """WebDataset's ImageNet shards and the tar of a folder of classes, in every format of tar programs."""
    long = "x" * 120 if form != tarfile.USTAR_FORMAT else "x" * 60  # beyond the 100 bytes of a plain header
    write(
        tmp_path / "wds" / "imagenet1k-train-0000.tar",
        {
            f"n01/{long}.jpg": b"one",
            f"n01/{long}.cls": b"4",
            f"n01/{long}.json": b"{}",
            "é.jpeg": b"three",
            "é.cls": b"0\n",
        },
        format=form,
    )
    write(tmp_path / "wds" / "imagenet1k-validation-0000.tar", {"0.png": b"v", "0.cls": b"2"}, format=form)
    train = shards(tmp_path / "wds", "train")
    assert (
        train.labels == [4, 0]
        and train.classes == ["0", "1", "2", "3", "4"]
        and train.paths[1].name == "é.jpeg"
    )
    assert train.packed is not None and [train.packed.read(index) for index in (0, 1)] == [b"one", b"three"]
    assert shards(tmp_path / "wds", "validation").classes == train.classes
    (tmp_path / "wds" / "classes.txt").write_text("".join(f"class {n}\n" for n in range(6)))
    assert shards(tmp_path / "wds", "validation").classes[5] == "class 5"

    write(
        tmp_path / "dirs" / "train" / "a.tar",
        {f"./dog/{long}.png": b"1", "./cat/1.png": b"2", "./README": b""},
        format=form,
    )
    write(tmp_path / "dirs" / "val" / "a.tar", {"dog/deep/er.png": b"1"}, format=form)
    train = shards(tmp_path / "dirs", "train")
    assert (train.labels, train.classes) == ([1, 0], ["cat", "dog"]) and shards(
        tmp_path / "dirs", "val"
    ).labels == [1]


def test_the_reader_agrees_with_tarfile(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    trees.folders(source, classes=2, images=2)
    (source / "link").symlink_to("train")
    (source / ("long " * 40)).write_bytes(bytes(1000))
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        if form == tarfile.USTAR_FORMAT:  # which has no room for such a name
            (source / ("long " * 40)).unlink()
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
            tar.add(source, "tree")
        with tarfile.open(tmp_path / "x.tar") as tar:
            expected = [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
        assert list(members(tmp_path / "x.tar")) == expected and len(expected) == (
            8 if form == tarfile.USTAR_FORMAT else 9
        )


def test_packing_goes_on_and_refuses_what_it_cannot_pack(
    packed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    root, output = packed
    arguments = ["--dataset", "imagefolder", "--root", str(root), "--output", str(output)]
    shard = output / "train-000000.tar"
    before, when = shard.read_bytes(), shard.stat().st_mtime_ns
    assert packing.main(arguments) == 0 and shard.stat().st_mtime_ns == when
    assert "train: 21 images of 3 classes in 1 shards" in capsys.readouterr().out
    shard.write_bytes(before[:-1])
    packing.main(arguments)
    assert shard.read_bytes() == before
    shutil.copy(shard, output / "train-000007.tar")
    with pytest.raises(UserError, match="train-000007.tar"):
        packing.main(arguments)
    (root / "train" / "class_9").mkdir()
    trees.save_image(root / "train" / "class_9" / "x.png")
    with pytest.raises(UserError, match="other classes"):
        packing.main(arguments)
    shutil.rmtree(root / "train" / "class_9")
    (output / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="classes.txt"):
        packing.main(arguments)
    assert (output / "classes.txt").read_bytes() == b"caf\xe9\n"
    with pytest.raises(UserError, match="--megabytes 0"):
        packing.main([*arguments, "--megabytes", "0"])
    monkeypatch.setattr(sys, "argv", ["pack"])
    trees.cub(root / "cub")
    packing.main(["--dataset", "cub", "--root", str(root / "cub"), "--output", str(output / "cub")])
    assert shards(output / "cub", "test").classes == ["001.Bird_0", "002.Bird_1", "003.Bird_2"]


def test_shards_of_somebody_else_are_not_written_over(packed: tuple[Path, Path], tmp_path: Path) -> None:
    root, output = packed[0], tmp_path / "theirs"
    output.mkdir()
    (output / "train-000000.tar").write_bytes(b"theirs")
    arguments = ["--dataset", "imagefolder", "--root", str(root), "--output", str(output), "--split", "train"]
    with pytest.raises(UserError, match=r"train-000000\.tar"):
        packing.main(arguments)
    assert "classes.txt" not in os.listdir(output)
    (output / "train.packed.json").write_text("{}")  # ours, killed before the shard was marked
    assert packing.main(arguments) == 0 and len(shards(output, "train")) == 21
    with pytest.raises(UserError, match="--output"):
        packing.main([*arguments, "--output", "/usr"])


def test_shards_must_have_room(packed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, output = packed
    listing = load_listing(DataConfig(root=str(root)), "train")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    packing.pack(listing, output, "train")  # nothing is left
    with pytest.raises(UserError, match="shards"):
        packing.pack(listing, output.with_name("more"), "train")


def test_a_shard_is_packed_again_when_a_label_or_an_image_changed(packed: tuple[Path, Path]) -> None:
    root, output = packed
    arguments = ["--dataset", "imagefolder", "--root", str(root), "--output", str(output), "--split", "train"]

    def labels() -> list[int]:
        packing.main(arguments)
        return shards(output, "train").labels

    first = load_listing(DataConfig(root=str(root)), "train").paths[0]
    assert labels().count(0) == 7
    first.rename(first.parent.with_name("class_2") / "moved.png")
    assert labels().count(0) == 6
    changed = load_listing(DataConfig(root=str(root)), "train").paths[0]
    before, when = changed.read_bytes(), changed.stat()
    trees.save_image(changed.with_suffix(".bmp"), (16, 12), 1)
    shutil.move(changed.with_suffix(".bmp"), changed)  # another format under this name is still an image
    labels()
    changed.write_bytes(before)
    os.utime(changed, ns=(when.st_atime_ns, when.st_mtime_ns))
    labels()
    packed_again = shards(output, "train").packed
    assert packed_again is not None and packed_again.read(0) == before


def test_what_is_packed_decodes_and_may_be_linked(tmp_path: Path) -> None:
    root = trees.folders(tmp_path / "folders", ("train",))
    folder = root / "train" / "class_0"
    (folder / "link.png").symlink_to(folder / "0_0.png")
    arguments = ["--dataset", "imagefolder", "--root", str(root), "--output", str(tmp_path / "shards")]
    assert packing.main([*arguments, "--split", "train"]) == 0
    (folder / "passwd.png").symlink_to("/etc/passwd")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "cut.png").write_bytes((folder / "0_1.png").read_bytes()[:60])
    with pytest.raises(UserError) as error:
        packing.main([*arguments, "--split", "train"])
    assert all(f"{name}.png" in str(error.value) for name in ("passwd", "zero", "cut"))
    assert shards(tmp_path / "shards", "train").labels.count(0) == 5  # what was there is untouched


def test_what_no_shard_is_made_of_is_refused(tmp_path: Path) -> None:
    """A pipe, which would not end to be opened, and an image of 20 GB that takes no room on the disk."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(pipe := tmp_path / "folder" / "train-0.tar")
    with pytest.raises(UserError, match=str(pipe)):
        shards(tmp_path / "folder", "train")
    (tmp_path / "large").mkdir()
    file, size = tmp_path / "large" / "train-0.tar", 20 << 30
    member = tarfile.TarInfo("a/1.png")
    member.size = size
    file.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(file, tarfile.BLOCKSIZE + size + 2 * tarfile.BLOCKSIZE)
    with pytest.raises(UserError, match=r"a/1\.png"):
        shards(tmp_path / "large", "train")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_a_class_whose_name_is_no_text(tmp_path: Path) -> None:
    root = trees.folders(tmp_path / "folders", classes=2, images=1)
    for split in ("train", "val"):
        (root / split / "class_1").rename(root / split / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"class 'caf\\udce9'") as error:
        packing.main(["--dataset", "imagefolder", "--root", str(root), "--output", str(tmp_path / "shards")])
    str(error.value).encode()  # can be printed
    assert not (tmp_path / "shards").exists()


def test_shards_are_cut_by_size(
    packed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = packed
    listing = load_listing(DataConfig(root=str(root)), "train")
    monkeypatch.setattr(packing, "_starts", lambda sizes, limit: iter([0, 5, 20]))
    assert len(packing.pack(listing, tmp_path / "cut", "train")) == 3
    again = shards(tmp_path / "cut", "train")
    assert again.labels == listing.labels and again.packed is not None
    assert [again.packed.read(index) for index in range(21)] == [path.read_bytes() for path in listing.paths]
    monkeypatch.undo()
    assert list(packing._starts([4, 4, 4, 9, 1, 1], 8)) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"", "b.png": b"", "a.cls": b"1"}, "image 'b.png' has no label"),
        pytest.param(
            {"a.png": b"", "a.cls": b"cat"}, "'a.cls' is 'cat'", id="files1-'a.cls' is 'cat', no class number"
        ),
        ({"a.png": b"", "a.cls": b"1" * 30}, "no class number"),
        ({"a.png": b"", "a.cls": b"999999999"}, "largest label of train .* is 999,999,999"),
        pytest.param(
            {"a.png": b"", "a.mask.png": b"", "a.cls": b"1"},
            "'a.png' and 'a.mask.png'",
            id="files3-sample 'a' has two images, 'a.png' and 'a.mask.png'",
        ),
        ({"a.png": b""}, "image 'a.png' has no label"),
        ({"a.txt": b""}, "hold no image"),
        pytest.param(
            {"c/a.png": b"", "b.png": b"", "b.cls": b"0"},
            "'c/a.png'",
            id="files6-image 'c/a.png' has no label",
        ),
    ],
)
def test_bad_shards_are_one_sentence(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError, match=message):
        shards(tmp_path, "train")


def test_links_are_not_passed_over(tmp_path: Path) -> None:
    """GNU tar stores a second name of the same file as a link without bytes."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(png())
    for kind, link in (("hard", Path.hardlink_to), ("soft", Path.symlink_to)):
        second = tmp_path / "cat" / "b.png"
        link(second, tmp_path / "cat" / "a.png")
        with tarfile.open(tmp_path / f"train-{kind}.tar", "w") as tar:
            tar.add(tmp_path / "cat", "cat")
        second.unlink()
        with pytest.raises(UserError, match=r"train-\w+.tar: .*'cat/\w.png' is a link"):
            shards(tmp_path, "train")
        (tmp_path / f"train-{kind}.tar").unlink()


def test_bad_roots_are_one_sentence(tmp_path: Path) -> None:
    good = write(tmp_path / "train-0.tar", {"a.png": b"", "a.cls": b"3"})
    with pytest.raises(UserError, match="split 'val' .*train-0.tar"):
        shards(tmp_path, "val")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="label 3.*2 classes"):
        shards(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("a\na\n")
    with pytest.raises(UserError, match="name each class once"):
        shards(tmp_path, "train")
    (tmp_path / "classes.txt").unlink()
    write(tmp_path / "val-0.tar", {"dog/a.png": b""})
    with pytest.raises(UserError, match="different ways"):
        shards(tmp_path, "val")
    write(tmp_path / "mixed-0.tar", {"dog/a.png": b""})
    write(tmp_path / "mixed-1.tar", {"a.png": b"", "a.cls": b"3"})
    with pytest.raises(UserError, match="some shards label"):
        shards(tmp_path, "mixed")
    content = good.read_bytes()
    for broken, message in (
        (content[:700], "truncated"),
        (content[:512], "truncated"),
        (b"", "empty"),
        (b"\x1f\x8b" + content, "gzip"),
        (b"hello", "no tar file"),
        (content[:512] + b"x" * 512 + content[1024:], "header at byte 512"),
    ):
        good.write_bytes(broken)
        with pytest.raises(UserError, match=message):
            shards(tmp_path, "train")
    good.unlink()
    (tmp_path / "train-0.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="train-0.tar.gz is compressed"):
        shards(tmp_path, "train")


def test_a_shard_that_shrinks_after_it_was_indexed(tmp_path: Path) -> None:
    shard = write(tmp_path / "train-0.tar", {"a/x.png": png()})
    listing = shards(tmp_path, "train")
    assert listing.packed is not None
    shard.write_bytes(shard.read_bytes()[:520])
    with pytest.raises(UserError, match="become shorter"):
        listing.packed.read(0)
    shard.unlink()
    with pytest.raises(UserError, match="could not be read"):
        listing.packed.read(0)


def test_a_damaged_index_is_built_again(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "train-0.tar", {"a/x.png": png()})
    shards(tmp_path, "train")
    (index,) = (cache / "automix_transfer").glob("shards_*.npz")
    whole = index.read_bytes()
    for damaged in (b"", whole[:100], whole[:-30], whole.replace(b"a/x.png", b"a/y.png")):
        index.write_bytes(damaged)
        assert shards(tmp_path, "train").labels == [0]
        assert index.read_bytes() == whole


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_tar_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes are changed, the reader gives members inside the file or says what is wrong."""
    form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    names = {"a.png": b"x" * 600, "é" * 80: b"1", "b/c.cls": b"2"}
    content = bytearray(
        write(
            tmp_path / "x.tar", names if form != tarfile.USTAR_FORMAT else {"a": b"1"}, format=form
        ).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), 6000) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=12))
        content[place : place + len(piece)] = piece
        if data.draw(st.booleans()):  # a checksum that fits again, so that the field behind it is reached
            start = place // 512 * 512
            header = content[start : start + 512]
            header[148:156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(content)
    try:
        for _, offset, size in members(tmp_path / "x.tar"):
            assert 0 <= offset and 0 <= size and offset + size <= len(content)
    except TarError as error:
        assert str(error)
