"""Two iterations and an evaluation on both layouts, with both kinds of detector, through the library and the
command line."""

import json
import subprocess

import pytest
import torch

from automix_transfer.command_line import command
from tests.detection.tiny import CONFIGS, QUICK


@pytest.mark.parametrize("config", ["embedded_R10_FPN.yaml", "embedded_R10_C4.yaml"])
@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_trains_and_evaluates(config, layout, r10, tmp_path, request):
    from automix_transfer.detection import trainer

    result = trainer.run(CONFIGS / config, str(r10), request.getfixturevalue(layout), tmp_path, QUICK, seed=1)
    assert set(result) == {"AP", "AP50", "AP75"}
    assert all(value is None or 0 <= value <= 100 for value in result.values())
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["rule"] == ("11-point rule" if layout == "voc" else "COCO rule")
    assert "65 of 65 keys" in written["loaded"]
    for name in ("config.yaml", "metrics.json", "model_final.pth", "last_checkpoint", "log.txt"):
        assert (tmp_path / name).is_file(), name
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert (tmp_path / "log.txt").read_text().count("keys of the backbone") == 1


@pytest.mark.slow
def test_same_seed_same_weights(voc, tmp_path):
    from automix_transfer.detection import trainer

    models = []
    for number, seed in enumerate((5, 5, 6)):
        trainer.run(CONFIGS / "embedded_R10_FPN.yaml", "", voc, tmp_path / str(number), QUICK, seed=seed)
        models.append(torch.load(tmp_path / str(number) / "model_final.pth", weights_only=True)["model"])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not all(torch.equal(models[0][key], models[2][key]) for key in models[0])


@pytest.mark.slow
def test_overfits_one_picture(voc, tmp_path):
    """Boxes, classes and images belong together: the detector learns the training images by heart."""
    from automix_transfer.detection import trainer

    data = tmp_path / "data"
    lists = data / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (data / part).mkdir()
        # the test images are copies, since one image in both splits is refused
        for name in ("000000", "000001"):
            content = (voc / part / f"{name}.{suffix}").read_bytes()
            (data / part / f"{name}.{suffix}").write_bytes(content)
            copy = f"9{name[1:]}"
            renamed = content.replace(name.encode(), copy.encode()) if suffix == "xml" else content
            (data / part / f"{copy}.{suffix}").write_bytes(renamed)
    (lists / "trainval.txt").write_text("000000\n000001\n")
    (lists / "test.txt").write_text("900000\n900001\n")
    options = [*QUICK, "SOLVER.MAX_ITER", "60", "SOLVER.BASE_LR", "0.02", "SOLVER.WARMUP_ITERS", "10"]
    result = trainer.run(CONFIGS / "embedded_R10_FPN.yaml", "", data, tmp_path / "run", options)
    assert result["AP50"] > 60


@pytest.mark.slow
def test_command_line_resumes_and_evaluates(voc, tmp_path, script):
    base = [
        "--config-file",
        str(CONFIGS / "embedded_R10_FPN.yaml"),
        "--num-gpus",
        "0",
        "--data-root",
        str(voc),
    ]
    first = subprocess.run(
        command("detect", *base, *QUICK, "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert first.returncode == 0, first.stderr[-2000:]
    assert "training from scratch" in first.stdout
    before, config = (tmp_path / "results.json").read_text(), (tmp_path / "config.yaml").read_text()
    (tmp_path / "results.json").unlink()  # as if it had been killed
    code, out, error, _ = script(
        *base,
        "--eval-only",
        *QUICK,
        "SOLVER.MAX_ITER",
        "0",
        "MODEL.WEIGHTS",
        tmp_path / "model_final.pth",
        output=tmp_path,
    )
    assert code == 0, error
    evaluated = json.loads((tmp_path / "results_eval.json").read_text())
    assert (
        evaluated["AP"] == json.loads(before)["AP"]
        and evaluated["iterations"] == 2
        and (tmp_path / "results_eval.csv").is_file()
    )
    assert not (tmp_path / "results.json").exists(), "an evaluation does not make a run look finished"
    assert (tmp_path / "config.yaml").read_text() == config
    code, out, error, files = script(
        *base,
        "--resume",
        "SOLVER.MAX_ITER",
        "3",
        "TEST.EVAL_PERIOD",
        "3",
        "DATALOADER.NUM_WORKERS",
        "1",
        output=tmp_path,
    )
    assert code == 0, error
    assert (
        "resumed from" in out and "after iteration 2" in out and {"model_best.pth", "best.json"} <= set(files)
    )
    code, out, error, _ = script(*base, "--eval-only", "--resume", output=tmp_path)
    assert code == 0 and "evaluating" in out, error
    written = [
        json.loads((tmp_path / f"{name}.json").read_text())["iterations"]
        for name in ("results", "results_eval")
    ]
    assert written == [3, 3]


def test_help_teaches(script):
    code, out, _, _ = script("--help")
    assert code == 0
    assert all(
        word in out
        for word in (
            "--data-root",
            "--num-gpus",
            "MODEL.WEIGHTS",
            "--resume",
            "DETECTRON2_DATASETS",
            "--best-metric",
            "timm_fpn/NAME",
            "Exit codes",
        )
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_mixed_precision_on_a_gpu(voc, r10, tmp_path):
    from automix_transfer.detection import trainer

    result = trainer.run(
        CONFIGS / "embedded_R10_FPN.yaml",
        str(r10),
        voc,
        tmp_path,
        [*QUICK, "SOLVER.AMP.ENABLED", "True"],
        num_gpus=1,
    )
    assert set(result) == {"AP", "AP50", "AP75"}
    assert "grad_scaler" in torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]["_trainer"]
