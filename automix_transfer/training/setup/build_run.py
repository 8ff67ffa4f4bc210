"""A run at its beginning, or where a checkpoint left it; and what an evaluation alone needs of it."""

from __future__ import annotations

from dataclasses import asdict

import torch

from automix_transfer.data.loader import ImageLoader, eval_loader
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError
from automix_transfer.mixing import Method
from automix_transfer.models.checkpointing import update_once
from automix_transfer.rng import reseed_globals
from automix_transfer.training.distributed import World, check_world, wrap
from automix_transfer.training.joining import digest_of, refuse_differences, together
from automix_transfer.training.optimizers import build_optimizer
from automix_transfer.training.record.averages import Averages
from automix_transfer.training.record.checkpoint import Checkpoint
from automix_transfer.training.record.resume_checks import refuse_another_run, refuse_other_data, restore
from automix_transfer.training.schedule import LearningRates
from automix_transfer.training.settings import Experiment, flatten
from automix_transfer.training.setup.build_data import build_data, build_loaders, class_weights, tell_of_data
from automix_transfer.training.setup.build_model import build_model
from automix_transfer.training.setup.kernels import choose_kernels, place, try_to_compile
from automix_transfer.training.setup.run_state import Position, Run


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
        method.weigh_classes(class_weights(counts, kind, experiment.data.sampler).to(world.device))
    if views := method.view_transforms():
        train_set.add_views(1 + len(views), views[0])
    if train.compile:
        for encoder in method.encoders().values():
            encoder.compile()

    optimizer = build_optimizer(experiment.optimizer, method)
    scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")
    at = Position(Averages(world))
    if checkpoint is not None:
        refuse_other_data(checkpoint, experiment, info, [train_set.listing, eval_set.listing])
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
        refuse_other_data(checkpoint, experiment, info, [eval_set.listing])
        restore(experiment, (method, checkpoint.method))
    return method, loader


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
