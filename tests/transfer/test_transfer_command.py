"""The whole comparison on small images: jobs, answer, page, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from automix_transfer.commands import transfer
from automix_transfer.commands.probe import main as probe
from automix_transfer.errors import UserError
from automix_transfer.evaluation.probing.probes import layout_of
from automix_transfer.io import save_torch
from automix_transfer.models import create_encoder
from tests.training.tiny import write_images


def weights(folder: Path) -> Path:
    torch.manual_seed(0)
    save_torch(folder / "r10.pth", create_encoder("resnet10_32", 3).state_dict())
    return folder / "r10.pth"


def test_a_probe_learns_from_one_split_and_measures_on_the_other(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    words = ["--weights", str(weights(tmp_path)), "--encoder", "resnet10_32", "--image-size", "32"]
    output = tmp_path / "probe.json"
    assert probe([*words, "--data", str(tmp_path / "images"), "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert 0 <= found["linear"]["top1"] <= 100 and 0 <= found["knn"]["top1"] <= 100
    assert found["about"]["data"]["train_split"] == "train" and found["training_images"] > 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--kinds", "nothing"], "--kinds"),
        (["--k", "0"], "--k"),
        (["--workers", "100000"], "--workers"),
        (["--temperature", "nan"], "--temperature"),
        (["--output", "x.txt"], "--output"),
        (["--data", "/nowhere"], "--data"),
        (["--weights", "random"], "--encoder"),
        (["--dataset", "nothing"], "--dataset"),
    ],
)
def test_options_of_a_probe(tmp_path: Path, words: list[str], match: str) -> None:
    write_images(tmp_path)
    with pytest.raises(UserError, match=match):
        probe(["--weights", "x.pth", "--data", str(tmp_path), *words])


def test_a_layout_is_known_also_where_the_archive_unpacked_it(tmp_path: Path) -> None:
    (tmp_path / "fgvc-aircraft-2013b" / "data").mkdir(parents=True)
    (tmp_path / "fgvc-aircraft-2013b" / "data" / "variants.txt").touch()
    for folder in (tmp_path, tmp_path / "fgvc-aircraft-2013b", tmp_path / "fgvc-aircraft-2013b" / "data"):
        assert layout_of(folder) == "aircraft"
    with pytest.raises(UserError, match="none of the layouts"):
        layout_of(tmp_path / "fgvc-aircraft-2013b" / "nothing")


@pytest.mark.slow
def test_the_answer_of_a_comparison_one_of_whose_jobs_fails(tmp_path: Path, capsys) -> None:
    write_images(tmp_path / "images")
    output = tmp_path / "answer"
    words = ["--backbones", "random", f"ours={weights(tmp_path)}", "--encoder", "resnet10_32"]
    words += ["--tasks", "finetune,linear,knn", "--data", f"birds={tmp_path / 'images'}"]
    words += ["--seeds", "2", "--finetune-recipe", "embedded_cub", "--output", str(output), "--jobs", "2"]
    small = ["train.epochs=1", "train.batch_size=4", "schedule.warmup_epochs=0", "data.image_size=32"]
    words += [f"finetune.{word}" for word in small] + ["linear.image_size=32"]
    blocked = output / "finetune" / "birds" / "ours" / "seed2"
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # where a folder is to be made
    assert transfer.main(words) == 2
    answer = json.loads((output / "answer.json").read_text())
    by_figure = {(row["task"], row["figure"]): row for row in answer["rows"]}
    top1 = by_figure["finetune", "top-1"]["scores"]
    assert [len(one["values"]) for one in top1] == [2, 1] and "seed 2" in top1[1]["missing"]
    assert list(by_figure["knn", "top-1"]["scores"][1]["values"]) == ["fixed"]
    assert (output / "figures" / "training_curves_birds.png").is_file()
    page = (output / "report.html").read_text()
    assert "What is missing" in page and page.count("data:image/png;base64,") >= 2

    blocked.unlink()
    capsys.readouterr()
    assert transfer.main(words) == 0  # only what was missing is done
    said = capsys.readouterr().out
    assert said.count("started") == 1
    answer = json.loads((output / "answer.json").read_text())
    assert answer["rows"][0]["scores"][1]["interval"] is not None
    with pytest.raises(UserError, match="optimizer.lr=0.5"):
        transfer.main([*words, "finetune.optimizer.lr=0.5"])
