"""Figures come out as pictures of the size they should have, from tiny networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.errors import UserError
from automix_transfer.figures.samples import Pairs, example_pairs, lam_figure, methods_figure, shares
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo, create_encoder

INFO = EncoderInfo("resnet10_32", 3, image_size=32)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng = torch.Generator().manual_seed(0)
    return Pairs(
        torch.randn(3, 3, 32, 32, generator=rng),
        torch.randn(3, 3, 32, 32, generator=rng),
        INFO.mean,
        INFO.std,
    )


@pytest.fixture(scope="module")
def automix():
    torch.manual_seed(0)
    return build_method("automix", create_encoder("resnet10_32", 3), {"init_std": 1.0}).eval()


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def test_pictures_of_methods(tmp_path, pairs, automix):
    three = size(methods_figure(tmp_path / "methods.png", pairs, automix))
    two = size(methods_figure(tmp_path / "methods.png", pairs.first(2), automix))
    assert three[1] == two[1] and three[0] - two[0] == 134  # a column more is a cell and a gap
    assert list(tmp_path.iterdir()) == [tmp_path / "methods.png"]


def test_pictures_by_lam(tmp_path, pairs, automix):
    assert size(lam_figure(tmp_path / "by_lambda.png", pairs, automix, lams=(0, 0.5, 1), count=2))[0] > 5 * 96


def test_cells_are_drawn_pixel_for_pixel(tmp_path, pairs, automix):
    """The last row's first cell is MixUp's picture at λ = 1 for image i: it must be found in the file
    unchanged."""
    picture = np.asarray(
        Image.open(methods_figure(tmp_path / "m.png", pairs, automix, lam=1.0)).convert("RGB")
    )
    cell = np.asarray(
        Image.fromarray(pairs.pixels(pairs.images_i)[0]).resize((128, 128), Image.Resampling.BICUBIC)
    )
    np.testing.assert_array_equal(picture[41:169, 89:217], cell)
    np.testing.assert_array_equal(picture[41 + 2 * 134 : 169 + 2 * 134, 89:217], cell)  # MixUp at λ = 1


def test_a_mask_has_the_colour_of_the_image_it_keeps():
    low, middle, high = shares(np.array([[[0.0]], [[0.5]], [[1.0]]])).reshape(3, 3).astype(int)
    assert low[2] > low[0] and high[0] > high[2] and middle.min() > 230


def test_other_methods_have_no_masks(tmp_path, pairs):
    with pytest.raises(UserError, match="Mix Block"):
        methods_figure(tmp_path / "m.png", pairs, build_method("mixup", create_encoder("resnet10_32", 3)))


class Samples:
    labels = np.array([0, 0, 0, 1, 2, 0])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return torch.full((3, 8, 8), float(index)), int(self.labels[index]), index


def test_example_pairs_are_of_two_classes_and_use_no_image_twice():
    found = example_pairs(Samples(), INFO, count=2)
    i, j = found.images_i[:, 0, 0, 0].long().tolist(), found.images_j[:, 0, 0, 0].long().tolist()
    assert len({*i, *j}) == 4 and all(
        Samples.labels[a] != Samples.labels[b] for a, b in zip(i, j, strict=True)
    )
    with pytest.raises(UserError, match="ask for fewer"):
        example_pairs(Samples(), INFO, count=3)
