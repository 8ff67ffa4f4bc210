"""A new method is one file, one line in the table and one recipe: trained, listed, drawn and documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixers import method_of, own_mixer
from automix_transfer.figures.mixups_page import page
from automix_transfer.figures.mixups_picture import mixed_by_all
from automix_transfer.figures.samples import Pairs
from automix_transfer.mixing import METHODS, build_method
from automix_transfer.mixing.table import Entry
from automix_transfer.models import create_encoder
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.recipes.recipe import list_recipes
from automix_transfer.report import slider
from automix_transfer.report.page import build
from automix_transfer.rng import derive_generator
from automix_transfer.training.loop import train
from automix_transfer.training.record import checkpoint
from automix_transfer.training.settings import load_experiment
from tests.training.tiny import FAST, write_images

FILE = '''
from dataclasses import dataclass

from automix_transfer.mixing.base import Mixed
from automix_transfer.mixing.checks import between
from automix_transfer.mixing.pairs import PairMethod, PairOptions, partners_of, paste


@dataclass
class HalfMixOptions(PairOptions):
    shift: int = between(0)


class HalfMix(PairMethod):
    """The left part of one image beside the right part of another."""

    options_class = HalfMixOptions

    def mix(self, images, labels, draw):
        width = images.shape[3]
        mask = images.new_zeros(len(images), 1, *images.shape[2:])
        mask[..., : round(draw.lam * width)] = 1
        lam = round(draw.lam * width) / width
        return Mixed(paste(images, partners_of(images, draw), mask), mask, lam)
'''
RECIPE = """# HalfMix on a dozen tiny images: an example.
method: {name: halfmix, alpha: 0.5}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, the line and the recipe."""
    (tmp_path / "halfmix.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry("halfmix:HalfMix", "HalfMix", "Nobody 2026", picture={}, slider="cuts in two")
    monkeypatch.setitem(METHODS, "halfmix", entry)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny_halfmix.yaml").write_text(RECIPE)
    return tmp_path / "recipes" / "tiny_halfmix.yaml"


def test_it_trains_and_its_checkpoint_mixes_in_evaluation(recipe: Path, tmp_path: Path) -> None:
    said = [*FAST, f"data.root={write_images(tmp_path / 'data')}", f"output={tmp_path / 'run'}"]
    experiment = load_experiment([recipe], said)
    assert experiment.method["shift"] == 0 and experiment.method["alpha"] == 0.5
    assert train(experiment)["steps"] == 6
    method, _ = method_of(checkpoint.read(tmp_path / "run" / "last.pt"), recipe)
    mixer = own_mixer("halfmix", method)
    assert mixer is not None
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    mixed = mixer(images, torch.tensor([1, 2, 3, 0]), 0.25, derive_generator(0, "test"))
    assert (mixed[0, :, :, :8] == 0).all() and (mixed[0, :, :, 8:] == 1).all()

    build([tmp_path / "run"], tmp_path / "page.html")
    assert "halfmix" in (tmp_path / "page.html").read_text(encoding="utf-8").lower()


def test_it_is_listed_in_the_docs_and_drawn(recipe: Path) -> None:
    assert "tiny_halfmix.yaml  HalfMix on a dozen tiny images" in list_recipes(recipe.parent)
    assert "| `halfmix` | HalfMix | Nobody 2026 |" in page()
    assert slider.rows()["halfmix"] == ("HalfMix", "cuts in two")
    torch.manual_seed(0)
    automix = build_method("automix", create_encoder("resnet10_32", 4))
    images, info = torch.randn(2, 3, 32, 32), EncoderInfo("resnet10_32", 4, image_size=32)
    pairs = Pairs(images[:1], images[1:], info.mean, info.std)
    mixed, mask = mixed_by_all(pairs, automix)["halfmix"]
    assert torch.equal(mixed[..., :16], images[:1, ..., :16]) and mask.mean() == 0.5
    strip = slider.mixers_of(automix, pairs, info, seed=0)["halfmix"](0.5)[:1]
    np.testing.assert_array_equal(pairs.pixels(strip), pairs.pixels(mixed))


def test_its_options_are_checked_by_their_fields(recipe: Path) -> None:
    with pytest.raises(UserError, match="method.shift"):
        build_method("halfmix", create_encoder("resnet10_32", 4), {"shift": -1})
