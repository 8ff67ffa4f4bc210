"""What a run does besides training: rehearsal, evaluation alone, overfitting, pictures, precision, and how it
ends when it must."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automix_transfer.config import load_config
from automix_transfer.errors import UserError
from automix_transfer.io import load_torch, read_json
from automix_transfer.mixing import Vanilla
from automix_transfer.mixing.base import StepOutput
from automix_transfer.training.distributed import World
from automix_transfer.training.loop import evaluate_only, fit, train
from automix_transfer.training.record.results import final_message
from automix_transfer.training.record.run_folder import prepare
from automix_transfer.training.setup import build_model
from automix_transfer.training.setup.build_run import build_run
from tests.training.processes import assert_same_run, rows

WORLD = World(0, 1, torch.device("cpu"))


def test_a_run_folder_explains_itself(experiment, tmp_path: Path) -> None:
    metrics = train(experiment("method.name=automix", "train.picture_epochs=[2]"))
    folder = tmp_path / "run"
    assert read_json(folder / "metrics.json") == json.loads(json.dumps(metrics))
    assert {
        "top1_last",
        "top1_best",
        "top1_median",
        "top1_k_last",
        "top1_q_last",
        "seconds",
    } <= metrics.keys()
    start = read_json(folder / "run.json")["starts"][0]
    assert {"command", "commit", "packages", "device", "processes"} <= start.keys() and start["packages"][
        "torch"
    ]
    table = list(csv.DictReader((folder / "log.csv").open()))
    assert [row["epoch"] for row in table] == ["1", "2"] and float(table[1]["top1_k"]) == metrics[
        "top1_k_last"
    ]
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5, 6] and "mask_std" in rows(folder)[0]
    assert [path.name for path in (folder / "pictures").iterdir()] == ["epoch_0002.png"]
    assert list((folder / "tensorboard").iterdir())
    assert load_config(type(experiment()), [folder / "config.yaml"]) == experiment(
        "method.name=automix", "train.picture_epochs=[2]"
    )


def test_dry_run_leaves_nothing(experiment, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = train(
        experiment("method.name=automix", "train.epochs=50", "schedule.warmup_epochs=5"), dry_run=True
    )
    assert metrics["steps"] == 1 and not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "every image decodes" in said and "weight decay" in said  # the optimizer's groups


def test_dry_run_checks_the_data(experiment, images: Path, tmp_path: Path) -> None:
    import shutil

    root = Path(shutil.copytree(images, tmp_path / "bad"))
    (root / "val" / "class_0" / "0000.png").write_bytes(b"")
    with pytest.raises(UserError, match="0000.png"):
        train(experiment(f"data.root={root}"), dry_run=True)


def test_eval_only(experiment, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate_only(experiment())
    metrics = train(experiment())
    assert evaluate_only(experiment())["top1"] == metrics["top1_last"]
    last = Path(experiment().output) / "last.pt"
    assert (
        evaluate_only(experiment(f"encoder.weights={last}", "output=elsewhere"))["top1"]
        == metrics["top1_last"]
    )


@pytest.mark.slow
def test_overfit_batches_reaches_zero_loss(experiment) -> None:
    settings = experiment(
        "train.overfit_batches=1", "train.epochs=40", "train.eval_every_epochs=20", "optimizer.lr=0.1"
    )
    train(settings)
    assert rows(Path(settings.output), "epoch")[-1]["loss"] < 0.02
    assert rows(Path(settings.output), "epoch")[-1]["top1"] == 100
    assert rows(Path(settings.output))[-1]["step"] == 40


def test_fine_tuning_starts_from_weights(experiment, tmp_path: Path) -> None:
    train(experiment("method.name=automix"))
    source = load_torch(tmp_path / "run" / "last.pt")["model"]
    settings = experiment(
        f"output={tmp_path / 'tuned'}", f"encoder.weights={tmp_path / 'run' / 'last.pt'}", "encoder.which=q"
    )
    said: list[str] = []
    method, _ = build_model.build_model(settings, ["a", "b"], say=said.append)
    assert torch.equal(
        method.state_dict()["encoder.layer4.0.conv2.weight"], source["encoder_q.layer4.0.conv2.weight"]
    )
    assert "fc" in said[0] and "random" in said[0] and method.state_dict()["encoder.fc.weight"].shape[0] == 2
    with pytest.raises(UserError, match="resnet10_32.*resnet18"):
        train(replace(settings, encoder=replace(settings.encoder, name="resnet18")))


def test_a_kept_classifier_is_not_drawn_anew(experiment, tmp_path: Path) -> None:
    """preset=openmixup draws its heads; if the classifier comes with the weights, only that of the mixes."""
    train(experiment())
    last = tmp_path / "run" / "last.pt"
    source = load_torch(last)["model"]["encoder.fc.weight"]
    keep = ["method.name=automix", "method.preset=openmixup", f"encoder.weights={last}"]
    method, _ = build_model.build_model(
        experiment(*keep, "encoder.classifier=keep"), ["class_0", "class_1", "class_2"]
    )
    for name in ("encoder_q.fc", "encoder_k.fc", "head_q"):
        assert torch.equal(method.state_dict()[f"{name}.weight"], source) == (name != "head_q")


def weights_after(settings, steps: int = 3) -> dict[str, torch.Tensor]:
    train(settings)
    content = load_torch(Path(settings.output) / "last.pt")
    assert content["step"] == steps
    return content["model"]


def test_accumulation_equals_one_pass(experiment, tmp_path: Path) -> None:
    """Without BatchNorm, two passes of 4 images are one of 8, clipped or not; what is left is the order of
    summation."""
    common = [
        "encoder.name=test_convnext",
        "train.epochs=1",
        "optimizer.name=adamw",
        "optimizer.lr=0.001",
        "train.clip_norm=0.5",
    ]
    one = weights_after(experiment(*common, f"output={tmp_path / 'one'}"))
    two = weights_after(experiment(*common, f"output={tmp_path / 'two'}", "train.accumulate=2"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-5


def test_accumulated_run_resumes_mid_epoch(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["train.accumulate=2", "train.save_every_steps=2", "train.epochs=1"]
    whole = weights_after(experiment(*common, f"output={tmp_path / 'whole'}"))
    steps = []

    def crash(self: Vanilla, progress: float) -> None:
        steps.append(progress)
        if len(steps) == 3:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Vanilla, "after_step", crash)
        train(experiment(*common))
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 2
    train(experiment(*common), resume=True)
    resumed = load_torch(tmp_path / "run" / "last.pt")["model"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_clipping_bounds_the_step(experiment, tmp_path: Path) -> None:
    settings = experiment(
        "train.clip_norm=1e-6",
        "train.epochs=1",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.lr=1",
    )
    before = build_run(settings, setup_world()).method.state_dict()
    after = weights_after(settings)
    moved = math.sqrt(
        sum(float((after[n] - before[n]).square().sum()) for n in after if n.endswith((".weight", ".bias")))
    )
    assert 0 < moved < 3.1e-6 + 1e-6


def setup_world():
    from automix_transfer.training.distributed import World

    return World(0, 1, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    ["train.precision=bf16", "train.precision=fp16", "train.channels_last=true", "optimizer.name=lamb"],
)
def test_other_ways_to_run(experiment, extra: str) -> None:
    metrics = train(experiment(extra, "method.name=automix", "train.epochs=1"))
    assert metrics["steps"] == 3 and math.isfinite(metrics["top1_last"])


def test_channels_last_resumes_to_the_same_bits(experiment, tmp_path: Path) -> None:
    common = ["train.channels_last=true", "train.precision=bf16"]
    whole = weights_after(experiment(*common, f"output={tmp_path / 'whole'}"), steps=6)
    train(experiment(*common))
    (tmp_path / "run" / "last.pt").unlink()  # back to the first epoch
    train(experiment(*common), resume=True)
    resumed = load_torch(tmp_path / "run" / "last.pt")["model"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("heads", ["shared", "separate"])
def test_compiled(experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heads: str) -> None:
    """The path of torch.compile, with the backend that needs no C++ compiler; the weights stay those of eager
    mode."""
    real = nn.Module.compile
    settings = ("method.name=automix", f"method.heads={heads}", "train.epochs=1")
    train(experiment(*settings))
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="eager"))
    train(experiment(*settings, "train.compile=true", f"output={tmp_path / 'compiled'}"))
    eager, compiled = (load_torch(tmp_path / name / "last.pt")["model"] for name in ("run", "compiled"))
    assert eager.keys() == compiled.keys() and all(
        torch.allclose(eager[key], compiled[key], atol=1e-6) for key in eager
    )


def test_eval_only_needs_no_training_images(
    experiment, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import shutil

    metrics = train(experiment("method.name=automix"))
    shutil.copytree(images / "val", tmp_path / "images" / "val")
    for weights in ("", f"encoder.weights={experiment().output}/last.pt"):
        found = evaluate_only(
            experiment("method.name=automix", f"data.root={tmp_path / 'images'}", *filter(None, [weights]))
        )
        assert found["top1"] == metrics["top1_last"]


def test_classes_of_weights_that_are_kept_must_be_the_datas(experiment, images: Path, tmp_path: Path) -> None:
    import shutil

    train(experiment())
    for split in ("train", "val"):
        for number in range(3):
            shutil.copytree(
                images / split / f"class_{number}",
                tmp_path / "other" / split / f"class_{(number + 1) % 3 + 1}",
            )
    weights = f"encoder.weights={experiment().output}/last.pt"
    with pytest.raises(UserError, match=r"last\.pt .*class_0.*class_1"):
        evaluate_only(experiment(weights, f"data.root={tmp_path / 'other'}"))


def test_weights_of_another_encoder_are_refused(experiment) -> None:
    train(experiment("encoder.name=tf_efficientnet_lite0"))
    weights = f"encoder.weights={experiment().output}/last.pt"
    with pytest.raises(UserError, match="tf_efficientnet_lite0"):
        train(experiment("encoder.name=efficientnet_lite0", weights, "output=elsewhere"))


class Diverges(Vanilla):
    """The loss becomes NaN in the fifth step."""

    calls = 0

    def forward(self, images, labels, rng=None) -> StepOutput:
        Diverges.calls += 1
        output = super().forward(images, labels, rng)
        return replace(output, loss=output.loss * float("nan")) if Diverges.calls == 5 else output


def test_nan_stops_with_step_images_and_checkpoint(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_model, "build_method", lambda name, encoder, options: Diverges(encoder))
    Diverges.calls = 0
    with pytest.raises(UserError, match=r"step 5.*\.png.*last\.pt") as caught:
        train(experiment())
    report = read_json(tmp_path / "run" / "not_finite_rank0.json")
    assert report["step"] == 5 and len(report["images"]) == 8 and report["images"][0] in str(caught.value)
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 3


def test_weights_that_are_not_finite_are_not_saved(
    experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss can have a NaN gradient (the square root of 0)."""

    class Poisoned(Vanilla):
        def after_step(self, progress: float) -> None:
            if progress > 0.9:
                with torch.no_grad():
                    self.encoder.fc.weight[0, 0] = float("nan")

    monkeypatch.setattr(build_model, "build_method", lambda name, encoder, options: Poisoned(encoder))
    with pytest.raises(UserError, match="fc.weight.* step 6"):
        train(experiment())
    assert load_torch(tmp_path / "run" / "last.pt")["step"] == 3


@pytest.mark.parametrize("method", ["vanilla", "mixup", "automix"])
def test_batch_of_one(experiment, method: str) -> None:
    with pytest.raises(UserError, match="batch"):
        train(experiment("train.batch_size=1", f"method.name={method}"))


def test_batch_that_does_not_divide(experiment) -> None:
    with pytest.raises(UserError, match="train.batch_size=8 .*train.accumulate=3"):
        train(experiment("train.accumulate=3"))
    with pytest.raises(UserError, match="26 images"):
        train(experiment("train.batch_size=64"))


def test_missing_layer_and_device(experiment) -> None:
    with pytest.raises(UserError, match="layer9"):
        train(experiment("method.name=automix", "method.feature_layer=layer9"))
    for device in ("cuda:99", "quantum"):
        with pytest.raises(UserError, match="train.device"):
            train(experiment(f"train.device={device}"))


def test_message_says_when_another_encoder_is_ahead() -> None:
    metrics = {
        "top1_last": 50.0,
        "top1_median": 50.0,
        "median_epochs": 1,
        "top1_best": 50.0,
        "top1_best_epoch": 1,
        "top1_k_last": 50.0,
        "top1_q_last": 50.6,
        "seconds": 1.0,
    }
    assert "encoder q is ahead" in final_message(metrics)
    assert "ahead" not in final_message(metrics | {"top1_q_last": 50.4})


@pytest.mark.parametrize("gpu", [True, False])
def test_too_little_memory_names_the_remedy(experiment, monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    def full(*_: object) -> None:
        if gpu:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        torch.empty(2**50)

    monkeypatch.setattr("automix_transfer.mixing.methods.vanilla.Vanilla.forward", full)
    with pytest.raises(UserError, match=f"the {'GPU' if gpu else 'machine'} .*train.accumulate=2"):
        train(experiment())


@pytest.mark.slow
def test_compiling_without_a_compiler_is_refused(
    experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "PATH": "",
        "CXX": "/none",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept"),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"train\.compile"):
        train(experiment("train.compile=true"))


def test_checkpointing_trains_the_same_run(experiment, tmp_path: Path) -> None:
    for name, on in ("run", True), ("plain", False):
        train(experiment("method.name=automix", f"encoder.checkpointing={on}", f"output={tmp_path / name}"))
    assert_same_run(tmp_path / "plain", tmp_path / "run")
    with pytest.raises(UserError, match="encoder.checkpointing.*manifoldmix"):
        train(experiment("method.name=manifoldmix", "encoder.checkpointing=true", "output=x"), dry_run=True)


@pytest.mark.parametrize("ema", [0, 0.9])
def test_class_weights_come_from_the_training_images(experiment, ema: float) -> None:
    """26 images are 9, 9 and 8 of three classes."""
    for kind, power in ("balanced", -1.0), ("sqrt", -0.5):
        overrides = [f"loss.class_weights={kind}", f"ema.decay={ema}", "data.sampler=sqrt"]
        run = build_run(experiment(*overrides), WORLD)
        method = run.method.method if ema else run.method
        weights = method.options.weights  # type: ignore[union-attr]
        assert torch.allclose(weights / weights[0], torch.tensor([1, 1, (8 / 9) ** power]))
        drawn = torch.tensor([9, 9, 8]).sqrt()
        assert float((weights * drawn).sum()) == pytest.approx(float(drawn.sum()))
    assert build_run(experiment(), WORLD).method.options.weights is None  # type: ignore[union-attr]


def test_an_evened_out_run_resumes_to_the_same_bits(experiment, tmp_path: Path) -> None:
    even = ["data.sampler=balanced", "loss.class_weights=sqrt", "train.save_every_steps=1"]
    train(experiment(*even, f"output={tmp_path / 'whole'}"))
    run = build_run(experiment(*even), WORLD)
    prepare(run.folder, run.experiment, WORLD)
    stopped = run.batches

    def two_steps(max_steps: int | None = None) -> Any:
        for number, batches in enumerate(stopped(max_steps)):
            if number == 2:
                raise KeyboardInterrupt
            yield batches

    run.batches = two_steps  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(run)
    train(experiment(*even), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
