"""What a run writes while it trains: its log, checkpoints and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from automix_transfer.io import write_json
from automix_transfer.mixing.base import StepOutput
from automix_transfer.signals import Interrupted, StopRequest
from automix_transfer.training import distributed
from automix_transfer.training.finite import LossWatch
from automix_transfer.training.record.checkpoint import BEST, LAST
from automix_transfer.training.record.logs import Log
from automix_transfer.training.record.mixed_grid import mixed_grid, save_png
from automix_transfer.training.record.results import final_message, final_metrics, headline
from automix_transfer.training.record.run_folder import command_line
from automix_transfer.training.record.saver import Saver
from automix_transfer.training.record.timing import Timer
from automix_transfer.training.setup.run_state import Batch, Run


class Recorder:
    """Keeps the books of a `Run`; every process has one, and the first writes the files.

    As a context manager it is left only when the last checkpoint is complete; Ctrl-C and SIGTERM wait for
    `stop_if_asked` while it is entered.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.at, self.world = run, run.experiment.train, run.at, run.world
        self.log = Log(run.experiment, self.world.main, self.at.step, self.at.epoch, run.total_steps)
        self.saver, self.timer = Saver(run.folder), Timer(self.at.step)
        self.watch = LossWatch(run.folder, run.train_set, self.world, self.saver.settle)
        self.stop = StopRequest(impatient=self.world.size == 1)
        self.shown: tuple[Tensor, StepOutput] | None = None  # the last pass
        self._entered = ExitStack()

    def __enter__(self) -> Recorder:
        self.log.say(distributed.shares(self.config, self.world))
        for part in (self.stop, self.log, self.saver):
            self._entered.enter_context(part)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def steps(self, batches: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """The steps of an epoch or of what is left of it, with a clock at the loader."""
        self.timer.start_epoch(self.at.step)
        return self.timer.timed(batches)

    def add(self, images: Tensor, output: StepOutput, indices: Tensor) -> None:
        """Note what one pass gave on ``images``, the samples ``indices``; nothing is read from the device."""
        self.shown = images, output
        self.watch.add(self.at.step + 1, output.loss, indices)
        self.at.averages.add({"loss": output.loss, **output.metrics})

    def step_done(self, lr: float) -> None:
        """Look at the losses and at the checkpoint that is being written, and log, each when it is due."""
        step, every = self.at.step, self.config.log_every
        if step % (1 if self.world.device.type == "cpu" else every) == 0:  # to read a loss waits for the GPU
            self.watch.check()
        if step % every == 0 or step % self.run.steps_per_epoch == 0:
            speed = self.timer.row(step, self.config.batch_size)
            speed["data_share"] = distributed.largest(speed["data_share"], self.world)  # all wait for it
            values = {**self.at.averages.means(), "lr": lr, **speed}
            self.log.train(step, self.at.epoch + 1, self.config.epochs, values)
            self.log.say(self.timer.hint(self.run.experiment.data.workers))
        self.saver.look()

    def stop_if_asked(self) -> None:
        """Write a checkpoint and raise `Interrupted` if a signal has come to any of the processes."""
        if number := distributed.agree(self.stop.number, self.world):
            self.save()
            self.saver.wait()
            raise Interrupted(
                number,
                f"stopped after step {self.at.step}; {self.run.folder / LAST} is written; "
                f"go on with: {command_line(resume=True)}",
            )

    def save(self, *names: str, then: str = "") -> None:
        """Write a checkpoint while the training goes on, if every loss so far is finite.

        ``names`` are those that it gets besides ``last.pt``; ``then`` is said when it is on the disk.
        """
        self.watch.check()
        self.at.seconds += self.timer.lap()
        self.at.averages.flush()
        if self.world.main:
            approve, content = self.watch.approval(), self.run.checkpoint()
            self.saver.save(content, names, approve, lambda: self.log.say(then))

    def epoch_done(self, metrics: dict[str, float], speed: dict[str, float]) -> None:
        """Count an epoch, in log and history, and write its checkpoint.

        ``metrics`` are those of its evaluation, empty where there was none.
        """
        at = self.at
        at.epoch += 1
        row = {
            "epoch": at.epoch,
            "step": at.step,
            "lr": self.run.optimizer.param_groups[0]["lr"],
            **at.averages.means(),
            **metrics,
            **speed,
        }
        at.history.append(row)
        main = headline(row)
        best = metrics.get(main, -1.0) > at.best.get(main, -1.0)
        at.best = row if best else at.best
        at.averages.reset()
        said = self.log.epoch(row, at.history)
        kept = at.epoch in self.config.keep_epochs
        self.save(*([BEST] if best else []), *([f"epoch_{at.epoch:04d}.pt"] if kept else []), then=said)

    def picture(self) -> None:
        """Draw the last pass as mixed samples and masks, after the epochs of ``train.picture_epochs``."""
        if self.at.epoch + 1 in self.config.picture_epochs and self.shown is not None and self.world.main:
            images, output = self.shown
            info, count = self.run.info, self.config.picture_count
            picture = mixed_grid(images, output, info.mean, info.std, count)
            save_png(self.run.folder / "pictures" / f"epoch_{self.at.epoch + 1:04d}.png", picture)
            self.log.picture("mixed samples", picture, self.at.step)

    def finish(self) -> dict[str, Any]:
        """Write ``metrics.json``, say how it ended, and return the final metrics."""
        self.saver.wait()  # who reads metrics.json finds the checkpoint complete
        metrics = final_metrics(self.run)
        if self.world.main:
            write_json(self.run.folder / "metrics.json", metrics)
        self.world.say(final_message(metrics))
        return metrics
