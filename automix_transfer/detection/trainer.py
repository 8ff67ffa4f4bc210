"""Training and evaluating a detector: Detectron2's trainer with weights that load whole, our data sets, and
results in one file."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from automix_transfer.config import flatten
from automix_transfer.data.settings import check_workers
from automix_transfer.detection.config import load_config, logger, plain, saved_config
from automix_transfer.detection.config_checks import model_errors
from automix_transfer.detection.engine import BEST_METRIC, Trainer
from automix_transfer.detection.linear_scaling import refuse_changes
from automix_transfer.detection.networks.memory import check_size
from automix_transfer.detection.registered.datasets import (
    check_builtin,
    check_images,
    check_masks,
    class_names_of,
    register_folder,
)
from automix_transfer.detection.registered.held_out import hold_out
from automix_transfer.detection.resuming.agreement import owning, refuse_differences
from automix_transfer.detection.resuming.began import (
    read_began,
    refuse_other_folder,
    refuse_other_images,
    refuse_other_weights,
    refuse_shorter,
    weights_hash,
)
from automix_transfer.detection.resuming.checkpoints import check_disk, done, latest, restore
from automix_transfer.detection.scores.coco_evaluation import ENGINES, check_engine
from automix_transfer.detection.scores.evaluation import check_metric
from automix_transfer.detection.scores.results import (
    EVALUATED,
    HEADLINE,
    TRAINED,
    percent,
    summarize,
    table,
    write_categories,
    write_results,
)
from automix_transfer.detection.scores.validation_loss import validation_losses
from automix_transfer.detection.weights.weights_check import load_weights
from automix_transfer.errors import UserError, few
from automix_transfer.io import write_text
from automix_transfer.owner import refuse_top_folder

# what `run` prints: ours, and a line every 20 iterations with losses and ETA
QUIET_LOGGERS = (logger.name, "detectron2.utils.events")


def run(
    config_file: str | Path,
    weights: str,
    data_root: str | Path | None,
    output: str | Path,
    overrides: Sequence[str] = (),
    seed: int = 0,
    num_gpus: int = 0,
) -> dict[str, float]:
    """Train and evaluate one detector in this process and return AP, AP50 and AP75 in percent; the same
    arguments give the same numbers.

    Args:
        weights: a backbone ``.pkl``, or empty to train from scratch.
        data_root: a folder in VOC or COCO layout; None takes the config's DATASETS.
        overrides: Detectron2's ``KEY VALUE ...``.
        num_gpus: 0 trains on the CPU, 1 on one GPU.

    Raises:
        UserError: as `prepare`.
    """
    places = ["OUTPUT_DIR", str(output), "SEED", str(seed), "MODEL.WEIGHTS", str(weights)]
    arguments = arguments_of(config_file, [*places, *map(str, overrides)], data_root, num_gpus)
    cfg = prepare(arguments)
    with _quiet_logging(cfg.OUTPUT_DIR):
        results = train(cfg, arguments)
    return {key: results[key] for key in HEADLINE}


def arguments_of(
    config_file: str | Path, opts: Sequence[str], data_root: str | Path | None, num_gpus: int
) -> Namespace:
    """What the command line gives to a training of these settings and no others."""
    return Namespace(
        config_file=str(config_file),
        opts=list(opts),
        data_root=data_root,
        class_names=None,
        num_gpus=num_gpus,
        num_machines=1,
        resume=False,
        eval_only=False,
    )


def prepare(arguments: Namespace) -> CfgNode:
    """The frozen config of a run from the command line's arguments, with its data sets registered and
    everything checked.

    Raises:
        UserError: what `load_config` and `register_folder` refuse; a number of classes that is not the
            data's; a folder that cannot be written.
    """
    check_engine(getattr(arguments, "coco_evaluator", ENGINES[0]))
    arguments.notes = []
    with _collected_notes(arguments.notes):
        cfg, _ = load_config(
            arguments.config_file,
            arguments.opts,
            arguments.num_gpus,
            arguments.num_machines,
            arguments.resume,
        )
    _check_task(cfg, arguments)
    with _collected_notes(arguments.notes):
        _set_data(cfg, arguments)
    checked = getattr(arguments, "data_checked", False)  # by the process that starts the others
    if not checked:
        with _collected_notes(arguments.notes):
            for name in sorted({*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}):
                check_builtin(name)
        if cfg.MODEL.MASK_ON:
            check_masks(cfg, training=not arguments.eval_only)
    _choose_metric(cfg, arguments)
    refuse_top_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    _check_writable(cfg.OUTPUT_DIR)
    if not checked:
        with _collected_notes(arguments.notes):
            _check_same_run(cfg, arguments)
    _check_run_folder(cfg, arguments)
    processes = max(1, arguments.num_gpus * arguments.num_machines)
    parameters = check_size(cfg, training=not arguments.eval_only, processes=processes)
    if not arguments.eval_only:
        check_disk(cfg, parameters)
    if not checked and not arguments.eval_only:
        arguments.notes += check_images(cfg)
    cfg.freeze()
    return cfg


def _choose_metric(cfg: CfgNode, arguments: Namespace) -> None:
    """--best-metric is what is typed, or that of a resumed run; a `UserError` where nothing measures it."""
    own = read_began(cfg.OUTPUT_DIR).get("best_metric") if arguments.resume else None
    metric = getattr(arguments, "best_metric", None) or own or BEST_METRIC
    # of several test sets, the default is only missed, unless something depends on it
    if not arguments.eval_only and (metric != BEST_METRIC or cfg.SOLVER.PATIENCE):
        check_metric(cfg, metric)
    arguments.best_metric = metric


def _check_task(cfg: CfgNode, arguments: Namespace) -> None:
    """There is something to train or to evaluate, and its weights are a file."""
    weights = str(cfg.MODEL.WEIGHTS)
    if arguments.eval_only:
        if not arguments.resume and not weights.endswith((".pth", ".pt")):
            raise UserError(
                f"--eval-only evaluates a trained detector, but MODEL.WEIGHTS is '{weights}'; "
                "give OUTPUT_DIR/model_final.pth, or --resume with the run's OUTPUT_DIR"
            )
    elif cfg.SOLVER.MAX_ITER < 1:
        raise UserError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, which trains nothing; give 1 or more, or --eval-only"
        )
    elif cfg.SOLVER.BASE_LR == 0:
        raise UserError("SOLVER.BASE_LR is 0, which trains nothing; give a rate above 0, or --eval-only")
    elif cfg.SOLVER.PATIENCE and cfg.TEST.EVAL_PERIOD < 1:
        raise UserError(
            f"SOLVER.PATIENCE {cfg.SOLVER.PATIENCE} counts evaluations, but TEST.EVAL_PERIOD is "
            f"{cfg.TEST.EVAL_PERIOD}, which makes none on the way; set it, or leave SOLVER.PATIENCE out"
        )
    check_workers(cfg.DATALOADER.NUM_WORKERS, "DATALOADER.NUM_WORKERS ")
    if not weights or (arguments.resume and saved_config(cfg.OUTPUT_DIR) is not None):
        return
    if not os.path.isfile(weights):
        raise UserError(f"MODEL.WEIGHTS {weights} does not exist or is not a file")


def _set_data(cfg: CfgNode, arguments: Namespace) -> None:
    """Register --data-root, and see to it that the data sets are there and have the model's classes."""
    if arguments.data_root is not None:
        data = register_folder(arguments.data_root, arguments.class_names)
        for note in data.notes:
            logger.info(note)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = data.train, data.test
        if "MODEL.ROI_HEADS.NUM_CLASSES" not in arguments.opts:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(data.classes)
    elif arguments.class_names is not None:
        raise UserError("--class-names goes with --data-root; Detectron2's own data sets have their classes")
    hold_out(cfg)
    for part in ("TRAIN", "TEST"):
        if not cfg.DATASETS[part]:
            raise UserError(
                f"{arguments.config_file} names no data set to {part.lower()} on; give --data-root DIR, or "
                "DATASETS.TRAIN and DATASETS.TEST"
            )
        for name in cfg.DATASETS[part]:
            classes, heads = class_names_of(name), cfg.MODEL.ROI_HEADS.NUM_CLASSES
            if classes and len(classes) != heads:
                raise UserError(
                    f"MODEL.ROI_HEADS.NUM_CLASSES is {heads}, but data set '{name}' has {len(classes)} "
                    f"classes ({few(classes)}); leave the key out, or set it to {len(classes)}"
                )


def train(cfg: CfgNode, arguments: Namespace) -> dict[str, Any]:
    """Train (or with ``eval_only`` load) and evaluate; returns what it writes in the output folder.

    That is ``results.json`` of a run that was trained to its end, and ``results_eval.json`` of an evaluation
    alone, which must not make an unfinished run look done.

    Raises:
        UserError: another process writes into the output folder, or has since `prepare`.
    """
    with owning(cfg.OUTPUT_DIR, lambda: _check_run_folder(cfg, arguments)):
        refuse_differences(cfg)
        return _train(cfg, arguments)


def set_up(cfg: CfgNode, arguments: Namespace) -> None:
    """Detectron2's logs and seeds, and the files that say what the output folder is of."""
    file = Path(cfg.OUTPUT_DIR) / "config.yaml"
    before = file.read_text() if arguments.eval_only and file.is_file() else None
    default_setup(cfg, arguments)
    if comm.is_main_process():
        # an evaluation in a run's folder must not change what --resume goes on with
        write_text(file, before if before is not None else plain(cfg))
    for note in getattr(arguments, "notes", ()):
        logger.info(note)
    Trainer.coco_evaluator = getattr(arguments, "coco_evaluator", ENGINES[0])
    Trainer.best_metric = getattr(arguments, "best_metric", BEST_METRIC)
    if comm.is_main_process():
        write_categories(cfg)


def _train(cfg: CfgNode, arguments: Namespace) -> dict[str, Any]:
    set_up(cfg, arguments)
    more: dict[str, Any] = {}
    iterations: int | None  # that the detector is trained for; None where its file does not say
    if arguments.eval_only:
        model = Trainer.build_model(cfg)
        if arguments.resume:
            found = latest(cfg.OUTPUT_DIR)
            assert found is not None  # `prepare` has seen it
            restore(model, found[1], found[0])
            loaded, iterations = None, done(found[1])
            logger.info(f"evaluating {found[0]}, of iteration {iterations}")
        else:
            loaded = load_weights(model, cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.NAME)
            iterations = loaded.iterations
            logger.info(str(loaded))
        measured: Mapping[str, Any] = Trainer.test(cfg, model)
        losses: Mapping[str, Any] = validation_losses(cfg, model, Trainer.stop) if cfg.TEST.LOSS else {}
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=arguments.resume)
        trainer.train()
        loaded, measured, losses = trainer.loaded, trainer.results("figures"), trainer.results("losses")
        iterations, stopped = trainer.max_iter, trainer.stopped_early
        more = {"stopped_early": dict(stopped)} if stopped else {}
    if not comm.is_main_process():
        return {}
    began = read_began(cfg.OUTPUT_DIR) if not arguments.eval_only or arguments.resume else {}
    results = summarize(cfg, measured, str(loaded) if loaded else began.get("loaded"), iterations, losses)
    results |= more
    results["weights_sha256"] = began.get("weights_sha256", weights_hash(cfg.MODEL.WEIGHTS))
    name = EVALUATED if arguments.eval_only else TRAINED
    write_results(cfg.OUTPUT_DIR, results, name)
    logger.info(f"{name}.csv and {name}.json in {cfg.OUTPUT_DIR}\n\n{table(results)}\n")
    figures = "  ".join(f"{key} {percent(results[key])}" for key in HEADLINE)
    logger.info(f"{results['detector']} on {results['data']}: {figures}  ({results['rule']})")
    return results


def check_weights(cfg: CfgNode, arguments: Namespace) -> None:
    """Load the weights once, on the CPU, for their errors."""
    if not arguments.resume or saved_config(cfg.OUTPUT_DIR) is None:
        cpu = cfg.clone()
        cpu.defrost()
        cpu.MODEL.DEVICE = "cpu"
        with model_errors():
            model = build_model(cpu)
        load_weights(model, cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.NAME)


def _check_same_run(cfg: CfgNode, arguments: Namespace) -> None:
    """A resumed run has the weights and the images that it was begun with, and something left to do."""
    saved, typed = saved_config(cfg.OUTPUT_DIR), arguments.opts[::2]
    if saved is None or not arguments.resume:
        return
    began = read_began(cfg.OUTPUT_DIR)
    given = "MODEL.WEIGHTS" in typed
    if note := refuse_other_weights(cfg, began, str(saved.get("MODEL.WEIGHTS", "")), given):
        logger.warning(note)
    if not arguments.eval_only:
        refuse_other_images(cfg, began, ["train", *(["test"] if "DATASETS.TEST" not in typed else [])])
        found = latest(cfg.OUTPUT_DIR)
        refuse_shorter(cfg, done(found[1]) if found else 0)


def _check_run_folder(cfg: CfgNode, arguments: Namespace) -> None:
    """A fresh run must not write over another one, and a resumed run must be the one that was begun."""
    saved, output = saved_config(cfg.OUTPUT_DIR), cfg.OUTPUT_DIR
    if saved is None and arguments.eval_only and arguments.resume:
        raise UserError(
            f"--eval-only --resume: OUTPUT_DIR {output} holds no checkpoint; give the run's OUTPUT_DIR, or "
            "MODEL.WEIGHTS FILE.pth without --resume"
        )
    if saved is not None and arguments.resume:
        # of data, `_check_same_run` has seen that the images are the same, wherever they lie now
        moved = {"DATASETS.TRAIN": list(cfg.DATASETS.TRAIN)} if "train" in read_began(output) else {}
        refuse_changes({**saved, **moved}, flatten(yaml.safe_load(cfg.dump())), output)
    elif saved is not None and not arguments.eval_only:
        raise UserError(
            f"OUTPUT_DIR {output} already holds a checkpoint; go on with --resume, or choose another folder"
        )
    elif not arguments.eval_only:
        refuse_other_folder(Path(output), arguments.resume)


@contextmanager
def _collected_notes(notes: list[str]) -> Iterator[None]:
    """What is logged before Detectron2 has set up its handlers; `train` logs it then."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    handler, level, propagate = Collector(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _check_writable(output: str) -> None:
    try:
        os.makedirs(output, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):  # permissions, a read-only or full disk: only trying tells
            pass
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {output} cannot be written ({error.strerror}); choose another folder"
        ) from error


@contextmanager
def _quiet_logging(output: str) -> Iterator[None]:
    """Everything to ``log.txt`` in ``output``, little to the console, and no handler left behind."""
    loggers = [logging.getLogger(name) for name in ("fvcore", "detectron2")]
    before = [list(each.handlers) for each in loggers]
    # it adds handlers on the first call with the same arguments only
    forget = getattr(setup_logger, "cache_clear", lambda: None)
    forget()
    for each in loggers:
        # Exactly `default_setup`'s call, which then finds it in the cache; or every line would be twice.
        setup_logger(output, distributed_rank=0, **({"name": each.name} if each.name != "detectron2" else {}))
        for handler in each.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.addFilter(
                    lambda record: record.levelno >= logging.WARNING or record.name in QUIET_LOGGERS
                )
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints; the console's handler keeps the real one
            yield
    finally:
        for each, kept in zip(loggers, before, strict=True):
            each.handlers[:] = kept
        forget()
