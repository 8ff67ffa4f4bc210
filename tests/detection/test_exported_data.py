"""Data as annotation tools export it, up to Detectron2: figures equal the reference's on the file as it is,
and training sees boxes that fit their images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from automix_transfer.errors import UserError
from tests.detection.scores.test_coco_evaluation import found_of, pycocotools_stats
from tests.detection.scores.test_voc_evaluation import detections, evaluate
from tests.detection.tiny import write_coco, write_coco_masks, write_voc

TRAIN, VAL = "instances_train2017.json", "instances_val2017.json"


def edit(root: Path, change, names=(TRAIN, VAL)) -> None:
    for name in names:
        file = root / "annotations" / name
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content), encoding="utf-8-sig")


def text_ids(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["id"] = f"img_{image['id'] % 10}"
    for item in content["annotations"]:
        item["image_id"] = f"img_{item['image_id'] % 10}"
        item["category_id"] = f"c{item['category_id']}"
    for category in content["categories"]:
        category["id"] = f"c{category['id']}"


def float_ids_and_sizes(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image.update(width=80.0, height=64.0, id=float(image["id"]))
    for item in content["annotations"]:
        item.update(category_id=float(item["category_id"]), iscrowd=item["id"] % 2 == 0, ignore=0)


def boxes_beyond(content: dict[str, Any]) -> None:
    for number, item in enumerate(content["annotations"]):
        x, y, width, height = item["bbox"]
        item["bbox"] = [[-20, y, x + width + 20, height], [x, y, 100, 90], [x, y, 0, height], [x, 70, 9, 9]][
            number
        ]


def leftovers(content: dict[str, Any]) -> None:
    first = content["annotations"][0]
    content["annotations"].append(first | {"id": 999, "image_id": 4321})
    content["images"].append(content["images"][1])
    content["images"].append(
        {"id": 777, "file_name": content["images"][0]["file_name"], "height": 64, "width": 80}
    )
    content["annotations"].append(first | {"id": 1000, "image_id": 777})
    content["categories"].insert(0, {"id": 0, "name": "circle", "supercategory": "none"})


def other_paths(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["file_name"] = f"D:\\export\\images\\{image['file_name']}"


@pytest.mark.parametrize("change", [text_ids, float_ids_and_sizes, boxes_beyond, leftovers, other_paths])
def test_figures_are_pycocotools_on_the_file_as_it_is(tmp_path, change):
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.coco_evaluation import COCOEvaluator

    root = write_coco(tmp_path / "coco")
    edit(root, change)
    name = register_folder(root).test[0]
    ours = evaluate(COCOEvaluator(name, tmp_path), found_of(name, seed=1))["bbox"]
    truth = json.loads((root / "annotations" / VAL).read_text(encoding="utf-8-sig"))
    wanted = pycocotools_stats(truth, json.loads((tmp_path / "coco_instances_results.json").read_text()))
    assert [ours.get(key, -100) for key in ("AP", "AP50", "AP75")] == [100 * value for value in wanted[:3]]
    assert 0 < ours["AP"] < 100


def test_what_pycocotools_needs_and_the_file_lacks_is_filled_in(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.coco_evaluation import COCOEvaluator

    root = write_coco(tmp_path / "coco")
    name = register_folder(root).test[0]
    found = found_of(name, seed=1)
    whole = evaluate(COCOEvaluator(name), found)

    def strip(content):
        for image in content["images"]:
            del image["width"], image["height"]
        for item in content["annotations"]:
            del item["area"], item["iscrowd"], item["id"]

    edit(root, strip)
    data = register_folder(root)
    assert len(data.notes) == 8 and evaluate(COCOEvaluator(data.test[0]), found) == whole


def test_voc_figures_are_detectron2s_where_boxes_stick_out(tmp_path):
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.voc_evaluation import VOCEvaluator

    root = write_voc(tmp_path / "VOC2007")
    for number, (old, new) in enumerate(
        [("<xmin>", "<xmin>-"), ("<xmax>", "<xmax>1"), ("<width>80", "<width>0")], 4
    ):
        file = root / "Annotations" / f"{number:06d}.xml"
        file.write_text(file.read_text().replace(old, new))
    data = register_folder(root)
    found = detections(data.test[0], seed=2)
    ours, theirs = (
        evaluate(kind(data.test[0]), found) for kind in (VOCEvaluator, PascalVOCDetectionEvaluator)
    )
    assert [ours["bbox"][key] for key in ("AP", "AP50")] == pytest.approx(
        [theirs["bbox"][k] for k in ("AP", "AP50")]
    )
    assert len(data.notes) == 2


def test_training_clips_boxes_and_leaves_empty_ones_out(tmp_path):
    from automix_transfer.detection.config import load_config
    from automix_transfer.detection.loader import TrainLoader
    from automix_transfer.detection.registered.datasets import register_folder
    from tests.detection.tiny import CONFIGS, QUICK

    root = write_coco(tmp_path / "coco")
    edit(root, boxes_beyond, (TRAIN,))
    data = register_folder(root)
    options = [*QUICK, "MODEL.WEIGHTS", "", "DATASETS.TRAIN", str(data.train), "INPUT.RANDOM_FLIP", "none"]
    cfg, _ = load_config(CONFIGS / "embedded_R10_FPN.yaml", options, num_gpus=0)
    batches = iter(TrainLoader(cfg))
    samples = {sample["image_id"]: sample["instances"] for _ in range(2) for sample in next(batches)}
    boxes = {number: instances.gt_boxes.tensor.numpy() for number, instances in samples.items()}
    assert sorted(map(len, boxes.values())) == [0, 0, 1, 1]
    assert all((0 <= found).all() and (found[:, 2:] <= [80, 64]).all() for found in boxes.values())


def test_masks_to_measure_against_are_asked_for_before_training(tmp_path):
    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.registered.datasets import check_masks, register_folder

    root, cfg = write_coco_masks(tmp_path / "coco"), default_config()
    edit(root, lambda content: content["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), (VAL,))
    data = register_folder(root)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = data.train, data.test
    for training in (True, False):
        with pytest.raises(UserError, match="1 of 4 objects of 'coco:val2017'"):
            check_masks(cfg, training)


def roboflow(root: Path) -> None:
    for split, name in (("train2017", "train"), ("val2017", "valid")):
        (root / split).rename(root / name)
        (root / "annotations" / f"instances_{split}.json").rename(root / name / "_annotations.coco.json")
    (root / "annotations").rmdir()


def one_folder(root: Path) -> None:
    (root / "images").mkdir()
    for file in root.glob("*2017/*.jpg"):
        file.rename(root / "images" / file.name)
    shutil.rmtree(root / "train2017")
    shutil.rmtree(root / "val2017")


def short_names(root: Path) -> None:
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}2017.json").rename(root / f"{split}.json")
    (root / "annotations").rmdir()


def one_too_high(root: Path) -> None:
    inner = root / "export"
    inner.mkdir()
    for path in [path for path in root.iterdir() if path != inner]:
        path.rename(inner / path.name)


def roboflow_below(root: Path) -> None:
    roboflow(root)
    one_too_high(root)


def labels_beside_data(root: Path) -> None:
    for split in ("train", "val"):
        (root / split).mkdir()
        (root / f"{split}2017").rename(root / split / "data")
        (root / "annotations" / f"instances_{split}2017.json").rename(root / split / "labels.json")
    (root / "annotations").rmdir()


def images_below_splits(root: Path) -> None:
    short_names(root)
    for split in ("train", "val"):
        (root / split).mkdir()
        (root / f"{split}2017").rename(root / split / "images")


def capitals(root: Path) -> None:
    for folder, name in (("train2017", "Train"), ("val2017", "Val"), ("annotations", "Annotations")):
        (root / folder).rename(root / name)
    (root / "Annotations" / "._instances_train2017.json").write_text("of a Mac")


@pytest.mark.parametrize(
    "change",
    [
        roboflow,
        one_folder,
        short_names,
        one_too_high,
        roboflow_below,
        labels_beside_data,
        images_below_splits,
        capitals,
    ],
)
def test_layouts_of_coco(tmp_path, change):
    from detectron2.data import DatasetCatalog

    from automix_transfer.detection.registered.datasets import register_folder

    root = write_coco(tmp_path / "coco")
    change(root)
    data = register_folder(root)
    records = [DatasetCatalog.get(name) for name in (data.train[0], data.test[0])]
    assert [[record["image_id"] for record in some] for some in records] == [
        [10, 11, 12, 13],
        [100, 101, 102, 103],
    ]
    assert all(Path(record["file_name"]).is_file() for some in records for record in some)


def test_the_folder_above_the_devkit(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    write_voc(tmp_path / "VOCdevkit" / "VOC2007")
    shutil.copytree(tmp_path / "VOCdevkit", tmp_path / "voctest" / "VOCdevkit")
    for place, gone in (("VOCdevkit", "test"), ("voctest/VOCdevkit", "trainval")):
        (tmp_path / place / "VOC2007" / "ImageSets" / "Main" / f"{gone}.txt").unlink()
    shutil.move(tmp_path / "VOCdevkit", tmp_path / "voctrainval" / "VOCdevkit")
    data = register_folder(tmp_path)
    assert "voctrainval" in data.train[0] and "voctest" in data.test[0]


def test_two_data_sets_below_are_not_guessed(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    roboflow(write_coco(tmp_path / "one"))
    roboflow(write_coco(tmp_path / "two"))
    with pytest.raises(UserError, match="one, two"):
        register_folder(tmp_path)


def test_voc_folders_in_small_letters(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_voc(tmp_path / "voc2007")
    usual = register_folder(root)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main", "ImageSets"):
        (root / name).rename(root / name.lower() if "/" not in name else root / "ImageSets" / "main")
    data = register_folder(tmp_path)
    assert (data.train, data.test, data.classes) == (usual.train, usual.test, usual.classes)


def no_lists(root: Path) -> None:
    shutil.rmtree(root / "VOC2007" / "ImageSets")


def xml_beside_images(root: Path) -> None:
    (root / "VOC2007").rename(root / "x")
    (root / "x" / "Annotations").rename(root / "train")
    shutil.rmtree(root / "x")


def yolo(root: Path) -> None:
    shutil.rmtree(root / "VOC2007")
    (root / "data.yaml").write_text("nc: 2")


@pytest.mark.parametrize(
    ("change", "inside", "named"),
    [
        (no_lists, "VOC2007", "ImageSets/Main/trainval.txt"),
        (xml_beside_images, "", "VOC"),
        (yolo, "", "YOLO"),
        (lambda root: None, "VOC2007/JPEGImages", "give "),
        (lambda root: write_coco(root / "coco"), "coco/annotations", "give .*coco"),
        (lambda root: write_coco(root / "coco"), "coco/train2017", "give .*coco"),
    ],
)
def test_a_near_miss_is_one_line(tmp_path, change, inside, named):
    from automix_transfer.detection.registered.datasets import register_folder

    write_voc(tmp_path / "VOC2007")
    change(tmp_path)
    with pytest.raises(UserError, match=named) as caught:
        register_folder(tmp_path / inside)
    assert "\n" not in str(caught.value) and "--data-root" in str(caught.value)


@pytest.mark.parametrize("same", [True, False])
def test_images_of_one_name_are_a_leak_if_their_content_is_one(tmp_path, same):
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_coco(tmp_path / "coco")
    file = root / "train2017" / "000000000010.jpg"
    shutil.copy(
        root / "val2017" / "000000000100.jpg" if same else file, root / "train2017" / "000000000100.jpg"
    )
    edit(root, lambda content: content["images"][0].update(file_name="000000000100.jpg"), (TRAIN,))
    if same:
        with pytest.raises(UserError, match="000000000100.jpg"):
            register_folder(root)
    else:
        assert register_folder(root).notes == ()


def test_classes_that_differ_in_case_are_told(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_voc(tmp_path / "VOC2007")
    file = root / "Annotations" / "000000.xml"
    file.write_text(file.read_text().replace("circle", "Circle"))
    data = register_folder(root)
    assert data.classes == ("Circle", "circle", "square") and [
        "Circle, circle" in note for note in data.notes
    ] == [True]
