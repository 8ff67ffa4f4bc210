"""Data sets as Hugging Face's ``datasets`` leaves them on disk, and files that only look so.

``fixtures/huggingface/saved`` was written by ``save_to_disk`` of datasets 5.2: rows 0 to 6 in two files of a
training split and rows 10 to 13 of a test split. Row k has an image of 6 x 4 pixels of the colour (10 k, 100,
200 - k), class k mod 3 of (bee, ant, cat), and lists of boxes and a text beside it. ``kinds.arrow`` and
``compressed.arrow`` were written by pyarrow 19.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automix_transfer.data.check import check_root
from automix_transfer.data.layouts import class_order
from automix_transfer.data.registry import KNOWN_BY, load_listing
from automix_transfer.data.settings import DataConfig, validate
from automix_transfer.data.shards.arrow import arrow_batches, text_of
from automix_transfer.data.splits import eval_dataset, eval_dataset_beside
from automix_transfer.errors import UserError
from automix_transfer.io import read_json, write_json
from tests.data import trees

FIXTURES = Path(__file__).parents[2] / "fixtures" / "huggingface"
FIRST, SECOND = (f"train/data-0000{number}-of-00002.arrow" for number in (0, 1))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "saved", tmp_path / "saved"))


def config(root: Path, **settings: str) -> DataConfig:
    return DataConfig("hf", str(root), image_size=4, **settings)  # type: ignore[arg-type]


def edit(file: Path, **values: object) -> None:
    write_json(file, read_json(file) | values)


@pytest.mark.parametrize(
    "split, rows", [("train", range(7)), ("val", range(10, 14)), ("test", range(10, 14))]
)
def test_rows_come_in_their_order_with_their_pixels(split: str, rows: range) -> None:
    data = eval_dataset(config(FIXTURES / "saved"), split)
    assert data.classes == ["bee", "ant", "cat"] and data.labels.tolist() == [row % 3 for row in rows]
    for place, row in enumerate(rows):
        pixels = np.asarray(data.read(place))
        assert pixels.shape == (4, 6, 3) and (pixels == (10 * row, 100, 200 - row)).all()
    assert data.listing.notes == (
        (f"there is no 'val' in {FIXTURES / 'saved'}; {FIXTURES / 'saved' / 'test'} is read for it",)
        if split == "val"
        else ()
    )
    assert str(data.path(len(rows) - 1)).endswith(f".arrow/{2 if split == 'train' else 3}")


def test_one_split_alone_is_told_apart_by_parts(saved: Path) -> None:
    assert KNOWN_BY["hf"](saved) and KNOWN_BY["hf"](saved / "train")
    parts = [load_listing(config(saved / "train"), part) for part in ("train[:50%]", "train[50%:]")]
    assert [len(part) for part in parts] == [4, 3]
    with pytest.raises(UserError, match=r"no split 'val'.*data\.val_split"):
        load_listing(config(saved / "train"), "val")
    edit(saved / "train" / "state.json", _split="validation")
    assert len(load_listing(config(saved / "train"), "validation")) == 7
    report = check_root(config(saved))
    assert not report.problems and "every image decodes" in str(report)


def test_the_classes_of_a_network_keep_their_order(saved: Path) -> None:
    listing = load_listing(config(saved), "train", known=["ant", "bee", "cat"])
    assert listing.classes == ["ant", "bee", "cat"] and listing.labels == [1, 0, 2, 1, 0, 2, 1]


def test_splits_with_their_classes_in_different_orders(saved: Path) -> None:
    info = saved / "test" / "dataset_info.json"
    features = read_json(info)["features"]

    def beside(*names: str) -> object:
        edit(info, features={**features, "label": {"names": names, "_type": "ClassLabel"}})
        given = config(saved, train_split="train", val_split="test")
        found = eval_dataset_beside(eval_dataset(given, "train"), given)
        assert found.classes == ["bee", "ant", "cat"]
        return found.labels.tolist()

    assert beside("bee", "ant", "cat") == [1, 2, 0, 1]
    assert beside("cat", "bee", "ant") == [0, 1, 2, 0]
    with pytest.raises(UserError, match=r"different classes \(ant, bee, dog, \.\.\.\); take other splits"):
        beside("cat", "dog", "elk")


def test_columns_are_chosen_by_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names, text as labels, and numbers without names."""
    for split in ("train", "test"):
        info = saved / split / "dataset_info.json"
        features = read_json(info)["features"]
        edit(info, features={**features, "label": {"dtype": "int64", "_type": "Value"}})
    assert load_listing(config(saved), "test").classes == ["0", "1", "2"]
    ids = load_listing(config(saved, label_column="id"), "train")
    assert ids.labels == list(range(7)) and ids.classes == [str(number) for number in range(7)]
    assert not ids.notes
    monkeypatch.setattr(class_order, "_MOST_CLASSES", 6)
    with pytest.raises(UserError, match=r"train is 6, which would be 7 classes; .* at most 6 classes"):
        load_listing(config(saved, label_column="id"), "train")
    monkeypatch.undo()
    gaps = load_listing(config(saved / "test", label_column="id"), "train")
    assert len(gaps.classes) == 14 and "has the label 0, 1, 2, ...: " in gaps.notes[0]
    assert "10 of these 14 classes have none" in gaps.notes[0]
    with pytest.raises(UserError, match=r"10 of .*data\.label_column"):  # classes are those of training
        load_listing(config(saved, label_column="id"), "test")
    for column, key in (("caption", r"split with labels(.|\n)*no label"), ("objects", "data.label_column")):
        with pytest.raises(UserError, match=key):
            load_listing(config(saved, label_column=column), "train")
    for column in ("id", "objects", "nothing"):
        with pytest.raises(UserError, match=r"data\.image_column"):
            load_listing(config(saved, image_column=column), "train")
    with pytest.raises(UserError, match=r"data\.label_column"):
        validate(DataConfig("imagefolder", str(saved), label_column="label"))


@pytest.mark.parametrize(
    "file, values, said",
    [
        ("state.json", {"_data_files": [{"filename": "../test/data-00000-of-00001.arrow"}]}, "state.json"),
        ("state.json", {"_data_files": []}, "state.json"),
        ("state.json", {"_data_files": [{"filename": "data-9.arrow"}]}, r"data-9\.arrow"),
        ("state.json", {"_indices_data_files": [{"filename": "i.arrow"}]}, "flatten_indices"),
        ("dataset_info.json", {"features": {}}, r"data\.image_column"),
        ("dataset_info.json", {"features": None}, "features"),
        ("dataset_info.json", {"features": {"image": {}, "label": {"names": 3}}}, "label"),
        ("dataset_info.json", {"features": {"image": {}, "label": {"names": ["bee", "ant"]}}}, "2 classes"),
        (
            "dataset_info.json",
            {"features": {"image": {"dtype": "string"}, "label": {}}},
            r"cast_column\('image'",
        ),
        ("dataset_info.json", {"features": {"img": {}, "label": {"names": ["a"]}}}, "img"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    saved: Path, file: str, values: dict[str, object], said: str
) -> None:
    edit(saved / "train" / file, **values)
    with pytest.raises(UserError, match=said):
        load_listing(config(saved), "train")


def test_damaged_files_are_one_sentence(saved: Path) -> None:
    """Cut anywhere, and with a byte changed anywhere: it is read, or refused by its name. What is cut is
    never read as a shorter file."""
    file = saved / SECOND
    content = file.read_bytes()
    changed = [(place, content[:place]) for place in range(0, len(content) - 8, 80)]
    for place in range(0, len(content), 29):
        parts = content[:place], content[place + 1 :]
        changed += [(-1, parts[0] + bytes([value]) + parts[1]) for value in (0x00, 0x7F, 0xFF)]
    for cut, damaged in changed:
        file.write_bytes(damaged)
        try:
            load_listing(config(saved), "train")
        except UserError as error:
            assert "train" in str(error)
        else:
            assert cut < 0


def test_kinds_of_columns_are_read_and_others_passed_over(tmp_path: Path) -> None:
    """Of a file that is not a stream, with large offsets, booleans, a dictionary and lists."""
    file, names = FIXTURES / "kinds.arrow", ("img", "flag", "label", "word", "image", "coded", "list")
    batches = list(arrow_batches(file, names))
    assert [set(batch) for batch in batches] == [set(names) - {"coded", "list"}] * 2
    numbers = {name: [batch[name].numbers.tolist()[0] for batch in batches] for name in ("flag", "label")}
    assert numbers == {"flag": [1, 0], "label": [1, 0]}
    assert [text_of(file, batch["img"].spans) for batch in batches] == [["one"], ["three"]]
    assert [batch["word"].there.tolist() for batch in batches] == [[True], [False]]
    assert text_of(file, batches[0]["word"].spans) == ["é"]
    inside = [batch["image"].children for batch in batches]
    assert [part["bytes"].there.tolist() for part in inside] == [[False], [True]]
    with pytest.raises(UserError, match=r"compressed\.arrow is compressed"):
        list(arrow_batches(FIXTURES / "compressed.arrow", ("img",)))


def test_a_path_without_bytes_is_a_file_of_the_data_set(tmp_path: Path) -> None:
    """`kinds.arrow` names a.png and has no bytes for it; the image of its second row is none."""
    root = tmp_path / "saved"
    root.mkdir()
    shutil.copy(FIXTURES / "kinds.arrow", root / "kinds.arrow")
    write_json(root / "state.json", {"_data_files": [{"filename": "kinds.arrow"}]})
    write_json(root / "dataset_info.json", {"features": {"image": {"_type": "Image"}, "label": {}}})
    (tmp_path / "a.png").write_bytes(b"outside")
    with pytest.raises(UserError, match=r"row 0 has no bytes.*a\.png"):
        load_listing(config(root), "train")
    (root / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"row 0 has no bytes.*a\.png"):
        load_listing(config(root), "train")
    (root / "a.png").unlink()
    trees.save_image(root / "a.png")
    data = eval_dataset(config(root), "train")
    assert data.read(0).size == Image.open(root / "a.png").size and data.labels.tolist() == [1, 0]
    assert data.listing.packed is not None and data.listing.packed.read(1) == b"xy"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_beside_images_names_their_labels(tmp_path: Path, name: str) -> None:
    for split, labels in (("train", ["cat", "ant", "cat"]), ("validation", ["cat"])):
        rows = [{"file_name": f"sub/{number}.png", "label": label} for number, label in enumerate(labels)]
        for row in rows:
            trees.save_image(tmp_path / split / row["file_name"])
        lines = ["file_name,label", *(",".join(row.values()) for row in rows)]
        if name.endswith("jsonl"):
            lines = [json.dumps(row) for row in rows]
        (tmp_path / split / name).write_text("\n".join(lines) + "\n")
    settings = config(tmp_path)
    train = load_listing(settings, "train")
    assert train.labels == [1, 0, 1] and train.classes == ["ant", "cat"]
    assert load_listing(settings, "val").labels == [1] and not check_root(settings).problems
    with pytest.raises(UserError, match=r"data\.label_column"):
        load_listing(replace(settings, label_column="kind"), "train")
    text = (tmp_path / "train" / name).read_text()
    for none in ("", "-1"):
        (tmp_path / "train" / name).write_text(text.replace("ant", none))
        with pytest.raises(UserError, match="row 2 has no label"):
            load_listing(settings, "train")
    for other in ("../validation/sub/0.png", "/etc/passwd", "sub/9.png"):
        (tmp_path / "train" / name).write_text(text.replace("sub/1.png", other))
        with pytest.raises(UserError, match="row 2"):
            load_listing(settings, "train")


def test_a_folder_of_images_without_labels_says_what_is_expected(tmp_path: Path) -> None:
    """And no other data set that would read it: it has no class folders."""
    trees.save_image(tmp_path / "train" / "0.png")
    for settings in (config(tmp_path), config(tmp_path, label_column="species")):
        with pytest.raises(UserError, match=r"neither class folders nor metadata\.csv") as refused:
            load_listing(settings, "train")
        assert "data.dataset=imagefolder" not in str(refused.value)
    (tmp_path / "train" / "metadata.csv").write_text("file_name,species\n0.png,ant\n")
    with pytest.raises(UserError, match=r"metadata\.csv.*data\.label_column.*file_name, species"):
        load_listing(config(tmp_path), "train")
    assert load_listing(config(tmp_path, label_column="species"), "train").classes == ["ant"]


@pytest.mark.parametrize("file", ["data/train-00000-of-00001.parquet", "default/0.0.0/1f/x-train.arrow"])
def test_files_of_the_hub_and_of_the_cache_are_told_how_to_be_saved(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(b"PAR1")
    kind = file.rpartition(".")[2]
    for root in (tmp_path, (tmp_path / file).parent):
        with pytest.raises(UserError, match=rf"{kind.capitalize()} .*load_dataset\('{kind}'.*save_to_disk"):
            load_listing(config(root), "train")


def test_class_folders_are_an_imagefolder(tmp_path: Path) -> None:
    trees.folders(tmp_path)
    listing = load_listing(config(tmp_path), "train")
    other = load_listing(DataConfig("imagefolder", str(tmp_path)), "train")
    assert list(listing.paths) == list(other.paths) and listing.labels == other.labels
    with pytest.raises(UserError, match=r"data\.image_column"):
        load_listing(config(tmp_path, image_column="image"), "train")
