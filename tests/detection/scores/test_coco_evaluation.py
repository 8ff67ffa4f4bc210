"""COCO's figures against pycocotools and Detectron2 on the same detections, by both engines: ties, crowds,
classes in any order."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

from automix_transfer.errors import UserError
from tests.detection.scores.test_voc_evaluation import Instances, evaluate
from tests.detection.tiny import write_coco

# the order of COCOeval.stats
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def random_sets(seed: int, images: int = 12, first_id: int = 1) -> tuple[dict, list[dict]]:
    """Boxes of all sizes with crowds, empty images, classes 3, 6, 9; detections near them, of other classes
    and astray; tied scores."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []

    def box(largest: float) -> list[float]:
        return [
            float(v) for v in np.concatenate([rng.uniform(0, 150, 2), rng.uniform(4, largest, 2)]).round(1)
        ]

    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 8)):
            true = box(160)
            label = int(rng.integers(1, 4)) * 3
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": image,
                    "category_id": label,
                    "bbox": true,
                    "area": true[2] * true[3],
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = np.array(true) + rng.normal(0, 4, 4)
                found.append(
                    {
                        "image_id": image,
                        "category_id": label if rng.random() < 0.8 else 3,
                        "score": float(rng.integers(1, 6)) / 5,
                        "bbox": [float(v) for v in (*near[:2], *np.maximum(near[2:], 1))],
                    }
                )
        found += [
            {
                "image_id": image,
                "category_id": int(rng.integers(1, 4)) * 3,
                "score": float(rng.integers(1, 6)) / 5,
                "bbox": box(100),
            }
            for _ in range(rng.integers(0, 4))
        ]
    truth = {
        "info": {},
        "images": [
            {"id": number, "width": 320, "height": 320, "file_name": f"{number}.jpg"}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in (3, 6, 9)],
        "annotations": annotations,
    }
    return truth, found


def pycocotools_stats(truth: dict, found: list[dict]) -> np.ndarray:
    """What its users see: COCOeval's summary, from the files as they are."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("engine", ["pycocotools", "hotcoco"])
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_pycocotools_to_the_last_bit(seed, engine):
    from automix_transfer.detection.scores.coco_evaluation import figures, match

    pytest.importorskip(engine)
    truth, found = random_sets(seed)
    before = copy.deepcopy((truth, found))
    ours = figures(match(truth, found, [3, 6, 9], engine=engine))
    assert (truth, found) == before, "the inputs are the caller's"
    for name, wanted in zip(SUMMARY, pycocotools_stats(truth, found), strict=True):
        assert ours.get(name, -100.0) == 100 * wanted, name


def test_crowds_and_ties_decide_figures_and_engines_agree_on_every_number():
    """The sets above do what they are for: without crowds, or with ties in another order, figures change;
    precision, recall agree whole."""
    from automix_transfer.detection.scores.coco_evaluation import figures, match

    pytest.importorskip("hotcoco")
    changed = []
    for seed in range(4):
        truth, found = random_sets(seed)
        a, b = (match(truth, found, [3, 6, 9], engine=engine) for engine in ("pycocotools", "hotcoco"))
        assert np.array_equal(a.precision, b.precision) and np.array_equal(a.recall, b.recall)
        plain = {**truth, "annotations": [{**item, "iscrowd": 0} for item in truth["annotations"]]}
        turned = found[::-1]
        changed.append(
            [
                figures(a) != figures(match(plain, found, [3, 6, 9])),
                figures(a) != figures(match(truth, turned, [3, 6, 9])),
            ]
        )
        assert figures(match(truth, turned, [3, 6, 9])) == figures(
            match(truth, turned, [3, 6, 9], engine="hotcoco")
        )
    assert np.array(changed).any(axis=0).all()


@pytest.mark.parametrize("engine", ["pycocotools", "hotcoco"])
def test_masks(engine):
    from automix_transfer.detection.scores.coco_evaluation import figures, match

    pytest.importorskip(engine)

    def rectangle(x, y, w, h):
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    truth = {
        "images": [{"id": 1, "width": 60, "height": 60, "file_name": "a"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 10, 20, 20],
                "area": 400,
                "iscrowd": 0,
                "segmentation": rectangle(10, 10, 20, 20),
            }
        ],
    }
    from pycocotools import mask

    encoded = mask.merge(mask.frPyObjects(rectangle(10, 10, 20, 14), 60, 60))  # IoU 0.7 with the true mask
    found = [
        {
            "image_id": 1,
            "category_id": 1,
            "score": 0.9,
            "segmentation": {**encoded, "counts": encoded["counts"].decode()},
        }
    ]
    result = figures(match(truth, found, [1], "segm", engine))
    # .50 to .70 are reached: five thresholds of ten
    assert (result["AP50"], result["AP75"], result["AP"]) == pytest.approx((100, 0, 50))


def test_undefined_figures_are_left_out_and_nothing_found_is_zero():
    from automix_transfer.detection.scores.coco_evaluation import figures, match

    truth, _ = random_sets(0)
    truth["annotations"] = [
        item for item in truth["annotations"] if item["area"] > 96**2 and item["category_id"] != 9
    ]
    for engine in ("pycocotools", "hotcoco"):
        if engine == "hotcoco":
            pytest.importorskip("hotcoco")
        arrays = match(truth, [], [3, 6, 9], engine=engine)
        assert figures(arrays) == {
            "AP": 0,
            "AP50": 0,
            "AP75": 0,
            "APl": 0,
            "AR1": 0,
            "AR10": 0,
            "AR100": 0,
            "ARl": 0,
        }
        assert figures(arrays, 2) == {}


def test_annotation_zero_counts():
    """pycocotools stores the matched annotation's id and takes 0 for none; ids that start at 0 cost its users
    a hit without a word."""
    from automix_transfer.detection.scores.coco_evaluation import figures, match

    truth, found = random_sets(2, first_id=0)
    shifted = {**truth, "annotations": [{**item, "id": item["id"] + 1} for item in truth["annotations"]]}
    wanted = pycocotools_stats(shifted, found)
    assert figures(match(truth, found, [3, 6, 9]))["AP"] == 100 * wanted[0]
    single = {**truth, "annotations": truth["annotations"][:1]}
    hit = [
        {**{key: single["annotations"][0][key] for key in ("image_id", "category_id", "bbox")}, "score": 1.0}
    ]
    single["annotations"][0]["iscrowd"] = 0
    assert (
        figures(match(single, hit, [3, 6, 9]))["AP"] == pytest.approx(100)
        and pycocotools_stats(single, hit)[0] == 0
    )


def found_of(name: str, seed: int) -> list[tuple[dict, dict]]:
    from detectron2.data import DatasetCatalog

    rng = np.random.default_rng(seed)
    found = []
    for record in DatasetCatalog.get(name):
        true = np.array([item["bbox"] for item in record["annotations"]]).reshape(-1, 4)
        boxes = np.concatenate(
            [true + rng.normal(0, 0.7, true.shape), true + rng.normal(0, 6, true.shape), [[1, 1, 30, 30]]]
        )
        labels = [item["category_id"] for item in record["annotations"]] * 2 + [int(rng.integers(0, 2))]
        found.append(
            (
                {"image_id": record["image_id"]},
                {"instances": Instances(boxes, list(rng.random(len(boxes))), labels)},
            )
        )
    return found


def test_equals_detectron2s_evaluator(coco, tmp_path):
    from detectron2.evaluation import COCOEvaluator as Theirs

    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.coco_evaluation import COCOEvaluator

    name = register_folder(coco).test[0]
    found = found_of(name, seed=1)
    ours = evaluate(COCOEvaluator(name, tmp_path), found)["bbox"]
    theirs = evaluate(Theirs(name, output_dir=str(tmp_path / "theirs"), use_fast_impl=False), found)["bbox"]
    for key, value in theirs.items():
        assert ours.get(key, np.nan) == pytest.approx(value, abs=1e-9, nan_ok=True), key
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert len(written) == sum(len(output["instances"]) for _, output in found) and {
        item["category_id"] for item in written
    } == {3, 7}


@pytest.mark.parametrize("order", [["square", "circle"], ["square"]])
def test_each_class_keeps_its_own_figures(tmp_path, order):
    """Classes in another order than their ids, and a category without objects left out: Detectron2 mixes up
    names, or fails."""
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.coco_evaluation import COCOEvaluator

    root = write_coco(tmp_path / "coco")
    for file in (root / "annotations").iterdir() if len(order) == 1 else ():
        content = json.loads(file.read_text())
        content["annotations"] = [item for item in content["annotations"] if item["category_id"] == 7]
        file.write_text(json.dumps(content))
    usual = register_folder(root).test[0]
    wanted = evaluate(COCOEvaluator(usual), found_of(usual, seed=4))["bbox"]
    (tmp_path / "names.txt").write_text("\n".join(order))
    turned = register_folder(root, tmp_path / "names.txt").test[0]
    found = [
        (sample, {"instances": output["instances"][output["instances"].pred_classes == 1]})
        for sample, output in found_of(register_folder(root).test[0], seed=4)
    ]
    register_folder(root, tmp_path / "names.txt")
    label = order.index("square")
    for _, output in found:
        output["instances"].pred_classes = output["instances"].pred_classes * 0 + label
    result = evaluate(COCOEvaluator(turned), found)["bbox"]
    for key in ("AP-square", "AP50-square", "AP75-square"):
        assert result[key] == wanted[key] > 0
    assert result.get("AP-circle", 0) == 0


def test_engines_that_are_not_there(monkeypatch, coco):
    from automix_transfer.detection.scores import coco_evaluation

    with pytest.raises(
        UserError, match="--coco-evaluator fast is unknown; choose one of pycocotools, hotcoco"
    ):
        coco_evaluation.check_engine("fast")
    monkeypatch.setattr(coco_evaluation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'hotcoco>=1.3'"):
        coco_evaluation.check_engine("hotcoco")


def test_chosen_engine_is_checked_before_training(voc, tmp_path, monkeypatch):
    from argparse import Namespace

    from automix_transfer.detection import trainer
    from automix_transfer.detection.scores import coco_evaluation
    from tests.detection.tiny import CONFIGS

    monkeypatch.setattr(coco_evaluation.importlib.util, "find_spec", lambda name: None)
    arguments = Namespace(
        config_file=str(CONFIGS / "embedded_R10_FPN.yaml"),
        opts=["MODEL.WEIGHTS", "", "OUTPUT_DIR", str(tmp_path / "x")],
        data_root=voc,
        class_names=None,
        num_gpus=0,
        num_machines=1,
        resume=False,
        eval_only=False,
        coco_evaluator="hotcoco",
    )
    with pytest.raises(UserError, match="not installed"):
        trainer.prepare(arguments)
    assert not (tmp_path / "x").exists()
