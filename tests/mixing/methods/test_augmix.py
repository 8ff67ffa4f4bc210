"""AugMix: views that depend on (seed, epoch, index, view) alone, and the divergence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix_transfer.data.loader import train_loader
from automix_transfer.data.settings import DataConfig
from automix_transfer.data.splits import train_dataset
from automix_transfer.errors import UserError
from automix_transfer.mixing.methods.augmix import jensen_shannon
from automix_transfer.mixing.parts.augmix_view import OPERATIONS, AugMixView
from automix_transfer.training.loop import train
from automix_transfer.training.settings import load_experiment
from tests.mixing.tiny_methods import batch, tiny_method
from tests.training.tiny import FAST, write_images


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8))


def config(root: Path) -> DataConfig:
    return DataConfig(root=str(root), image_size=32, workers=0)


def test_divergence_of_equal_views_is_zero_and_at_most_log_of_their_number() -> None:
    same = torch.randn(4, 5)
    assert jensen_shannon([same, same, same]).item() == pytest.approx(0, abs=1e-6)
    apart = [torch.full((4, 3), -100.0).index_fill(1, torch.tensor([k]), 100.0) for k in range(3)]
    assert jensen_shannon(apart).item() == pytest.approx(math.log(3), abs=1e-4)
    views = [torch.randn(4, 5) for _ in range(3)]
    p = torch.stack([v.softmax(1) for v in views])
    entropy = -(p * p.log()).sum(2).mean()
    middle = p.mean(0)
    assert jensen_shannon(views).item() == pytest.approx(
        (-(middle * middle.log()).sum(1).mean() - entropy).item(), abs=1e-5
    )


def test_loss_is_clean_cross_entropy_and_twelve_times_the_divergence() -> None:
    method = tiny_method("augmix").eval()
    images, labels = batch(method)
    output = method(images, labels)
    views = [method.encoder(view) for view in images.chunk(3, dim=1)]
    ce = torch.nn.functional.cross_entropy(views[0], labels)
    assert torch.allclose(output.loss, ce + 12 * jensen_shannon(views), atol=1e-5)


def test_a_single_view_is_refused() -> None:
    with pytest.raises(UserError, match="3 views"):
        tiny_method("augmix")(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))


def test_views_are_averages_of_images() -> None:
    for seed in range(20):
        np.random.seed(seed)
        view = AugMixView(severity=10)(photo())
        assert (
            view.shape == (20, 24, 3)
            and view.dtype == np.float32
            and 0 <= view.min()
            and view.max() <= 255.01
        )
    assert len(OPERATIONS) == 9
    for operation in OPERATIONS:
        for level in (0.1, 10.0):
            assert operation(photo(), level).size == (24, 20)


@pytest.mark.parametrize("overfit", [0, 1])
def test_a_run_trains_evaluates_and_draws_with_views(tmp_path: Path, overfit: int) -> None:
    root = write_images(tmp_path / "data")
    said = [
        *FAST,
        f"data.root={root}",
        "method.name=augmix",
        f"output={tmp_path / 'run'}",
        "train.epochs=1",
        "train.picture_epochs=[1]",
    ]
    metrics = train(load_experiment(overrides=[*said, f"train.overfit_batches={overfit}"]))
    assert metrics["steps"] == (1 if overfit else 3) and "top1_last" in metrics
    assert (tmp_path / "run" / "pictures" / "epoch_0001.png").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_views_depend_on_seed_epoch_and_index_alone(tmp_path: Path, workers: int) -> None:
    root = write_images(tmp_path, train=8)
    dataset = train_dataset(config(root), seed=3)
    alone = dataset[(2, 5)][0]
    dataset.add_views(3, AugMixView())
    images, _, index = next(iter(train_loader(dataset, 8, seed=3, epoch=2, workers=workers)))
    assert images.shape == (8, 9, 32, 32)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    for place, item in enumerate(index.tolist()):
        assert torch.equal(images[place], dataset[(2, item)][0])
    assert (
        torch.equal(states[0], torch.random.get_rng_state())
        and states[1] == np.random.get_state()[1].tolist()
    )
    assert torch.equal(dataset[(2, 5)][0][:3], alone)  # the first view is what it was without others
    views = dataset[(2, 5)][0].chunk(3)
    assert not torch.equal(views[1], views[2]) and not torch.equal(dataset[(3, 5)][0][3:6], views[1])
    other = train_dataset(config(root), seed=4)
    other.add_views(3, AugMixView())
    assert not torch.equal(other[(2, 5)][0], dataset[(2, 5)][0])
