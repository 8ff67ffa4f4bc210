"""The model card of an export: what the Hugging Face hub shows of it, and reads in its first lines.

It says what the checkpoint and the ``run.json`` beside it say, and leaves out what neither does. No path of
the machine is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from automix_transfer import __version__
from automix_transfer.data.settings import MULTI_LABEL
from automix_transfer.errors import UserError
from automix_transfer.export.source import Source
from automix_transfer.io import read_json
from automix_transfer.mixing.table import METHODS

#: data sets by their names on the hub
DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "tiny_imagenet": "zh-plus/tiny-imagenet",
    "imagenet": "ILSVRC/imagenet-1k",
}
#: settings that make a training, by their keys in a recipe
SETTINGS = (
    *("method.preset", "method.alpha", "train.epochs", "train.batch_size", "train.precision"),
    *("optimizer.name", "optimizer.lr", "optimizer.weight_decay", "schedule.name", "schedule.warmup_epochs"),
    *("data.image_size", "ema.decay", "seed"),
)
TASK = {"type": "image-classification", "name": "Image classification"}


def model_card(source: Source, registered: bool) -> str:
    """``README.md`` of an exported folder.

    Args:
        registered: timm builds the network only after ``import automix_transfer.models``.
    """
    facts = Facts(source)
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        resources.files(__package__).joinpath("card.md.j2").read_text("utf-8")
    )
    front = yaml.safe_dump(facts.front(), sort_keys=False, allow_unicode=True)
    return template.render(
        front=front, facts=facts, source=source, info=source.info, registered=registered, version=__version__
    )


class Facts:
    """What is known of the training behind an export, as text for the card."""

    def __init__(self, source: Source) -> None:
        self.source, self.info = source, source.info
        config = source.training.get("config")
        self.config: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
        self.run = _run_of(source) if source.training else {}
        self.method = str(self.at("method", "name") or "")
        self.recipe = str(_get(self.run, "recipe", "name") or "")
        starts = self.run.get("starts")
        last = starts[-1] if isinstance(starts, list) and starts else {}
        self.commit = str(_get(last, "commit") or "")
        self.changed = _get(last, "changed") is True
        self.started = Path(str(self.at("encoder", "weights") or "")).name
        dataset = str(self.at("data", "dataset") or "")
        self.dataset = "imagenet" if self.recipe.startswith("imagenet_") else dataset
        self.several = dataset in MULTI_LABEL
        self.split = str(self.at("data", "val_split") or "val")
        self.accuracies = self._accuracies()

    def at(self, *keys: str) -> Any:
        return _get(self.config, *keys)

    def front(self) -> dict[str, Any]:
        """The card's first lines, by which the hub finds and shows it."""
        name = f"{self.info.name.replace('/', '_')}{'_' + self.method if self.method else ''}"
        data = DATASETS.get(self.dataset)
        tags = ["image-classification", "timm", "automix_transfer", *([self.method] if self.method else [])]
        kind, words = ("mAP", "") if "mAP" in self.accuracies else ("accuracy", " accuracy")
        metrics = [
            {"type": kind, "value": round(value / 100, 6), "name": f"{key}{words}"}
            for key, value in self.accuracies.items()
        ]
        about = {"name": self.dataset_name, "type": data or self.dataset, "split": self.split}
        return {
            "license": "apache-2.0" if self.source.training else "unknown",
            "library_name": "timm",
            "pipeline_tag": "image-classification" if self.info.num_classes else "image-feature-extraction",
            "tags": tags,
            **({"datasets": [data]} if data else {}),
            **({"metrics": [kind]} if metrics else {}),
            **(
                {
                    "model-index": [
                        {"name": name, "results": [{"task": TASK, "dataset": about, "metrics": metrics}]}
                    ]
                }
                if metrics
                else {}
            ),
        }

    @property
    def dataset_name(self) -> str:
        return "folders of images" if self.dataset == "imagefolder" else self.dataset

    @property
    def method_title(self) -> str:
        entry = METHODS.get(self.method)
        return (f"{entry.title} ({entry.paper})" if entry.paper else entry.title) if entry else self.method

    @property
    def samples(self) -> str:
        """How many images it was trained and tested on."""
        numbers = self.source.training.get("samples")
        if not isinstance(numbers, list) or [type(number) for number in numbers] != [int, int]:
            return ""
        return f"{numbers[0]:,} images for training, {numbers[1]:,} for testing"

    @property
    def recipe_lines(self) -> list[str]:
        """`SETTINGS` as they are typed."""
        found = {key: self.at(*key.split(".")) for key in SETTINGS}
        return [
            f"`{key}={value}`"
            for key, value in found.items()
            if value not in (None, "", 0.0) or key == "seed"
        ]

    def _accuracies(self) -> dict[str, float]:
        """Percent, of the encoder that is exported, after the checkpoint's last whole epoch."""
        history, epoch = self.source.training.get("history"), self.source.training.get("epoch")
        row = history[-1] if isinstance(history, list) and history and isinstance(history[-1], dict) else {}
        if row.get("epoch") != epoch:  # it was stopped within an epoch, or that was not evaluated
            return {}
        main = "map" if "map" in row else "top1"
        own = f"{main}_{self.source.which}"
        several = any(str(key).startswith(f"{main}_") for key in row)
        found = {"mAP" if main == "map" else "top-1": row.get(own if several else main)}
        if not several or row.get(own) == row.get(main):
            found["top-5"] = row.get("top5")
        return {key: float(v) for key, v in found.items() if isinstance(v, int | float) and 0 <= v <= 100}


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _run_of(source: Source) -> dict[str, Any]:
    """``run.json`` beside the checkpoint."""
    try:
        found = read_json(source.path.with_name("run.json"))
    except UserError:  # none, or one that is no run's
        return {}
    return found if isinstance(found, dict) else {}
