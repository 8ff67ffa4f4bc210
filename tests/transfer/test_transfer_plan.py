"""The jobs of a comparison: what is refused before anything runs, and the commands of what is not."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from automix_transfer.commands.probe import main as probe
from automix_transfer.compared.settings import settings_in
from automix_transfer.errors import UserError
from automix_transfer.io import save_torch, sha256_of, write_json
from automix_transfer.models import EncoderInfo, create_encoder
from automix_transfer.models.weights_file import CHECKPOINT_FORMAT, METADATA_KEY
from automix_transfer.transfer import backbones, recipes
from automix_transfer.transfer import transfer_plan as plan
from automix_transfer.transfer import transfer_settings as wanted
from automix_transfer.transfer.transfer_run import (
    RECORD,
    chains_of,
    prepare,
    refuse_others_answer,
    visible_gpus,
)
from tests.detection.tiny import write_coco, write_voc
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


def settings(folder: Path, images: Path, **others) -> wanted.Settings:
    values = {
        "tasks": ("finetune", "linear", "knn", "robustness"),
        "data": wanted.parse_data([f"birds={images}"]),
        "seeds": (1, 2),
        "finetune_recipe": "embedded_cub",
    }
    return wanted.Settings(folder, **{**values, **others})


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
    data = wanted.parse_data([f"voc={tmp_path / 'VOC2007'}"])
    chosen = settings(
        tmp_path / "out", tmp_path, tasks=("detection",), data=data, detector="embedded_R10_FPN"
    )
    prepared = prepare(chosen, named(weights))
    names = [job.name for job in prepared.jobs]
    assert names.count("export ours") == 1 and len(names) == 5
    export = next(job for job in prepared.jobs if job.name == "export ours")
    written = export.result.with_suffix("").with_suffix(".pkl")
    write_json(export.result, {"sha256": sha256_of(weights)})
    assert not export.done  # the proof is there, and not what it proves
    written.write_bytes(weights.read_bytes())
    assert export.done
    written.write_bytes(b"changed since")
    assert not export.done
    ours = backbones.Named("ours", str(weights), "resnet10_32", "k")  # a detector itself chooses no encoder
    backbone = backbones.Backbone(ours, str(weights), "0", prepared.backbones["ours", 1].info)
    swin = settings(tmp_path, tmp_path, data=data, detector="voc_SwinT_FPN_24k")
    for which, kinds in (("k", ["export", "detect"]), ("", ["detect"])):
        one = dataclasses.replace(backbone, named=dataclasses.replace(ours, which=which))
        steps = plan._Steps(swin)
        job = steps.detection(data[0], one, 1)
        assert [name.split()[0] for name in steps.jobs] == kinds
        export = steps.jobs.get("export ours")
        read = job.command[job.command.index("MODEL.WEIGHTS") + 1]
        assert read == (
            str(weights) if export is None else export.command[export.command.index("--output") + 1]
        )
        assert export is None or export.command[export.command.index("--which") + 1] == "k"
    half = dataclasses.replace(backbone.info, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    random = backbones.Named("random", "random")
    for info, fed in ((backbone.info, False), (half, True)):  # as the weights that it is compared with
        job = plan._Steps(swin).detection(data[0], backbones.Backbone(random, "", "", info), 1)
        assert ("MODEL.PIXEL_MEAN" in job.command) is ("[127.5, 127.5, 127.5]" in job.command) is fed
    small = EncoderInfo("test_vit", 3, image_size=64)  # its positions are for fewer patches
    for detector, said in ((swin, True), (chosen, False)):
        job = plan._Steps(detector).detection(data[0], backbones.Backbone(random, "", "", small), 1)
        assert ("MODEL.TIMM.IMAGE_SIZE 64" in " ".join(job.command)) is said
    for detector, timm in (("embedded_R10_FPN", False), ("voc_SwinT_FPN_24k", True)):
        said = recipes.settings_of(plan.find_recipe(detector, "detection"), ())
        assert said[recipes.BACKBONE].startswith(recipes.PYRAMID) is timm


@pytest.mark.parametrize(
    ("recipe", "given", "follows"),
    [
        ("voc_SwinT_FPN_24k", {}, True),
        ("voc_SwinT_FPN_24k", {recipes.BACKBONE: "timm_fpn/swin_tiny_patch4_window7_224"}, False),
        ("voc_SwinT_FPN_24k", {recipes.OPTIMIZER: "auto"}, False),  # another rate would suit another one
        ("voc_R50_FPN_24k", {}, False),
    ],
)
def test_a_detector_of_timms_stands_on_each_backbones_network(recipe, given, follows, tmp_path) -> None:
    overrides = {"detection": tuple(word for pair in given.items() for word in pair)}
    (tmp_path / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    data = wanted.parse_data([f"voc={tmp_path / 'VOC2007'}"])
    chosen = settings(tmp_path / "out", tmp_path, data=data, detector=recipe, overrides=overrides)
    for network, other in (("convnext_atto.d2_in1k", True), ("swin_tiny_patch4_window7_224", False)):
        one = backbones.Backbone(backbones.Named("random", "random"), "", "", EncoderInfo(network, 3))
        job = plan._Steps(chosen).detection(data[0], one, 1)
        line = " ".join(job.command)
        assert ("MODEL.BACKBONE.NAME timm_fpn/convnext_atto " in line) is (follows and other)


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
        wanted.check(settings(tmp_path, images, **change))


@pytest.mark.parametrize("words", [["train.epochs=5"], ["finetune.epochs"], ["finetune"]])
def test_settings_name_their_task(words) -> None:
    with pytest.raises(UserError, match="TASK.KEY=VALUE"):
        wanted.parse_overrides(words)


@pytest.mark.parametrize(
    "words",
    [
        ["finetune.seed=5"],
        ["finetune.encoder.weights=x.pt"],
        ["finetune.data.mean=0"],
        ["knn.std=1 1 1"],
        ["detection.SEED=1"],
        ["localization.output=x.json"],
        ["knn.which=q"],
        ["knn.image-size=64", "linear.image_size=32"],
    ],
)
def test_settings_leave_the_cells_apart(words) -> None:
    with pytest.raises(UserError, match=words[-1].replace(".", r"\.")):
        wanted.parse_overrides(words)


def test_names_of_data_are_no_paths_and_collide_nowhere(tmp_path, weights, images) -> None:
    folder = tmp_path / "some birds"
    folder.symlink_to(images)
    data = wanted.parse_data([f"..={images}", str(folder)])
    assert [one.name for one in data] == ["..", "some birds"]
    prepared = prepare(settings(tmp_path / "out", images, data=data, tasks=("knn",)), named(weights))
    results = [job.result for job in prepared.jobs]
    assert len(set(results)) == len(prepared.jobs) == 6
    assert all(".." not in result.parts and result.is_relative_to(tmp_path / "out") for result in results)
    assert all(len(job.name.split()) <= 4 for job in prepared.jobs)
    for values in ([f"a b={images}", f"a_b={images}"], [f"a\nb={images}"], ["a="]):
        with pytest.raises(UserError, match="--data"):
            wanted.parse_data(values)


def test_results_of_a_recipe_that_was_edited_are_not_mixed_in(tmp_path, weights, images) -> None:
    recipe, base = tmp_path / "mine.yaml", tmp_path / "base.yaml"
    recipe.write_text("base: [embedded_cub, base.yaml]\n")
    base.write_text("train: {epochs: 2}\n")
    chosen = settings(tmp_path / "out", images, tasks=("finetune",), finetune_recipe=str(recipe))
    prepared = prepare(chosen, named(weights))
    write_json(tmp_path / "out" / RECORD, prepared.record)
    write_json(prepared.jobs[0].result, {})
    prepare(chosen, named(weights))
    base.write_text("train: {epochs: 3}\n")
    with pytest.raises(UserError, match="recipe"):
        prepare(chosen, named(weights))
    detector = tmp_path / "detector.yaml"
    detector.write_text("_BASE_: voc_SwinT_FPN_24k\nSEED: 3\n")
    assert recipes.files_of(detector)[0] == detector
    assert recipes.settings_of(detector, ())[recipes.BACKBONE].startswith(recipes.PYRAMID)
    assert recipes.settings_of(detector, (recipes.BACKBONE, "x"))[recipes.BACKBONE] == "x"
    assert len(recipes.recipe_digest("detect", str(detector)).split()) == 1
    (tmp_path / "of_mine.yaml").write_text("MODEL: {BACKBONE: {NAME: mine}}\n")
    detector.write_text("_BASE_: [voc_SwinT_FPN_24k, of_mine.yaml]\n")
    assert recipes.settings_of(detector, ())[recipes.BACKBONE] == "mine"
    assert len(recipes.recipe_digest("detect", str(detector)).split()) == 2
    detector.write_text("_BASE_: detector.yaml\n")
    assert recipes.BACKBONE not in recipes.settings_of(detector, ())


def test_an_array_script_does_what_is_missing_and_is_known_afterwards(tmp_path, weights, images) -> None:
    output = tmp_path / "with space"
    chosen = settings(output, images, tasks=("finetune", "robustness"), seeds=(1,))
    one = backbones.parse_backbones([f"ours={weights}"], ["resnet10_32"])
    script = prepare(chosen, one, num_gpus=1).slurm()
    assert (output / "logs").is_dir() and f'--output="{output}/logs/%a.log"' in script
    program = tmp_path / "automix-transfer"
    program.write_text('#!/bin/bash\necho "$1" >> "${0%/*}/done"; exit $FAIL\n')
    program.chmod(0o755)
    jobs = {job.name.split()[0]: job for job in prepare(chosen, one).jobs}

    def task(fail: int) -> list[str]:
        (tmp_path / "done").unlink(missing_ok=True)
        variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "0", "FAIL": str(fail)}
        assert subprocess.run(["bash", "-c", script], env=variables).returncode == 1
        return (tmp_path / "done").read_text().split()

    assert task(1) == ["finetune"]  # without it there is nothing to evaluate
    write_json(jobs["finetune"].result, {})
    assert task(1) == ["evaluate"]
    prepare(chosen, one)  # which knows the result


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


@pytest.mark.parametrize(
    ("write", "file"),
    [(write_voc, "Annotations/000005.xml"), (write_coco, "annotations/instances_val2017.json")],
)
def test_detectors_of_other_boxes_are_not_mixed_in(write, file, tmp_path, weights) -> None:
    write(tmp_path / "data")
    data = wanted.parse_data([f"boxes={tmp_path / 'data'}"])
    chosen = settings(
        tmp_path / "out", tmp_path, tasks=("detection",), data=data, detector="embedded_R10_FPN"
    )
    prepared = prepare(chosen, named(weights))
    for job in prepared.jobs:
        write_json(job.result, {})
    of_before = {name: {**was, "data": ""} for name, was in prepared.record.items()}  # was not recorded
    for record in (of_before, prepared.record):
        write_json(tmp_path / "out" / RECORD, record)
        prepare(chosen, named(weights))
    with (tmp_path / "data" / file).open("a") as end:
        end.write(" ")
    with pytest.raises(UserError, match="labels or boxes have changed"):
        prepare(chosen, named(weights))


def test_results_of_other_settings_are_not_mixed_in(tmp_path, weights, images) -> None:
    prepared = prepare(settings(tmp_path / "out", images), named(weights))
    write_json(tmp_path / "out" / RECORD, prepared.record)
    for job in prepared.jobs:
        write_json(job.result, {})
    assert prepare(settings(tmp_path / "out", images), named(weights)).jobs[0].done
    record = tmp_path / "out" / RECORD
    for command in (None, [1], "text"):
        write_json(record, {name: {**was, "command": command} for name, was in prepared.record.items()})
        with pytest.raises(UserError, match=RECORD):
            prepare(settings(tmp_path / "out", images), named(weights))
    write_json(record, {name: {**was, "data": "of other labels"} for name, was in prepared.record.items()})
    with pytest.raises(UserError, match="labels or boxes have changed"):
        prepare(settings(tmp_path / "out", images), named(weights))
    text = json.dumps(prepared.record)
    for was in prepared.record.values():  # when no bytes were looked at, and commands were kept as they are
        text = text.replace(was["data"], was["data"].rpartition(" ")[0])
    record.write_text(text.replace("OUTPUT", str(tmp_path / "out")))
    prepare(settings(tmp_path / "out", images), named(weights))
    write_json(record, prepared.record)
    (tmp_path / "out").rename(tmp_path / "moved")
    prepare(settings(tmp_path / "moved", images), named(weights))
    (tmp_path / "moved").rename(tmp_path / "out")
    old = {
        name: {"command": was["command"], "sha256": was["sha256"]} for name, was in prepared.record.items()
    }
    write_json(record, {name: {**was, "needs": old} for name, was in old.items()})  # less was recorded
    prepare(settings(tmp_path / "out", images), named(weights))
    write_json(record, prepared.record)
    other = settings(tmp_path / "out", images, overrides={"finetune": ("optimizer.lr=0.05",)})
    with pytest.raises(UserError, match="optimizer.lr=0.05"):
        prepare(other, named(weights))
    more = {name: ["--k", "5"] if name.startswith("probe") else [] for name in prepared.record}
    write_json(
        record, {n: {**was, "command": [*was["command"], *more[n]]} for n, was in prepared.record.items()}
    )
    with pytest.raises(UserError, match="was run with --k 5, and now it is --k 7;"):
        prepare(settings(tmp_path / "out", images, overrides={"knn": ("--k", "7")}), named(weights))
    write_json(record, prepared.record)
    trainings = [job for job in prepared.jobs if job.name.startswith("finetune")]
    for job in trainings:
        job.result.unlink()  # as the refusal says; what was measured on them is of the old settings, too
    with pytest.raises(UserError, match="robustness.*finetune"):
        prepare(other, named(weights))
    for job in trainings:
        write_json(job.result, {})
    changed = tmp_path / "changed.pth"
    save_torch(changed, create_encoder("resnet10_32", 5).state_dict())
    weights_before = weights.read_bytes()
    weights.write_bytes(changed.read_bytes())
    for job in prepared.jobs:
        if job.name == "finetune birds ours seed1":
            job.result.rename(job.result.with_name("last.pt"))  # begun and not done
    with pytest.raises(UserError, match="ours/seed1.*changed since"):
        prepare(settings(tmp_path / "out", images, tasks=("finetune",), seeds=(1,)), named(weights))
    with pytest.raises(UserError, match="changed since"):
        prepare(settings(tmp_path / "out", images), named(weights))
    weights.write_bytes(weights_before)


def write_cub(root: Path) -> None:
    """Two classes in CUB's layout, an image of each for training and for testing."""
    names = [f"00{label}.Bird/Bird_{number}.png" for label in (1, 2) for number in (0, 1)]
    rows = {
        "images": names,
        "image_class_labels": ["1", "1", "2", "2"],
        "train_test_split": ["1", "0"] * 2,
        "bounding_boxes": ["1.0 2.0 20.0 10.0"] * 4,
    }
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / "images" / name)
    for file, values in rows.items():
        (root / f"{file}.txt").write_text("".join(f"{n} {value}\n" for n, value in enumerate(values, 1)))
    (root / "classes.txt").write_text("1 001.Bird\n2 002.Bird\n")


def test_images_and_boxes_that_were_changed_are_noticed(tmp_path, weights) -> None:
    root = tmp_path / "cub"
    write_cub(root)
    chosen = settings(
        tmp_path / "out", root, tasks=("finetune", "localization"), data=wanted.parse_data([f"cub={root}"])
    )
    prepared = prepare(chosen, named(weights))
    write_json(tmp_path / "out" / RECORD, prepared.record)
    for job in prepared.jobs:
        write_json(job.result, {})
    boxes, image = root / "bounding_boxes.txt", next((root / "images").rglob("*.png"))
    for file, folder in ((boxes, "localization"), (image, "finetune")):
        before = file.read_bytes()
        file.write_bytes(before.replace(b"20.0", b"21.0") if file == boxes else before + b"0")
        with pytest.raises(UserError, match=f"{folder}.*boxes have changed"):
            prepare(chosen, named(weights))
        file.write_bytes(before)
    prepare(chosen, named(weights))


def test_a_job_gets_a_gpu_that_this_process_was_given(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given, seen in (("5,GPU-ab", ["5", "GPU-ab"]), ("3,4,-1,6", ["3", "4"]), ("", ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == seen


def test_an_answer_is_not_written_over_files_of_others(tmp_path) -> None:
    refuse_others_answer(tmp_path)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UserError, match=r"report\.html"):
        refuse_others_answer(tmp_path)
    write_json(tmp_path / RECORD, {})  # which a comparison has written before its page
    refuse_others_answer(tmp_path)


def test_random_weights_are_probed_as_those_of_the_others_are(tmp_path, images) -> None:
    info = EncoderInfo("resnet10_32", 3, "cifar", image_size=32, mean=(0.5, 0.5, 0.5))
    file = tmp_path / "cifar.safetensors"
    about = {"format": CHECKPOINT_FORMAT, "encoder": info.to_dict(), "which": "encoder", "step": 1}
    about["source_sha256"] = "0" * 64
    state = info.build().state_dict()
    save_file(state, file, {METADATA_KEY: json.dumps(about)})
    asked = settings(tmp_path / "out", images, tasks=("knn",), seeds=(1,))
    prepared = prepare(asked, backbones.parse_backbones(["random", f"ours={file}"]))
    random, ours = prepared.jobs
    result = {}
    for job in (random, ours):
        assert probe(job.command[5:]) == 0
        result[job.name] = json.loads(job.result.read_text())["about"]
    assert not prepared.differences()
    assert len({str(about["data"]) for about in result.values()}) == 1
    assert len({about["encoder"]["stem"] for about in result.values()}) == 1
    assert random.command[random.command.index("--mean") + 1] == "0.5"


def test_a_file_that_names_no_network_is_taken_for_one_that_it_fits(tmp_path, weights, capsys) -> None:
    named = backbones.parse_backbones([f"plain={weights}", "random"], ["random=resnet10_32"])
    with pytest.raises(UserError, match="--encoder plain="):
        backbones.open_backbones(named, (1,), tmp_path)
    ours = tmp_path / "run" / "plain.pth"
    save_torch(ours, create_encoder("resnet10_32", 7).state_dict())
    three = backbones.parse_backbones([f"plain={ours}", f"said={weights}", "random"], ["said=resnet10_32"])
    opened = backbones.open_backbones(three, (1, 2), tmp_path)
    assert opened["plain", 2].named.encoder == "resnet10_32" and opened["plain", 1].info.num_classes == 7


def test_paths_may_begin_at_home(tmp_path, weights, images, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(weights.parent))
    (one,) = backbones.parse_backbones([f"a=~/{weights.name}"])
    assert one.source == str(weights)
    monkeypatch.setenv("HOME", str(images))
    assert [data.root for data in wanted.parse_data(["a=~", "~/"])] == [images, images]


def test_a_probe_may_be_asked_for_later(tmp_path, weights, images) -> None:
    first = prepare(settings(tmp_path, images, tasks=("linear",)), named(weights))
    write_json(tmp_path / RECORD, first.record)
    for job in first.jobs:
        write_json(job.result, {})
    both = prepare(settings(tmp_path, images, tasks=("linear", "knn")), named(weights))
    assert not any(job.done for job in both.jobs)  # they read the same features


@pytest.mark.parametrize("word", ["knn.image_size=big", "robustness.limit=-3", "robustness.limit=x"])
def test_a_number_that_is_none_is_told(tmp_path, weights, images, word) -> None:
    given = wanted.parse_overrides([word])
    with pytest.raises(UserError, match=word.partition(".")[2]):
        prepare(settings(tmp_path, images, overrides=given), named(weights))


def test_a_detector_is_that_of_the_network_where_all_have_one(tmp_path) -> None:
    (tmp_path / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    data = wanted.parse_data([f"voc={tmp_path}"])
    one = backbones.Backbone(backbones.Named("a", "a.pt"), "a.pt", "", EncoderInfo("resnet50.a1_in1k", 0))
    other = dataclasses.replace(one, info=EncoderInfo("torchvision/resnet50", 10))
    assert recipes.usual_detector([one, other], data) == "voc_R50_C4_24k"
    coco = [dataclasses.replace(data[0], root=tmp_path / "none")]
    assert recipes.usual_detector([one], coco) == "coco_R50_C4_2x"
    swin = dataclasses.replace(one, info=EncoderInfo("swin_tiny_patch4_window7_224", 0))
    for backbone, sets in (([one, swin], data), ([one], [*data, *coco])):
        with pytest.raises(UserError, match="--detector"):
            recipes.usual_detector(backbone, sets)
    for names in recipes.USUAL_DETECTORS.values():
        assert all(plan.find_recipe(name, "detection").is_file() for name in names.split())


def test_a_value_stands_behind_its_setting() -> None:
    assert settings_in(["--image-size", "32", "--mean", "0.5", "0.4", "--k", "7"]) == [
        "--image-size 32", "--mean 0.5 0.4", "--k 7",
    ]  # fmt: skip
    words = ["detect", "--resume", "--data-root", "a", "SOLVER.MAX_ITER", "9", "SEED", "1", "output=x", "y"]
    assert settings_in(words) == [
        "detect", "--resume", "--data-root a", "SOLVER.MAX_ITER 9", "SEED 1", "output=x", "y",
    ]  # fmt: skip
