"""The training loop of a detector: Detectron2's trainer, hooks and files, with a resume that goes on as if
nothing had happened.

What a step does is a function of the parameters, the optimizer's state and (seed, step): the loader derives
order, augmentation and the sampling of regions, and a checkpoint holds the rest. So N steps are k steps, a
kill, a resume and N - k steps, bit for bit on one CPU process.
"""

from __future__ import annotations

import shlex
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from automix_transfer.command_line import this_command
from automix_transfer.detection.config_checks import model_errors
from automix_transfer.detection.config_files import logger
from automix_transfer.detection.loader import TestLoader, TrainLoader
from automix_transfer.detection.networks.adamw import adamw, takes_adamw
from automix_transfer.detection.resuming.agreement import refuse_other_checkpoints
from automix_transfer.detection.resuming.began import write_began
from automix_transfer.detection.resuming.checkpoints import (
    BEST_RECORD,
    FINAL,
    BestCheckpoint,
    SafeCheckpointer,
    latest,
    restore,
)
from automix_transfer.detection.resuming.early_stop import EarlyStop
from automix_transfer.detection.resuming.unfinished import (
    Curves,
    curves_of,
    forget_metrics_after,
    make_up,
    restore_curves,
    write_on,
)
from automix_transfer.detection.scores.coco_evaluation import ENGINES
from automix_transfer.detection.scores.evaluation import build_evaluator
from automix_transfer.detection.scores.validation_loss import ValidationLoss, validation_losses
from automix_transfer.detection.weights.weights_check import LoadReport, load_weights
from automix_transfer.errors import UserError, first_line
from automix_transfer.host.causes import disk_is_full
from automix_transfer.signals import Interrupted, StopRequest

BEST_METRIC = "bbox/AP"


class Trainer(DefaultTrainer):
    """`DefaultTrainer` with an exact resume, evaluators for VOC and COCO, and weights that fill the backbone
    or are refused."""

    loaded: LoadReport | None = None
    #: of a resumed run: the values that its curves are smoothed over, and the lines of metrics.json
    curves: Mapping[str, Any] = MappingProxyType({})
    rows: Sequence[Mapping[str, Any]] = ()
    ended = False  # whether it goes on from the last checkpoint of all
    iter: int
    coco_evaluator = ENGINES[0]
    best_metric = BEST_METRIC
    stopped_early: Mapping[str, Any] | None = None  # see `EarlyStop`, in whose hands it is
    stop = StopRequest()  # of the training that is under way

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with model_errors():
            return super().build_model(cfg)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, cls.coco_evaluator)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        return TrainLoader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> TestLoader:
        return TestLoader(cfg, dataset_name, cls.stop)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """SGD as Detectron2 has it, or AdamW."""
        return adamw(cfg, model) if takes_adamw(cfg) else build_optimizer(cfg, model)

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's hooks in its order, with a precise BN that draws its own images and the best
        checkpoint behind the evaluation."""
        cfg = self.cfg
        self.checkpointer = SafeCheckpointer(
            _unwrapped(self.model), cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        main, test, found = comm.is_main_process(), cfg.TEST, [hooks.IterationTimer(), hooks.LRScheduler()]
        if test.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            images = TrainLoader(cfg, "precise BN", workers=0)
            found.append(PreciseBN(test.EVAL_PERIOD, self.model, images, test.PRECISE_BN.NUM_ITER))
        if main:
            found.append(hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        self.measured: dict[str, tuple[int, Mapping[str, Any]]] = {}
        found.append(hooks.EvalHook(test.EVAL_PERIOD, partial(self._evaluate, "figures", self._figures)))
        if test.LOSS:
            found.append(ValidationLoss(test.EVAL_PERIOD, partial(self._evaluate, "losses", self._losses)))
        if main:
            found.append(BestCheckpoint(self.checkpointer, self.best_metric, test.EVAL_PERIOD))
        if cfg.SOLVER.PATIENCE:
            found.append(EarlyStop(self.best_metric, cfg.SOLVER.PATIENCE, test.EVAL_PERIOD))
        return found

    def _figures(self) -> Mapping[str, Any]:
        return self.test(self.cfg, self.model)

    def _losses(self) -> Mapping[str, Any]:
        return validation_losses(self.cfg, _unwrapped(self.model), self.stop)

    def _evaluate(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Evaluate once after an iteration, or stop where a signal has come.

        Raises:
            UserError: the evaluation failed; the checkpoint is written.
        """
        done = min(self.iter + 1, self.max_iter)
        if self.measured.get(name, (0, {}))[0] == done:  # it was the last before an early stop
            return self.measured[name][1]
        try:
            self.measured[name] = done, measure()
        except Interrupted as stopped:
            self._save_and_stop(stopped.number)
        except Exception as error:  # an image that was damaged since it was looked at, a full memory, ...
            name = self._save()
            again = resume_command("--eval-only")
            known = isinstance(error, UserError)
            reason = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
            raise UserError(
                f"the evaluation failed ({reason}), but {self.cfg.OUTPUT_DIR}/{name}.pth is written; "
                f"evaluate it again with: {again}"
            ) from error
        if number := stop_number(self.stop, 0, comm.get_world_size()):
            self._save_and_stop(number)
        return self.measured[name][1]

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the newest checkpoint in OUTPUT_DIR that loads, or start from ``MODEL.WEIGHTS``."""
        found = latest(self.cfg.OUTPUT_DIR) if resume else None
        refuse_other_checkpoints(found)
        if found is None:
            if comm.is_main_process():
                # of a run that ended before its first checkpoint
                (Path(self.cfg.OUTPUT_DIR) / BEST_RECORD).unlink(missing_ok=True)
            self.loaded = load_weights(
                _unwrapped(self.model), self.cfg.MODEL.WEIGHTS, self.cfg.MODEL.BACKBONE.NAME
            )
            if comm.is_main_process():
                write_began(self.cfg, str(self.loaded), self.best_metric)
            logger.info(("--resume: nothing to resume, starting; " if resume else "") + str(self.loaded))
            return
        file, content = found
        self.ended, self.checkpointer.newest = file.name == FINAL, file.stem
        restore(_unwrapped(self.model), content, file)
        self.load_state_dict(content["trainer"])
        self.start_iter = self.iter + 1
        self._trainer.data_loader.start = self.start_iter
        self.curves = content["trainer"].get("curves", {})
        if comm.is_main_process():
            curves = Path(self.cfg.OUTPUT_DIR) / "metrics.json"
            self.rows = forget_metrics_after(curves, self.start_iter)
        if content.get("processes", comm.get_world_size()) != comm.get_world_size():
            logger.warning(
                f"{file} was written by {content['processes']} processes, now there are "
                f"{comm.get_world_size()}: from here on the images come in another order"
            )
        logger.info(f"resumed from {file} after iteration {self.start_iter}")

    def train(self) -> None:
        """Detectron2's loop, which a signal stops after a step and a checkpoint.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: SIGINT or SIGTERM came; the checkpoint is written.
        """
        world = comm.get_world_size()
        # only now that weights and data are known to be good, and behind the hooks that measure
        writers = self.build_writers() if comm.is_main_process() else []
        write_on(writers, self.rows)
        self.register_hooks([Curves(writers, self.cfg.TEST.EVAL_PERIOD)] if writers else [])
        self.stop = stop = type(self).stop = StopRequest(impatient=world == 1)
        with stop, EventStorage(self.start_iter) as self.storage:
            try:
                restore_curves(self.storage, self.curves, self.rows)
                self.before_train()
                make_up(self, self.rows, self.ended)
                done = self.start_iter
                while done < self.max_iter:  # which an early stop brings nearer
                    self.iter, done = done, done + 1
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if number := stop_number(stop, done, world):
                        self._save_and_stop(number)
                self.iter = self.max_iter
                self.after_train()
            except FloatingPointError as error:
                solver = self.cfg.SOLVER
                raise UserError(
                    f"the loss became infinite or NaN at iteration {self.iter + 1}; lower SOLVER.BASE_LR "
                    f"(now {solver.BASE_LR:g}) or lengthen SOLVER.WARMUP_ITERS ({solver.WARMUP_ITERS}); the "
                    "last checkpoint is untouched"
                ) from error
            except OSError as error:
                if not disk_is_full(error):
                    raise
                raise UserError(
                    f"{self.cfg.OUTPUT_DIR} could not be written ({error.strerror}); free space and go on "
                    f"with: {resume_command()}"
                ) from error
            finally:
                type(self).stop = StopRequest()
                for writer in writers:
                    with suppress(OSError):  # of a full disk, which is what is being raised
                        writer.close()

    def _save(self) -> str:
        """Write a checkpoint of the iterations done, unless it is there; returns its name."""
        name = f"model_{self.iter:07d}" if self.iter + 1 < self.max_iter else "model_final"
        if name not in ("model_final", self.checkpointer.newest):
            self.checkpointer.save(name, iteration=self.iter)
        return name

    def _save_and_stop(self, number: int) -> None:
        name = self._save()
        comm.synchronize()  # or the first to go would make the others abort
        raise Interrupted(
            number,
            f"stopped after iteration {min(self.iter + 1, self.max_iter)}; {self.cfg.OUTPUT_DIR}/{name}.pth "
            f"is written; go on with: {resume_command()}",
        )

    def state_dict(self) -> dict[str, Any]:
        """With the optimizer's state, which release 0.6 forgets: its resumed runs start without momentum; and
        with what the curves are smoothed over."""
        curves = {"curves": curves_of(self.storage)} if hasattr(self, "storage") else {}
        return {**super().state_dict(), "_trainer": self._trainer.state_dict(), **curves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._trainer.load_state_dict(state["_trainer"])

    def results(self, name: str) -> Mapping[str, Any]:
        """Of the evaluation after the last iteration: ``figures`` or ``losses``."""
        return self.measured.get(name, (0, {}))[1] or {}


class PreciseBN(hooks.PreciseBN):
    """Detectron2's, over the same images each time, so that a resumed run computes the same statistics."""

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()


def stop_number(stop: StopRequest, done: int, world: int) -> int:
    """The signal that came to any process, asked after every tenth step: all have to stop at the same."""
    if world == 1:
        return stop.number
    return max(comm.all_gather(stop.number)) if done % 10 == 0 else 0


def resume_command(*options: str) -> str:
    """This process's command with ``--resume`` and ``options``, which have to stand before the first KEY
    VALUE."""
    given = (*options, "--resume")
    words = [word for word in this_command() if word not in given]
    place = 3 if words[1:3] == ["detect", "train"] else 2  # behind the program and its command
    return shlex.join([*words[:place], *given, *words[place:]])


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
