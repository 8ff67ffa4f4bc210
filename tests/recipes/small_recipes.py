"""Recipes made small: their own encoder, method and ingredients on a dozen tiny images in their own layout,
one step."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from automix_transfer.data.layouts.cifar import CIFAR10, CIFAR100
from automix_transfer.export.supermix_writer import write_supermix
from automix_transfer.models import create_encoder
from automix_transfer.recipes.find import RECIPES as FOLDER
from automix_transfer.training.settings import Experiment, load_experiment
from tests.data import several, trees
from tests.data.layouts.test_cifar import write_python

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    [file for folder in ("pretrain", "finegrained") for file in (FOLDER / folder).glob("*.yaml")]
)
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "imagefolder": lambda root: trees.folders(root, images=4),
    "tiny_imagenet": lambda root: trees.tiny(root, images=4),
    "cub": lambda root: trees.cub(root, images=6),
    "aircraft": trees.aircraft,
    "cifar10": lambda root: write_python(CIFAR10, root),
    "cifar100": lambda root: write_python(CIFAR100, root),
    "inaturalist2017": lambda root: trees.inaturalist(root, 2017),
    "inaturalist2018": lambda root: trees.inaturalist(root, 2018),
    "places205": trees.places,
    "voc": lambda root: several.voc(root / "VOC2007").parent,
}
BATCH = 2


@functools.cache
def plain(recipe: Path) -> Experiment:
    """The recipe as its script resolves it."""
    defaults = (
        [FOLDER / "finegrained" / "procedures" / "finetune.yaml"]
        if recipe.parent.name == "finegrained"
        else []
    )
    return load_experiment([*defaults, recipe], ["data.root=x"])


class SmallRecipes:
    """Data sets and a teacher in ``folder``, each written when a recipe first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, recipe: Path) -> Experiment:
        """The recipe on tiny data."""
        whole = plain(recipe)
        cifar = whole.encoder.stem == "cifar" and whole.data.image_size == 32
        size = 16 if cifar or whole.data.dataset == "tiny_imagenet" else 32
        data = replace(
            whole.data,
            root=str(self.root(whole.data.dataset)),
            classes=0,
            image_size=size,
            workers=0,
            pad=2,
            resize=40 if whole.data.resize else 0,
            test_size=48 if whole.data.test_size else 0,
        )
        train = replace(
            whole.train,
            epochs=1,
            batch_size=BATCH,
            device="cpu",
            log_every=1,
            picture_epochs=[],
            eval_batch_size=6,
        )
        method = dict(whole.method)
        if method["name"] == "attentivemix":
            method |= {
                "teacher": "resnet10_32",
                "teacher_weights": str(self.teacher()),
                "teacher_layer": "2",
                "teacher_size": 64,
            }
        if method["name"] == "supermix":
            data = replace(data, mixed=str(self.mixed(replace(whole, data=data, train=train))))
        return replace(
            whole,
            output=str(self.folder / "run"),
            data=data,
            train=train,
            method=method,
            schedule=replace(whole.schedule, warmup_epochs=0.0),
        )

    def root(self, dataset: str) -> Path:
        root = self.folder / dataset
        return root if root.is_dir() else LAYOUTS[dataset](root)

    def teacher(self, classes: int = 7) -> Path:
        path = self.folder / f"teacher_{classes}.pth"
        torch.manual_seed(0)
        torch.save(create_encoder("resnet10_32", classes).state_dict(), path)
        return path

    def mixed(self, experiment: Experiment) -> Path:
        """Images mixed before, by an untrained teacher."""
        folder = self.folder / "mixed"
        options = {**experiment.method, "iterations": 1, "enough": 0.0}
        write_supermix(
            replace(experiment, method=options),
            str(self.teacher(100)),
            folder,
            count=2,
            teacher_name="resnet10_32",
        )
        return folder


def kind_of(recipe: Path) -> tuple[str, ...]:
    """Procedure, encoder, method and own settings, read from the file itself: recipes of one kind differ in
    numbers only.

    A look at the text, so that tests can be named by it without resolving everything; `same_when_small` is
    the proof.
    """
    text = recipe.read_text(encoding="utf-8")
    bases = re.findall(r"[\w/.]+\.yaml", text.split("base:")[1].splitlines()[0])
    if "/" not in bases[0]:
        return kind_of(recipe.parent / bases[0])
    parts = [f"{Path(base).parent.name}/{Path(base).stem}" for base in bases if "data/" not in base]
    plain_sgd = ("cifar_800e", "tiny_400e", "pytorch_100e", "pytorch_300e", "finetune")
    parts = ["plain SGD" if part.split("/")[1] in plain_sgd else part for part in parts]
    own = re.findall(
        r"^(?!#|base|reproduces|\w+:$|  (?:alpha|picture_epochs|feature_layer|epochs|root|classes): )(.+)",
        text,
        re.M,
    )
    return (*parts, *own)


def same_when_small(whole: Experiment) -> str:
    """Equal for recipes that differ in numbers only: one encoder, method and set of ingredients."""
    values = asdict(whole)
    for section, keys in (
        (
            "data",
            (
                "dataset",
                "classes",
                "train_split",
                "val_split",
                "mean",
                "std",
                "workers",
                "image_size",
                "crop",
                "pad",
                "scale",
                "resize",
                "test_crop_ratio",
                "interpolation",
            ),
        ),
        ("train", ("epochs", "batch_size", "picture_epochs", "channels_last")),
        ("optimizer", ("lr", "weight_decay")),
        ("method", ("alpha", "feature_layer")),
    ):
        for key in keys:
            values[section].pop(key, None)
    return json.dumps(values, sort_keys=True)
