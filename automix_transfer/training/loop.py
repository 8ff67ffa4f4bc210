"""The training loop: one method, one optimizer, one screen.

A step draws its random numbers from (seed, step, pass, rank) and its samples from (seed, epoch, position). A
checkpoint holds everything else, so a run that was killed and resumed ends with the bits of one that never
stopped (on one kind of device).
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from automix_transfer.console import say, show
from automix_transfer.data.check import check_data
from automix_transfer.errors import UserError
from automix_transfer.models.freezing import keep_frozen
from automix_transfer.rng import derive_generator, reseed_globals
from automix_transfer.training import joining
from automix_transfer.training.distributed import World
from automix_transfer.training.optimizers import groups_table
from automix_transfer.training.record.checkpoint import load_latest
from automix_transfer.training.record.loggers import check_loggers
from automix_transfer.training.record.recorder import Recorder
from automix_transfer.training.record.results import evaluate_encoders, is_evaluated
from automix_transfer.training.record.run_folder import owning, prepare, refuse_overwriting
from automix_transfer.training.remedies import remedies
from automix_transfer.training.room import check_room
from automix_transfer.training.settings import Experiment, complete
from automix_transfer.training.setup.build_run import build_evaluation, build_run
from automix_transfer.training.setup.run_state import Run
from automix_transfer.training.validation import autocast


def train(
    experiment: Experiment,
    resume: bool = False,
    dry_run: bool = False,
    world: World | None = None,
    recipe: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train as ``experiment`` says; returns the final metrics, which are also in its ``metrics.json``.

    Args:
        resume: go on from the newest checkpoint in ``experiment.output`` that loads; where there is none,
            start and say so.
        dry_run: check the data, then one step, one batch of evaluation and one checkpoint in a temporary
            folder.
        world: the processes, where the caller has joined them and will leave them; None: for this run only.
        recipe: the recipe that it was made from, see `recipe_of`; ``run.json`` names it.

    Raises:
        UserError: bad input, a loss that is not finite, a full disk.
        Interrupted: SIGINT or SIGTERM came; the checkpoint is written.
    """
    experiment = complete(experiment)
    check_loggers(experiment.train.loggers)
    folder = Path(experiment.output)
    joined = world is None
    world = world or joining.start(experiment.train.device, experiment.train.wait_minutes)
    try:
        with ExitStack() as stack:
            stack.enter_context(remedies(experiment, world))
            stack.enter_context(owning(folder, world))
            joining.together(world, lambda: refuse_overwriting(folder, resume))
            if dry_run:
                return rehearse(experiment, world)
            found = joining.together(world, lambda: load_latest(folder, world.say) if resume else None)
            run = build_run(experiment, world, found)
            joining.together(world, lambda: check_room(run, folder))
            if world.main:
                prepare(folder, experiment, world, found.step if found else None, recipe, run.weights)
            return fit(run)
    finally:
        if joined:
            joining.stop(world)


def fit(run: Run, max_steps: int | None = None, max_eval_batches: int | None = None) -> dict[str, Any]:
    """Train ``run`` from where it stands to its end; returns the final metrics.

    ``max_steps`` of an epoch and ``max_eval_batches`` cut it short for a rehearsal.
    """
    train, seed, at, world = run.experiment.train, run.experiment.seed, run.at, run.world
    method, model, optimizer, scaler = run.method, run.model, run.optimizer, run.scaler
    with Recorder(run) as record:
        while at.epoch < train.epochs:
            method.train()
            keep_frozen(method)
            for batches in record.steps(run.batches(max_steps)):
                lr = run.rates.set(at.step / run.total_steps)
                for number, (images, labels, indices) in enumerate(batches):
                    images, labels = run.on_device(images, labels)
                    reseed_globals(seed, "step", at.step, number, world.rank)  # dropout, stochastic depth
                    rng = derive_generator(seed, "method", at.step, number, world.rank)
                    with run.gradients(number):
                        with autocast(world.device, train.precision):
                            output = model(images, labels, rng)
                        scaler.scale(output.loss / train.accumulate).backward()
                    record.add(images, output, indices)
                if train.clip_norm:
                    scaler.unscale_(optimizer)
                    trained = [p for group in optimizer.param_groups for p in group["params"]]
                    torch.nn.utils.clip_grad_norm_(trained, train.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                at.step += 1
                method.after_step(at.step / run.total_steps)  # moving averages and schedules

                record.step_done(lr)
                if at.step % run.steps_per_epoch:  # behind the last, not before its picture is drawn
                    record.stop_if_asked()
                if run.saves_now():
                    record.save()

            speed, metrics = record.timer.epoch(at.step, train.batch_size), {}
            record.picture()
            if is_evaluated(run, at.epoch + 1):
                stop = record.stop.asked
                metrics = evaluate_encoders(
                    method, run.eval_batches, world, train.precision, max_eval_batches, stop
                )
            record.stop_if_asked()  # the epoch does not count yet: a resumed run evaluates it again
            record.epoch_done(metrics, speed)
    return record.finish()


def rehearse(experiment: Experiment, world: World) -> dict[str, Any]:
    """``--dry-run``: the data checked, then everything once, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="automix_transfer_", ignore_cleanup_errors=True) as folder:
        short = replace(
            experiment,
            output=folder,
            train=replace(experiment.train, epochs=1, picture_epochs=[1], eval_every_epochs=1, loggers=[]),
            schedule=replace(experiment.schedule, warmup_epochs=0.0),
        )
        if world.main:
            say(str(check_data(experiment.data, workers=experiment.data.workers)))
        run = build_run(short, world)
        world.say(groups_table(run.optimizer, experiment.optimizer.lr))
        joining.together(world, lambda: check_room(run, Path(experiment.output)))
        if world.main:
            prepare(Path(folder), short, world)
        metrics = fit(run, max_steps=1, max_eval_batches=1)
        build_run(short, world, load_latest(Path(folder)))
    world.say("dry run finished: data, one step, evaluation, pictures and checkpoint work")
    return metrics


def evaluate_only(experiment: Experiment) -> dict[str, float]:
    """``--eval-only``: the accuracy of every encoder of the checkpoint in ``experiment.output``.

    With ``encoder.weights`` that of this one encoder.
    """
    experiment = complete(experiment)
    world = joining.start(experiment.train.device, experiment.train.wait_minutes)
    try:
        weights, found = experiment.encoder.weights, None
        if weights:
            experiment = replace(experiment, encoder=replace(experiment.encoder, classifier="keep"))
        elif (found := load_latest(Path(experiment.output), world.say)) is None:
            raise UserError(
                f"--eval-only found no checkpoint in {experiment.output}; give output=FOLDER of a run, or "
                "encoder.weights=FILE"
            )
        method, batches = build_evaluation(experiment, world, found)
        metrics = evaluate_encoders(method, batches, world, experiment.train.precision)
        if world.main:
            show("\n".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        return metrics
    finally:
        joining.stop(world)
