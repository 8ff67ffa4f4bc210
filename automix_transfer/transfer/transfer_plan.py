"""Backbones × tasks × data × seeds as jobs, each a command that a person could type."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from automix_transfer.command_line import command
from automix_transfer.compared.named import folder_name
from automix_transfer.data.detection.find_splits import digest_of_boxes
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError
from automix_transfer.evaluation.corruptions import NAMES, SEVERITIES
from automix_transfer.evaluation.probing.probes import splits_of
from automix_transfer.imagenet import IMAGENET_MEAN, IMAGENET_STD
from automix_transfer.io import read_json, sha256_of
from automix_transfer.jobs import Job, is_progress
from automix_transfer.mixing.table import METHODS
from automix_transfer.models.encoders import EncoderInfo, plain_info, size_option
from automix_transfer.recipes.find import PROTOCOL, find_recipe
from automix_transfer.training.settings import load_experiment
from automix_transfer.transfer.backbones import TIMM, Backbone, Named
from automix_transfer.transfer.estimate import seconds_an_image
from automix_transfer.transfer.recipes import BACKBONE, OPTIMIZER, PYRAMID, settings_of
from automix_transfer.transfer.transfer_settings import PROBES, TASKS, Data, Settings, stands_on
from automix_transfer.transfer.tuning import HELD_OUT, SEED, Choice, Trial

START = 5.0  #: seconds that a command takes to begin


@dataclass(frozen=True)
class Cell:
    """One measurement: the job that writes ``result``, which holds the figures of ``task``.

    ``seed`` is None where nothing is drawn: a probe of fixed weights is one measurement, not one a seed.
    """

    task: str
    data: str
    backbone: str
    seed: int | None
    job: str
    result: Path


@dataclass(frozen=True)
class _Training:
    """A training's name and folder, and the setting that is chosen for it: () or (key, value)."""

    name: str
    folder: Path
    chosen: tuple[str, ...] = ()


def plan(
    settings: Settings,
    named: Sequence[Named],
    backbones: Mapping[tuple[str, int], Backbone],
    choices: Sequence[Choice] = (),
) -> tuple[list[Job], list[Cell]]:
    """The jobs, seed by seed, and the cells of the table.

    Args:
        choices: of the settings that are chosen for each backbone.
    """
    steps = _Steps(settings, choices)
    cells: list[Cell] = []
    for seed in settings.seeds:
        for one in named:
            backbone = backbones[one.name, seed]
            for data in settings.data:
                for task in settings.tasks:
                    if TASKS[task].reads(data.layout):
                        cells.append(steps.cell(task, data, backbone, seed))
    return list(steps.jobs.values()), list(dict.fromkeys(cells))


def plan_trials(
    settings: Settings, named: Sequence[Named], backbones: Mapping[tuple[str, int], Backbone]
) -> tuple[list[Job], list[Trial]]:
    """The jobs that choose settings, with the weights of the first seed, and what each is a trial of."""
    steps, trials = _Steps(settings), list[Trial]()
    for one in named:
        backbone = backbones[one.name, settings.seeds[0]]
        for data in settings.data:
            for task, grid in settings.tune.items():
                tasks = [name for name in settings.tasks if stands_on(name, task)]
                if not any(TASKS[name].reads(data.layout) for name in tasks):
                    continue
                for value in grid.values:
                    make = steps.detection if task == "detection" else steps.finetune
                    trials.append(Trial(task, data.name, one.name, value, make(data, backbone, SEED, value)))
    return list(steps.jobs.values()), trials


class _Steps:
    """Jobs by name; a job that two cells need is there once."""

    def __init__(self, settings: Settings, choices: Sequence[Choice] = ()) -> None:
        self.settings = settings
        self.choices = {(one.task, one.data, one.backbone): one for one in choices}
        self.jobs: dict[str, Job] = {}
        self.counts: dict[tuple[Any, ...], tuple[int, int, str, str]] = {}
        self.digests: dict[str, str] = {}
        self.detectors: dict[tuple[str, str], float] = {}  # seconds of one, by data set and network
        self.refused: set[tuple[str, str, bool]] = set()  # the same of none, and whether it has weights

    def cell(self, task: str, data: Data, backbone: Backbone, seed: int) -> Cell:
        named = backbone.named
        if task == "detection":
            job = self.detection(data, backbone, seed)
        elif task in PROBES:
            job = self.probe(data, backbone, seed)
        else:
            job = self.finetune(data, backbone, seed)
            if task == "localization":
                job = self.localization(data, backbone, seed, job)
            elif task == "robustness":
                job = self.robustness(data, backbone, seed, job)
        fixed = task in PROBES and not named.drawn
        return Cell(task, data.name, named.name, None if fixed else seed, job.name, job.result)

    def add(
        self,
        name: str,
        words: list[str],
        result: Path,
        needs: Sequence[str] = (),
        seconds: float = 0.0,
        read: str = "",
    ) -> Job:
        # localization prints the kinds of its errors, which are none of the job's
        keep = is_progress if words[4] != "localize" else lambda line: line.startswith("MaxBox")
        minutes = (seconds + START) / 60 if seconds else 0.0
        job = self.jobs.setdefault(name, Job(name, words, result, needs, minutes, keep, data=read))
        if any(other.result == result and other is not job for other in self.jobs.values()):
            raise UserError(f"two backbones would both write {result}; rename one of --backbones")
        return job

    def place(self, kind: str, data: Data, named: Named, seed: int | None) -> Path:
        folder = self.settings.output / kind / data.folder / named.folder
        return folder if seed is None else folder / f"seed{seed}"

    def given(self, task: str) -> tuple[str, ...]:
        return tuple(self.settings.overrides.get(task, ()))

    def training(self, task: str, data: Data, backbone: Backbone, seed: int, trial: str | None) -> _Training:
        """Where a training goes, what it is called, and the value of the setting that is chosen for it: that
        of a trial, or the one that the trials chose."""
        folder, grid = self.place(task, data, backbone.named, seed), self.settings.tune.get(task)
        name = f"{data.folder} {backbone.named.folder} "
        if grid is None:
            return _Training(f"{name}seed{seed}", folder)
        if trial is not None:
            last = f"{grid.key.rpartition('.')[2].lower()}_{folder_name(trial, 'value')}"
            return _Training(
                f"{name}{last}",
                self.place(f"tune/{task}", data, backbone.named, None) / last,
                (grid.key, trial),
            )
        choice = self.choices.get((task, data.name, backbone.named.name))
        value = choice.value if choice and choice.value is not None else grid.values[0]
        return _Training(f"{name}seed{seed}", folder, (grid.key, value))

    def finetune(self, data: Data, backbone: Backbone, seed: int, trial: str | None = None) -> Job:
        made = self.training("finetune", data, backbone, seed, trial)
        folder, given = made.folder, self.given("finetune")
        train, test = splits_of(data.layout, None, None)
        info, recipe = backbone.info, self.settings.finetune_recipe
        overrides = [
            f"output={folder}",
            f"seed={seed}",
            f"data.dataset={data.layout}",
            f"data.root={data.root}",
            "data.classes=0",
            f"data.train_split={train}",
            f"data.val_split={test}",
            f"data.mean={list(info.mean)}",
            f"data.std={list(info.std)}",
            *_network(backbone),
            *given,
            *(["=".join(made.chosen)] if made.chosen else []),
        ]
        if trial is not None:
            train = [word for word in overrides if word.startswith("data.train_split=")][-1].partition("=")[2]
            overrides += [f"data.train_split={train}[:{100 - HELD_OUT}%]"]
            overrides += [f"data.val_split={train}[{100 - HELD_OUT}%:]"]
        files = [find_recipe(recipe, "finegrained", "pretrain")] if recipe else []
        experiment = load_experiment([PROTOCOL, *files], overrides)
        train_images, test_images, read = self.images(data, experiment.data)
        forward, step = seconds_an_image(info.name, info.stem, experiment.data.image_size)
        passes = float(re.findall(r"[\d.]+", METHODS[experiment.method["name"]].passes)[0])
        seconds = experiment.train.epochs * (train_images * step * passes / 3 + test_images * forward)
        config = ("--config-file", recipe) if recipe else ()
        words = command("finetune", "--resume", *config, *overrides)
        return self.add(f"finetune {made.name}", words, folder / "metrics.json", seconds=seconds, read=read)

    def images(self, data: Data, config: DataConfig, boxes: bool = False) -> tuple[int, int, str]:
        """Training and test images of a task, and a digest of their names, labels and bytes, with ``boxes``
        of theirs, too; (0, 0, ''), which is not known, where the lists are wrong, which its jobs say."""
        key = data.name, config.train_split, config.val_split, config.limit_classes, config.limit_per_class
        if key not in self.counts:
            try:
                both = [load_listing(config, split) for split in (config.train_split, config.val_split)]
            except UserError:
                self.counts[key] = 0, 0, "", ""
            else:
                more = [list(map(one.size, range(len(one)))) for one in both], [one.boxes for one in both]
                sizes, drawn = (hashlib.sha256(repr(part).encode()).hexdigest() for part in more)
                read = " ".join([*(one.digest() for one in both), sizes])
                self.counts[key] = len(both[0]), len(both[1]), read, f"{read} {drawn}"
        train, test, plain, with_boxes = self.counts[key]
        return train, test, with_boxes if boxes else plain

    def boxes(self, data: Data) -> str:
        """A digest of the boxes of a data set; '' where its splits are wrong, which its jobs say."""
        if data.name not in self.digests:
            with suppress(UserError):
                self.digests[data.name] = digest_of_boxes(data.root)
        return self.digests.setdefault(data.name, "")

    def config(self, data: Data, size: int) -> DataConfig:
        train, test = splits_of(data.layout, None, None)
        return DataConfig(data.layout, str(data.root), train_split=train, val_split=test, image_size=size)

    def localization(self, data: Data, backbone: Backbone, seed: int, needs: Job) -> Job:
        named, info = backbone.named, backbone.info
        size = number_of(self.given("localization"), "--image-size", 224)
        _, test_images, read = self.images(data, self.config(data, size), boxes=True)
        seconds = test_images * seconds_an_image(info.name, info.stem, size)[0]
        output = self.place("localization", data, named, seed) / "boxes.json"
        words = command(
            "localize",
            *("--dataset", data.layout, "--root", str(data.root), "--output", str(output)),
            *("--checkpoint", str(needs.result.parent / "last.pt")),
            *self.given("localization"),
        )
        name = f"localize {data.folder} {named.folder} seed{seed}"
        return self.add(name, words, output, [needs.name], seconds, read)

    def robustness(self, data: Data, backbone: Backbone, seed: int, needs: Job) -> Job:
        named, info = backbone.named, backbone.info
        forward, step = seconds_an_image(info.name, info.stem, info.image_size)
        made = option_of(self.given("robustness"), "--corruptions", ",".join(NAMES)).count(",") + 1
        _, test_images, read = self.images(data, self.config(data, info.image_size))
        test_images = min(test_images, number_of(self.given("robustness"), "--limit", 0) or test_images)
        seconds = test_images * (forward * (1 + made * len(SEVERITIES)) + step)
        output = self.place("robustness", data, named, seed) / "evaluation.json"
        words = command(
            "evaluate",
            *("--run", str(needs.result.parent), "--output", str(output)),
            *("--suite", "clean,calibration,fgsm,corruption"),
            *self.given("robustness"),
        )
        name = f"robustness {data.folder} {named.folder} seed{seed}"
        return self.add(name, words, output, [needs.name], seconds, read)

    def probe(self, data: Data, backbone: Backbone, seed: int) -> Job:
        """Both probes in one job: they read the same features. One alone has another name, so that the other
        may be asked for later."""
        named = backbone.named
        kinds = [kind for kind in PROBES if kind in self.settings.tasks]
        given = [word for kind in kinds for word in self.given(kind)]
        own, called = seed if named.drawn else None, "probe" if len(kinds) > 1 else kinds[0]
        output = self.place("probe", data, named, own) / f"{called}.json"
        words = command(
            "probe",
            *("--weights", backbone.file or "random", "--data", str(data.root), "--dataset", data.layout),
            *_options(backbone),
            *("--kinds", ",".join(kinds), "--seed", str(seed if own is not None else 0)),
            *("--output", str(output)),
            *([] if backbone.file else _fed_as_the_others(backbone.info)),
            *given,
        )
        place, info = "" if own is None else f" seed{seed}", backbone.info
        size = number_of(given, "--image-size", info.image_size)
        *counts, read = self.images(data, self.config(data, size))
        seconds = sum(counts) * seconds_an_image(info.name, info.stem, size)[0]
        return self.add(
            f"{called} {data.folder} {named.folder}{place}", words, output, seconds=seconds, read=read
        )

    @cached_property
    def detector(self) -> dict[str, Any]:
        """The settings of the detectors, by dotted keys."""
        return settings_of(find_recipe(self.settings.detector, "detection"), self.given("detection"))

    def detection(self, data: Data, backbone: Backbone, seed: int, trial: str | None = None) -> Job:
        recipe, named = self.settings.detector, backbone.named
        made = self.training("detection", data, backbone, seed, trial)
        folder, needs, weights = made.folder, [], backbone.file
        given, own = self.given("detection"), PYRAMID + backbone.info.name.split(".")[0]
        network, optimizer = (str(self.detector.get(key, "")) for key in (BACKBONE, OPTIMIZER))
        timm = network.startswith(PYRAMID)
        # a detector opens files only, and takes of several encoders the one for inference
        if backbone.file and not (timm and Path(backbone.file).is_file() and not named.which):
            kind, suffix = ("safetensors", ".safetensors") if timm else ("detectron2", ".pkl")
            first = self.settings.seeds[0]  # whose weights a trial has
            export = self.export(backbone, seed if trial is None else first, kind, suffix)
            needs, weights = [export.name], export.command[export.command.index("--output") + 1]
        # a detector on one of timm's networks that names its optimizer stands on that of the backbone
        others = timm and optimizer not in ("", "auto") and own != network and BACKBONE not in given
        options = [BACKBONE, own] if others else []
        options += [*([] if backbone.file else _as_trained(backbone.info, timm)), *given]
        words = command(
            "detect",
            *("--resume", "--config-file", recipe, "--data-root", str(data.root)),
            *("--num-gpus", str(self.settings.num_gpus)),
            *options,
            *made.chosen,
            *(() if trial is None else ("DATASETS.HOLD_OUT", str(HELD_OUT))),
            *("SEED", str(seed), "MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(folder)),
        )
        result = folder / "results.json"
        if trial is not None:
            options += made.chosen
        options += ["MODEL.WEIGHTS", weights]
        seconds = 0.0 if result.is_file() else self.seconds_of_detector(data, options, backbone)
        return self.add(f"detect {made.name}", words, result, needs, seconds, self.boxes(data))

    def seconds_of_detector(self, data: Data, options: Sequence[str], backbone: Backbone) -> float:
        """Of one training, measured once for a data set and network; 0, which is not known, where detectors
        are trained on another machine."""
        settings, info = self.settings, backbone.info
        if settings.rehearse is None or torch.cuda.device_count() < settings.num_gpus:
            return 0.0
        pair = data.name, info.name
        attempt = (*pair, bool(backbone.file))
        if pair not in self.detectors and attempt not in self.refused:
            recipe = str(find_recipe(settings.detector, "detection"))
            try:
                self.detectors[pair] = settings.rehearse(
                    recipe, tuple(options), data.root, settings.num_gpus, info
                )
            except UserError:  # its jobs say why
                self.refused.add(attempt)
        return self.detectors.get(pair, 0.0)

    def export(self, backbone: Backbone, seed: int, kind: str, suffix: str) -> Job:
        named = backbone.named
        own = f"seed{seed}" if named.drawn else ""
        name = f"{named.folder}{'_' if own else ''}{own}{suffix}"
        file = self.settings.output / "backbones" / name
        words = command(
            "export",
            *("--checkpoint", backbone.file, "--to", kind, "--output", str(file)),
            *_options(backbone),
        )
        called = f"export {named.folder}{' ' if own else ''}{own}"
        job = self.add(called, words, file.with_suffix(".proof.json"), seconds=START)
        job.proves = partial(_is_of, file)
        return job


def _is_of(file: Path, proof: Path) -> bool:
    """Whether ``proof`` is there, and is that of ``file`` as it is now."""
    if not proof.is_file() or not file.is_file():
        return False
    about = read_json(proof)
    return isinstance(about, dict) and about.get("sha256") == sha256_of(file)


def option_of(words: Sequence[str], name: str, usual: Any) -> str:
    """The value that a command is given for an option."""
    places = [place for place, word in enumerate(words[:-1]) if word == name]
    return words[places[-1] + 1] if places else str(usual)


def number_of(words: Sequence[str], name: str, usual: int) -> int:
    """The same of an option that is a whole number."""
    value = option_of(words, name, usual)
    if not value.isdecimal():
        setting = name.removeprefix("--").replace("-", "_")
        raise UserError(f"{setting}={value} must be a whole number, 0 or more")
    return int(value)


def _network(backbone: Backbone) -> list[str]:
    """The overrides of a fine-tuning that say which network it starts from."""
    info, named = backbone.info, backbone.named
    words = [f"encoder.name={info.name}", f"encoder.stem={info.stem}", f"encoder.weights={backbone.file}"]
    return [*words, *([f"encoder.which={named.which}"] if named.which else [])]


def _as_trained(info: EncoderInfo, timm: bool) -> list[str]:
    """Feeds and builds a detector of random weights as the others, whose weights say it; ImageNet's mean and
    deviation and the network's own size are usual."""
    size = size_option(info.name, info.image_size).get("img_size") if timm else None
    positions = ["MODEL.TIMM.IMAGE_SIZE", str(size)] if size else []
    if (info.mean, info.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return positions
    mean, std = ([round(255 * value, 6) for value in values] for values in (info.mean, info.std))
    return ["MODEL.PIXEL_MEAN", str(mean), "MODEL.PIXEL_STD", str(std), *positions]


def _fed_as_the_others(info: EncoderInfo) -> list[str]:
    """Builds and feeds a probe of random weights as the others, whose weights say it, where it is unusual."""
    usual = plain_info(info.name, 0)
    words = ["--stem", info.stem] if info.stem != usual.stem else []
    if info.image_size != usual.image_size:
        words += ["--image-size", str(info.image_size)]
    for key in ("mean", "std"):
        if getattr(info, key) != getattr(usual, key):
            words += [f"--{key}", *map(str, getattr(info, key))]
    return words


def _options(backbone: Backbone) -> list[str]:
    """Options of commands that read a backbone: its network's name, where the file does not say it, and which
    encoder of the file."""
    named = backbone.named
    asked = named.encoder or not backbone.file or named.source.startswith(TIMM)
    options = (("--encoder", backbone.info.name if asked else ""), ("--which", named.which))
    return [part for option, value in options if value for part in (option, value)]
