"""A run with a moving average: exact resume, what is evaluated and exported, and older checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import load_method
from automix_transfer.export import export
from automix_transfer.io import load_torch
from automix_transfer.models.weights import load_encoder
from automix_transfer.training.loop import train
from automix_transfer.training.record.resume_checks import refuse_changes
from automix_transfer.training.settings import Experiment, load_experiment, with_defaults
from automix_transfer.training.setup.run_state import Run
from tests.training.processes import assert_same_run, at_each_update

Make = Callable[..., Experiment]


@pytest.mark.slow
def test_resumed_is_uninterrupted_to_the_last_bit(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("ema.decay=0.9", "ema.warmup=true", "method.name=automix", "train.save_every_steps=2")
    whole, parts = (experiment(f"output={tmp_path / name}", *options) for name in ("whole", "parts"))
    train(whole)
    calls = []

    def dies(run: Run) -> None:
        calls.append(run)
        if len(calls) == 6:
            raise ZeroDivisionError

    at_each_update(monkeypatch, dies)
    with pytest.raises(ZeroDivisionError):
        train(parts)
    monkeypatch.undo()
    assert load_torch(tmp_path / "parts" / "last.pt")["step"] == 5 - 1
    train(parts, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_it_is_evaluated_first_and_exported_where_asked(experiment: Make, tmp_path: Path) -> None:
    metrics = train(experiment("ema.decay=0.5", "train.epochs=1"))
    last = tmp_path / "run" / "last.pt"
    content = load_torch(last)
    assert list(content["encoders"].items()) == [("ema", "average."), ("encoder", "method.encoder.")]
    assert metrics["top1_last"] == metrics["top1_ema_last"] and "top1_encoder_last" in metrics
    for which, prefix in ((None, "average."), ("ema", "average."), ("encoder", "method.encoder.")):
        encoder, _ = load_encoder(last, which=which)
        assert torch.equal(encoder.state_dict()["fc.weight"], content["model"][f"{prefix}fc.weight"])
    export(last, "safetensors", tmp_path / "average.safetensors", None, None, None)
    exported, _ = load_encoder(tmp_path / "average.safetensors")
    assert torch.equal(exported.state_dict()["fc.weight"], content["model"]["average.fc.weight"])

    train(
        experiment("ema.decay=0.5", "ema.inference=false", "train.epochs=1", f"output={tmp_path / 'second'}")
    )
    assert list(load_torch(tmp_path / "second" / "last.pt")["encoders"]) == ["encoder", "ema"]


@pytest.mark.parametrize("decay", ["1.0", "-0.1", "nan"])
def test_a_decay_out_of_range_is_named(decay: str) -> None:
    with pytest.raises(UserError, match="ema.decay"):
        load_experiment(overrides=["data.root=x", f"ema.decay={decay}"])


def test_a_checkpoint_from_before_a_setting_existed_had_its_default(experiment: Make) -> None:
    now = asdict(experiment("method.name=automix", "method.preset=openmixup"))
    before = {
        key: dict(value) if isinstance(value, dict) else value for key, value in now.items() if key != "ema"
    }
    del before["method"]["bce_threshold"], before["data"]["classes"]
    refuse_changes("it", before, now)
    assert with_defaults(before)["method.bce_threshold"] == 0.2
    changed = {**now, "ema": {**now["ema"], "decay": 0.9}}
    with pytest.raises(UserError, match="ema.decay=0.0.*ema.decay=0.9"):
        refuse_changes("it", before, changed)
    del before["method"]["momentum_curve"]  # which the preset sets now and did not then
    with pytest.raises(UserError, match="method.momentum_curve=after_hold, but now .*=whole"):
        refuse_changes("it", before, now)


def test_the_method_of_a_run_with_an_average_is_the_method(experiment: Make, tmp_path: Path) -> None:
    """What figures and offline mixing read."""
    train(experiment("ema.decay=0.5", "train.epochs=1", "method.name=automix"))
    method, _ = load_method(tmp_path / "run" / "last.pt")
    model = load_torch(tmp_path / "run" / "last.pt")["model"]
    assert torch.equal(method.state_dict()["encoder_k.fc.weight"], model["method.encoder_k.fc.weight"])
