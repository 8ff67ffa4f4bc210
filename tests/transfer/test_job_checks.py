"""What is wrong with a cell is told before anything runs, and the others are done."""

from __future__ import annotations

import pytest
import torch

from automix_transfer.command_line import command
from automix_transfer.commands import transfer
from automix_transfer.commands.checking.job_checks import unfit
from automix_transfer.errors import UserError
from automix_transfer.io import save_torch, write_json
from automix_transfer.jobs import Job
from automix_transfer.models import EncoderInfo, create_encoder
from automix_transfer.transfer import transfer_plan, transfer_settings
from automix_transfer.transfer.backbones import parse_backbones
from automix_transfer.transfer.transfer_run import prepare, write_record
from tests.training.tiny import write_images

TASKS = "finetune,robustness,knn"
BATCH = "finetune.train.batch_size=4"
SMALL = [BATCH, "finetune.data.image_size=72", "knn.image_size=72"]


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch) -> None:
    monkeypatch.setattr(transfer_plan, "seconds_an_image", lambda *network: (0.0, 0.0))


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("comparison")
    write_images(folder / "images")
    torch.manual_seed(0)
    for name in ("resnet10_32", "test_vit"):
        save_torch(folder / f"{name}.pth", create_encoder(name, 3).state_dict())
    return [
        *("--backbones", f"ours={folder}/resnet10_32.pth", f"vit={folder}/test_vit.pth", "random"),
        *("--encoder", "ours=resnet10_32", "vit=test_vit"),
        *("--data", f"birds={folder}/images", "--output", str(folder / "out"), "--seeds", "1", "--plan"),
        *("--finetune-recipe", "embedded_cub"),
    ]


def test_a_backbone_that_does_not_fit_is_left_out_and_the_others_stay(words, capsys) -> None:
    assert transfer.main([*words, "--tasks", TASKS, *SMALL]) == 2
    said = capsys.readouterr().out
    for task in ("finetune", "robustness", "knn"):
        assert f"{task} birds ours" in said.partition("not to be done")[0]
        assert f"{task} birds vit" not in said.partition("not to be done")[0]
        assert f"{task} birds vit" in said
    assert "data.image_size=72" in said and "--image-size=72" in said


@pytest.mark.parametrize(
    ("task", "setting", "named_in"),
    [
        ("finetune", "data.sampler=nothing", r"data\.sampler"),
        ("finetune", "data.image_size=0", r"data\.image_size"),
        ("finetune", "train.batch_size=999", "999"),
        ("knn", "k=0", "--k 0"),
        ("knn", "nothing=3", "--nothing"),
        ("robustness", "corruptions=nothing", "nothing"),
    ],
)
def test_a_setting_that_suits_no_backbone_is_refused(words, task, setting, named_in) -> None:
    batch = [] if task == "knn" or "batch" in setting else [BATCH]
    with pytest.raises(UserError, match=named_in):
        transfer.main([*words, "--tasks", task, *batch, f"{task}.{setting}"])


def test_what_is_done_shows_that_a_setting_is_right(tmp_path) -> None:
    wrong = Job("finetune birds vit", command("finetune", "nothing=1"), tmp_path / "vit.json")
    done = Job("finetune birds ours", command("finetune", "neither=1"), tmp_path / "ours.json")
    with pytest.raises(UserError, match="neither"):
        unfit([[done, wrong]], {})
    write_json(done.result, {})
    assert "nothing" in unfit([[done, wrong]], {})[wrong.name]


def test_an_encoder_without_a_linear_classifier_is_told_before_it_is_probed(words, tmp_path) -> None:
    images = words[words.index("--data") + 1].partition("=")[2]
    options = ["--data", images, "--dataset", "imagefolder", "--encoder", "torchvision/squeezenet1_1"]
    job = Job(
        "knn birds sq",
        command("probe", "--weights", "random", *options, "--output", "x.json"),
        tmp_path / "x",
    )
    with pytest.raises(UserError, match="no linear classifier"):
        unfit([[job]], {"sq": EncoderInfo("torchvision/squeezenet1_1", 3)})


def test_classes_that_differ_lose_the_cells_of_that_data_set_only(words, tmp_path, capsys) -> None:
    write_images(tmp_path / "other")
    extra = tmp_path / "other" / "val" / "zzz"
    extra.mkdir()
    next((tmp_path / "other" / "val").rglob("*.*g")).rename(extra / "one.png")
    assert transfer.main([*words, "--tasks", "finetune", BATCH, "--data", f"other={tmp_path}/other"]) == 2
    said = capsys.readouterr().out
    table, _, rest = said.partition("not to be done")
    assert "finetune birds ours" in table and "finetune other ours" not in table and "zzz" in rest


def test_a_backbone_of_which_no_trial_can_be_done_is_not_trained_with_any_value(words, capsys) -> None:
    tune = ["--tasks", "finetune", BATCH, "--tune", "lr=0.1,0.2"]
    assert transfer.main([*words, *tune, "finetune.data.image_size=72"]) == 2
    table, _, rest = capsys.readouterr().out.partition("not to be done")
    assert "finetune birds ours lr_0.1" in table and "finetune birds vit" not in table
    with pytest.raises(UserError, match="99"):
        transfer.main([*words, "--tasks", "finetune", "--tune", "lr=0.1,0.2", "finetune.train.batch_size=99"])


def test_what_no_trial_is_left_of_is_no_job(tmp_path, words) -> None:
    images = words[words.index("--data") + 1].partition("=")[2]
    tune = transfer_settings.parse_tune(["lr=0.1,0.2"], ["finetune"])
    data = transfer_settings.parse_data([f"birds={images}"])
    asked = transfer_settings.Settings(tmp_path, ("finetune",), data, (1,), "", "embedded_cub", {}, tune)
    prepared = prepare(asked, parse_backbones(["a=random", "b=random"], ["resnet10_32"]))
    write_record(prepared)
    for trial in prepared.trials:
        if trial.backbone == "a":
            write_json(trial.job.result, {"top1_median": 50})
    lost = {trial.job.name: "too large" for trial in prepared.trials if trial.backbone == "b"}
    left = prepared.without(lost)
    assert not left.choosing and [job.name for job in left.jobs] == ["finetune birds a seed1"]
    assert "too large" in left.unfit["finetune birds b seed1"]


@pytest.mark.parametrize(
    ("recipe", "network", "named_in"),
    [
        ("embedded_R10_FPN", "resnet18", "MODEL.RESNETS.DEPTH"),
        ("embedded_R10_FPN", "test_vit", "test_vit"),
        ("embedded_R10_FPN", "cifar_resnet20", "cifar_resnet20"),
        ("voc_DeiTS_FPN_24k", "resnet18", "resnet18"),
        ("Base-RCNN-FPN.yaml", "resnet18", "random"),
        ("embedded_R10_FPN", "resnet10_32", ""),
    ],
)
def test_a_detector_and_its_backbone_fit_before_the_export_is_there(
    tmp_path, recipe, network, named_in
) -> None:
    compatibility = pytest.importorskip("automix_transfer.detection.compatibility")
    if not compatibility.available():
        pytest.skip("no Detectron2")
    compatibility.require()
    from automix_transfer.commands import detect
    from automix_transfer.detection.comparing.fits import check_detector
    from automix_transfer.recipes.find import find_recipe

    info = EncoderInfo(network, 3, "cifar" if "cifar" in network else "imagenet")
    file = tmp_path / "ours.pkl"
    for weights in (str(file), ""):
        words = ["--config-file", str(find_recipe(recipe, "detection")), "MODEL.WEIGHTS", weights]
        args = detect.parser().parse_args([*words, "OUTPUT_DIR", str(tmp_path / "run")])
        if named_in and (weights == "" or named_in != "random"):
            with pytest.raises(UserError, match=named_in):
                check_detector(args, weights, info, False)
        else:
            check_detector(args, weights, info, False)
    assert not (tmp_path / "run").exists()
