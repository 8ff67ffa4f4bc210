"""AutoMix by fewer passes: each approximation is exact where it says so, learns when it says so, and refuses
what it cannot do."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automix_transfer.errors import UserError
from automix_transfer.io import save_torch
from automix_transfer.mixing import AutoMix, build_method, load_options
from automix_transfer.mixing.automix import step as automix_step
from automix_transfer.mixing.automix.fast import FastAutoMix, part_of, shrunk
from automix_transfer.mixing.automix.offline import TrainedMixBlock
from automix_transfer.mixing.automix.step import AutoMixDraw, both
from automix_transfer.mixing.draw import PairDraw
from automix_transfer.mixing.losses import mixup_cross_entropy
from automix_transfer.mixing.pairs import blend
from automix_transfer.mixing.parts.freed import FreedLoss
from automix_transfer.models import create_encoder
from automix_transfer.models.encoders import EncoderInfo
from automix_transfer.training.record import checkpoint
from tests.mixing.tiny_methods import CLASSES, tiny_resnet, tiny_vit

COUNT, SIZE = 8, 64


def method_of(**options: Any) -> AutoMix:
    torch.manual_seed(1)
    method = build_method("automix", tiny_resnet(), options)
    assert isinstance(method, AutoMix)
    return method


def batch(count: int = COUNT) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(
        count
    ) % CLASSES


def fixed_draw(count: int = COUNT) -> AutoMixDraw:
    rng = torch.Generator().manual_seed(2)
    q, k = (PairDraw(lam, torch.randperm(count, generator=rng)) for lam in (0.4, 0.7))
    return AutoMixDraw(q.lam, q.permutation, k)


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None and p.grad.abs().sum() > 0]


@pytest.mark.parametrize("options", [{}, {"heads": "separate", "k_mode": "train"}, {"preset": "fast"}])
def test_freeing_early_changes_no_bit(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for early in (True, False):
        monkeypatch.setattr(automix_step, "FreedLoss", partial(FreedLoss, early=early))
        method = method_of(**options)
        output = method.step(*batch(), fixed_draw())
        output.loss.backward()
        found.append((output, gradients(method)))
    (first, early_grads), (second, late_grads) = found
    assert torch.equal(first.loss, second.loss) and len(early_grads) > 10
    assert all(torch.equal(a, b) for a, b in zip(early_grads, late_grads, strict=True))


def most_saved(method: nn.Module) -> int:
    """The most bytes that autograd holds at a time in one step, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    held: dict[int, list[int]] = {}
    now, most = [0], [0]

    class Held:
        def __init__(self, value: Tensor) -> None:
            self.value, storage = value, value.untyped_storage()
            self.key = storage.data_ptr()
            entry = held.setdefault(self.key, [0, 0 if self.key in weights else storage.nbytes()])
            entry[0] += 1
            now[0] += entry[1] if entry[0] == 1 else 0
            most[0] = max(most[0], now[0])

        def __del__(self) -> None:
            held[self.key][0] -= 1
            if held[self.key][0] == 0:
                now[0] -= held.pop(self.key)[1]

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda item: item.value):
        output = method(*batch(), torch.Generator().manual_seed(0))
        output.loss.backward()
    return most[0]


def test_activations_of_one_pass_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    vanilla = most_saved(build_method("vanilla", tiny_resnet()))
    assert vanilla < most_saved(method_of()) < 1.3 * vanilla
    monkeypatch.setattr(automix_step, "FreedLoss", partial(FreedLoss, early=False))
    assert most_saved(method_of()) > 2.4 * vanilla


def test_a_clean_share_sees_the_first_images_alone() -> None:
    images, labels = batch()
    method = method_of(clean_share=0.25)
    other = images.clone()
    metrics = method.eval().step(images, labels, fixed_draw()).metrics
    expected = nn.functional.cross_entropy(method.encoder_q(images[:2]), labels[:2])
    assert metrics["loss_ce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert "loss_ce" not in method_of(clean_share=0.0).step(other, labels, fixed_draw()).metrics


def test_a_mixed_share_sees_the_last_mixes_alone() -> None:
    images, labels = batch()
    method, draw = method_of(mixed_share=0.5).eval(), fixed_draw()
    output = method.step(images, labels, draw)
    half = len(images) // 2
    logits = method.encoder_q(output.mixed[half:])
    expected = mixup_cross_entropy(logits, labels[half:], labels[draw.permutation][half:], draw.lam)
    assert output.metrics["loss_mce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(output.mixed) == len(images)  # all are drawn in pictures


@pytest.mark.parametrize(
    "count, share, expected", [(8, 0.01, 2), (8, 0.25, 2), (8, 0.5, 4), (8, 1, 8), (2, 0.1, 2), (3, 0.9, 3)]
)
def test_a_share_of_a_batch_has_at_least_two_images(count: int, share: float, expected: int) -> None:
    assert part_of(count, share) == expected


def test_a_generator_share_makes_the_masks_of_the_whole_batch_for_its_pairs() -> None:
    """With k in eval mode a pair's mask and loss do not depend on the others: the gradient is that of fewer
    pairs, without a bias."""
    images, labels = batch()
    whole, part = (method_of(generator_share=share) for share in (1.0, 0.5))
    draws = [method.draw(COUNT, (SIZE, SIZE), torch.Generator().manual_seed(0)) for method in (whole, part)]
    k = draws[1].k
    assert len(k.permutation) == 4 and torch.equal(draws[0].k.permutation[:4], k.permutation)
    masks = []
    for method, draw in zip((whole, part), draws, strict=True):
        projected = method.mix_block.project(method.mask_features(images))
        masks.append(method.mask(projected, draw.k, (SIZE, SIZE), draw.seed))
    assert masks[1].shape[0] == 4 and torch.allclose(masks[0][:4], masks[1], atol=1e-6)
    logits = whole.encoder_k(blend(*both(images, draws[0].k), masks[0]))[:4]
    own, partner = (nn.functional.cross_entropy(logits, y) for y in both(labels, k))
    learnt = part.step(images, labels, draws[1]).metrics["loss_gen"].item()
    assert learnt == pytest.approx((k.lam * own + (1 - k.lam) * partner).item(), rel=1e-4)


@pytest.mark.parametrize("scale, cells", [(1.0, 4), (0.5, 2), (0.75, 3)])
def test_features_of_smaller_images_make_masks_of_fewer_cells(scale: float, cells: int) -> None:
    method = method_of(features_scale=scale)
    assert method.mask_features(batch()[0]).shape[2:] == (cells, cells)
    output = method(*batch(), torch.Generator().manual_seed(0))
    assert output.mask is not None and output.mask.shape == (COUNT, 1, SIZE, SIZE)


@settings(max_examples=15)
@given(height=st.integers(1, 40), width=st.integers(1, 40), scale=st.floats(0.05, 1))
def test_shrunk_images_keep_their_mean_and_their_range(height: int, width: int, scale: float) -> None:
    images = torch.rand(2, 3, height, width)
    small = shrunk(images, scale)
    assert (
        min(small.shape[2:]) >= 1
        and small.min() >= images.min() - 1e-6
        and small.max() <= images.max() + 1e-6
    )


def save_checkpoint(path: Path, method: AutoMix, **changes: Any) -> str:
    """As the training loop writes it."""
    info = EncoderInfo("resnet10_32", CLASSES, image_size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    content = {
        "format": checkpoint.FORMAT,
        "encoder": info.to_dict(),
        "encoders": checkpoint.encoder_prefixes(method),
        **checkpoint.split_state(method),
        "config": {"method": {"name": "automix", **dataclasses.asdict(method.options)}},
        "step": 3,
        "epoch": 1,
        **changes,
    }
    save_torch(path, content)
    return str(path)


def lively(**options: Any) -> AutoMix:
    torch.manual_seed(3)
    method = AutoMix(create_encoder("resnet10_32", CLASSES), init_std=1.0, **options)
    for p in method.encoder_k.parameters():
        p.data.mul_(1.1)  # k and q differ
    return method


def test_a_trained_mix_block_makes_the_masks_of_its_own_run(tmp_path: Path) -> None:
    source = lively(value="own", feature_layer="2").eval()
    path = save_checkpoint(tmp_path / "last.pt", source)
    method = method_of(mix_block_weights=path, clean_share=0.0).eval()  # another network
    images, labels = batch()
    output = method.step(images, labels, fixed_draw())
    expected = source.step(images, labels, fixed_draw())
    assert torch.equal(output.mask, expected.mask) and output.mask.std() > 0.05
    output.loss.backward()
    assert not gradients(method.mix_block) and not gradients(method.encoder_k) and gradients(method.encoder_q)
    assert len(list(method.parameter_groups())) == 1 and "loss_gen" not in output.metrics
    resumed = method_of(mix_block_weights=path, clean_share=0.0)
    resumed.load_state_dict(method.state_dict())
    assert not any("teacher" in key or "trained" in key for key in method.state_dict())


def test_a_trained_mix_block_sees_images_in_its_own_normalisation(tmp_path: Path) -> None:
    trained = TrainedMixBlock(save_checkpoint(tmp_path / "last.pt", lively()))
    own = torch.rand(2, 3, SIZE, SIZE)
    here = EncoderInfo("resnet18", 3, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    seen = trained.features((own - 0.4) / 0.2, here)
    assert torch.allclose(seen, trained.features((own - 0.5) / 0.25, None), atol=1e-3)


def test_a_mix_block_that_read_q_is_given_q(tmp_path: Path) -> None:
    source = build_method("automix", create_encoder("resnet10_32", CLASSES), {"pipeline": "joint"}).eval()
    trained = TrainedMixBlock(save_checkpoint(tmp_path / "last.pt", source))
    images, _ = batch()
    assert torch.equal(trained.features(images, None), source.mask_features(images))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"config": {"method": {"name": "mixup"}}}, "is of method 'mixup'"),
        ({"config": 3}, "not a training checkpoint"),
        ({"model": {"x": torch.zeros(1)}}, "without a Mix Block"),
        ({"model": None}, "not a state dict"),
        ({"format": "other"}, "format"),
        ({"encoder": {"name": "resnet10_32"}}, "field 'encoder'"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = save_checkpoint(tmp_path / "last.pt", lively(), **changes)
    with pytest.raises(UserError, match=words) as error:
        method_of(mix_block_weights=path)
    assert "\n" not in str(error.value)


def test_damaged_mix_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing.pt"):
        method_of(mix_block_weights=str(tmp_path / "missing.pt"))
    source = lively()
    model = checkpoint.split_state(source)["model"]
    for change, words in (
        ({"mix_block.w_z.weight": torch.zeros(2, 2)}, "does not fit"),
        ({"mix_block.w_p.bias": torch.full_like(model["mix_block.w_p.bias"], torch.nan)}, "NaN"),
    ):
        with pytest.raises(UserError, match=words):
            method_of(mix_block_weights=save_checkpoint(tmp_path / "bad.pt", source, model=model | change))
    options = {**dataclasses.asdict(source.options), "name": "automix"}
    for change, words in (
        ({"value": "neither"}, "choose one of"),
        ({"init_std": "much"}, "damaged"),
        ({"odd": 1}, "version"),
        ({"feature_layer": "9"}, "feature layer 9"),
        ({"mix_block_weights": "first.pt"}, "give that file"),
    ):
        with pytest.raises(UserError, match=words):
            method_of(
                mix_block_weights=save_checkpoint(
                    tmp_path / "bad.pt", source, config={"method": options | change}
                )
            )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"clean_share": 1.5}, "method.clean_share"),
        ({"mixed_share": 0.0}, "method.mixed_share"),
        ({"clean_share": float("nan")}, "method.clean_share"),
        ({"generator_share": 0}, "method.generator_share"),
        ({"features_scale": -1}, "method.features_scale"),
        ({"features_scale": float("nan")}, "method.features_scale"),
        ({"pipeline": "joint", "generator_share": 0.5}, "momentum"),
        ({"pipeline": "joint", "preset": "fast"}, "method.pipeline=momentum"),
        ({"mix_block_weights": "x.pt", "mask": "random_grids"}, "method.mask=mix_block"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        method_of(**options)
    assert "\n" not in str(error.value)


def test_networks_of_one_size_and_masks_of_one_cell_are_refused_when_the_run_is_configured() -> None:
    vit = tiny_vit(SIZE)
    info = EncoderInfo("vit", CLASSES, image_size=SIZE)
    build_method("automix", vit, {"feature_layer": "blocks.0"}, info)
    with pytest.raises(UserError, match="method.features_scale=0.5"):
        build_method("automix", vit, {"feature_layer": "blocks.0", "features_scale": 0.5}, info)
    with pytest.raises(UserError, match="masks of 1x1 cells"):
        build_method(
            "automix", tiny_resnet(), {"features_scale": 0.2}, EncoderInfo("resnet", CLASSES, image_size=SIZE)
        )


def test_the_preset_is_named_as_an_approximation_and_takes_two_steps() -> None:
    exact, fast = load_options("automix"), load_options("automix", {"preset": "fast"})
    assert fast != exact
    method = method_of(preset="fast")
    assert isinstance(method, FastAutoMix)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        output = method(*batch(), torch.Generator().manual_seed(step))
        output.loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 2)
        assert torch.isfinite(output.loss) and {"loss_mce", "loss_gen", "mask_std"} <= output.metrics.keys()
