"""The training loop: one method, one optimizer, one screen.

A step draws its random numbers from (seed, step, pass, rank) and its samples from (seed, epoch, position),
and a checkpoint holds everything else; so a run that was killed and resumed ends with the bits of one that
never stopped (on one kind of device).
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from automix_transfer.errors import UserError
from automix_transfer.io import write_json
from automix_transfer.mixing.base import StepOutput
from automix_transfer.rng import derive_generator, reseed_globals
from automix_transfer.training import distributed
from automix_transfer.training.finite import LossWatch
from automix_transfer.training.record import checkpoint
from automix_transfer.training.record.logs import Log
from automix_transfer.training.record.mixed_grid import mixed_grid, save_png
from automix_transfer.training.record.results import (
    epoch_row,
    evaluate_encoders,
    final_message,
    final_metrics,
    is_evaluated,
)
from automix_transfer.training.record.run_folder import command_line, prepare, refuse_overwriting
from automix_transfer.training.record.saver import Saver
from automix_transfer.training.record.timing import Timer
from automix_transfer.training.settings import Experiment, check
from automix_transfer.training.setup import Run, build_evaluation, build_run
from automix_transfer.training.signals import Interrupted, StopRequest
from automix_transfer.training.validation import autocast

Batch = tuple[Tensor, Tensor, Tensor]  # images (N, 3, H, W), labels (N,), sample indices (N,)


def train(
    experiment: Experiment,
    resume: bool = False,
    dry_run: bool = False,
    world: distributed.World | None = None,
) -> dict[str, Any]:
    """Train as ``experiment`` says and return the final metrics, which are also in the run folder's
    ``metrics.json``.

    Args:
        resume: go on from the newest checkpoint in ``experiment.output`` that loads; where there is none,
            start and say so.
        dry_run: check the data, then one step, one batch of evaluation and one checkpoint in a temporary
            folder.
        world: the processes, where the caller has joined them and will leave them; None: for this run only.

    Raises:
        UserError: bad input, a loss that is not finite, a full disk.
        Interrupted: SIGINT or SIGTERM came; the checkpoint is written.
    """
    check(experiment)
    joined = world is None
    world = world or distributed.start(experiment.train.device)
    temporary = tempfile.mkdtemp(prefix="automix_transfer_") if dry_run else None
    try:
        if temporary is not None:
            if not resume:
                refuse_overwriting(Path(experiment.output))  # said now rather than when the run is to start
            return rehearse(experiment, world, temporary)
        folder = Path(experiment.output)
        content, found = checkpoint.load_latest(folder) if resume else (None, "")
        run = build_run(experiment, world, content)
        if world.main:
            prepare(folder, experiment, world, content["step"] if content else None)
        return fit(run, found)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{experiment.output} could not be written ({error.strerror}); free space and go on with: "
                f"{command_line(resume=True)}"
            ) from error
        raise
    finally:
        if joined:
            distributed.stop(world)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def fit(
    run: Run, found: str = "", max_steps: int | None = None, max_eval_batches: int | None = None
) -> dict[str, Any]:
    """The loop. ``max_steps`` of an epoch and ``max_eval_batches`` cut it short for a rehearsal."""
    config, at, world, method = run.experiment.train, run.at, run.world, run.method
    log = Log(run.folder, world.main, at.step, at.epoch, run.total_steps)
    saver, timer = Saver(run.folder), Timer(at.step)
    watch = LossWatch(run.folder, run.train_set, world, saver.settle)
    # reading a loss makes the CPU wait for the GPU
    watch_every = 1 if world.device.type == "cpu" else config.log_every
    log.say("\n".join(filter(None, [*run.notes, distributed.shares(config, world), found])))
    with StopRequest(impatient=world.size == 1) as stop, log, saver:
        while at.epoch < config.epochs:
            method.train()
            timer.start_epoch(at.step)
            last_step, output = run.steps_per_epoch * (at.epoch + 1), None
            for batches in step_batches(run, timer, max_steps):
                lr = run.rates.set(at.step / run.total_steps)
                for number, batch in enumerate(batches):
                    images, output = one_pass(run, batch, number, last=number == config.accumulate - 1)
                    watch.add(at.step + 1, output.loss, batch[2])
                    at.averages.add({"loss": output.loss, **output.metrics})
                update(run)
                at.step += 1
                method.after_step(at.step / run.total_steps)

                if at.step % watch_every == 0:
                    watch.check()
                if at.step % config.log_every == 0 or at.step == last_step:
                    speed = timer.row(at.step, config.batch_size)
                    # all wait for the slowest
                    speed["data_share"] = distributed.largest(speed["data_share"], world)
                    log.train(
                        at.step, at.epoch + 1, config.epochs, {**at.averages.means(), "lr": lr, **speed}
                    )
                    log.say(timer.hint(run.experiment.data.workers))
                saver.look()
                stop_if_asked(run, stop, watch, timer, saver)
                if (
                    config.save_every_steps
                    and at.step % config.save_every_steps == 0
                    and at.step != last_step
                ):
                    save(run, watch, timer, saver)

            speed = timer.epoch(at.step, config.batch_size)
            if at.epoch + 1 in config.picture_epochs and output is not None and world.main:
                picture = mixed_grid(images, output, run.info.mean, run.info.std, config.picture_count)
                save_png(run.folder / "pictures" / f"epoch_{at.epoch + 1:04d}.png", picture)
                log.picture("mixed samples", picture, at.step)
            evaluated = is_evaluated(run, at.epoch + 1)
            metrics = (
                evaluate_encoders(
                    method,
                    run.eval_batches,
                    world,
                    config.precision,
                    max_eval_batches,
                    stop=lambda: stop.number > 0,
                )
                if evaluated
                else {}
            )
            # the epoch does not count yet: a resumed run evaluates it again
            stop_if_asked(run, stop, watch, timer, saver)
            at.epoch += 1
            row = epoch_row(run, metrics, speed)
            at.history.append(row)
            best = metrics.get("top1", -1.0) > at.best.get("top1", -1.0)
            at.best = row if best else at.best
            at.averages.reset()
            log.epoch(row, at.history)
            save(run, watch, timer, saver, best)
    metrics = final_metrics(run)
    if world.main:
        write_json(run.folder / "metrics.json", metrics)
        print(final_message(metrics), flush=True)
    return metrics


def step_batches(run: Run, timer: Timer, max_steps: int | None = None) -> Iterator[list[Batch]]:
    """What is left of the epoch: for each step the batches of its passes, all fetched before the step begins."""
    accumulate = run.experiment.train.accumulate
    done = run.at.step - run.at.epoch * run.steps_per_epoch
    left = run.steps_per_epoch - done if max_steps is None else max_steps
    run.train_batches.set_epoch(run.at.epoch, done * accumulate)
    batches = iter(run.train_batches)
    for _ in range(left):
        begun = time.monotonic()
        passes = list(islice(batches, accumulate))
        timer.waited(time.monotonic() - begun)
        yield passes


def one_pass(run: Run, batch: Batch, number: int, last: bool) -> tuple[Tensor, StepOutput]:
    """Forward and backward of one pass; gradients are reduced over the processes in the last pass of a step."""
    config, device, step, rank = run.experiment.train, run.world.device, run.at.step, run.world.rank
    images, labels = batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    reseed_globals(run.experiment.seed, "step", step, number, rank)  # dropout, stochastic depth
    rng = derive_generator(run.experiment.seed, "method", step, number, rank)
    alone = not last and isinstance(run.model, DistributedDataParallel)
    try:
        with run.model.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with autocast(device, config.precision):
                output: StepOutput = run.model(images, labels, rng)
            run.scaler.scale(output.loss / config.accumulate).backward()
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"the GPU has no memory for {len(images)} images a pass; give "
            f"train.accumulate={2 * config.accumulate}: a step "
            f"stays {config.batch_size} images, dealt to twice as many passes"
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise UserError(
                f"BatchNorm cannot work with {len(images)} image a pass "
                f"(train.batch_size={config.batch_size} over "
                f"{run.world.size} processes and train.accumulate={config.accumulate}); give each at least 2 "
                "images"
            ) from error
        raise
    return images, output


def update(run: Run) -> None:
    """One step of the optimizer, with clipping where it is asked for."""
    clip = run.experiment.train.clip_norm
    if clip:
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(
            [p for group in run.optimizer.param_groups for p in group["params"]], clip
        )
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)


def save(run: Run, watch: LossWatch, timer: Timer, saver: Saver, best: bool = False) -> None:
    """A checkpoint, once every loss so far is known to be finite; the training goes on while it is written."""
    watch.check()
    run.at.seconds += timer.lap()
    run.at.averages.flush()
    if run.world.main:
        saver.save(run.content(), best, watch.approval())


def stop_if_asked(run: Run, stop: StopRequest, watch: LossWatch, timer: Timer, saver: Saver) -> None:
    """Write a checkpoint and raise `Interrupted` if a signal has come to any of the processes."""
    if number := distributed.agree(stop.number, run.world):
        save(run, watch, timer, saver)
        saver.wait()
        raise Interrupted(
            number,
            f"stopped after step {run.at.step}; {run.folder / checkpoint.LAST} is written; "
            f"go on with: {command_line(resume=True)}",
        )


def rehearse(experiment: Experiment, world: distributed.World, folder: str) -> dict[str, Any]:
    """``--dry-run``: the data checked, then everything once, in a folder that is thrown away."""
    from automix_transfer.data.check import check_data

    short = replace(
        experiment,
        output=folder,
        train=replace(experiment.train, epochs=1, picture_epochs=[1], eval_every_epochs=1),
        schedule=replace(experiment.schedule, warmup_epochs=0.0),
    )
    if world.main:
        print(check_data(experiment.data, workers=experiment.data.workers), flush=True)
    run = build_run(short, world)
    if world.main:
        prepare(Path(folder), short, world, None)
    metrics = fit(run, max_steps=1, max_eval_batches=1)
    content, _ = checkpoint.load_latest(Path(folder))
    build_run(short, world, content)
    if world.main:
        print("dry run finished: data, one step, evaluation, pictures and checkpoint work", flush=True)
    return metrics


def evaluate_only(experiment: Experiment) -> dict[str, float]:
    """``--eval-only``: the accuracy of every encoder of the checkpoint in ``experiment.output``, or of
    ``encoder.weights`` if given."""
    world = distributed.start(experiment.train.device)
    try:
        weights, content, found = experiment.encoder.weights, None, ""
        if weights:
            experiment = replace(experiment, encoder=replace(experiment.encoder, classifier="keep"))
        else:
            content, found = checkpoint.load_latest(Path(experiment.output))
            if content is None:
                raise UserError(
                    f"--eval-only found no checkpoint in {experiment.output}; "
                    "give output=FOLDER of a run, or encoder.weights=FILE"
                )
        method, batches = build_evaluation(experiment, world, content)
        metrics = evaluate_encoders(method, batches, world, experiment.train.precision)
        if world.main:
            print(weights or found, *(f"{name} {value:.3f}" for name, value in metrics.items()), sep="\n")
        return metrics
    finally:
        distributed.stop(world)
