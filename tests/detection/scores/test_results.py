"""What an evaluation leaves: the table, results.csv with every class, results.json without NaN, and names for
the run folder."""

import csv
import json

import pytest

from automix_transfer.errors import UserError
from tests.detection.tiny import CONFIGS


def config(data, tmp_path):
    from automix_transfer.detection.config import load_config

    cfg, _ = load_config(
        CONFIGS / "embedded_R10_FPN.yaml", ["MODEL.WEIGHTS", "", "OUTPUT_DIR", str(tmp_path)], 0
    )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = data.train, data.test
    return cfg


def measured() -> dict:
    """As the VOC evaluator gives it; AP75 of one class is not finite, for the reader's sake."""
    headline = {
        "AP": 40.0,
        "AP50": 60.0,
        "AP75": 30.0,
        "AP-circle": 50.0,
        "AP50-circle": 70.0,
        "AP75-circle": float("nan"),
        "AP-square": 30.0,
        "AP50-square": 50.0,
        "AP75-square": 30.0,
    }
    return {"bbox": headline, "bbox_area": {key: value + 1 for key, value in headline.items()}}


def test_files(voc, tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.results import summarize, write_results

    data = register_folder(voc)
    results = summarize(config(data, tmp_path), measured(), "all of it", 9)
    write_results(tmp_path, results)
    # NaN is no JSON
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert (written["AP"], written["AP50"], written["AP75"]) == (40, 60, 30)
    assert (
        written["rule"] == "11-point rule" and written["loaded"] == "all of it" and written["iterations"] == 9
    )
    assert written["images"] == {"VOC2007:test": 4}
    assert written["objects"] == {"VOC2007:test": {"circle": 2, "square": 2}}
    assert written["per_class"]["VOC2007:test"]["bbox_area"]["square"] == {"AP": 31, "AP50": 51, "AP75": 31}
    assert written["per_class"]["VOC2007:test"]["bbox"]["circle"]["AP75"] is None
    assert all(
        "-" not in key
        for tasks in written["metrics"].values()
        for figures in tasks.values()
        for key in figures
    )
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rule"], row["class"], row["objects"]) for row in rows] == [
        (rule, name, count)
        for rule in ("11-point rule", "area rule")
        for name, count in (("(all)", "4"), ("circle", "2"), ("square", "2"))
    ]
    assert [float(row["AP"]) for row in rows] == [40, 50, 30, 41, 51, 31] and rows[1]["AP75"] == ""


def test_table(voc, tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.results import summarize, table

    text = table(summarize(config(register_folder(voc), tmp_path), measured(), None, 9))
    lines = [line.split() for line in text.splitlines()]
    assert ["11-point", "rule", "(headline)", "40.00", "60.00", "30.00"] in lines and [
        "area",
        "rule",
        "41.00",
        "61.00",
        "31.00",
    ] in lines
    assert ["circle", "2", "50.00", "70.00", "–"] in lines
    assert all(line == line.rstrip() for line in text.splitlines())


def test_coco_and_several_test_sets(coco, tmp_path):
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.results import summarize, table, write_categories, write_results

    data = register_folder(coco)
    cfg = config(data, tmp_path)
    cfg.DATASETS.TEST = (*data.test, *data.train)
    figures = {
        "AP": 10.0,
        "AP50": 20.0,
        "AP75": 5.0,
        "APs": 1.0,
        "AR100": 30.0,
        "AP-circle": 10.0,
        "AP50-circle": 20.0,
        "AP75-circle": 5.0,
    }
    by_set = {
        name: {"bbox": {key: value + k for key, value in figures.items()}}
        for k, name in enumerate(cfg.DATASETS.TEST)
    }
    results = summarize(cfg, by_set, None, 9)
    assert (
        results["AP"] == 10
        and results["rule"] == "COCO rule"
        and list(results["metrics"]) == ["coco:val2017", "coco:train2017"]
    )
    write_results(tmp_path, results)
    assert (
        "coco:train2017,COCO rule,circle,2,11.0000,21.0000,6.0000,," in (tmp_path / "results.csv").read_text()
    )
    assert "APs" in table(results) and "AR100" not in table(results)
    write_categories(cfg)
    assert json.loads((tmp_path / "categories.json").read_text()) == [
        {"id": 3, "name": "circle"},
        {"id": 7, "name": "square"},
    ]


def test_names_of_metrics(voc, coco, tmp_path):
    """As they are logged; ``--best-metric`` takes any of them."""
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.evaluation import check_metric, metrics_of

    data = register_folder(voc)
    cfg = config(data, tmp_path)
    assert sorted(metrics_of(cfg)) == sorted(
        f"{task}/{key}" for task, figures in measured().items() for key in figures
    )
    cfg.DATASETS.TEST = (*data.test, *data.train)
    assert f"{data.train[0]}/bbox/AP50-square" in metrics_of(cfg) and "bbox/AP" not in metrics_of(cfg)
    cfg = config(register_folder(coco), tmp_path)
    for metric in ("bbox/APs", "bbox/AR100", "bbox/AP75-circle"):
        check_metric(cfg, metric)
    with pytest.raises(UserError, match="--best-metric segm/AP is nothing"):
        check_metric(cfg, "segm/AP")
    cfg.MODEL.MASK_ON = True
    check_metric(cfg, "segm/AP")


def test_no_figures_at_all(voc, tmp_path):
    """An evaluation that measured nothing, as on a test set whose annotations are secret."""
    from automix_transfer.detection.registered.datasets import register_folder
    from automix_transfer.detection.scores.results import summarize, table, write_results

    results = summarize(config(register_folder(voc), tmp_path), {}, None, 9)
    write_results(tmp_path, results)
    assert results["AP"] is None and json.loads((tmp_path / "results.json").read_text())["AP50"] is None
    assert table(results) is not None


def test_class_names_with_dashes():
    from automix_transfer.detection.scores.results import _by_class

    assert _by_class({"AP": 1.0, "AP-t-shirt": 2.0, "AP50-t-shirt": 3.0}) == {
        "t-shirt": {"AP": 2.0, "AP50": 3.0}
    }
