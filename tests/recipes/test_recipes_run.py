"""Every recipe runs: each is built as it is, and stepped on tiny images of its own data set's layout, in this
process.

Recipes that differ in numbers only (lengths of training, rates, alpha) share a step. The whole of
``--dry-run`` is done for every method with ResNet-18 and for AutoMix with most encoders; the others do what a
run does in its first step, without the checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from automix_transfer.models.classifier import find_classifier
from automix_transfer.training import loop
from automix_transfer.training.distributed import World
from automix_transfer.training.record.results import headline
from automix_transfer.training.setup.build_model import build_model
from automix_transfer.training.setup.build_run import build_run
from tests.recipes.small_recipes import RECIPES, SmallRecipes, kind_of, plain, same_when_small

pytestmark = pytest.mark.slow

LIGHT = ("resnet10_32", "resnet18")  # quickly built and saved, with any method; these only in part:
HEAVY = ("encoders/r101", "encoders/rx101", "encoders/swin_t", "encoders/convnext_t")


KINDS: dict[tuple[str, ...], list[Path]] = {}
for _recipe in RECIPES:
    KINDS.setdefault(kind_of(_recipe), []).append(_recipe)
FIRST = [recipes[0] for recipes in KINDS.values()]
#: one of AutoMix's recipes with each encoder
WHOLE = {
    kind[1]: recipes[0]
    for kind, recipes in reversed(KINDS.items())
    if any(part.startswith("methods/automix") for part in kind) and kind[1] not in HEAVY
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallRecipes:
    return SmallRecipes(tmp_path_factory.mktemp("recipes"))


@pytest.mark.parametrize("recipe", FIRST, ids=lambda path: path.stem)
def test_it_runs(recipe: Path, small: SmallRecipes) -> None:
    experiment = small.load(recipe)
    if experiment.encoder.name in LIGHT or recipe in WHOLE.values():
        metrics = loop.train(experiment, dry_run=True)
        assert metrics["steps"] == 1 and 0 <= metrics[f"{headline(metrics, '_last')}_last"] <= 100
        return
    run = build_run(experiment, World(0, 1, torch.device("cpu")))
    run.method.train()
    before = [p.detach().clone() for p in run.method.inference_encoder().parameters()]
    images, labels, _ = next(run.batches(1))[0]
    run.rates.set(0.0)
    output = run.model(*run.on_device(images, labels), torch.Generator().manual_seed(0))
    run.scaler.scale(output.loss).backward()
    run.scaler.step(run.optimizer)
    run.method.after_step(1.0)
    assert output.loss.isfinite()
    assert any(
        not torch.equal(p, q)
        for p, q in zip(run.method.inference_encoder().parameters(), before, strict=True)
    )


def test_what_runs_once_is_the_same() -> None:
    for kind, recipes in KINDS.items():
        assert len({same_when_small(plain(recipe)) for recipe in recipes}) == 1, (kind, recipes)
    assert len(KINDS) < len(RECIPES) / 2


def test_every_recipe_is_built_as_it_is(small: SmallRecipes) -> None:
    """At its own image size and number of classes, on tensors without content: methods refuse what does not
    fit when they are built.

    Those of one kind and image size are built once."""
    own = {
        (kind, plain(recipe).data.image_size): recipe for kind, recipes in KINDS.items() for recipe in recipes
    }
    for recipe in own.values():
        whole = plain(recipe)
        data = replace(whole.data, mixed="x") if whole.method["name"] == "supermix" else whole.data
        method = whole.method | (
            {"teacher": "resnet10_32", "teacher_weights": str(small.teacher())}
            if "teacher" in whole.method
            else {}
        )
        with torch.device("cpu" if "teacher" in method else "meta"):
            built, info = build_model(
                replace(whole, data=data, method=method), [str(n) for n in range(data.classes or 5)]
            )
        assert info.num_classes == (data.classes or 5) and info.image_size == data.image_size, recipe.stem
        assert find_classifier(built.inference_encoder()).out_features == info.num_classes, recipe.stem
    assert len(own) > len(KINDS)


LAYOUTS = [
    "cifar10",
    "cifar100",
    "tiny_imagenet",
    "cub",
    "aircraft",
    "inaturalist2017",
    "inaturalist2018",
    "places205",
    "voc",
]


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_every_layout_runs_with_its_own_recipe(dataset: str, small: SmallRecipes) -> None:
    """With a small encoder; a recipe of ``imagefolder`` is among those above."""
    recipe = next(
        r
        for r in RECIPES
        if plain(r).data.dataset == dataset and plain(r).method["name"] == "vanilla" and plain(r).data.classes
    )
    experiment = small.load(recipe)
    experiment = replace(experiment, encoder=replace(experiment.encoder, name="resnet10_32"))
    metrics = loop.train(experiment, dry_run=True)
    assert metrics["steps"] == 1
