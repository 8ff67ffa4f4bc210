"""Accuracy on mixed samples and the health of masks, against networks whose answers are known."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.evaluation.mixed_samples import (
    LAMS,
    draw_partners,
    mask_statistics,
    mixed_accuracy,
    shuffled_batches,
)
from automix_transfer.evaluation.mixers import MIXERS, automix_mask, automix_mixer, cutmix, load_method, mixup
from automix_transfer.io import save_torch
from automix_transfer.mixing import build_method
from automix_transfer.models.encoders import EncoderInfo, create_encoder
from automix_transfer.rng import derive_generator
from automix_transfer.training.record.checkpoint import FORMAT, encoder_prefixes, split_state
from automix_transfer.training.settings import Experiment

CLASSES = 4


class ReadsColour(nn.Module):
    """Logits are the mean of each channel: image of class c is bright in channel c, so every share is seen
    exactly."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()) if blind else torch.ones(()))
        self.register_buffer("tie", torch.tensor([4e-6, 3e-6, 2e-6, 1e-6]))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.mean(dim=(2, 3)) + self.tie


def coloured(labels: list[int], size: int = 16) -> tuple[Tensor, Tensor]:
    images = torch.zeros(len(labels), CLASSES, size, size)
    images[torch.arange(len(labels)), torch.tensor(labels)] = 1
    return images, torch.tensor(labels)


LABELS = [0, 1, 2, 3, 1, 0, 3, 2, 0, 2]


@pytest.mark.parametrize("name", list(MIXERS))
def test_a_network_that_sees_every_share_is_right_on_all_pairs(name):
    rows = mixed_accuracy(ReadsColour(), [coloured(LABELS)], MIXERS[name], lams=(0.2, 0.5, 0.8))
    assert all(row.top1 == 100 and row.top2 == 100 for row in rows)


def test_a_blind_network_is_right_as_often_as_its_constant_guess():
    """It always says 0, then 1: counted by hand from the labels."""
    images, labels = coloured(LABELS)
    pairs = [
        {a, b}
        for a, b in zip(LABELS, labels[draw_partners(len(LABELS), 0, 0)].tolist(), strict=True)
        if a != b
    ]
    (row,) = mixed_accuracy(ReadsColour(blind=True), [(images, labels)], mixup, lams=(0.5,))
    assert row.pairs == len(pairs) and row.left_out == len(LABELS) - len(pairs)
    assert row.top1 == pytest.approx(100 * sum(0 in pair for pair in pairs) / len(pairs))
    assert row.top2 == pytest.approx(100 * sum(pair == {0, 1} for pair in pairs) / len(pairs))


def test_at_lam_one_only_image_i_is_left():
    images, labels = coloured(LABELS)
    permutation, rng = draw_partners(len(labels), 0, 0), torch.Generator()
    for mixer in MIXERS.values():
        assert torch.equal(mixer(images, permutation, 1.0, rng), images)
        assert torch.equal(mixer(images, permutation, 0.0, rng), images[permutation])


def test_every_method_sees_the_same_pairs_and_batches_add_up():
    batches = [coloured(LABELS), coloured([3, 0, 1])]
    counts = {
        (row.pairs, row.left_out)
        for mixer in MIXERS.values()
        for row in mixed_accuracy(ReadsColour(), batches, mixer)
    }
    assert len(counts) == 1 and sum(counts.pop()) == 13


def test_partners_are_others_and_everyone_is_one():
    for count in (2, 3, 50):
        partners = draw_partners(count, 7, 3)
        assert sorted(partners.tolist()) == list(range(count)) and not (partners == torch.arange(count)).any()
    assert torch.equal(draw_partners(50, 7, 3), draw_partners(50, 7, 3))
    assert not torch.equal(draw_partners(50, 7, 3), draw_partners(50, 7, 4))


@pytest.mark.parametrize("size", [(32, 32), (17, 40)])
@pytest.mark.parametrize("lam", LAMS)
def test_cutmix_covers_the_area_it_should_at_places_that_vary(size, lam):
    images = torch.stack([torch.zeros(1, *size), torch.ones(1, *size)]).repeat(20, 1, 1, 1)
    permutation = torch.arange(40).view(20, 2).flip(1).flatten()  # a zero with a one
    mixed = cutmix(images, permutation, lam, derive_generator(0, "test"))
    share = mixed[1::2].mean(dim=(1, 2, 3))
    assert (share - lam).abs().max() <= 0.6 * (1 / size[0] + 1 / size[1])
    assert torch.equal(cutmix(images, permutation, lam, derive_generator(0, "test")), mixed)
    assert len({tuple(m.flatten().tolist()) for m in mixed[1::2]}) > 3


def test_pairs_of_one_class_are_left_out_and_only_such_pairs_are_an_error():
    (row,) = mixed_accuracy(ReadsColour(), [coloured([0, 0, 1])], mixup, lams=(0.5,))
    assert (row.pairs, row.left_out) == (2, 1)
    with pytest.raises(UserError, match="none of the 3 pairs"):
        mixed_accuracy(ReadsColour(), [coloured([2, 2, 2])], mixup)
    with pytest.raises(UserError, match=r"lam=1.5"):
        mixed_accuracy(ReadsColour(), [coloured(LABELS)], mixup, lams=(1.5,))


def test_the_encoder_is_in_eval_mode_inside_and_keeps_its_modes():
    encoder = create_encoder("resnet10_32", 3).train()
    encoder.bn1.eval()
    before = encoder.bn1.running_mean.clone(), encoder.layer1[0].bn1.running_mean.clone()
    mixed_accuracy(encoder, [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))], mixup, lams=(0.5,))
    assert encoder.training and not encoder.bn1.training
    assert torch.equal(encoder.layer1[0].bn1.running_mean, before[1])


def automix(**options):
    torch.manual_seed(0)
    return build_method("automix", create_encoder("resnet10_32", 3), {"init_std": 1.0, **options})


def batch(count: int = 6, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)), torch.arange(
        count
    ) % 3


def test_automix_mixes_by_its_mask_and_a_pair_does_not_depend_on_the_others():
    method, (images, _) = automix(), batch()
    permutation, rng = torch.tensor([1, 0, 3, 2, 5, 4]), torch.Generator()
    mask = automix_mask(method, images, permutation, 0.4, rng)
    mixed = automix_mixer(method)(images, permutation, 0.4, rng)
    assert mask.shape == (6, 1, 32, 32) and 0 <= mask.min() and mask.max() <= 1 and not mask.requires_grad
    torch.testing.assert_close(mixed, mask * images + (1 - mask) * images[permutation])
    torch.testing.assert_close(
        automix_mask(method, images[:2], permutation[:2], 0.4, rng), mask[:2], atol=1e-5, rtol=0
    )


def test_small_lam_is_plain_mixup_as_in_training():
    method, (images, _) = automix(small_lam=0.08), batch()
    permutation, rng = draw_partners(6, 0, 0), torch.Generator()
    torch.testing.assert_close(
        automix_mixer(method)(images, permutation, 0.05, rng), mixup(images, permutation, 0.05, rng)
    )
    assert not torch.allclose(
        automix_mixer(method)(images, permutation, 0.3, rng), mixup(images, permutation, 0.3, rng)
    )


def test_mask_statistics_agree_with_a_plain_computation_over_all_masks():
    method, batches = automix(), [batch(6), batch(4)]
    lams = (0.1, 0.5)
    rows = mask_statistics(method, batches, lams)
    for row in rows:
        masks = torch.cat(
            [
                automix_mask(
                    method, images, draw_partners(len(images), 0, number), row.lam, torch.Generator()
                )
                for number, (images, _) in enumerate(batches)
            ]
        ).double()
        means = masks.mean(dim=(1, 2, 3))
        expected = {
            "lam": row.lam,
            "mean": means.mean(),
            "error": (means - row.lam).abs().mean(),
            "pairs": 10,
            "spatial_std": masks.flatten(1).std(dim=1, unbiased=False).mean(),
            "pair_std": masks.std(dim=0, unbiased=False).mean(),
        }
        assert row.to_dict() == pytest.approx(
            {key: float(value) for key, value in expected.items()}, abs=1e-6
        )


def test_flat_masks_look_dead_and_random_grids_alive():
    (flat,) = mask_statistics(automix(init_std=1e-8), [batch()], (0.5,))
    assert flat.spatial_std < 1e-3 and flat.pair_std < 1e-3 and flat.mean == pytest.approx(0.5, abs=1e-3)
    (grids,) = mask_statistics(automix(mask="random_grids"), [batch(size=64)], (0.5,))
    assert (
        grids.spatial_std == pytest.approx(0.5) and grids.pair_std > 0.2 and grids.error == pytest.approx(0)
    )


def test_methods_without_a_mix_block_are_refused():
    with pytest.raises(UserError, match="'MixUp'"):
        mask_statistics(build_method("mixup", create_encoder("resnet10_32", 3)), [batch()])


@pytest.mark.parametrize(
    "name,options",
    [("automix", {"heads": "separate"}), ("automix", {"pipeline": "joint"}), ("cutmix", {"alpha": 0.5})],
)
def test_a_method_comes_back_from_its_training_checkpoint(tmp_path: Path, name, options):
    torch.manual_seed(3)
    method = build_method(name, create_encoder("resnet10_32", 3, "cifar"), options)
    experiment = Experiment(method={"name": name, **asdict(method.options)})
    experiment.data.root = "somewhere"
    info = EncoderInfo("resnet10_32", 3, "cifar", 32)
    content = {
        "format": FORMAT,
        "encoder": info.to_dict(),
        "encoders": encoder_prefixes(method),
        **split_state(method),
        "config": asdict(experiment),
        "step": 5,
        "epoch": 1,
    }
    save_torch(tmp_path / "last.pt", content)
    loaded, found = load_method(tmp_path / "last.pt")
    assert (
        found == info
        and type(loaded) is type(method)
        and loaded.options == method.options
        and not loaded.training
    )
    expected = method.state_dict()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, expected[key]) if isinstance(value, Tensor) else value == expected[key]

    del content["model"][next(iter(content["model"]))]
    save_torch(tmp_path / "last.pt", content)
    with pytest.raises(UserError, match="does not fit the method"):
        load_method(tmp_path / "last.pt")


def test_a_weights_file_is_not_a_training_checkpoint(tmp_path: Path):
    save_torch(tmp_path / "weights.pt", {"fc.weight": torch.ones(2)})
    with pytest.raises(UserError, match="not a training checkpoint"):
        load_method(tmp_path / "weights.pt")


class Samples:
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int):
        return torch.full((3, 2, 2), float(index)), index % 3, index


def test_shuffled_batches_mix_the_order_and_drop_a_single_image():
    batches = list(shuffled_batches(Samples(), batch_size=4))
    assert [len(images) for images, _ in batches] == [4, 4]
    order = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).long()
    assert len(set(order.tolist())) == 8 and order.tolist() != sorted(order.tolist())
    assert torch.equal(torch.cat([labels for _, labels in batches]), order % 3)
    assert sum(len(images) for images, _ in shuffled_batches(Samples(), 4, count=6)) == 6
