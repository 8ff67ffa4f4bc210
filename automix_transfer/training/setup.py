"""From an experiment to everything that a run needs: data, encoder, method, optimizer, schedule, position."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.layouts.class_order import require_known_order
from automix_transfer.data.listing import Listing
from automix_transfer.data.loader import ImageLoader, TrainLoader, eval_loader, train_loader
from automix_transfer.data.splits import eval_dataset, shared_images, train_dataset
from automix_transfer.data.transforms import eval_transform
from automix_transfer.errors import UserError, first_line
from automix_transfer.mixing import Method, build_method
from automix_transfer.mixing.average import Averaged
from automix_transfer.models.checkpointing import checkpoint_blocks, update_once
from automix_transfer.models.encoders import EncoderInfo, check_size
from automix_transfer.models.freezing import freeze
from automix_transfer.models.weights import load_file
from automix_transfer.progress import to_stderr
from automix_transfer.rng import derive_generator, reseed_globals
from automix_transfer.training.distributed import World, check_world, wrap
from automix_transfer.training.joining import digest_of, refuse_differences, together
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.record.averages import Averages
from automix_transfer.training.record.checkpoint import Checkpoint, encoder_prefixes, split_state
from automix_transfer.training.record.resume_checks import refuse_another_run, refuse_other_data, restore
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import Experiment, check_method, flatten

Batch = tuple[Tensor, Tensor, Tensor]  # images (N, 3, H, W), labels (N,) or (N, K), indices (N,)


@dataclass
class Position:
    """Where a run stands; part of every checkpoint."""

    averages: Averages  # of the epoch that is under way
    step: int = 0  # steps done
    epoch: int = 0  # epochs done, evaluation included
    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each epoch done
    best: dict[str, Any] = field(default_factory=dict)  # the row of history with the best top-1 or mAP
    seconds: float = 0.0  # of training, over all starts

    @classmethod
    def of(cls, found: Checkpoint, world: World) -> Position:
        """Where ``found`` left the run."""
        averages = Averages(world, found.averages)
        return cls(averages, found.step, found.epoch, found.history, found.best, found.seconds)


@dataclass
class Run:
    """Everything that the loop works on.

    ``model`` is ``method``, behind DistributedDataParallel where there are several processes. ``weights``
    says which weights it starts from.
    """

    experiment: Experiment
    world: World
    info: EncoderInfo
    method: Method
    model: nn.Module
    optimizer: Optimizer
    rates: LearningRates
    scaler: torch.amp.GradScaler
    train_batches: TrainLoader
    eval_batches: ImageLoader
    at: Position
    weights: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.experiment.output)

    @property
    def train_set(self) -> ClassificationDataset:
        return self.train_batches.dataset  # type: ignore[return-value]

    @property
    def eval_set(self) -> ClassificationDataset:
        return self.eval_batches.dataset  # type: ignore[return-value]

    @property
    def steps_per_epoch(self) -> int:
        return self.train_batches.batches_per_epoch // self.experiment.train.accumulate

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.experiment.train.epochs

    def batches(self, max_steps: int | None = None) -> Iterator[list[Batch]]:
        """What is left of the epoch: the batches of each step's passes, fetched before the step begins."""
        accumulate = self.experiment.train.accumulate
        done = self.at.step - self.at.epoch * self.steps_per_epoch
        self.train_batches.set_epoch(self.at.epoch, done * accumulate)
        batches = iter(self.train_batches)
        for _ in range(self.steps_per_epoch - done if max_steps is None else max_steps):
            yield list(islice(batches, accumulate))

    def on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch where the method is, in the memory layout of ``train.channels_last``."""
        device = self.world.device
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if self.experiment.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, labels

    def gradients(self, number: int) -> AbstractContextManager[None]:
        """Around pass ``number`` of a step: processes add up their gradients in the last one only."""
        if number < self.experiment.train.accumulate - 1 and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def saves_now(self) -> bool:
        """Whether a checkpoint is due in the middle of an epoch; there is one at each end."""
        every = self.experiment.train.save_every_steps
        return every > 0 and self.at.step % every == 0 and self.at.step % self.steps_per_epoch != 0

    def checkpoint(self) -> Checkpoint:
        """All of the run. ``at.averages`` must have been flushed, in all processes."""
        return Checkpoint(
            encoder=self.info.to_dict(),
            encoders=encoder_prefixes(self.method),
            **split_state(self.method),
            config=asdict(self.experiment),
            step=self.at.step,
            epoch=self.at.epoch,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            best=self.at.best,
            history=self.at.history,
            averages=self.at.averages.sums,
            seconds=self.at.seconds,
            processes=self.world.size,
            samples=[len(self.train_set), len(self.eval_set)],
        )


def try_to_compile(device: torch.device) -> None:
    """Compile one line, to know before anything is read whether this machine can.

    Raises:
        UserError: it has no compiler, or one that does not work.
    """
    size = 64 + secrets.randbelow(1 << 16)  # what was compiled before, and is kept, proves nothing
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(size, device=device))
    except Exception as error:  # of the compiler, of torch, of what torch imports for it
        raise UserError(
            f"train.compile=true: torch cannot compile here ({type(error).__name__}: {first_line(error)}); "
            "install a C++ compiler (g++), which GPUs need too, or set train.compile=false"
        ) from error


def build_run(experiment: Experiment, world: World, checkpoint: Checkpoint | None = None) -> Run:
    """Build a run at its beginning, or where ``checkpoint`` left it; all processes hold the same one.

    Raises:
        UserError: a setting that cannot be met, a checkpoint of another run, or processes that differ.
    """
    check_world(experiment.train, world)
    run = together(world, lambda: _build(experiment, world, checkpoint))
    if world.size > 1:
        refuse_differences(world, facts(run, checkpoint))
    run.model = wrap(run.method, world, experiment.train.sync_batchnorm)
    if experiment.encoder.checkpointing:
        update_once(run.method)
    return run


def facts(run: Run, checkpoint: Checkpoint | None) -> dict[str, str]:
    """What must be equal in all processes: settings, data and checkpoint."""
    settings = {f"config key '{key}'": str(value) for key, value in flatten(asdict(run.experiment)).items()}
    for key in ("data.root", "data.workers", "encoder.weights"):  # a machine may have them elsewhere
        del settings[f"config key '{key}'"]
    root = run.experiment.data.root
    at = f"of step {checkpoint.step}, {digest_of(checkpoint.model)}" if checkpoint else "nowhere"
    return settings | {
        "training images": run.train_set.listing.fingerprint(root),
        "validation images": run.eval_set.listing.fingerprint(root),
        "a checkpoint": at,
    }


def _build(experiment: Experiment, world: World, checkpoint: Checkpoint | None) -> Run:
    train, seed = experiment.train, experiment.seed
    if checkpoint is not None:
        refuse_another_run(checkpoint, experiment, world)
    if train.compile:
        try_to_compile(world.device)

    known = checkpoint.encoder.get("class_names", ()) if checkpoint else ()
    train_set, eval_set = build_data(experiment, known)
    if world.main:
        tell_of_data(train_set.listing, eval_set.listing)
    size = pass_size(train.batch_size, world.size, train.accumulate)
    train_batches, eval_batches = build_loaders(experiment, world, train_set, eval_set, size)
    if train_batches.batches_per_epoch < train.accumulate:
        given = f"train.batch_size={train.batch_size}"
        raise UserError(f"the training split has {len(train_set):,} images, fewer than {given}; lower it")

    choose_kernels(train.deterministic)
    reseed_globals(seed, "initial weights")
    said: list[str] = []
    method, info = build_model(experiment, train_set.classes, checkpoint is None, said.append)
    for text in said:
        world.say(text)
    place(method, world, train.channels_last)
    if (kind := experiment.loss.class_weights) != "none":
        counts = train_set.images_a_class(f"loss.class_weights={kind}")
        method.weigh_classes(class_weights(counts, kind).to(world.device))
    if views := method.view_transforms():
        train_set.add_views(1 + len(views), views[0])
    if train.compile:
        for encoder in method.encoders().values():
            encoder.compile()

    optimizer = build_optimizer(experiment.optimizer, method)
    scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")
    at = Position(Averages(world))
    if checkpoint is not None:
        refuse_other_data(checkpoint, experiment, info, [len(train_set), len(eval_set)])
        states = (method, checkpoint.method), (optimizer, checkpoint.optimizer), (scaler, checkpoint.scaler)
        restore(experiment, *states)
        at = Position.of(checkpoint, world)
    rates = LearningRates(optimizer, experiment.schedule, train.epochs, experiment.optimizer.lr)
    return Run(
        experiment,
        world,
        info,
        method,
        method,
        optimizer,
        rates,
        scaler,
        train_batches,
        eval_batches,
        at,
        " ".join(said),
    )


def build_evaluation(
    experiment: Experiment, world: World, checkpoint: Checkpoint | None = None
) -> tuple[Method, ImageLoader]:
    """The method and the validation images alone, for ``--eval-only``: no training images are needed.

    Raises:
        UserError: as `build_run`.
    """
    if checkpoint is not None:
        refuse_another_run(checkpoint, experiment)
    train = experiment.train
    known = checkpoint.encoder.get("class_names", ()) if checkpoint else ()
    data = experiment.data
    eval_set = (
        build_data(experiment, known)[1] if train.overfit_batches else eval_dataset(data, None, known, True)
    )
    size = train.eval_batch_size or pass_size(train.batch_size, world.size, train.accumulate)
    loader = eval_loader(eval_set, size, world.rank, world.size, experiment.data.workers)
    choose_kernels(train.deterministic)
    method, info = build_model(experiment, list(eval_set.classes), checkpoint is None, world.say)
    place(method, world, train.channels_last)
    if checkpoint is not None:
        refuse_other_data(checkpoint, experiment, info, [len(eval_set)])
        restore(experiment, (method, checkpoint.method))
    return method, loader


def build_model(
    experiment: Experiment,
    classes: list[str],
    load_weights: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Method, EncoderInfo]:
    """The method around its encoder, and what is known of the encoder.

    Args:
        load_weights: read ``encoder.weights``; otherwise all weights are drawn from the global generators.
        say: is told which weights were loaded.

    Raises:
        UserError: a setting that the encoder, its weights or the method do not go with.
    """
    config, data = experiment.encoder, experiment.data
    names = {"name": config.name, "num_classes": len(classes), "stem": config.stem, "class_names": classes}
    images = {"image_size": data.image_size, "mean": data.mean, "std": data.std}
    info = EncoderInfo.from_dict({**names, **images})
    encoder = build_encoder(experiment, info)
    if config.weights and load_weights:
        choice = config.which or None, config.classifier
        report = load_file(encoder, config.weights, config.name, config.stem, *choice, classes)
        say(f"weights from {config.weights}: {report}")
        if config.classifier == "keep" and not report.classes and data.class_order == "auto":
            require_known_order(config.weights, classes, "data.class_order=number or data.class_order=text")
    if config.freeze or config.head_only:
        freeze(encoder, config.freeze, config.head_only)
    options = {key: value for key, value in experiment.method.items() if key != "name"}
    kept = copy.deepcopy(encoder.state_dict()) if config.classifier == "keep" else {}
    method = build_method(experiment.method["name"], encoder, options)
    for network in method.encoders().values() if kept else ():  # a method may have drawn its classifiers anew
        network.load_state_dict(kept)
    method.prepare(info)
    check_method(experiment, method)
    return (Averaged(method, **asdict(experiment.ema)) if experiment.ema.decay else method), info


def build_encoder(experiment: Experiment, info: EncoderInfo) -> nn.Module:
    """The encoder with random weights, for images of the sizes of training and testing."""
    config, data = experiment.encoder, experiment.data
    try:
        encoder = info.build(**({"drop_path_rate": config.drop_path} if config.drop_path else {}))
    except TypeError as error:
        raise UserError(
            f"encoder '{config.name}' does not take encoder.drop_path={config.drop_path}; set it to 0"
        ) from error
    if config.checkpointing:
        checkpoint_blocks(encoder, config.name)
    for key, size in {"data.image_size": data.image_size, "data.test_size": data.test_size}.items():
        if size:
            check_size(encoder, config.name, size, key)
    return encoder


def tell_of_data(train: Listing, val: Listing) -> None:
    """What the readers of both splits found worth saying, and images that both splits have."""
    shared = () if val.paths is train.paths else (shared_images(train, val),)
    for note in dict.fromkeys((*train.notes, *val.notes, *shared)):
        if note:
            to_stderr(f"note: {note}")


def build_data(
    experiment: Experiment, known: Sequence[str] = ()
) -> tuple[ClassificationDataset, ClassificationDataset]:
    """Training and validation sets; ``known`` are the classes of a run that goes on.

    With ``train.overfit_batches`` both are the same few batches, without augmentation.
    """
    data, train = experiment.data, experiment.train
    train_set = train_dataset(data, experiment.seed, known, vectors=True)
    if train.overfit_batches:
        count = min(train.overfit_batches * train.batch_size, len(train_set))
        order = torch.randperm(len(train_set), generator=derive_generator(experiment.seed, "overfit"))
        chosen = train_set.listing.select(order[:count].tolist())
        train_set = ClassificationDataset(chosen, eval_transform(data), experiment.seed)
        return train_set, copy.copy(train_set)  # a method may ask for more views in training
    eval_set = eval_dataset(data, known=known, vectors=True)
    if list(eval_set.classes) != list(train_set.classes):
        differing = sorted(set(eval_set.classes) ^ set(train_set.classes))[:3]
        raise UserError(
            f"splits {data.train_split} and {data.val_split} of {data.root} have different classes "
            f"({', '.join(map(str, differing))}, ...); both need the same class folders"
        )
    return train_set, eval_set


def build_loaders(
    experiment: Experiment,
    world: World,
    train_set: ClassificationDataset,
    eval_set: ClassificationDataset,
    size: int,
) -> tuple[TrainLoader, ImageLoader]:
    """This process's share of both splits, ``size`` training images at a time."""
    data, eval_size = experiment.data, experiment.train.eval_batch_size or size
    train_batches = train_loader(
        train_set,
        size,
        experiment.seed,
        rank=world.rank,
        world_size=world.size,
        workers=data.workers,
        repeats=data.repeats,
        sampler=data.sampler,
    )
    return train_batches, eval_loader(eval_set, eval_size, world.rank, world.size, data.workers)


def class_weights(counts: NDArray[np.int64], kind: str) -> Tensor:
    """(K,) float32: 1 / n of each class's ``counts`` n (``balanced``) or 1 / sqrt(n) (``sqrt``), times what
    makes the mean over all images 1, so that the loss keeps its scale."""
    weights = counts ** {"balanced": -1.0, "sqrt": -0.5}[kind]
    return torch.from_numpy(weights * (counts.sum() / (weights * counts).sum())).float()


def place(method: Method, world: World, channels_last: bool) -> None:
    """Move a method to its device and into its memory layout."""
    method.to(world.device)
    if channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def choose_kernels(deterministic: bool) -> None:
    """GPU only: the fastest kernels, or those that give the same bits every time."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        # cuBLAS reads it when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pass_size(batch_size: int, processes: int, accumulate: int) -> int:
    """Images that one process sees at a time."""
    shares = processes * accumulate
    if batch_size % shares:
        problem = "is less than one image for each of" if batch_size < shares else "does not divide into"
        raise UserError(
            f"train.batch_size={batch_size} {problem} {processes} processes times "
            f"train.accumulate={accumulate}; start fewer processes, or raise it to a multiple of {shares}"
        )
    return batch_size // shares
