"""Trained runs as figures need them: the method, its data and its history, from a run's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from automix_transfer.config import load_config
from automix_transfer.data.dataset import ClassificationDataset
from automix_transfer.data.settings import GONE, DataConfig
from automix_transfer.data.splits import eval_dataset
from automix_transfer.errors import UserError, first_line
from automix_transfer.evaluation.mixers import method_of
from automix_transfer.mixing import Method
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.text_files import same_names
from automix_transfer.training.record import checkpoint

AVERAGE = "average."  #: where the moving average of `mixing.average` lies in a checkpoint


@dataclass(frozen=True)
class Run:
    """One checkpoint of a run, rebuilt in eval mode on the CPU.

    Attributes:
        file: the checkpoint; ``folder`` is the run's.
        name: ``method.name``.
        label: what tells it apart from the other runs of a figure.
        encoders: every network of the checkpoint, a moving average of the weights included, the one for
            inference first.
        data: as it was validated on.
        history: a row for each epoch done.
        config: the experiment, as the checkpoint holds it.
    """

    file: Path
    name: str
    label: str
    method: Method = field(repr=False)
    encoders: dict[str, nn.Module] = field(repr=False)
    info: EncoderInfo = field(repr=False)
    data: DataConfig = field(repr=False)
    step: int
    epoch: int
    history: list[dict[str, Any]] = field(repr=False)
    config: dict[str, Any] = field(repr=False)

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def encoder(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return next(iter(self.encoders.values()))

    def about(self) -> dict[str, Any]:
        """Where its figures come from, for files."""
        return {
            "label": self.label,
            "method": self.name,
            "folder": str(self.folder),
            "checkpoint": self.file.name,
            "step": self.step,
            "epoch": self.epoch,
        }


def open_run(path: str | Path) -> Run:
    """The run of a folder (its newest checkpoint) or of one checkpoint file.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another version.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a run, the output=... of its training")
    if path.is_dir():
        files = (path / checkpoint.LAST, path / checkpoint.PREVIOUS)
        path = next((file for file in files if file.is_file()), path)
        if path.is_dir():
            raise UserError(
                f"{path} holds no {checkpoint.LAST}, so it is not the folder of a run that has begun; give "
                "the output=... of a training"
            )
    content = checkpoint.read(path)
    method, info = method_of(content, path)
    try:
        saved = {key: value for key, value in content["config"]["data"].items() if f"data.{key}" not in GONE}
        data = load_config(DataConfig, values=saved, section="data")
        return Run(
            path,
            str(content["config"]["method"]["name"]),
            path.parent.resolve().name,
            method,
            encoders_of(content, method, info),
            info,
            data,
            int(content["step"]),
            int(content["epoch"]),
            [dict(row) for row in content.get("history", [])],
            content["config"],
        )
    except (UserError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} does not say what was trained, and on which data ({first_line(error)}); use the version "
            "that wrote it"
        ) from error


def encoders_of(content: Mapping[str, Any], method: Method, info: EncoderInfo) -> dict[str, nn.Module]:
    """The method's encoders and the moving average of the weights, in the order of the checkpoint."""
    found = dict(method.encoders())
    average = {
        key.removeprefix(AVERAGE): value for key, value in content["model"].items() if key.startswith(AVERAGE)
    }
    if average:
        found["ema"] = info.build().eval()
        found["ema"].load_state_dict(average)
    order = [name for name in content["encoders"] if name in found]
    return {name: found[name] for name in [*order, *(name for name in found if name not in order)]}


def open_runs(paths: Sequence[str | Path], labels: Sequence[str] = ()) -> list[Run]:
    """Several runs, told apart by ``labels``, or the names of their methods, folders, or checkpoints.

    Raises:
        UserError: as `open_run`; another number of labels, or a run given twice.
    """
    if labels and len(labels) != len(paths):
        raise UserError(f"--labels gives {len(labels)} names for {len(paths)} runs; give one for each")
    runs = [open_run(path) for path in paths]
    options = [
        list(labels),
        [run.name for run in runs],
        [run.folder.resolve().name for run in runs],
        [f"{run.folder.resolve().name}/{run.file.stem}" for run in runs],
        [str(run.file) for run in runs],
    ]
    for names in options:
        if len(set(names)) == len(runs):
            return [replace(run, label=name) for run, name in zip(runs, names, strict=True)]
    twice = Counter(labels or options[-1]).most_common(1)[0][0]
    raise UserError(f"'{twice}' is given twice; give each run and each label once")


def common_data(runs: Sequence[Run], root: Path | None = None) -> ClassificationDataset:
    """The validation images that all ``runs`` share, so that a figure can show the same ones to each.

    Args:
        root: where the data set lies now; default: where the first run had it.

    Raises:
        UserError: the runs were validated on other data, classes or pixels than the first; or the data set is
            not there.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("classes", run.info.class_names, first.info.class_names),
            ("data.dataset", run.data.dataset, first.data.dataset),
            ("data.val_split", run.data.val_split, first.data.val_split),
            ("image size", *(r.data.test_size or r.data.image_size for r in (run, first))),
            ("data.mean", list(run.data.mean), list(first.data.mean)),
            ("data.std", list(run.data.std), list(first.data.std)),
        ):
            if ours != theirs:
                values = "" if what == "classes" else f" ({ours}, and {theirs})"
                raise UserError(
                    f"{run.file} and {first.file} have different {what}{values}, so they cannot be shown the "
                    "same images; compare runs of one data set and size"
                )
    config = replace(first.data, root=str(root)) if root is not None else first.data
    if not Path(config.root).exists():
        raise UserError(
            f"the data of {first.file}, {config.root}, are not there; give their folder with --data"
        )
    dataset = eval_dataset(config, known=first.info.class_names)
    if first.info.class_names and not same_names(first.info.class_names, dataset.classes):
        raise UserError(
            f"{config.root} has other classes ({len(dataset.classes)}) than {first.file} was trained on "
            f"({len(first.info.class_names)}); give the data set of the run with --data"
        )
    return dataset
