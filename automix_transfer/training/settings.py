"""The settings of a run, as typed dataclasses: what a YAML file and ``key=value`` overrides may say.

The ``method`` section is checked against the options of the method that ``method.name`` chooses, so a key of
another method is an unknown key. Rates, epochs and batches are those of the recipe, whatever the number of
processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from automix_transfer.config import flatten, load_config
from automix_transfer.data.settings import GONE, DataConfig
from automix_transfer.errors import UserError
from automix_transfer.mixing import NEVER_READ, load_options
from automix_transfer.mixing.automix.options import is_removed


@dataclass
class EncoderConfig:
    """The network and what it starts from."""

    name: str = "resnet18"  # resnet10_32 or any timm model
    stem: str = "imagenet"  # imagenet | cifar (3x3 stem without max-pool, appendix A.1)
    drop_path: float = 0.0  # stochastic depth, for networks of timm that have it
    # file to start from: our checkpoint or export, or a torchvision/timm state dict; empty: random
    weights: str = ""
    which: str = ""  # encoder inside our checkpoint (k or q); empty: the one for inference
    classifier: str = "new"  # new: the classifier starts at random; keep: it is loaded too


@dataclass
class EmaConfig:
    """A moving average of the weights beside those that are trained (EMA in Table 12), see `Averaged`."""

    decay: float = 0.0  # m of a step, e.g. 0.99996 (DeiT's, for 375,000 steps); 0: no average
    inference: bool = True  # the average is the encoder for inference: evaluated first, exported
    warmup: bool = False  # m = min(decay, t / (t + 9)) after t steps, for short runs


@dataclass
class OptimizerConfig:
    """The optimizer; ``lr`` is the peak rate for ``train.batch_size`` images a step."""

    name: str = "sgd"  # sgd | adamw | lamb (timm's, without its own clipping)
    lr: float = 0.1  # rate after warm-up
    weight_decay: float = 1e-4
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    betas: tuple[float, float] = (0.9, 0.999)  # adamw, lamb
    eps: float = 1e-8  # adamw; lamb uses max(eps, 1e-6)
    # yes | no | auto: weight decay on one-dimensional parameters with sgd, none with adamw and lamb
    decay_norm_and_bias: str = "auto"


@dataclass
class ScheduleConfig:
    """The learning rate over the run, step by step."""

    name: str = "cosine"  # cosine | constant
    warmup_epochs: float = 0.0  # linear from warmup_lr to optimizer.lr
    warmup_lr: float = 1e-6
    final_lr: float = 0.0  # rate at the end of the cosine


@dataclass
class TrainConfig:
    """The loop. A step is one update of the weights."""

    epochs: int = 100
    batch_size: int = 256  # images a step, over all processes and passes
    # passes a step: each process sees batch_size / (processes * accumulate) images at a time
    accumulate: int = 1
    clip_norm: float = 0.0  # largest norm of the gradient of a step; 0: no clipping
    precision: str = "fp32"  # fp32 | bf16 | fp16 (with loss scaling)
    channels_last: bool = False  # memory layout NHWC, faster for convolutions on recent GPUs
    compile: bool = False  # torch.compile on the encoders
    deterministic: bool = False  # only deterministic GPU kernels (slower); a CPU is deterministic anyway
    sync_batchnorm: bool = False  # BatchNorm statistics over all processes
    device: str = "auto"  # auto (a GPU if there is one) | cpu | cuda | cuda:1
    log_every: int = 50  # steps between two lines of the log
    # steps between two checkpoints, besides those at the end of each epoch; 0: only those
    save_every_steps: int = 1000
    # the last epochs that the median is taken over (10, at most half of the run) are always evaluated
    eval_every_epochs: int = 1
    eval_batch_size: int = 0  # images a pass of evaluation and process; 0: as in training
    # after these epochs (from 1), pictures of mixed samples and masks
    picture_epochs: list[int] = field(default_factory=list)
    picture_count: int = 8  # samples in a picture
    # after these epochs (from 1), the checkpoint also stays as epoch_NNNN.pt
    keep_epochs: list[int] = field(default_factory=list)
    # train and evaluate on this many batches only, without augmentation: the loss must go to 0
    overfit_batches: int = 0


@dataclass
class Experiment:
    """Everything that a run is made of."""

    output: str = "runs/run"  # folder of checkpoints, logs and pictures
    seed: int = 0  # every random number of the run derives from it
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    # name, and the options of that method
    method: dict[str, Any] = field(default_factory=lambda: {"name": "vanilla"})
    ema: EmaConfig = field(default_factory=EmaConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


# Settings that say where and how often, not what is trained: a resumed run may change them.
FREE_ON_RESUME = {
    "output",
    "encoder.weights",
    "data.root",
    "data.workers",
    "train.device",
    "train.log_every",
    "train.save_every_steps",
    "train.eval_every_epochs",
    "train.eval_batch_size",
    "train.picture_epochs",
    "train.picture_count",
    "train.keep_epochs",
}


def load_experiment(files: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from YAML files and ``key=value`` overrides; later ones win.

    Raises:
        UserError: see `load_config`; an unknown method or method option; a value out of range.
    """
    experiment = load_config(Experiment, files, overrides)
    given = dict(experiment.method)
    name = str(given.pop("name", "vanilla"))
    experiment.method = {"name": name, **asdict(load_options(name, given))}
    check(experiment)
    return experiment


def check(experiment: Experiment) -> None:
    """Values that their type alone does not rule out; raises `UserError` naming the key."""
    train, optimizer, schedule = experiment.train, experiment.optimizer, experiment.schedule
    choices = {
        "train.precision": (train.precision, ("fp32", "bf16", "fp16")),
        "optimizer.name": (optimizer.name, ("sgd", "adamw", "lamb")),
        "optimizer.decay_norm_and_bias": (optimizer.decay_norm_and_bias, ("auto", "yes", "no")),
        "schedule.name": (schedule.name, ("cosine", "constant")),
        "encoder.classifier": (experiment.encoder.classifier, ("new", "keep")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise UserError(f"config key '{key}' is '{value}'; choose one of {', '.join(known)}")
    least = {
        "train.epochs": (train.epochs, 1),
        "train.batch_size": (train.batch_size, 1),
        "train.accumulate": (train.accumulate, 1),
        "train.log_every": (train.log_every, 1),
        "train.eval_every_epochs": (train.eval_every_epochs, 1),
        "train.picture_count": (train.picture_count, 1),
        "train.clip_norm": (train.clip_norm, 0),
        "train.save_every_steps": (train.save_every_steps, 0),
        "train.overfit_batches": (train.overfit_batches, 0),
        "train.eval_batch_size": (train.eval_batch_size, 0),
        "optimizer.lr": (optimizer.lr, 0),
        "optimizer.weight_decay": (optimizer.weight_decay, 0),
        "schedule.final_lr": (schedule.final_lr, 0),
        "schedule.warmup_epochs": (schedule.warmup_epochs, 0),
        "schedule.warmup_lr": (schedule.warmup_lr, 0),
    }
    for key, (number, minimum) in least.items():
        if not number >= minimum:  # also refuses NaN
            raise UserError(f"config key '{key}' is {number}; it must be at least {minimum}")
    if not 0 <= experiment.ema.decay < 1:
        raise UserError(
            f"config key 'ema.decay' is {experiment.ema.decay}; it must be at least 0 and less than 1, e.g. "
            "0.9999"
        )
    if train.overfit_batches and experiment.data.mixed:
        raise UserError(
            "train.overfit_batches takes real images only; leave data.mixed empty and choose "
            "method.name=vanilla for it"
        )
    if schedule.warmup_epochs > 0 and schedule.warmup_lr > optimizer.lr:
        raise UserError(
            f"config key 'schedule.warmup_lr' is {schedule.warmup_lr:g}, but the warm-up rises from it to "
            "optimizer.lr="
            f"{optimizer.lr:g}; lower it, or set schedule.warmup_epochs=0"
        )
    if schedule.warmup_epochs >= train.epochs and schedule.warmup_epochs > 0:
        raise UserError(
            f"config key 'schedule.warmup_epochs' is {schedule.warmup_epochs}; "
            f"it must be less than train.epochs={train.epochs}"
        )


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved experiment, flat; a setting that is newer than it has its default, which is what it was trained
    with."""
    flat = as_read(saved)
    method = [
        f"method.{key}={flat[f'method.{key}']}" for key in ("name", "preset") if f"method.{key}" in flat
    ]
    try:
        return flatten(asdict(load_experiment(overrides=["data.root=.", *method]))) | flat
    except UserError:  # a method that is no longer there
        return flat


def as_read(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved experiment, flat, without options that are gone and changed nothing."""
    flat = flatten(saved)
    return {
        key: value
        for key, value in flat.items()
        if (str(flat.get("method.name")), key.removeprefix("method.")) not in NEVER_READ
        and key not in GONE
        and not (flat.get("method.name") == "automix" and is_removed(key.removeprefix("method."), value))
    }
