"""The jobs of a comparison: what is refused before anything runs, and the commands of what is not."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.io import save_torch, write_json
from automix_transfer.models import create_encoder
from automix_transfer.transfer import backbones
from automix_transfer.transfer import transfer_plan as plan
from automix_transfer.transfer.transfer_run import RECORD, chains_of, prepare, record_of
from tests.training.tiny import write_images


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "r10.pth"
    torch.manual_seed(0)
    save_torch(file, create_encoder("resnet10_32", 4).state_dict())
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def settings(folder: Path, images: Path, **others) -> plan.Settings:
    values = {
        "tasks": ("finetune", "linear", "knn", "robustness"),
        "data": plan.parse_data([f"birds={images}"]),
        "seeds": (1, 2),
        "finetune_recipe": "embedded_cub",
    }
    return plan.Settings(folder, **{**values, **others})


def named(weights: Path) -> tuple[backbones.Named, ...]:
    return backbones.parse_backbones(["random", f"ours={weights}"], ["resnet10_32"])


def test_every_cell_has_a_job_and_what_is_fixed_is_measured_once(tmp_path, weights, images) -> None:
    prepared = prepare(settings(tmp_path / "out", images), named(weights))
    names = [job.name for job in prepared.jobs]
    assert names.count("probe birds ours") == 1 and "probe birds random seed2" in names
    assert sum(name.startswith("finetune") for name in names) == 4
    assert {cell.seed for cell in prepared.cells if cell.task == "knn" and cell.backbone == "ours"} == {None}
    assert all(job.minutes > 0 for job in prepared.jobs)
    finetune = next(job.line for job in prepared.jobs if job.name == "finetune birds ours seed2")
    assert f"encoder.weights={weights}" in finetune and "seed=2" in shlex.split(finetune)
    chains = chains_of(prepared.jobs)
    assert sorted(len(chain) for chain in chains) == [1, 1, 1, 2, 2, 2, 2]
    assert not (tmp_path / "out").exists()  # a plan leaves nothing


def test_detection_exports_once_and_timm_backbones_read_checkpoints(tmp_path, weights) -> None:
    boxes = tmp_path / "VOC2007" / "ImageSets" / "Main"
    boxes.mkdir(parents=True)
    data = plan.parse_data([f"voc={tmp_path / 'VOC2007'}"])
    chosen = settings(
        tmp_path / "out", tmp_path, tasks=("detection",), data=data, detector="embedded_R10_FPN"
    )
    prepared = prepare(chosen, named(weights))
    names = [job.name for job in prepared.jobs]
    assert names.count("export ours") == 1 and len(names) == 5
    assert not plan.reads_checkpoints(plan.find_recipe("embedded_R10_FPN", "detection"), ())
    assert plan.reads_checkpoints(plan.find_recipe("voc_SwinT_FPN_24k", "detection"), ())


@pytest.mark.parametrize(
    ("change", "named_in"),
    [
        ({"tasks": ("detection",)}, "detection"),
        ({"tasks": ("localization",)}, "localization"),
        ({"overrides": {"detection": ("SEED", "1")}}, "detection"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, images, change, named_in) -> None:
    with pytest.raises(UserError, match=named_in):
        plan.check(settings(tmp_path, images, **change))


@pytest.mark.parametrize("words", [["train.epochs=5"], ["finetune.epochs"], ["finetune"]])
def test_settings_name_their_task(words) -> None:
    with pytest.raises(UserError, match="TASK.KEY=VALUE"):
        plan.parse_overrides(words)


def test_a_wrong_setting_is_told_before_anything_runs(tmp_path, weights, images) -> None:
    chosen = settings(tmp_path / "out", images, overrides={"finetune": ("train.epoch=5",)})
    with pytest.raises(UserError, match="train.epoch"):
        prepare(chosen, named(weights))


@pytest.mark.parametrize(
    ("values", "more", "match"),
    [
        (["a=x.pt", "a=y.pt"], [], "two called 'a'"),
        (["="], [], "NAME=SOURCE"),
        (["a=x.pt"], ["b=resnet18"], "b=resnet18"),
    ],
)
def test_names_of_backbones(values, more, match) -> None:
    with pytest.raises(UserError, match=match):
        backbones.parse_backbones(values, more)


def test_a_backbone_that_does_not_open_is_named(tmp_path, weights) -> None:
    for value, match in ((f"x={tmp_path / 'none.pt'}", "'x'.*none.pt"), (f"x={weights}", "'x'")):
        with pytest.raises(UserError, match=match):
            backbones.open_backbones(backbones.parse_backbones([value]), (1,), tmp_path)
    with pytest.raises(UserError, match="--encoder"):
        backbones.open_backbones(backbones.parse_backbones(["random"]), (1,), tmp_path)


def test_each_seed_may_have_a_file_of_its_own(tmp_path, weights) -> None:
    for seed in (1, 2):
        (tmp_path / f"run{seed}").mkdir()
        (tmp_path / f"run{seed}" / "r.pth").write_bytes(weights.read_bytes())
    one = backbones.parse_backbones([f"ours={tmp_path}/run{{seed}}/r.pth"], ["resnet10_32"])
    opened = backbones.open_backbones(one, (1, 2), tmp_path)
    assert opened["ours", 2].file.endswith("run2/r.pth") and one[0].drawn


def test_results_of_other_settings_are_not_mixed_in(tmp_path, weights, images) -> None:
    prepared = prepare(settings(tmp_path / "out", images), named(weights))
    write_json(tmp_path / "out" / RECORD, record_of(prepared))
    for job in prepared.jobs:
        write_json(job.result, {})
    assert prepare(settings(tmp_path / "out", images), named(weights)).jobs[0].done
    other = settings(tmp_path / "out", images, overrides={"finetune": ("optimizer.lr=0.05",)})
    with pytest.raises(UserError, match="optimizer.lr=0.05"):
        prepare(other, named(weights))
    changed = tmp_path / "changed.pth"
    save_torch(changed, create_encoder("resnet10_32", 5).state_dict())
    weights_before = weights.read_bytes()
    weights.write_bytes(changed.read_bytes())
    with pytest.raises(UserError, match="changed since"):
        prepare(settings(tmp_path / "out", images), named(weights))
    weights.write_bytes(weights_before)
