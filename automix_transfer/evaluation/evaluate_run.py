"""An evaluation, from its arguments to its output; that of a run's folder is measured where there is none."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automix_transfer.console import show
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.loader import eval_loader
from automix_transfer.evaluation.arguments import parse
from automix_transfer.evaluation.attacks import OfPixels
from automix_transfer.evaluation.confusion import FOLDER, write_confusion
from automix_transfer.evaluation.corruptions.corrupted import (
    check_baseline,
    relative_error,
    released_accuracies,
    released_names,
    summarize,
)
from automix_transfer.evaluation.inputs import Inputs, open_inputs, train_counts
from automix_transfer.evaluation.kept import kept_parts, refuse_others_confusion
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
from automix_transfer.training import sharing
from automix_transfer.training.joining import by_first, refuse_differences, together
from automix_transfer.training.sharing import Team


def evaluate(args: argparse.Namespace, options: SuiteOptions) -> None:
    """Measure what `parse` has read, write it to ``--output`` (default: in the run's folder) and print it.

    The processes of a launcher share the images out; the first one writes and prints.
    """
    output = args.output
    if output is None and args.run is not None:
        output = (args.run if args.run.is_dir() else args.run.parent) / EVALUATION
    what = is_evaluation, "output of an evaluation"
    with sharing.team(args.device) as team:
        with by_first(team.world, nullcontext() if output is None else owned_file(output, *what)):
            asked = together(team.world, lambda: _open(args, options, output, team))
            if team.world.size > 1:
                refuse_differences(team.world, asked.facts())
            _measure(asked, team)


@dataclass
class _Asked:
    """What is evaluated, and what is known of it before the first image."""

    args: argparse.Namespace
    options: SuiteOptions
    output: Path | None
    inputs: Inputs
    source: dict[str, Any]
    kept: dict[str, Any]
    baseline: dict[str, Any] | None
    counts: list[int]

    def facts(self) -> dict[str, str]:
        """What must be equal in all processes."""
        # a machine may have them elsewhere
        elsewhere = ("weights", "run", "loaded", "data", "baseline", "device")
        images = self.inputs.dataset.listing.fingerprint(self.inputs.config.root)
        same = {name: str(value) for name, value in self.source.items() if name not in elsewhere}
        return same | {"--batch-size": str(self.args.batch_size), "images": images}


def _open(args: argparse.Namespace, options: SuiteOptions, output: Path | None, team: Team) -> _Asked:
    """Everything that can be wrong is found here: an evaluation can take hours."""
    baseline = read_baseline(args.baseline, options.parts) if args.baseline is not None else None
    inputs = open_inputs(args)
    config, dataset, classes = inputs.config, inputs.dataset, inputs.dataset.classes
    if dataset.labels.ndim == 2:
        left, options = options.parts, of_several_labels(options)
        if left != options.parts:
            to_stderr("note: these images have several labels; of the default --suite only clean is measured")
    source = about(args, inputs, options, team.world.device)
    kept = kept_parts(output, options.parts, source) if output is not None else {}
    if output is not None and "confusion" in options.parts:
        refuse_others_confusion(output, source)
    names = options.corruptions
    if args.corrupted is not None:
        names = tuple(released_names(args.corrupted, config, classes))
    if baseline is not None:
        check_baseline(baseline, names)
    counts = train_counts(config, args.train_split, classes) if "shots" in options.parts else []
    return _Asked(args, options, output, inputs, source, kept, baseline, counts)


def _measure(asked: _Asked, team: Team) -> None:
    args, options, output, source = asked.args, asked.options, asked.output, asked.source
    config, dataset = asked.inputs.config, asked.inputs.dataset
    begin, progress, world = time.monotonic(), Progress(), team.world
    made = tuple(part for part in options.parts if part != "corruption" or args.corrupted is None)
    figures: dict[str, Any] = {"images": len(dataset)}
    encoder = asked.inputs.encoder.to(world.device)
    if made:
        figures = evaluate_suite(
            encoder,
            eval_loader(dataset, args.batch_size, world.rank, world.size, args.workers, whole=True),
            config.mean,
            config.std,
            replace(options, parts=made),
            lambda done: progress(done, len(dataset)),
            asked.counts,
            team,
        )
    if "shots" in options.parts:
        figures["shots_train_split"] = args.train_split or config.train_split
    stopped: KeyboardInterrupt | None = None
    if args.corrupted is not None:
        network = OfPixels(encoder, config.mean, config.std).to(world.device).eval()
        try:
            accuracies, images = released_accuracies(
                network, args.corrupted, config, dataset.classes, args.batch_size, to_stderr, team
            )
            figures |= summarize(accuracies, str(args.corrupted), images)
        except KeyboardInterrupt as error:
            if not made or output is None or not team.main:
                raise
            stopped, source["suite"] = error, list(made)
    if not team.main:
        return
    if asked.baseline is not None and stopped is None:
        figures["corruption_relative_error"] = relative_error(figures["corruption"], asked.baseline)

    source["seconds"] = round(time.monotonic() - begin, 1)
    _write(figures, asked.kept, source, output, dataset)
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
    if confusion is not None:  # before the output, by which it is known whose it is
        for folder in (output.parent, output.parent / FOLDER):
            clear(folder, "" if folder.name == FOLDER else FOLDER)
        written = write_confusion(output.parent, confusion, dataset, source)
        text += f"\n{confusion_table(read_json(written))}\nwritten: {written}"
    write_json(output, {**kept, **figures, "about": about_all})
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
