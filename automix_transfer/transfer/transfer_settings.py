"""What a comparison of backbones is asked for: tasks, data and their settings, parsed and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from automix_transfer.compared.named import folder_name, refuse_twins, split_name
from automix_transfer.data.detection.find_splits import coco_splits, voc_folders
from automix_transfer.errors import UserError, did_you_mean
from automix_transfer.evaluation.probing.probes import layout_of
from automix_transfer.io import expand_home
from automix_transfer.models.encoders import EncoderInfo

DETECTION = "detection"  #: what a data set of boxes is called where another has its layout
PROBES = ("linear", "knn")  #: tasks on fixed features
RATES = {"finetune": "optimizer.lr", "detection": "SOLVER.BASE_LR"}  #: trainings, and their learning rates
#: settings of each task that differ from job to job, or say which data and weights are read
OWN = {
    "detection": ("SEED", "OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    "finetune": ("output", "seed", "data.dataset", "data.root", "encoder.name", "encoder.stem")
    + ("encoder.weights", "encoder.which", "data.mean", "data.std"),
    "localization": ("output", "checkpoint", "dataset", "root", "which"),
    "robustness": ("output", "run", "weights", "which", "data", "dataset", "mean", "std"),
    **dict.fromkeys(
        PROBES, ("output", "weights", "encoder", "which", "data", "dataset", "kinds", "seed", "mean", "std")
    ),
}
WITH_BOXES = ("cub", "tiny_imagenet")  #: layouts that the localization of classifiers is measured on


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        title: for the table.
        figures: (column, where its number stands in the result's JSON, whether more is better); the first is
            the one that the answer is about.
        needs: the task whose runs it is measured on.
        layouts: of the data that it is measured on; empty: any of labelled images.
    """

    title: str
    figures: tuple[tuple[str, tuple[str, ...], bool], ...]
    needs: str = ""
    layouts: tuple[str, ...] = ()

    def reads(self, layout: str) -> bool:
        """Whether it is measured on data of this layout."""
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


def stands_on(task: str, training: str) -> bool:
    """Whether ``task`` is ``training`` itself, or is measured on its runs."""
    return training in (task, TASKS[task].needs)


@dataclass(frozen=True)
class Data:
    """A data set: its name in the table, its folder, and its layout (`DETECTION`: VOC's or COCO's)."""

    name: str
    root: Path
    layout: str

    @property
    def folder(self) -> str:
        return folder_name(self.name, "data")


@dataclass(frozen=True)
class Grid:
    """A setting of a training and the values to choose from, as its command takes them."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What all backbones share.

    Attributes:
        output: folder of everything.
        tasks: keys of `TASKS`, in the table's order.
        data: the data sets.
        seeds: of the trainings.
        detector, finetune_recipe: names or files; '' is the usual one.
        overrides: task -> settings over the recipe's, as its command takes them.
        tune: task -> the setting that is chosen for each backbone, on held-out training images, and its grid.
        num_gpus: GPUs of a detector.
        rehearse: checks a detector's recipe, settings and data, and returns the seconds of its training (0:
            not known); given the recipe's file, KEY VALUE pairs, the folder of the data, GPUs and whether it
            is pretrained. None where there is no Detectron2.
    """

    output: Path
    tasks: tuple[str, ...]
    data: tuple[Data, ...]
    seeds: tuple[int, ...]
    detector: str = ""
    finetune_recipe: str = ""
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tune: Mapping[str, Grid] = field(default_factory=dict)
    num_gpus: int = 0
    rehearse: Callable[[str, tuple[str, ...], Path, int, EncoderInfo], float] | None = None


def parse_data(values: Sequence[str]) -> tuple[Data, ...]:
    """``NAME=DIR`` or ``DIR``; what lies in the folder says what it is.

    Raises:
        UserError: no folder, no known layout, or two of one name.
    """
    found: list[Data] = []
    for value in values:
        name, root = split_name(value, lambda path: expand_home(path).is_dir(), Path(value).name)
        folder = expand_home(root)
        if not value.isprintable():
            raise UserError(f"--data {value!r} has characters that are not printable; rename it")
        if not name or "/" in name or not root or not folder.is_dir():
            raise UserError(f"--data {value} must be NAME=DIR, the root of a data set in its own layout")
        boxes = bool(voc_folders(folder)) or coco_splits(folder) is not None
        data = Data(name, folder, DETECTION if boxes else layout_of(folder))
        refuse_twins("--data", "", name, data.folder, [other.folder for other in found], "DIR")
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


def parse_tune(words: Sequence[str], tasks: Sequence[str]) -> dict[str, Grid]:
    """``lr=0.01,0.03`` or ``finetune.optimizer.lr=0.01,0.03`` -> what is chosen for each training.

    Raises:
        UserError: no ``KEY=VALUE,VALUE``, or no such training among ``tasks``.
    """
    trained = [name for name in RATES if any(stands_on(task, name) for task in tasks)]
    result: dict[str, Grid] = {}
    for word in words:
        key, _, text = word.partition("=")
        values = tuple(value.strip() for value in text.split(","))
        if len(set(values)) < 2 or len(set(values)) < len(values) or not all(values):
            raise UserError(f"--tune {word} must be KEY=VALUE,VALUE with different values, e.g. lr=0.01,0.03")
        task, _, own = key.partition(".")
        chosen = dict.fromkeys(trained) if key == "lr" and trained else {task: own}
        for name, setting in chosen.items():
            if name not in trained or setting == "":
                raise UserError(
                    f"--tune {word}: give lr=…, or TASK.KEY=… of a training among --tasks "
                    f"({', '.join(trained) or 'there is none'})"
                )
            parse_overrides([f"{name}.{setting or RATES[name]}={values[0]}"])  # what may be set at all
            if name in result:
                raise UserError(f"--tune {word}: {result[name].key} of {name} is to be chosen already")
            result[name] = Grid(setting or RATES[name], values)
    return result


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
        if not any(stands_on(task, name) for task in settings.tasks):
            raise UserError(f"{name}.… is set, but {name} is none of --tasks {','.join(settings.tasks)}")
    for name, grid in settings.tune.items():
        given = settings.overrides.get(name, ())
        if any(word == grid.key or word.startswith(f"{grid.key}=") for word in given):
            raise UserError(f"{name}.{grid.key} is set and to be chosen by --tune; leave one of them out")
        for word in given:
            if word.startswith("data.train_split=") and "[" in word:
                raise UserError(f"{name}.{word}: --tune holds out a part of a whole split; leave [...] out")
