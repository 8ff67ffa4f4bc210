"""Runs on images with several labels: what they are judged by, what they refuse, how they resume."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from automix_transfer.data.loader import eval_loader
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.evaluation.cli import main as evaluate
from automix_transfer.export import export
from automix_transfer.io import load_torch
from automix_transfer.models import load_encoder
from automix_transfer.training.average_precision import average_precision
from automix_transfer.training.distributed import World
from automix_transfer.training.loop import evaluate_only, train
from automix_transfer.training.record.results import final_message, of_each_encoder
from automix_transfer.training.settings import Experiment, load_experiment
from automix_transfer.training.validation import evaluate_vectors
from tests.data import several
from tests.training.processes import assert_same_run, finish_ranks, start_ranks
from tests.training.tiny import FAST

VOC = ["data.dataset=voc", "data.train_split=trainval", "data.val_split=test"]


@pytest.fixture(scope="session")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several.voc(tmp_path_factory.mktemp("voc") / "VOC2007")


def experiment(root: Path, output: Path, *overrides: str) -> Experiment:
    values = [*FAST, *VOC, f"data.root={root}", f"output={output}", "train.batch_size=4", *overrides]
    return load_experiment(overrides=values)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("method.loss=ce", r"method\.loss=ce"),
        ("method.name=augmix", r"method\.name=augmix"),
        ("method.name=supermix", r"method\.name=supermix"),
        ("data.sampler=balanced", r"data\.sampler=balanced"),
        ("loss.class_weights=sqrt", r"loss\.class_weights=sqrt"),
        ("data.mixed=x", r"data\.mixed"),
        ("data.limit_per_class=3", r"data\.limit_per_class"),
    ],
)
def test_what_counts_one_label_an_image_is_refused_before_anything_is_read(override: str, named: str) -> None:
    with pytest.raises(UserError, match=rf"{named}.*data\.dataset=voc|data\.dataset=voc.*{named}"):
        experiment(Path("nosuch"), Path("run"), override)


def test_the_loss_follows_from_the_data_and_a_threshold_may_be_given() -> None:
    for data, given, wanted in (
        ("voc", [], ("bce", -1.0)),
        ("coco", ["method.bce_threshold=0.2"], ("bce", 0.2)),
        ("imagefolder", [], ("ce", 0.2)),
    ):
        made = load_experiment(overrides=[f"data.dataset={data}", "data.root=x", "method.name=mixup", *given])
        assert (made.method["loss"], made.method["bce_threshold"]) == wanted


def test_figures_are_those_of_the_logits_and_of_all_ranks(voc: Path) -> None:
    config = DataConfig("voc", str(voc), train_split="test", val_split="test", image_size=16)
    dataset = eval_dataset(config, vectors=True)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 20))
    world = World(0, 1, torch.device("cpu"))
    found = evaluate_vectors(network, eval_loader(dataset, 3), world)
    logits = network(torch.stack([dataset[index][0] for index in range(8)])).detach()
    labels = dataset.labels
    each = [average_precision(logits[:, k].numpy(), labels[:, k]) for k in range(20)]
    values = [value for value in each if value is not None]
    assert len(values) == 3 and found["map"] == pytest.approx(sum(values) / 3, rel=1e-9)
    known = torch.from_numpy(labels >= 0)
    truth = torch.from_numpy(labels)[known].double()
    wanted = functional.binary_cross_entropy_with_logits(logits[known].double(), truth)
    assert found["loss"] == pytest.approx(float(wanted), rel=1e-6)
    shares = [batch for rank in (1, 0) for batch in eval_loader(dataset, 3, rank, 2)]  # as two processes
    assert evaluate_vectors(network, shares, world) == pytest.approx(found, rel=1e-6)
    assert evaluate_vectors(network, [], world) == {"loss": 0.0}


def test_the_last_words_are_of_map() -> None:
    found = {"map_last": 50.0, "map_median": 40.0, "map_best": 60.0, "map_best_epoch": 2, "median_epochs": 1}
    found |= {"map_k_last": 50.0, "map_q_last": 70.0, "seconds": 3.0}
    assert of_each_encoder(found) == {"k": "map_k_last", "q": "map_q_last"}
    said = final_message(found)
    assert "mAP 50.00 %" in said and "encoder q is ahead" in said and "70.00" in said


@pytest.mark.slow
@pytest.mark.parametrize("method", ["automix", "cutmix"])
def test_pretrain_resume_evaluate_and_export(
    method: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two epochs are one and, resumed, another, bit for bit; and each command gives the same mAP."""
    whole = experiment(voc, tmp_path / "whole", f"method.name={method}", "train.keep_epochs=[1]")
    metrics = train(whole)
    resumed = replace(whole, output=str(tmp_path / "resumed"))
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "whole" / "epoch_0001.pt", tmp_path / "resumed" / "last.pt")
    assert {**train(resumed, resume=True), "seconds": 0} == {**metrics, "seconds": 0}
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")

    rows = list(csv.DictReader((tmp_path / "whole" / "log.csv").read_text().splitlines()))
    assert [float(row["map"]) for row in rows][-1] == metrics["map_last"]
    assert not any(key.startswith(("top1", "top5")) for key in (*rows[0], *metrics))
    assert ("map_q_last" in metrics) == (method == "automix")
    only = evaluate_only(resumed)
    assert only["map"] == metrics["map_last"]

    run = str(tmp_path / "whole")
    assert evaluate(["--run", run, "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert found["map"] == pytest.approx(metrics["map_last"]) and len(found["class_ap"]) == 20
    values = {name: value for name, value in found["class_ap"].items() if value is not None}
    assert set(values) == {"cat", "dog", "person"} and sum(values.values()) / 3 == pytest.approx(found["map"])
    said = capsys.readouterr().out
    assert "mAP" in said and "no image shows it" in said
    with pytest.raises(UserError, match="--suite"):
        evaluate(["--run", run, "--suite", "clean,confusion", "--device", "cpu"])

    weights = tmp_path / "exported.safetensors"
    export(tmp_path / "whole" / "last.pt", "safetensors", weights)
    data = ["--data", str(voc), "--dataset", "voc", "--suite", "clean", "--device", "cpu"]
    assert evaluate(["--weights", str(weights), *data, "--output", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["map"] == pytest.approx(found["map"])


@pytest.mark.slow
def test_finetune_from_a_checkpoint_of_other_classes_on_coco(tmp_path: Path, images: Path) -> None:
    train(
        load_experiment(
            overrides=[*FAST, f"data.root={images}", f"output={tmp_path / 'a'}", "train.epochs=1"]
        )
    )
    root = several.coco(tmp_path / "coco")
    other = ["data.dataset=coco", "data.train_split=train2017", "data.val_split=val2017"]
    tuned = experiment(root, tmp_path / "b", *other, f"encoder.weights={tmp_path / 'a' / 'last.pt'}")
    assert train(tuned, dry_run=True)["steps"] == 1 and not (tmp_path / "b").exists()
    assert train(tuned)["map_last"] > 0
    encoder, info = load_encoder(tmp_path / "b" / "last.pt")
    assert info.class_names == ("person", "cat", "dog", "zebra")


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(voc: Path, tmp_path: Path) -> None:
    shared = experiment(voc, tmp_path / "run", "method.name=mixup", "train.epochs=1")
    finish_ranks(start_ranks(shared))
    row = load_torch(tmp_path / "run" / "last.pt")["history"][-1]
    alone = evaluate_only(shared)
    assert row["map"] == pytest.approx(alone["map"]) and row["val_loss"] == pytest.approx(alone["val_loss"])


@pytest.mark.slow
def test_overfitting_reaches_full_precision(voc: Path, tmp_path: Path) -> None:
    """One batch of all images, learnt by heart: every class is ranked right."""
    batch = ["train.batch_size=8", "train.overfit_batches=1", "train.epochs=40", "train.eval_every_epochs=40"]
    metrics = train(experiment(voc, tmp_path / "run", *batch, "optimizer.lr=0.2"))
    assert metrics["map_last"] == pytest.approx(100)
