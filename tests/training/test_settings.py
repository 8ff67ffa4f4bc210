from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from automix_transfer.compared.named import split_name
from automix_transfer.config import to_yaml
from automix_transfer.errors import UserError
from automix_transfer.training.record.resume_checks import refuse_changes
from automix_transfer.training.settings import flatten, load_experiment, with_defaults


def test_method_options_are_those_of_the_method() -> None:
    root = ["data.root=x"]
    assert load_experiment(overrides=[*root, "method.name=mixup", "method.alpha=0.2"]).method == {
        "name": "mixup",
        "alpha": 0.2,
        "clean_weight": 0.0,
        "probability": 1.0,
        "loss": "ce",
        "smoothing": 0.0,
        "bce_threshold": 0.2,
    }
    automix = load_experiment(
        overrides=[*root, "method.name=automix", "method.preset=openmixup", "method.feature_layer=layer2"]
    ).method
    assert (automix["heads"], automix["feature_layer"]) == ("separate", "layer2")
    with pytest.raises(UserError, match="feature_layer"):
        load_experiment(overrides=[*root, "method.name=mixup", "method.feature_layer=layer3"])
    with pytest.raises(UserError, match="mixupp.*did you mean 'mixup'"):
        load_experiment(overrides=[*root, "method.name=mixupp"])
    with pytest.raises(UserError, match="section .method.*alpha"):
        load_experiment(overrides=[*root, "method.name=mixup", "method.alpha=large"])


@pytest.mark.parametrize("name", ["mixup_cutmix", "transmix"])
def test_alpha_of_methods_that_have_two(name: str) -> None:
    """It was accepted and never read, so it is refused now, and old checkpoints that name it can still be
    resumed."""
    now = load_experiment(overrides=["data.root=x", f"method.name={name}"])
    with pytest.raises(UserError, match="mixup_alpha"):
        load_experiment(overrides=["data.root=x", f"method.name={name}", "method.alpha=0.2"])
    old = asdict(now) | {"method": {**now.method, "alpha": 0.2}}
    refuse_changes("it", old, asdict(now))
    assert with_defaults(old) == flatten(asdict(now))
    with pytest.raises(UserError, match="method.alpha"):
        plain = load_experiment(overrides=["data.root=x", "method.name=mixup"])
        refuse_changes("it", asdict(plain) | {"method": {**plain.method, "alpha": 0.2}}, asdict(plain))


def test_a_setting_that_changed_nothing_and_is_gone() -> None:
    """Checkpoints of version 0.1 hold it; they are resumed and read as if they did not."""
    now = asdict(load_experiment(overrides=["data.root=x", "method.name=mixup"]))
    old = now | {"data": {**now["data"], "decoder": "torchvision"}}
    refuse_changes("it", old, now)
    assert with_defaults(old) == flatten(now)


def test_a_setting_that_changed_something_and_is_gone() -> None:
    now = asdict(load_experiment(overrides=["data.root=x", "method.name=automix"]))
    old = now | {"method": {**now["method"], "generator_every": 2}}
    with pytest.raises(UserError, match="method.generator_every=2"):
        refuse_changes("it", old, now)


def test_written_config_reads_back(tmp_path: Path) -> None:
    experiment = load_experiment(
        overrides=[
            "data.root=x",
            "method.name=automix",
            "method.preset=openmixup",
            "train.picture_epochs=[1,5]",
        ]
    )
    (tmp_path / "config.yaml").write_text(to_yaml(experiment))
    assert load_experiment([tmp_path / "config.yaml"]) == experiment


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epochs=0", "train.epochs"),
        ("train.precision=fp8", "train.precision"),
        ("optimizer.name=adam", "optimizer.name"),
        ("optimizer.layer_decay=1.5", "optimizer.layer_decay"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.betas=[[1],0.9]", "optimizer.betas"),
        ("schedule.warmup_epochs=100", "warmup_epochs"),
        ("trian.epochs=3", "trian"),
        ("train.epoch=3", "epochs"),
        ("train.batch_size=large", "train.batch_size"),
        ("epochs", "key=value"),
    ],
)
def test_bad_values_are_named(override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_experiment(overrides=["data.root=x", override])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        pytest.param(
            ["schedule.warmup_epochs=2", "schedule.warmup_lr=0.5"],
            "schedule.warmup_lr.*optimizer.lr=0.1",
            id="overrides0-schedule.warmup_lr' is 0.5.*optimizer.lr=0.1",
        ),
        (["loss.class_weights=sqrt", "method.loss=bce"], "loss.class_weights=sqrt.*method.loss=ce"),
        (["encoder.checkpointing=true", "train.compile=true"], "encoder.checkpointing=.*train.compile="),
        (["loss.class_weights=equal"], "loss.class_weights"),
        (["data.sampler=balanced", "data.mixed=x", "method.name=supermix"], "data.sampler=.*data.mixed"),
        (["loss.class_weights=sqrt", "data.mixed=x", "method.name=supermix"], "class_weights=.*data.mixed"),
        pytest.param(
            ["train.overfit_batches=1", "data.mixed=somewhere", "method.name=supermix"],
            "train.overfit_batches",
            id="overrides1-overfit_batches takes real images only",
        ),
    ],
)
def test_values_that_do_not_go_together_are_named(overrides: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_experiment(overrides=["data.root=x", *overrides])


def test_root_is_asked_for() -> None:
    with pytest.raises(UserError, match="data.root"):
        load_experiment()


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": 3}) == {"a.b": 1, "a.c.d": [2], "e": 3}


def test_the_home_folder_in_a_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands it there, nor behind the = of an override in most."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("output: ~/run\nencoder: {weights: ~/w.pth}\ndata: {root: .}\n")
    found = load_experiment([tmp_path / "x.yaml"])
    assert (found.output, found.encoder.weights) == (str(tmp_path / "run"), str(tmp_path / "w.pth"))
    assert split_name("automix=~/a.pt", Path.exists, "a") == ("automix", str(tmp_path / "a.pt"))
