"""The settings of a run, as typed dataclasses: what a YAML file and ``key=value`` overrides may say.

The ``method`` section is checked against the options of the method that ``method.name`` chooses, so a key of
another method is an unknown key. Rates, epochs and batch sizes hold for any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automix_transfer import mixing
from automix_transfer.config import flatten, load_config
from automix_transfer.data.settings import GONE, MULTI_LABEL, DataConfig, check_workers
from automix_transfer.errors import UserError, warn_renamed
from automix_transfer.mixing import METHODS
from automix_transfer.mixing.checks import between, checked, one_of, positive
from automix_transfer.mixing.checks import check as check_fields
from automix_transfer.owner import refuse_top_folder

if TYPE_CHECKING:
    from automix_transfer.mixing import Method


@dataclass
class EncoderConfig:
    """The network and what it starts from."""

    name: str = "resnet18"  # resnet10_32 or any timm model
    stem: str = "imagenet"  # imagenet | cifar (3x3 stem without max-pool, appendix A.1)
    drop_path: float = between(0.0, 0, 1)  # stochastic depth, for networks of timm that have it
    checkpointing: bool = False  # compute activations again in the backward pass, where memory is short
    freeze: int = between(0, 0)  # first parts that stay as loaded: the stem, then stages (blocks of a ViT)
    head_only: bool = False  # train the classifier alone, whatever freeze says
    # file to start from: our checkpoint or export, or a torchvision/timm state dict; empty: random
    weights: str = ""
    # which encoder of a file with several (k, q, ema, teacher, ...); empty: the one for inference
    which: str = ""
    classifier: str = one_of(
        "new", "new", "keep"
    )  # new: the classifier starts at random; keep: it is loaded too


@dataclass
class EmaConfig:
    """A moving average of the weights beside those that are trained (EMA in Table 12), see `Averaged`."""

    decay: float = 0.0  # m of a step, e.g. 0.99996 (DeiT's, for 375,000 steps); 0: no average
    # m at the end of a half cosine from decay, as AutoMix's k has it (Eq. 12); null: m stays
    decay_end: float | None = between(None, 0, 1)
    inference: bool = True  # the average is the encoder for inference: evaluated first, exported
    warmup: bool = False  # m = min(decay, t / (t + 9)) after t steps, for short runs


def _betas_problem(betas: tuple[float, float]) -> str:
    fine = all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    return "" if fine else "give two numbers of at least 0 and less than 1"


@dataclass
class OptimizerConfig:
    """The optimizer; ``lr`` is the peak rate for ``train.batch_size`` images a step."""

    name: str = one_of("sgd", "sgd", "adamw", "lamb")  # sgd | adamw | lamb (timm's, without its own clipping)
    lr: float = positive(0.1)  # rate after warm-up
    weight_decay: float = between(1e-4)
    momentum: float = between(0.9, 0, 1)  # sgd
    nesterov: bool = False  # sgd
    betas: tuple[float, float] = checked((0.9, 0.999), _betas_problem)  # adamw, lamb
    eps: float = positive(1e-8)  # adamw; lamb uses max(eps, 1e-6)
    # rate of each layer of the encoder as a share of the next one's, timm's; 1: all alike (BEiT: 0.65 to 0.9)
    layer_decay: float = between(1.0, 0.01, 1)
    # yes | no | auto: weight decay on one-dimensional parameters with sgd, none with adamw and lamb
    decay_norm_and_bias: str = one_of("auto", "auto", "yes", "no")


@dataclass
class ScheduleConfig:
    """The learning rate over the run."""

    name: str = one_of("cosine", "cosine", "constant")  # cosine | constant
    by: str = one_of("step", "step", "epoch")  # epoch: constant within each, but for the warm-up
    warmup_epochs: float = between(0.0)  # linear from warmup_lr to optimizer.lr
    warmup_lr: float = between(1e-6)
    final_lr: float = between(0.0)  # rate at the end of the cosine


LOGGERS = ("tensorboard", "wandb")


def _loggers_problem(names: list[str]) -> str:
    return (
        "" if set(names) <= set(LOGGERS) else f"choose of {', '.join(LOGGERS)}, e.g. [{', '.join(LOGGERS)}]"
    )


@dataclass
class LossConfig:
    """The loss, beside what ``method.loss`` and ``method.smoothing`` say."""

    # none | balanced | sqrt: a label counts in proportion to 1 / n or 1 / sqrt(n), n being the images of its
    # class in training; 1 in the mean over these images
    class_weights: str = one_of("none", "none", "balanced", "sqrt")


@dataclass
class TrainConfig:
    """The loop. A step is one update of the weights."""

    epochs: int = between(100, 1, 10**6)
    batch_size: int = between(256, 1, 2**20)  # images a step, over all processes and passes
    # passes a step: each process sees batch_size / (processes * accumulate) images at a time
    accumulate: int = between(1, 1, 2**20)
    clip_norm: float = between(0.0)  # largest norm of the gradient of a step; 0: no clipping
    precision: str = one_of("fp32", "fp32", "bf16", "fp16")  # fp16: with loss scaling
    channels_last: bool = False  # memory layout NHWC, faster for convolutions on recent GPUs
    compile: bool = False  # torch.compile on the encoders
    deterministic: bool = False  # only deterministic GPU kernels (slower); a CPU is deterministic anyway
    sync_batchnorm: bool = False  # BatchNorm statistics over all processes
    device: str = "auto"  # auto (an accelerator if there is one) | cpu | cuda | cuda:1 | mps | xpu
    wait_minutes: float = between(10.0, 0, 10**6)  # for the other processes, when a run on several starts
    log_every: int = between(50, 1)  # steps between two lines of the log
    # steps between two checkpoints, besides those at the end of each epoch; 0: only those
    save_every_steps: int = between(1000)
    # the last epochs that the median is taken over (10, at most half of the run) are always evaluated
    eval_every_epochs: int = between(1, 1)
    eval_batch_size: int = between(0, 0, 2**20)  # images a pass of evaluation and process; 0: as in training
    # after these epochs (from 1), pictures of mixed samples and masks
    picture_epochs: list[int] = field(default_factory=list)
    picture_count: int = between(8, 1, 1024)  # samples in a picture
    # where the log's rows go besides log.csv and log.jsonl: tensorboard, wandb; may be empty
    loggers: list[str] = checked(["tensorboard"], _loggers_problem)
    # after these epochs (from 1), the checkpoint also stays as epoch_NNNN.pt
    keep_epochs: list[int] = field(default_factory=list)
    # train and evaluate on this many batches only, without augmentation: the loss must go to 0
    overfit_batches: int = between(0)


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
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


# Settings that say where and how often, not what is trained: a resumed run may change them.
FREE_ON_RESUME = {
    "output",
    "encoder.checkpointing",  # gradients are the same
    "encoder.weights",
    "method.preset",  # where the options came from, and they are compared
    "data.root",
    "data.workers",
    "train.device",
    "train.wait_minutes",
    "train.log_every",
    "train.save_every_steps",
    "train.eval_every_epochs",
    "train.eval_batch_size",
    "train.picture_epochs",
    "train.picture_count",
    "train.loggers",
    "train.keep_epochs",
}


def load_experiment(files: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from YAML files and ``key=value`` overrides; later ones win.

    Raises:
        UserError: see `load_config`; an unknown method or method option; a value out of range.
    """
    return complete(load_config(Experiment, files, overrides, sections=SECTIONS))


def _method_options(given: Mapping[str, Any]) -> type | None:
    name = str(given.get("name"))
    return METHODS[name].options_class() if name in METHODS else None


#: The sections of `Experiment` that another one's value gives its schema.
SECTIONS = {"method": _method_options}


def complete(experiment: Experiment) -> Experiment:
    """The experiment with every option of its method, so that a later default never slips into its runs.

    Where images have several labels, the defaults are ``method.loss=bce method.bce_threshold=-1``.

    Raises:
        UserError: an unknown method or method option; a value out of range.
    """
    given = dict(experiment.method)
    name = str(given.pop("name", "vanilla"))
    if experiment.data.dataset in MULTI_LABEL:
        given = {"loss": "bce", "bce_threshold": -1.0, **given}  # the mixes of label vectors as they are
        check_vectors(experiment, name, given["loss"])
    experiment = replace(
        experiment,
        method={"name": name, **asdict(mixing.load_options(name, given))},
        output=os.path.expanduser(experiment.output),
        encoder=replace(experiment.encoder, weights=os.path.expanduser(experiment.encoder.weights)),
    )
    preset = experiment.method.get("preset")
    if preset != given.get("preset", preset):
        warn_renamed(f"method.preset={given['preset']}", f"method.preset={preset}")
    check(experiment)
    return experiment


def check(experiment: Experiment) -> None:
    """Values that their type alone does not rule out; raises `UserError` naming the key."""
    train, optimizer, schedule = experiment.train, experiment.optimizer, experiment.schedule
    for section in ("encoder", "ema", "optimizer", "schedule", "loss", "train"):
        check_fields(getattr(experiment, section), f"{section}.")
    refuse_top_folder(experiment.output, "output")
    check_workers(experiment.data.workers, "data.workers=")
    decay, warmup = experiment.ema.decay, schedule.warmup_epochs
    weighted, sampler = experiment.loss.class_weights, experiment.data.sampler
    refusals = {
        f"config key 'ema.decay' is {decay}; it must be at least 0 and less than 1": not 0 <= decay < 1,
        "encoder.checkpointing=true does not go with train.compile=true, which would count BatchNorm's "
        "batches twice; set one of them to false": experiment.encoder.checkpointing and train.compile,
        f"loss.class_weights={weighted} goes with method.loss=ce only; set method.loss=ce, or "
        "loss.class_weights=none": weighted != "none" and experiment.method.get("loss") == "bce",
        f"loss.class_weights={weighted} and data.sampler={sampler} count classes, but data.mixed has soft "
        "labels; leave data.mixed empty, or set loss.class_weights=none data.sampler=shuffle": (
            experiment.data.mixed and (weighted, sampler) != ("none", "shuffle")
        ),
        "train.overfit_batches takes real images only; leave data.mixed empty and choose method.name=vanilla "
        "for it": train.overfit_batches and experiment.data.mixed,
        f"config key 'schedule.warmup_lr' is {schedule.warmup_lr:g}, but the warm-up rises from it to "
        f"optimizer.lr={optimizer.lr:g}; lower it, or set schedule.warmup_epochs=0": warmup > 0
        and schedule.warmup_lr > optimizer.lr,
        f"config key 'schedule.warmup_epochs' is {warmup}; it must be less than "
        f"train.epochs={train.epochs}": warmup >= train.epochs and warmup > 0,
    }
    for sentence, refused in refusals.items():
        if refused:
            raise UserError(sentence)


def check_vectors(experiment: Experiment, name: str, loss: str) -> None:
    """Settings that do not go with several labels an image; raises `UserError` naming the key."""
    data, weighted = experiment.data, experiment.loss.class_weights
    several = f"data.dataset={data.dataset}, which has several labels an image"
    reason = METHODS[name].one_label if name in METHODS else ""
    refusals = {
        f"method.name={name} does not go with {several}: {reason}; choose another, e.g. mixup": reason,
        f"method.loss={loss} does not go with {several}; leave method.loss out, or set bce": loss != "bce",
        f"data.sampler={data.sampler} counts one label an image, and does not go with {several}; set "
        "data.sampler=shuffle": data.sampler != "shuffle",
        f"loss.class_weights={weighted} counts one label an image, and does not go with {several}; set "
        "loss.class_weights=none": weighted != "none",
        f"data.limit_classes and data.limit_per_class choose by one label an image, and do not go with "
        f"{several}; leave them out": data.limit_classes or data.limit_per_class,
        f"data.mixed does not go with {several}; leave it empty": data.mixed,
    }
    for sentence, refused in refusals.items():
        if refused:
            raise UserError(sentence)


def check_method(experiment: Experiment, method: Method) -> None:
    """Settings of the run that ``method`` does not go with; raises `UserError` naming the key."""
    train, mixed, name = experiment.train, experiment.data.mixed, experiment.method["name"]
    offline, chosen = METHODS[name].offline, f"method.name={name}"
    refusals = {
        f"train.compile=true does not go with {chosen}, which works on features inside the network; set "
        "train.compile=false, or choose a method that mixes images, e.g. mixup_cutmix or puzzlemix": (
            train.compile and method.reads_layers
        ),
        f"encoder.checkpointing=true does not go with {chosen}, which reads features inside the network as "
        "it trains; set encoder.checkpointing=false": experiment.encoder.checkpointing
        and method.reads_layers,
        f"{chosen} does not take the soft labels of data.mixed={mixed}; use method.name=supermix, or leave "
        "data.mixed empty": mixed and not offline,
        f"{chosen} trains on images that were mixed before; write them with automix-transfer supermix and "
        "give data.mixed=FOLDER, or choose a method that mixes while training": offline and not mixed,
    }
    for key, even in method.uneven_passes.items():
        refusals[
            "train.sync_batchnorm=true needs the same passes in all processes, but "
            f"method.{key}={experiment.method[key]:g} draws them in each; set method.{key}={even:g}"
        ] = train.sync_batchnorm
    for sentence, refused in refusals.items():
        if refused:
            raise UserError(sentence)


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved experiment, flat; a setting that is newer has its default, with which it was trained."""
    flat = as_read(saved)  # without its preset, which may set what is newer
    name = flat.get("method.name", "vanilla")
    try:
        return flatten(asdict(load_experiment(overrides=["data.root=.", f"method.name={name}"]))) | flat
    except UserError:  # a method that is no longer there
        return flat


def as_read(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved experiment, flat, without options that are gone and changed nothing."""
    flat = flatten(saved)
    from automix_transfer.mixing.automix.options import is_removed

    name = str(flat.get("method.name"))
    retired = METHODS[name].retired if name in METHODS else ()
    return {
        key: value
        for key, value in flat.items()
        if key.removeprefix("method.") not in retired
        and key not in GONE
        and not (name == "automix" and is_removed(key.removeprefix("method."), value))
    }
