"""From an experiment to everything a run needs: data, encoder, method, optimizer, schedule, and where it
stands."""

from __future__ import annotations

import copy
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import ImageLoader, TrainLoader, eval_loader, train_loader
from automix_transfer.data.splits import eval_dataset, train_dataset
from automix_transfer.data.transforms import eval_transform
from automix_transfer.errors import UserError
from automix_transfer.mixing import Method, build_method
from automix_transfer.mixing.average import Averaged
from automix_transfer.models.encoders import EncoderInfo, check_size
from automix_transfer.models.weights import load_file
from automix_transfer.rng import derive_generator, reseed_globals
from automix_transfer.training.distributed import World, gather, wrap
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.record import checkpoint
from automix_transfer.training.record.logs import Averages
from automix_transfer.training.record.run_folder import refuse_changes
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import Experiment


@dataclass
class Position:
    """Where a run stands; part of every checkpoint."""

    step: int = 0  # steps done
    epoch: int = 0  # epochs done, evaluation included
    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each epoch done
    best: dict[str, Any] = field(default_factory=dict)  # the row of history with the best top-1
    averages: Averages = field(default_factory=Averages)  # of the epoch that is under way
    seconds: float = 0.0  # of training, over all starts


@dataclass
class Run:
    """Everything that the loop works on. ``model`` is ``method``, behind DistributedDataParallel where there
    are several processes."""

    experiment: Experiment
    world: World
    info: EncoderInfo
    method: Method
    model: nn.Module
    optimizer: Optimizer
    rates: LearningRates
    scaler: torch.amp.GradScaler
    train_set: ClassificationDataset
    train_batches: TrainLoader
    eval_batches: ImageLoader
    steps_per_epoch: int
    at: Position
    notes: list[str]

    @property
    def folder(self) -> Path:
        return Path(self.experiment.output)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.experiment.train.epochs

    def content(self) -> dict[str, Any]:
        """The complete checkpoint: primitives and tensors only. ``at.averages`` must have been flushed, in
        all processes."""
        return {
            "format": checkpoint.FORMAT,
            "encoder": self.info.to_dict(),
            "encoders": checkpoint.encoder_prefixes(self.method),
            **checkpoint.split_state(self.method),
            "config": asdict(self.experiment),
            "step": self.at.step,
            "epoch": self.at.epoch,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.at.best,
            "history": self.at.history,
            "averages": self.at.averages.sums,
            "seconds": self.at.seconds,
            "processes": self.world.size,
            "samples": [len(self.train_set), len(self.eval_batches.dataset)],
        }  # type: ignore[arg-type]


def build_run(experiment: Experiment, world: World, content: dict[str, Any] | None = None) -> Run:
    """Build a run, at its beginning or where ``content``, a checkpoint read from ``experiment.output``, left
    it.

    Raises:
        UserError: a setting that cannot be met, or a checkpoint of another run.
    """
    train, notes = experiment.train, []
    source = f"the checkpoint in {experiment.output}"
    if content is not None:
        refuse_changes(source, content["config"], asdict(experiment))
        if content["processes"] != world.size:
            raise UserError(
                f"{source} was written by {content['processes']} processes and can only be resumed by as "
                "many, "
                f"but there are {world.size}"
            )
    train_set, eval_set = build_data(experiment)
    size = pass_size(train.batch_size, world.size, train.accumulate)
    if train.sync_batchnorm and world.size > 1 and world.device.type == "cpu":
        raise UserError(
            f"train.sync_batchnorm=true works on GPUs only, and these {world.size} processes are on the CPU; "
            "set it to false"
        )
    train_batches = train_loader(
        train_set,
        size,
        experiment.seed,
        rank=world.rank,
        world_size=world.size,
        workers=experiment.data.workers,
        repeats=experiment.data.repeats,
    )
    eval_batches = eval_loader(
        eval_set, train.eval_batch_size or size, world.rank, world.size, experiment.data.workers
    )
    steps_per_epoch = train_batches.batches_per_epoch // train.accumulate
    if steps_per_epoch == 0:
        raise UserError(
            f"the training split has {len(train_set):,} images, fewer than "
            f"train.batch_size={train.batch_size}; lower it"
        )

    method, info, note = build_method_on(
        world, experiment, train_set.classes, content, [len(train_set), len(eval_set)]
    )
    train_set.add_views(method.views, method.view_transform())
    notes += [note] if note else []
    if train.compile:
        for encoder in method.encoders().values():
            encoder.compile()
    at = Position(averages=Averages(share=partial(gather, world=world)))
    if content is not None:
        at = Position(
            content["step"],
            content["epoch"],
            content["history"],
            content["best"],
            Averages(content["averages"], at.averages.share),
            content["seconds"],
        )
    optimizer = build_optimizer(experiment.optimizer, method)
    scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")
    if content is not None:
        try:
            optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:  # other groups of parameters
            raise UserError(
                f"{source} does not fit the optimizer of this version; use the version that wrote it"
            ) from error
        scaler.load_state_dict(content["scaler"])
    rates = LearningRates(optimizer, experiment.schedule, train.epochs, experiment.optimizer.lr)
    return Run(
        experiment,
        world,
        info,
        method,
        wrap(method, world, train.sync_batchnorm),
        optimizer,
        rates,
        scaler,
        train_set,
        train_batches,
        eval_batches,
        steps_per_epoch,
        at,
        notes,
    )


def build_evaluation(
    experiment: Experiment, world: World, content: dict[str, Any] | None = None
) -> tuple[Method, ImageLoader]:
    """The method and the validation images alone, for ``--eval-only``: no training images are needed.

    Raises:
        UserError: as `build_run`.
    """
    if content is not None:
        refuse_changes(f"the checkpoint in {experiment.output}", content["config"], asdict(experiment))
    train = experiment.train
    eval_set = build_data(experiment)[1] if train.overfit_batches else eval_dataset(experiment.data)
    size = train.eval_batch_size or pass_size(train.batch_size, world.size, train.accumulate)
    loader = eval_loader(eval_set, size, world.rank, world.size, experiment.data.workers)
    return build_method_on(world, experiment, list(eval_set.classes), content, [len(eval_set)])[0], loader


def build_method_on(
    world: World,
    experiment: Experiment,
    classes: list[str],
    content: dict[str, Any] | None,
    samples: list[int],
) -> tuple[Method, EncoderInfo, str]:
    """`build_model` on its device, at its beginning or as ``content`` left it.

    Args:
        samples: numbers of training and validation images; of validation images alone where nothing is
            trained.

    Raises:
        UserError: as `build_model`; a checkpoint of other data or of another version.
    """
    choose_kernels(experiment.train.deterministic)
    reseed_globals(experiment.seed, "initial weights")
    method, info, note = build_model(experiment, classes, load_weights=content is None)
    method.to(world.device)
    if experiment.train.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if content is not None:
        source = f"the checkpoint in {experiment.output}"
        if content["encoder"] != info.to_dict() or content["samples"][-len(samples) :] != samples:
            before = (
                f"training and validation images {content['samples']}, "
                f"{content['encoder'].get('num_classes')} classes"
            )
            raise UserError(
                f"{source} was trained on other data ({before}) than data.root={experiment.data.root} holds "
                f"({samples}, {info.num_classes} classes) or with another input; give the same data"
            )
        try:
            method.load_state_dict(content["model"] | content["model_extra"])
        except RuntimeError as error:
            raise UserError(
                f"{source} does not fit the method '{experiment.method['name']}' of this version; "
                "use the version that wrote it"
            ) from error
    return method, info, note


def build_model(
    experiment: Experiment, classes: list[str], load_weights: bool = True
) -> tuple[Method, EncoderInfo, str]:
    """The method around its encoder, what is known of the encoder, and one sentence on weights that were
    loaded."""
    config, data = experiment.encoder, experiment.data
    info = EncoderInfo(
        config.name,
        len(classes),
        config.stem,
        data.image_size,
        tuple(data.mean),
        tuple(data.std),
        tuple(classes),
    )  # type: ignore[arg-type]
    options = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    try:
        encoder = info.build(**options)
    except TypeError as error:
        raise UserError(
            f"encoder '{config.name}' does not take encoder.drop_path={config.drop_path}; set it to 0"
        ) from error
    for key, size in {"data.image_size": data.image_size, "data.test_size": data.test_size}.items():
        if size:
            check_size(encoder, config.name, size, key)
    note = ""
    if config.weights and load_weights:
        report = load_file(
            encoder,
            config.weights,
            config.name,
            config.stem,
            config.which or None,
            config.classifier,
            classes,
        )
        note = f"weights from {config.weights}: {report}"
    options = {key: value for key, value in experiment.method.items() if key != "name"}
    method = build_method(experiment.method["name"], encoder, options)
    if experiment.ema.decay:
        method = Averaged(method, **asdict(experiment.ema))
    method.prepare(info)
    if experiment.train.compile and method.reads_layers:
        raise UserError(
            f"train.compile=true does not go with method.name={experiment.method['name']}, which works on "
            "features inside "
            "the network; set train.compile=false, or choose a method that mixes images, e.g. mixup_cutmix "
            "or puzzlemix"
        )
    if experiment.train.sync_batchnorm and method.uneven_passes:
        key = method.uneven_passes.partition("=")[0]
        raise UserError(
            "train.sync_batchnorm=true needs the same passes in all processes, but "
            f"method.{method.uneven_passes} draws them "
            f"in each; set method.{key}={0 if key == 'skip_generator' else 1}, or train.sync_batchnorm=false"
        )
    if bool(data.mixed) != method.soft_labels:
        raise UserError(
            f"method.name={experiment.method['name']} does not take the soft labels of "
            f"data.mixed={data.mixed}; use "
            "method.name=supermix, or leave data.mixed empty"
            if data.mixed
            else "method.name=supermix trains on images that were mixed before; write them with "
            "pretrain/supermix.py and give "
            "data.mixed=FOLDER, or choose a method that mixes while training, e.g. puzzlemix"
        )
    return method, info, note


def build_data(experiment: Experiment) -> tuple[ClassificationDataset, ClassificationDataset]:
    """Training and validation sets; with ``train.overfit_batches`` both are the same few batches, without
    augmentation."""
    data, train = experiment.data, experiment.train
    train_set = train_dataset(data, experiment.seed)
    if train.overfit_batches:
        count = min(train.overfit_batches * train.batch_size, len(train_set))
        chosen = torch.randperm(len(train_set), generator=derive_generator(experiment.seed, "overfit"))[
            :count
        ].tolist()
        train_set = ClassificationDataset(
            train_set.listing.select(chosen), eval_transform(data), experiment.seed
        )
        return train_set, copy.copy(train_set)  # a method may ask for more views in training
    eval_set = eval_dataset(data)
    if list(eval_set.classes) != list(train_set.classes):
        differing = sorted(set(eval_set.classes) ^ set(train_set.classes))[:3]
        raise UserError(
            f"splits {data.train_split} and {data.val_split} of {data.root} have different classes "
            f"({', '.join(map(str, differing))}, ...); both need the same class folders"
        )
    return train_set, eval_set


def choose_kernels(deterministic: bool) -> None:
    """GPU only: the fastest kernels, or those that give the same bits every time."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        # cuBLAS reads it when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pass_size(batch_size: int, processes: int, accumulate: int) -> int:
    """Images that one process sees at a time."""
    if batch_size < processes * accumulate:
        raise UserError(
            f"train.batch_size={batch_size} is less than one image for each of {processes} processes times "
            f"train.accumulate={accumulate}; start fewer processes, or raise it to a multiple of "
            f"{processes * accumulate}"
        )
    if batch_size % (processes * accumulate):
        raise UserError(
            f"train.batch_size={batch_size} does not divide into {processes} processes times "
            f"train.accumulate={accumulate}; "
            f"choose a multiple of {processes * accumulate}"
        )
    return batch_size // (processes * accumulate)
