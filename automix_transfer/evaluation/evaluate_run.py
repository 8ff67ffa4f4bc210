"""An evaluation, from its arguments to its output; that of a run's folder is measured where there is none."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from automix_transfer.console import show
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import eval_loader
from automix_transfer.device import choose_device
from automix_transfer.evaluation.arguments import parse
from automix_transfer.evaluation.attacks import OfPixels
from automix_transfer.evaluation.confusion import FOLDER, write_confusion
from automix_transfer.evaluation.corrupted import (
    check_baseline,
    relative_error,
    released_accuracies,
    released_names,
    summarize,
)
from automix_transfer.evaluation.inputs import open_inputs, train_counts
from automix_transfer.evaluation.kept import kept_parts
from automix_transfer.evaluation.output import (
    EVALUATION,
    about,
    confusion_table,
    is_evaluation,
    read_baseline,
    table,
)
from automix_transfer.evaluation.suite import evaluate_suite
from automix_transfer.evaluation.suite_options import SuiteOptions, of_several_labels
from automix_transfer.io import read_json, write_json
from automix_transfer.owner import clear, owned_file
from automix_transfer.progress import Progress, to_stderr
from automix_transfer.signals import Interrupted


def evaluate(args: argparse.Namespace, options: SuiteOptions) -> None:
    """Measure what `parse` has read, write it to ``--output`` (default: in the run's folder) and print it."""
    output = args.output
    if output is None and args.run is not None:
        output = (args.run if args.run.is_dir() else args.run.parent) / EVALUATION
    with (
        owned_file(output, is_evaluation, "output of an evaluation") if output is not None else nullcontext()
    ):
        _measure(args, options, output)


def _measure(args: argparse.Namespace, options: SuiteOptions, output: Path | None) -> None:
    baseline = read_baseline(args.baseline, options.parts) if args.baseline is not None else None
    device = choose_device(args.device)
    inputs = open_inputs(args)
    config, dataset = inputs.config, inputs.dataset
    if dataset.labels.ndim == 2:
        left, options = options.parts, of_several_labels(options)
        if left != options.parts:
            to_stderr("note: these images have several labels; of the default --suite only clean is measured")
    source = about(args, inputs, options, device)
    kept = kept_parts(output, options.parts, source) if output is not None else {}

    # what does not fit is said before the evaluation, which can take hours, and not behind it
    names = (
        options.corruptions
        if args.corrupted is None
        else released_names(args.corrupted, config, dataset.classes)
    )
    if baseline is not None:
        check_baseline(baseline, names)

    shots = "shots" in options.parts
    counts = train_counts(config, args.train_split, dataset.classes) if shots else []
    begin, progress = time.monotonic(), Progress()
    loader = eval_loader(dataset, args.batch_size, workers=args.workers)
    made = tuple(part for part in options.parts if part != "corruption" or args.corrupted is None)
    figures: dict[str, Any] = {"images": len(dataset)}
    encoder = inputs.encoder.to(device)
    if made:
        figures = evaluate_suite(
            encoder,
            loader,
            config.mean,
            config.std,
            replace(options, parts=made),
            lambda done: progress(done, len(dataset)),
            counts,
        )
    if shots:
        figures["shots_train_split"] = args.train_split or config.train_split
    stopped: KeyboardInterrupt | None = None
    if args.corrupted is not None:
        network = OfPixels(encoder, config.mean, config.std).to(device).eval()
        try:
            accuracies, images = released_accuracies(
                network, args.corrupted, config, dataset.classes, args.batch_size, to_stderr
            )
            figures |= summarize(accuracies, str(args.corrupted), images)
        except KeyboardInterrupt as error:
            if not made or output is None:
                raise
            stopped, source["suite"] = error, list(made)
    if baseline is not None and stopped is None:
        figures["corruption_relative_error"] = relative_error(figures["corruption"], baseline)

    source["seconds"] = round(time.monotonic() - begin, 1)
    _write(figures, kept, source, output, dataset)
    if stopped is not None:
        how = f"interrupted; {', '.join(made)} are in {output}, and --suite corruption adds the rest"
        raise Interrupted(getattr(stopped, "number", 2), how)


def _write(
    figures: dict[str, Any],
    kept: dict[str, Any],
    source: dict[str, Any],
    output: Path | None,
    dataset: ClassificationDataset,
) -> None:
    """Write the figures, and print them."""
    confusion = figures.pop("confusion", None)
    if confusion is not None:
        figures["mean_class_top1"] = confusion["mean_class_top1"]
    if "class_ap" in figures:
        figures["class_ap"] = dict(zip(map(str, dataset.classes), figures["class_ap"], strict=True))
    text = table({**figures, "about": source})
    if output is None:
        show(text)
        return
    about_all = source | ({"kept": kept.pop("kept")} if kept else {})
    write_json(output, {**kept, **figures, "about": about_all})
    if confusion is not None:
        for folder in (output.parent, output.parent / FOLDER):
            clear(folder, "" if folder.name == FOLDER else FOLDER)
        written = write_confusion(output.parent, confusion, dataset, source)
        text += f"\n{confusion_table(read_json(written))}\nwritten: {written}"
    print(f"{text}\nwritten: {output}")


def evaluation_of(
    path: Path, data: Path | None = None, suite: str = "clean,calibration", name: str = EVALUATION
) -> Path:
    """The file ``name`` in a run's folder; where there is none, the run is evaluated by ``suite`` now.

    A JSON file is taken as it is.
    """
    if path.is_file() and path.suffix == ".json":
        return path
    folder = path if path.is_dir() else path.parent
    if not (folder / name).is_file():
        where = ["--run", str(path), "--output", str(folder / EVALUATION)]
        evaluate(*parse("", [*where, "--suite", suite, *(["--data", str(data)] if data is not None else [])]))
    return folder / name
