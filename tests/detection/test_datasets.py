"""Folders in VOC and COCO layout: what is found in them, and what is refused."""

import json
import shutil

import pytest

from automix_transfer.errors import UserError
from tests.detection.tiny import write_coco, write_coco_masks, write_voc


def test_voc_folder(voc):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from automix_transfer.detection.registered.datasets import register_folder

    data = register_folder(voc.parent)  # VOC2007 below it
    assert data.layout == "voc" and data.classes == ("circle", "square")
    train, test = DatasetCatalog.get(data.train[0]), DatasetCatalog.get(data.test[0])
    assert [record["image_id"] for record in train + test] == [f"{n:06d}" for n in range(8)]
    assert {item["category_id"] for record in train for item in record["annotations"]} == {0, 1}
    assert MetadataCatalog.get(data.test[0]).year == 2007
    assert register_folder(voc).train == data.train  # again: replaced, not refused


def test_coco_folder(coco, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from automix_transfer.detection.registered.datasets import register_folder

    data = register_folder(coco)
    assert data.layout == "coco" and data.classes == ("circle", "square")
    assert MetadataCatalog.get(data.test[0]).thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    assert [record["image_id"] for record in DatasetCatalog.get(data.test[0])] == [100, 101, 102, 103]
    (tmp_path / "names.txt").write_text("square\ncircle\n")
    turned = register_folder(coco, tmp_path / "names.txt")
    assert turned.classes == ("square", "circle")
    assert MetadataCatalog.get(turned.test[0]).thing_dataset_id_to_contiguous_id == {7: 0, 3: 1}


def test_two_years_train_together(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    write_voc(tmp_path / "VOC2007")
    shutil.copytree(tmp_path / "VOC2007", tmp_path / "VOC2012")
    data = register_folder(tmp_path)
    assert len(data.train) == 2 and len(data.test) == 1 and "VOC2007" in data.test[0]


def test_without_a_test_list_val_is_for_testing_and_trainval_is_not_used(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    lists = write_voc(tmp_path / "VOC2007") / "ImageSets" / "Main"
    (lists / "test.txt").rename(lists / "val.txt")
    (lists / "train.txt").write_text((lists / "trainval.txt").read_text())
    with (lists / "trainval.txt").open("a") as file:
        file.write((lists / "val.txt").read_text())
    data = register_folder(tmp_path)
    assert data.train[0].endswith(":train") and data.test[0].endswith(":val")
    (lists / "val.txt").rename(lists / "test.txt")
    with pytest.raises(UserError, match="4 images are in both"):
        register_folder(tmp_path)


def _empty_test(root):
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n")


def _no_test(root):
    (root / "ImageSets" / "Main" / "test.txt").unlink()


def _no_image(root):
    (root / "JPEGImages" / "000002.jpg").unlink()


def _no_objects(root):
    for file in (root / "Annotations").glob("*.xml"):
        text = file.read_text()
        file.write_text(text[: text.index("<object>")] + "</annotation>")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_empty_test, "empty"),
        (_no_test, "test split is missing"),
        (_no_image, "000002.jpg"),
        (_no_objects, "no annotated object"),
    ],
)
def test_broken_voc(tmp_path, break_it, message):
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_voc(tmp_path / "VOC2007")
    break_it(root)
    with pytest.raises(UserError, match=message):
        register_folder(root)


def test_folders_and_class_lists_that_do_not_fit(voc, tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    with pytest.raises(UserError, match="does not exist"):
        register_folder(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="none of the known layouts"):
        register_folder(tmp_path / "bare")
    for text, message in (("circle\n", "unknown"), ("circle\ncircle\n", "more than once"), ("", "is empty")):
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            register_folder(voc, tmp_path / "names.txt")
    root = write_coco(tmp_path / "coco")
    (tmp_path / "names.txt").write_text("circle\ntriangle\n")
    with pytest.raises(UserError, match="no category 'triangle'"):
        register_folder(root, tmp_path / "names.txt")
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(UserError, match="exactly one instances_val"):
        register_folder(root)


def test_a_class_list_that_disagrees_with_the_annotations(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    root = write_coco(tmp_path / "coco")
    (tmp_path / "names.txt").write_text("circle\n")
    with pytest.raises(
        UserError,
        match=r"objects of 1 categories that are not among the classes \(square\); add them to --class-names",
    ):
        register_folder(root, tmp_path / "names.txt")


def test_the_problems_of_all_splits_are_reported_at_once(tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder

    for root, first, second in (
        (write_voc(tmp_path / "VOC2007"), "JPEGImages/000001.jpg", "JPEGImages/000006.jpg"),
        (write_coco(tmp_path / "coco"), "train2017/000000000011.jpg", "val2017/000000000102.jpg"),
    ):
        (root / first).unlink()
        (root / second).unlink()
        with pytest.raises(UserError) as error:
            register_folder(root)
        assert first in str(error.value) and second in str(error.value)


def test_run_length_masks(tmp_path):
    from detectron2.data import DatasetCatalog

    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.registered.datasets import check_masks, register_folder

    root = write_coco_masks(tmp_path / "coco")
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = {"size": [64, 80], "counts": [64 * 80 - 10, 10]}
    file.write_text(json.dumps(content))
    data, cfg = register_folder(root), default_config()
    cfg.DATASETS.TRAIN = data.train
    assert isinstance(DatasetCatalog.get(data.train[0])[0]["annotations"][0]["segmentation"]["counts"], bytes)
    with pytest.raises(UserError, match="1 of 4 objects .* set INPUT.MASK_FORMAT bitmask"):
        check_masks(cfg)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    check_masks(cfg)


def test_builtin_sets_that_are_not_there(monkeypatch, tmp_path):
    from automix_transfer.detection.registered.datasets import check_builtin

    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    # Detectron2 looks into ./datasets then, where the demo may have written its own
    monkeypatch.chdir(tmp_path)
    for name in ("voc_2007_test", "coco_2017_val"):
        with pytest.raises(
            UserError, match=f"'{name}' is not there.*DETECTRON2_DATASETS is not set.*--data-root"
        ):
            check_builtin(name)


def test_builtin_coco_as_released(tmp_path):
    """With a box without height, as COCO's own training set has them; and without one image."""
    from detectron2.data.datasets import register_coco_instances

    from automix_transfer.detection.registered.datasets import check_builtin

    root = write_coco(tmp_path / "coco")
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][3] = 0
    file.write_text(json.dumps(content))
    register_coco_instances("tiny_coco_as_released", {}, str(file), str(root / "train2017"))
    check_builtin("tiny_coco_as_released")
    register_coco_instances("tiny_coco_incomplete", {}, str(file), str(root / "train2017"))
    (root / "train2017" / "000000000011.jpg").unlink()
    with pytest.raises(
        UserError, match="'tiny_coco_incomplete': 1 of 4 images are missing .*000000000011.jpg"
    ):
        check_builtin("tiny_coco_incomplete")


def test_numbers_of_classes_and_unknown_names(voc, tmp_path):
    from automix_transfer.detection import trainer
    from tests.detection.tiny import CONFIGS, QUICK

    def run(*options, data=voc, output=tmp_path / "run"):
        trainer.run(CONFIGS / "embedded_R10_FPN.yaml", "", data, output, [*QUICK, *options])

    with pytest.raises(UserError, match="NUM_CLASSES is 80"):
        run("MODEL.ROI_HEADS.NUM_CLASSES", "80")
    with pytest.raises(UserError, match="'nosuch' is unknown"):
        run("DATASETS.TRAIN", "('nosuch',)", data=None)
    with pytest.raises(UserError, match="has 20 classes"):
        run("DATASETS.TRAIN", "('voc_2007_trainval',)", "DATASETS.TEST", "('voc_2007_test',)", data=None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        run(output=tmp_path / "file" / "run")


def test_a_part_of_the_training_images_is_held_out_and_tested_on(voc, coco):
    from detectron2.data import DatasetCatalog

    from automix_transfer.detection.config import default_config
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.registered.held_out import hold_out
    from automix_transfer.detection.scores.coco_evaluation import truth_of

    for folder in (voc, coco):
        data, cfg = register_folder(folder), default_config()
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.DATASETS.HOLD_OUT = data.train, data.test, 25
        whole = [record["image_id"] for record in DatasetCatalog.get(data.train[0])]
        for _ in range(2):  # a run that goes on names the parts
            hold_out(cfg)
            (train,), (test,) = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
            ids = [[record["image_id"] for record in DatasetCatalog.get(name)] for name in (train, test)]
            assert ids == [whole[:3], whole[3:]] and test.endswith("last 25%")
        if folder == coco:
            truth = truth_of(coco / "annotations" / "instances_train2017.json", test)
            assert [image["id"] for image in truth["images"]] == whole[3:]
            assert {item["image_id"] for item in truth["annotations"]} == set(whole[3:])
        cfg.DATASETS.HOLD_OUT = 100
        with pytest.raises(UserError, match="HOLD_OUT"):
            hold_out(cfg)


def test_strips_and_bombs_are_refused_before_the_training(tmp_path):
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog

    from automix_transfer.detection.registered.datasets import refuse_shapes, register_folder

    data = register_folder(write_voc(tmp_path / "VOC2007"))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = data.train, data.test
    refuse_shapes(cfg)
    DatasetCatalog.get(data.test[0])[0].update(width=1, height=5000)
    with pytest.raises(UserError, match=r"DATASETS\.TEST.*1 x 5000.*INPUT\.MAX_SIZE_TEST"):
        refuse_shapes(cfg)
    cfg.INPUT.MIN_SIZE_TEST = 0
    refuse_shapes(cfg)
    DatasetCatalog.get(data.train[0])[0].update(width=10_000, height=9_000)
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN.*10000 x 9000"):
        refuse_shapes(cfg)
