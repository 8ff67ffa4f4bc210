"""What recipes claim: their cell of the paper's tables, its number, and every value of Table 12 and appendix
A.1 that goes with it."""

from __future__ import annotations

import functools
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from timm.data.auto_augment import AugmentOp
from timm.data.random_erasing import RandomErasing
from torch import nn
from torchvision.transforms import RandomHorizontalFlip, RandomResizedCrop

from automix_transfer.data.transforms import ToNormalized, train_transform
from automix_transfer.mixing import METHODS, load_options
from automix_transfer.models import create_encoder
from automix_transfer.paper import published as paper
from automix_transfer.recipes.find import RECIPES as FOLDER
from automix_transfer.recipes.recipe import TABLES, Recipe, list_recipes, read_recipe
from automix_transfer.training.settings import Experiment
from tests.recipes.small_recipes import RECIPES, plain

ALL = [read_recipe(file) for file in RECIPES]
CLAIMING = [recipe for recipe in ALL if recipe.table]
FOUR = {"vanilla", "mixup", "cutmix", "automix"}

ENCODERS = {
    "R-18": "resnet18",
    "R-34": "resnet34",
    "R-50": "resnet50",
    "R-101": "resnet101",
    "RX-50": "resnext50_32x4d",
    "RX-101": "resnext101_32x4d",
    "WRN-28-8": "wrn_28_8",
    "MobileNetV2": "mobilenetv2_100",
    "EfficientNet-B0": "efficientnet_b0",
    "DeiT-S": "deit_small_patch16_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
}
DATA = {
    "CIFAR-10": ("cifar10", 10),
    "CIFAR-100": ("cifar100", 100),
    "Tiny-ImageNet": ("tiny_imagenet", 200),
    "ImageNet-1k": ("imagefolder", 1000),
    "CUB-200": ("cub", 200),
    "FGVC-Aircraft": ("aircraft", 100),
    "iNat2017": ("inaturalist2017", 5089),
    "iNat2018": ("inaturalist2018", 8142),
    "Places205": ("places205", 205),
}

# Table 12 as printed, row by row; 7 is the cross of its text, 3 its tick (of repeated augmentation also the
# number, in DeiT and RSB).
TABLE12 = {
    "Train Res": (224, 224, 224, 160),
    "Test Res": (224, 224, 224, 224),
    "Test crop ratio": (0.875, 0.875, 0.95, 0.95),
    "Epochs": ((100, 300), 300, 300, 100),
    "Batch size": (256, 1024, 2048, 2048),
    "Optimizer": ("SGD", "AdamW", "LAMB", "LAMB"),
    "LR": (0.1, 1e-3, 5e-3, 8e-3),
    "LR decay": ("cosine", "cosine", "cosine", "cosine"),
    "Weight decay": (1e-4, 0.05, 0.02, 0.02),
    "Warmup epochs": (7, 5, 5, 5),
    "Label smoothing": (7, 0.1, 7, 7),
    "Dropout": (7, 7, 7, 7),
    "Stoch. Depth": (7, 0.1, 0.05, 7),
    "Repeated Aug": (7, 3, 3, 7),
    "Gradient Clip.": (7, 1.0, 7, 7),
    "H. flip": (3, 3, 3, 3),
    "RRC": (3, 3, 3, 3),
    "Rand Augment": (7, "9/0.5", "7/0.5", "6/0.5"),
    "Auto Augment": (7, 7, 7, 7),
    "Mixup alpha": (7, 0.8, 0.1, 0.1),
    "Cutmix alpha": (7, 1.0, 1.0, 1.0),
    "Erasing prob.": (7, 0.25, 7, 7),
    "ColorJitter": (7, 7, 7, 7),
    "EMA": (7, 3, 7, 7),
    "CE loss": (3, 3, 7, 7),
    "BCE loss": (7, 7, 3, 3),
    "Mixed precision": (7, 7, 3, 3),
}
PROCEDURES = ("PyTorch", "DeiT", "RSB A2", "RSB A3")


def column(experiment: Experiment) -> dict[str, object]:
    """Table 12's rows, read from a resolved recipe and from what is built of it; 7 where there is none."""
    data, train, method = experiment.data, experiment.train, experiment.method
    steps = train_transform(data).transforms
    kinds = {type(step) for step in steps}
    rand = next((step for step in steps if hasattr(step, "ops")), None)
    assert kinds <= {RandomResizedCrop, RandomHorizontalFlip, ToNormalized, RandomErasing, type(rand)}, kinds
    assert rand is None or all(isinstance(op, AugmentOp) for op in rand.ops)
    auto = method["name"] == "automix"
    averaged = experiment.ema.decay > 0 and experiment.ema.inference
    return {
        "Train Res": data.image_size,
        "Test Res": data.test_size or data.image_size,
        "Test crop ratio": data.test_crop_ratio,
        "Epochs": train.epochs,
        "Batch size": train.batch_size,
        "Optimizer": {"sgd": "SGD", "adamw": "AdamW", "lamb": "LAMB"}[experiment.optimizer.name],
        "LR": experiment.optimizer.lr,
        "LR decay": experiment.schedule.name,
        "Weight decay": experiment.optimizer.weight_decay,
        "Warmup epochs": experiment.schedule.warmup_epochs or 7,
        "Label smoothing": method["smoothing"] or 7,
        "Dropout": dropout(experiment.encoder.name),
        "Stoch. Depth": experiment.encoder.drop_path or 7,
        "Repeated Aug": 3 if data.repeats == 3 else 7 if data.repeats == 1 else data.repeats,
        "Gradient Clip.": train.clip_norm or 7,
        "H. flip": 3 if RandomHorizontalFlip in kinds else 7,
        "RRC": 3 if RandomResizedCrop in kinds else 7,
        "Rand Augment": f"{rand.ops[0].magnitude}/{rand.ops[0].magnitude_std}" if rand else 7,
        "Auto Augment": 7,
        "ColorJitter": 7,  # the steps above are all there are
        "Mixup alpha": method.get("mixup_alpha", 7),
        "Cutmix alpha": method.get("cutmix_alpha", 7),
        "Erasing prob.": next((step.probability for step in steps if isinstance(step, RandomErasing)), 7),
        "EMA": 3 if averaged or auto and method["pipeline"] == "momentum" else 7,
        "CE loss": 3 if method["loss"] == "ce" else 7,
        "BCE loss": 3 if method["loss"] == "bce" else 7,
        "Mixed precision": 7 if train.precision == "fp32" else 3,
    }


@functools.cache
def dropout(encoder: str) -> float:
    with torch.device("meta"):
        network = create_encoder(encoder, 10)
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    return max([*rates, float(getattr(network, "drop_rate", 0.0) or 0.0)]) or 7


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_every_value_of_table_12(procedure: str) -> None:
    recipes = [recipe for recipe in CLAIMING if procedure in recipe.cell]
    assert len(recipes) >= {"PyTorch": 60, "DeiT": 18, "RSB A2": 8, "RSB A3": 12}[procedure]
    wanted = {row: values[PROCEDURES.index(procedure)] for row, values in TABLE12.items()}
    for recipe in recipes:
        found = column(plain(recipe.file))
        for row, value in wanted.items():
            if row in ("Mixup alpha", "Cutmix alpha") and recipe.method not in ("mixup_cutmix", "transmix"):
                # the table's are of the procedure's own mixing, in place of which these recipes have theirs
                value = 7
            if row == "EMA" and recipe.method == "automix":
                value = 3  # its encoder k is one, whatever the procedure
            assert found[row] == value or isinstance(value, tuple) and found[row] in value, (
                f"{recipe.file.name}: {row}"
            )


def alpha(recipe: Recipe) -> float | None:
    """Appendix A.1, in its own order; None where it says nothing."""
    method, cell = recipe.method, recipe.cell
    fixed = {"puzzlemix": 1.0, "comixup": 2.0, "automix": 2.0}
    if method in fixed:
        return fixed[method]
    if method in ("vanilla", "mixup_cutmix", "transmix", "augmix"):
        return None
    if cell[0].startswith("CIFAR"):
        return {"mixup": 1, "resizemix": 1, "cutmix": 0.2, "fmix": 0.2, "saliencymix": 0.2, "manifoldmix": 2}[
            method
        ]
    if cell[0] == "Tiny-ImageNet" or cell[0] == "ImageNet-1k" and "PyTorch" in cell:
        return 0.2 if method == "manifoldmix" or cell[1] == "R-18" else 1
    if cell[0].startswith("iNat"):
        return 0.2 if method in ("mixup", "manifoldmix") else 1
    if cell[0] in ("CUB-200", "FGVC-Aircraft"):
        return {"saliencymix": 0.2, "fmix": 0.2, "manifoldmix": 0.5}.get(method, 1)
    return 0.2  # DeiT, RSB A2 and A3, Places205


def test_alpha_is_that_of_appendix_a1() -> None:
    for recipe in CLAIMING:
        if (value := alpha(recipe)) is not None:
            assert plain(recipe.file).method["alpha"] == value, recipe.file.name


def preset(recipe: Recipe) -> tuple[str, dict[str, object]]:
    """AutoMix's preset for a recipe's cell, and the options in which the published run differs from it."""
    cell, method = recipe.cell, {}
    if "fine-tuning" in cell:
        name, method = "openmixup_finegrained", {"mask_variance_weight": 2.0} if "RX-50" in cell else {}
    elif "DeiT" in cell:
        name, method = "openmixup_vit", {"momentum_end": 0.99996} if "ConvNeXt-T" in cell else {}
    elif cell[0].startswith(("ImageNet", "iNat", "Places")):
        name, method = "openmixup_imagenet", {"mix_block_lr_end": 0.001} if cell[0].startswith("iNat") else {}
        if cell == ("ImageNet-1k", "R-50", "PyTorch", "100 epochs"):
            method = {"mix_block_momentum": 0.0}
    else:
        name = "openmixup_tiny" if cell[0] == "Tiny-ImageNet" else "openmixup"
        name = "openmixup_wrn" if "WRN-28-8" in cell else name
    return name, method


def test_automix_is_the_published_codes_for_its_cell() -> None:
    recipes = [recipe for recipe in CLAIMING if recipe.method == "automix"]
    assert len(recipes) > 40
    for recipe in recipes:
        experiment, (name, changed) = plain(recipe.file), preset(recipe)
        wanted = {**asdict(load_options("automix", {"preset": name})), **changed}
        found = {key: value for key, value in experiment.method.items() if key in wanted}
        for key in ("feature_layer", "loss", "smoothing", "bce_threshold"):  # l = 3, and Table 12's losses
            assert key != "feature_layer" or found[key] in ("auto", "layer3")
            found.pop(key), wanted.pop(key)
        assert found == wanted, recipe.file.name
        small = {"openmixup": 0.05, "openmixup_tiny": 0.05, "openmixup_wrn": 0.001}
        last = small.get(name, 1e-5 if "DeiT" in recipe.cell else 0.0)
        by = "step" if "DeiT" in recipe.cell else "epoch"
        assert (experiment.schedule.final_lr, experiment.schedule.by) == (last, by), recipe.file.name
        assert experiment.ema.decay == 0


def test_short_runs_have_the_preset_for_them() -> None:
    for recipe in ALL:
        if not recipe.table and plain(recipe.file).method["name"] == "automix":
            assert plain(recipe.file).method["preset"] == "robust", recipe.file.name


def test_small_procedures_are_those_of_sections_4_1_and_4_2() -> None:
    for recipe in CLAIMING:
        found, place = plain(recipe.file), recipe.cell[0]
        values = (
            found.optimizer.name,
            found.optimizer.lr,
            found.optimizer.weight_decay,
            found.optimizer.momentum,
            found.train.batch_size,
            found.schedule.name,
            found.data.image_size,
        )
        if place.startswith("CIFAR"):
            assert values == ("sgd", 0.1, 1e-4, 0.9, 100, "cosine", 32) and (
                found.data.crop,
                found.data.pad,
            ) == ("pad", 4)
        elif place == "Tiny-ImageNet":
            assert (
                values == ("sgd", 0.2, 1e-4, 0.9, 100, "cosine", 64) and found.data.crop == "random_resized"
            )
        elif "fine-tuning" in recipe.cell:
            assert values == ("sgd", 0.001, 5e-4, 0.9, 16, "cosine", 224)
        small = place.startswith(("CIFAR", "Tiny"))
        assert found.data.flip and found.encoder.stem == ("cifar" if small else "imagenet"), recipe.file.name


@pytest.mark.parametrize("recipe", CLAIMING, ids=lambda recipe: recipe.file.stem)
def test_a_recipe_is_what_its_head_says(recipe: Recipe) -> None:
    experiment, (data, encoder, *_, length) = plain(recipe.file), recipe.cell
    assert experiment.method["name"] == recipe.method and recipe.method in recipe.file.stem
    assert experiment.encoder.name == ENCODERS[encoder]
    assert (experiment.data.dataset, experiment.data.classes) == DATA[data]
    assert f"{experiment.train.epochs} epochs" == length
    assert all(epoch <= experiment.train.epochs for epoch in experiment.train.picture_epochs)
    assert paper.cell(f"table{recipe.table}", *recipe.cell, recipe.method).value == recipe.value
    for table, value in recipe.also:
        assert paper.cell(f"table{table}", *recipe.cell, recipe.method).value == value


def test_every_number_of_the_heads_is_looked_at() -> None:
    for recipe in ALL:
        comments = re.findall("^#.*", recipe.file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not re.search(r"Table \d+\D[^#]*?\d\d\.\d\d %", "".join(comments)), recipe.file.name


def test_the_four_methods_have_a_recipe_for_every_cell() -> None:
    have = {
        (cell.key)
        for r in CLAIMING
        for cell in paper.same(paper.cell(f"table{r.table}", *r.cell, r.method).attributes)
    }
    for name in ("table1", "table2", "table3", "table4", "table5", "table6", "table13", "table14"):
        for cell in paper.table(name):
            wanted = FOUR | {"mixup_cutmix"} if name in ("table3", "table4") else FOUR
            if cell.attributes["method"] in wanted and cell.attributes["metric"] == "top1":
                assert cell.key in have, (name, cell.attributes)


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_small_file_with_its_command(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert plain(file).method["name"] == max(
        (name for name in METHODS if name in file.stem), key=len, default="vanilla"
    )
    assert f"--config-file {file.stem} " in text and "output=runs/" in text
    # the rest comes from its parts
    assert len([line for line in text.splitlines() if not line.startswith(("#", "reproduces"))]) <= 8
    assert re.search(r"GPU|CPU|embedded", text) and (
        not read_recipe(file).table or re.search(r"\d (h|days)\b", text)
    )


def test_every_part_is_used() -> None:
    named = " ".join(
        file.read_text(encoding="utf-8")
        for room in ("pretrain", "finegrained")
        for file in (FOLDER / room).rglob("*.yaml")
    )
    parts = [file for room in ("pretrain", "finegrained") for file in (FOLDER / room).glob("*/*.yaml")]
    assert (
        len(parts) > 40
        and [file for file in parts if not re.search(rf"\b(?:{file.parent.name}/)?{file.name}", named)] == []
    )


@pytest.mark.parametrize("room", ["pretrain", "finegrained"])
def test_the_list_shows_every_recipe_with_its_number(room: str) -> None:
    configs = FOLDER / room
    recipes = [recipe for recipe in ALL if recipe.file.parent == configs]
    text = list_recipes(configs)
    for recipe in recipes:
        assert recipe.pattern in text and (
            recipe.value is None or f"{recipe.method} {recipe.value:.2f}" in text
        )
    assert max(map(len, text.splitlines())) < 150 and len(text.splitlines()) < 140
    tables = {recipe.table for recipe in recipes} - {0}
    assert text.count("\nTable ") == len(tables) and tables <= set(TABLES)


def test_words_choose_from_the_list() -> None:
    text = list_recipes(FOLDER / "pretrain", ["ImageNet", "r50", "automix", "a3"])
    assert (
        text.startswith("1 of ")
        and "imagenet_r50_automix_rsb_a3.yaml  78.44  ImageNet-1k, R-50, RSB A3, 100 epochs, automix" in text
    )
    assert list_recipes(FOLDER / "pretrain", ["no such words"]).startswith("0 of ")
