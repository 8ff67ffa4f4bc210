"""Backbones × tasks × data × seeds as jobs, each a command that a person could type."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automix_transfer.command_line import command
from automix_transfer.config import read_layers, read_yaml
from automix_transfer.data.detection.find_splits import coco_splits, voc_folders
from automix_transfer.data.registry import load_listing
from automix_transfer.data.settings import DataConfig
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.evaluation.corruptions import NAMES, SEVERITIES
from automix_transfer.evaluation.probing.probes import layout_of, splits_of
from automix_transfer.imagenet import IMAGENET_MEAN, IMAGENET_STD
from automix_transfer.io import expand_home, sha256_of
from automix_transfer.jobs import Job, is_progress
from automix_transfer.mixing.table import METHODS
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.recipes.find import PROTOCOL, RECIPES, find_recipe
from automix_transfer.training.settings import load_experiment
from automix_transfer.transfer.backbones import Backbone, Named, folder_name
from automix_transfer.transfer.estimate import seconds_an_image

DETECTION = "detection"  #: what a data set of boxes is called where another has its layout
PROBES = ("linear", "knn")  #: tasks on fixed features
#: settings of each task that differ from job to job, or say which data and weights are read
OWN = {
    "detection": ("SEED", "OUTPUT_DIR", "MODEL.WEIGHTS"),
    "finetune": ("output", "seed", "data.dataset", "data.root", "encoder.name", "encoder.stem")
    + ("encoder.weights", "encoder.which"),
    "localization": ("output", "checkpoint", "dataset", "root", "which"),
    "robustness": ("output", "run", "weights", "which", "data", "dataset"),
    **dict.fromkeys(PROBES, ("output", "weights", "encoder", "which", "data", "dataset", "kinds", "seed")),
}
WITH_BOXES = ("cub", "tiny_imagenet")  #: layouts that the localization of classifiers is measured on


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        title: for the table.
        figures: (column, where its number stands in the result's JSON, whether more is better); the first is
            the one that the answer is about.
        reads: whether it is measured on data of this layout.
        needs: the task whose runs it is measured on.
    """

    title: str
    figures: tuple[tuple[str, tuple[str, ...], bool], ...]
    needs: str = ""
    layouts: tuple[str, ...] = ()

    def reads(self, layout: str) -> bool:
        return layout in self.layouts if self.layouts else layout != DETECTION


TASKS: dict[str, Task] = {
    "detection": Task(
        "detection",
        (("AP", ("AP",), True), ("AP50", ("AP50",), True), ("AP75", ("AP75",), True)),
        layouts=(DETECTION,),
    ),
    "localization": Task(
        "localization",
        (("MaxBoxAccV2", ("MaxBoxAccV2",), True), ("MaxBoxAcc", ("MaxBoxAcc",), True)),
        needs="finetune",
        layouts=WITH_BOXES,
    ),
    "finetune": Task("fine-tuning", (("top-1", ("top1_median",), True),)),
    "linear": Task("linear probe", (("top-1", ("linear", "top1"), True),)),
    "knn": Task("nearest neighbours", (("top-1", ("knn", "top1"), True),)),
    "robustness": Task(
        "robustness",
        (
            ("corrupted top-1", ("corruption",), True),
            ("FGSM error", ("fgsm_error",), False),
            ("ECE", ("ece15",), False),
        ),
        needs="finetune",
    ),
}


@dataclass(frozen=True)
class Data:
    """A data set: its name in the table, its folder, and its layout (`DETECTION`: VOC's or COCO's)."""

    name: str
    root: Path
    layout: str

    @property
    def folder(self) -> str:
        return folder_name(self.name) or "data"


@dataclass(frozen=True)
class Settings:
    """What all backbones share.

    Attributes:
        output: folder of everything.
        tasks: keys of `TASKS`, in the table's order.
        data: the data sets.
        seeds: of the trainings.
        detector, finetune_recipe: names or files; the detector is needed for detection.
        overrides: task -> settings over the recipe's, as its command takes them.
        num_gpus: GPUs of a detector.
    """

    output: Path
    tasks: tuple[str, ...]
    data: tuple[Data, ...]
    seeds: tuple[int, ...]
    detector: str = ""
    finetune_recipe: str = ""
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_gpus: int = 0


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


def parse_data(values: Sequence[str]) -> tuple[Data, ...]:
    """``NAME=DIR`` or ``DIR``; what lies in the folder says what it is.

    Raises:
        UserError: no folder, no known layout, or two of one name.
    """
    found: list[Data] = []
    for value in values:
        name, equals, root = value.partition("=")
        if not equals or Path(value).is_dir():
            name, root = Path(value).name, value
        folder = Path(root)
        if not value.isprintable():
            raise UserError(f"--data {value!r} has characters that are not printable; rename it")
        if not name or "/" in name or not folder.is_dir():
            raise UserError(f"--data {value} must be NAME=DIR, the root of a data set in its own layout")
        boxes = bool(voc_folders(folder)) or coco_splits(folder) is not None
        data = Data(name, folder, DETECTION if boxes else layout_of(folder))
        if any(data.folder == other.folder for other in found):
            raise UserError(
                f"--data has two called '{name}' or nearly so; give each a name of its own: "
                "--data a=DIR b=DIR"
            )
        found.append(data)
    return tuple(found)


def parse_tasks(text: str) -> tuple[str, ...]:
    """``detection,knn`` -> the tasks, in the table's order.

    Raises:
        UserError: an unknown one.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TASKS:
            known = f"the tasks are {', '.join(TASKS)}"
            raise UserError(f"--tasks {name} is unknown; {did_you_mean(name, TASKS, known)}")
    if not names:
        raise UserError(f"--tasks is empty; choose from {', '.join(TASKS)}")
    return tuple(name for name in TASKS if name in names)


def parse_overrides(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``finetune.train.epochs=5`` -> what the command of that task is given.

    Raises:
        UserError: no ``TASK.KEY=VALUE``.
    """
    result: dict[str, list[str]] = {}
    of_probes: dict[str, str] = {}
    for word in words:
        task, dot, rest = word.partition(".")
        key, equals, value = rest.partition("=")
        if task not in TASKS or not (dot and equals and key):
            raise UserError(
                f"{word} must be TASK.KEY=VALUE, e.g. finetune.train.epochs=20 or "
                f"detection.SOLVER.MAX_ITER=1000; the tasks are {', '.join(TASKS)}"
            )
        option = key.replace("_", "-")
        if option.replace("-", "_") in OWN[task]:
            raise UserError(f"{word} is what the comparison itself sets; leave it out")
        if task in PROBES and of_probes.setdefault(option, value) != value:
            raise UserError(f"linear and knn read the same features; give both the same value as in {word}")
        if task == "finetune":
            parts = [rest]
        elif task == "detection":
            parts = [key, value]
        else:
            parts = [f"--{option}", *value.split()]
        result.setdefault(task, []).extend(parts)
    return {task: tuple(parts) for task, parts in result.items()}


def check(settings: Settings) -> None:
    """Every task needs data, and all data a task.

    Raises:
        UserError: names the one without.
    """
    for name in settings.tasks:
        task = TASKS[name]
        if not any(task.reads(data.layout) for data in settings.data):
            kind = {DETECTION: "boxes in VOC's or COCO's layout"}.get(name) or (
                f"the layout {' or '.join(task.layouts)}" if task.layouts else "labelled images"
            )
            raise UserError(f"task {name} has no data; give a data set with {kind}: --data NAME=DIR")
    for data in settings.data:
        if not any(TASKS[name].reads(data.layout) for name in settings.tasks):
            raise UserError(
                f"--data {data.name} ({data.layout}) is used by no task of {', '.join(settings.tasks)}; "
                "leave it out, or add its task"
            )
    for name in settings.overrides:
        if name not in settings.tasks and not any(TASKS[task].needs == name for task in settings.tasks):
            raise UserError(f"{name}.… is set, but {name} is none of --tasks {','.join(settings.tasks)}")
    if DETECTION in settings.tasks and not settings.detector:
        raise UserError(
            "task detection needs --detector RECIPE, one for all backbones, e.g. voc_R50_C4_24k; for other "
            "encoders add detection.MODEL.BACKBONE.NAME=timm_fpn/NAME to one with FPN"
        )


def plan(
    settings: Settings, named: Sequence[Named], backbones: Mapping[tuple[str, int], Backbone]
) -> tuple[list[Job], list[Cell]]:
    """The jobs, seed by seed, so that what is interrupted has whole seeds, and the cells of the table."""
    steps = _Steps(settings)
    cells: list[Cell] = []
    for seed in settings.seeds:
        for one in named:
            backbone = backbones[one.name, seed]
            for data in settings.data:
                for task in settings.tasks:
                    if TASKS[task].reads(data.layout):
                        cells.append(steps.cell(task, data, backbone, seed))
    return list(steps.jobs.values()), list(dict.fromkeys(cells))


class _Steps:
    """Jobs by name; a job that two cells need is there once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.jobs: dict[str, Job] = {}
        self.counts: dict[tuple[Any, ...], tuple[int, int]] = {}

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
        self, name: str, words: list[str], result: Path, needs: Sequence[str] = (), seconds: float = 0.0
    ) -> Job:
        # localization prints the kinds of its errors, which are none of the job's
        keep = is_progress if words[4] != "localize" else lambda line: line.startswith("MaxBox")
        job = self.jobs.setdefault(name, Job(name, words, result, needs, seconds / 60, keep))
        if any(other.result == result and other is not job for other in self.jobs.values()):
            raise UserError(f"two backbones would both write {result}; rename one of --backbones")
        return job

    def place(self, kind: str, data: Data, named: Named, seed: int | None) -> Path:
        folder = self.settings.output / kind / data.folder / named.folder
        return folder if seed is None else folder / f"seed{seed}"

    def given(self, task: str) -> tuple[str, ...]:
        return tuple(self.settings.overrides.get(task, ()))

    def finetune(self, data: Data, backbone: Backbone, seed: int) -> Job:
        folder = self.place("finetune", data, backbone.named, seed)
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
            *self.given("finetune"),
        ]
        files = [find_recipe(recipe, "finegrained", "pretrain")] if recipe else []
        experiment = load_experiment([PROTOCOL, *files], overrides)
        train_images, test_images = self.images(data, experiment.data)
        forward, step = seconds_an_image(info.name, info.stem, experiment.data.image_size)
        passes = float(re.findall(r"[\d.]+", METHODS[experiment.method["name"]].passes)[0])
        seconds = experiment.train.epochs * (train_images * step * passes / 3 + test_images * forward)
        given = ("--config-file", recipe) if recipe else ()
        words = command("finetune", "--resume", *given, *overrides)
        name = f"finetune {data.folder} {backbone.named.folder} seed{seed}"
        return self.add(name, words, folder / "metrics.json", seconds=seconds)

    def images(self, data: Data, config: DataConfig) -> tuple[int, int]:
        """Training and test images that a task reads of a data set; its class names and lists are checked."""
        key = data.name, config.limit_classes, config.limit_per_class
        if key not in self.counts:
            train, test = (load_listing(config, split) for split in (config.train_split, config.val_split))
            self.counts[key] = len(train.labels), len(test.labels)
        return self.counts[key]

    def config(self, data: Data, size: int) -> DataConfig:
        train, test = splits_of(data.layout, None, None)
        return DataConfig(data.layout, str(data.root), train_split=train, val_split=test, image_size=size)

    def localization(self, data: Data, backbone: Backbone, seed: int, needs: Job) -> Job:
        named, info = backbone.named, backbone.info
        size = int(_option(self.given("localization"), "--image-size", 224))
        seconds = (
            self.images(data, self.config(data, size))[1] * seconds_an_image(info.name, info.stem, size)[0]
        )
        output = self.place("localization", data, named, seed) / "boxes.json"
        words = command(
            "localize",
            *("--dataset", data.layout, "--root", str(data.root), "--output", str(output)),
            *("--checkpoint", str(needs.result.parent / "last.pt")),
            *self.given("localization"),
        )
        return self.add(
            f"localize {data.folder} {named.folder} seed{seed}", words, output, [needs.name], seconds
        )

    def robustness(self, data: Data, backbone: Backbone, seed: int, needs: Job) -> Job:
        named, info = backbone.named, backbone.info
        forward, step = seconds_an_image(info.name, info.stem, info.image_size)
        made = _option(self.given("robustness"), "--corruptions", ",".join(NAMES)).count(",") + 1
        test_images = self.images(data, self.config(data, info.image_size))[1]
        test_images = min(test_images, int(_option(self.given("robustness"), "--limit", 0)) or test_images)
        seconds = test_images * (forward * (1 + made * len(SEVERITIES)) + step)
        output = self.place("robustness", data, named, seed) / "evaluation.json"
        words = command(
            "evaluate",
            *("--run", str(needs.result.parent), "--output", str(output)),
            *("--suite", "clean,calibration,fgsm,corruption"),
            *self.given("robustness"),
        )
        name = f"robustness {data.folder} {named.folder} seed{seed}"
        return self.add(name, words, output, [needs.name], seconds)

    def probe(self, data: Data, backbone: Backbone, seed: int) -> Job:
        """Both probes in one job: they read the same features."""
        named = backbone.named
        kinds = [kind for kind in PROBES if kind in self.settings.tasks]
        given = [word for kind in kinds for word in self.given(kind)]
        own = seed if named.drawn else None
        output = self.place("probe", data, named, own) / "probe.json"
        options = (("--encoder", _asked_encoder(backbone)), ("--which", named.which))
        words = command(
            "probe",
            *("--weights", backbone.file or "random", "--data", str(data.root), "--dataset", data.layout),
            *(part for option, value in options if value for part in (option, value)),
            *(
                "--kinds",
                ",".join(kinds),
                "--seed",
                str(seed if own is not None else 0),
                "--output",
                str(output),
            ),
            *given,
        )
        place, info = "" if own is None else f" seed{seed}", backbone.info
        size = int(_option(given, "--image-size", info.image_size))
        seconds = (
            sum(self.images(data, self.config(data, size))) * seconds_an_image(info.name, info.stem, size)[0]
        )
        return self.add(f"probe {data.folder} {named.folder}{place}", words, output, seconds=seconds)

    def detection(self, data: Data, backbone: Backbone, seed: int) -> Job:
        recipe, named = self.settings.detector, backbone.named
        folder, needs, weights = self.place("detection", data, named, seed), [], backbone.file
        timm = reads_checkpoints(find_recipe(recipe, "detection"), self.given("detection"))
        # a detector opens files only, and takes of several encoders the one for inference
        if backbone.file and not (timm and Path(backbone.file).is_file() and not named.which):
            kind, suffix = ("safetensors", ".safetensors") if timm else ("detectron2", ".pkl")
            export = self.export(backbone, seed, kind, suffix)
            needs, weights = [export.name], export.command[export.command.index("--output") + 1]
        words = command(
            "detect",
            *("--resume", "--config-file", recipe, "--data-root", str(data.root)),
            *("--num-gpus", str(self.settings.num_gpus)),
            *([] if backbone.file else _normalisation(backbone.info)),
            *self.given("detection"),
            *("SEED", str(seed), "MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(folder)),
        )
        return self.add(
            f"detect {data.folder} {named.folder} seed{seed}", words, folder / "results.json", needs
        )

    def export(self, backbone: Backbone, seed: int, kind: str, suffix: str) -> Job:
        named = backbone.named
        own = f"seed{seed}" if named.drawn else ""
        name = f"{named.folder}{'_' if own else ''}{own}{suffix}"
        file = self.settings.output / "backbones" / name
        options = (("--encoder", _asked_encoder(backbone)), ("--which", named.which))
        words = command(
            "export",
            *("--checkpoint", backbone.file, "--to", kind, "--output", str(file)),
            *(part for option, value in options if value for part in (option, value)),
        )
        return self.add(
            f"export {named.folder}{' ' if own else ''}{own}", words, file.with_suffix(".proof.json")
        )


def _option(words: Sequence[str], name: str, usual: Any) -> str:
    """The value that a command is given for an option."""
    return words[words.index(name) + 1] if name in words[:-1] else str(usual)


def _network(backbone: Backbone) -> list[str]:
    """The overrides of a fine-tuning that say which network it starts from."""
    info, named = backbone.info, backbone.named
    words = [f"encoder.name={info.name}", f"encoder.stem={info.stem}", f"encoder.weights={backbone.file}"]
    return [*words, *([f"encoder.which={named.which}"] if named.which else [])]


def _normalisation(info: EncoderInfo) -> list[str]:
    """Feeds a detector of random weights as the others, whose weights say it; ImageNet's is usual."""
    if (info.mean, info.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return []
    mean, std = ([round(255 * value, 6) for value in values] for values in (info.mean, info.std))
    return ["MODEL.PIXEL_MEAN", str(mean), "MODEL.PIXEL_STD", str(std)]


def _asked_encoder(backbone: Backbone) -> str:
    """The network's name for commands that otherwise read it from the file."""
    named = backbone.named
    return (
        backbone.info.name if named.encoder or not backbone.file or named.source.startswith("timm:") else ""
    )


def reads_checkpoints(recipe: Path, overrides: Sequence[str]) -> bool:
    """Whether a detector's backbone is one of timm's, which is started from a checkpoint itself; the others
    from an export."""
    chosen = dict(zip(overrides[::2], overrides[1::2], strict=False)).get("MODEL.BACKBONE.NAME")
    models = (read_yaml(file).get("MODEL") or {} for file in files_of(recipe))
    names = ((model.get("BACKBONE") or {}).get("NAME") for model in models)
    return str(chosen or next(filter(None, names), "")).startswith("timm_fpn/")


def files_of(recipe: Path) -> list[Path]:
    """A detection config and those that it is based on, the nearest first."""
    found: list[Path] = []
    while recipe not in found:  # one that is based on itself is refused by its command
        found.append(recipe)
        base = read_yaml(recipe).get("_BASE_")
        if isinstance(base, str):
            recipe = find_recipe(expand_home(base), "detection", beside=recipe.parent)
    return found


def recipe_digest(job: Job) -> str:
    """SHA-256 of the recipe of a job and of those that it is based on, but for the library's own."""
    words = list(job.command)
    name = _option(words, "--config-file", "")
    if not name:
        return ""
    files = (
        files_of(find_recipe(name, "detection"))
        if words[4] == "detect"
        else [file for file, _ in read_layers(find_recipe(name, "finegrained", "pretrain"))]
    )
    return " ".join(sha256_of(file) for file in files if not file.resolve().is_relative_to(RECIPES))
